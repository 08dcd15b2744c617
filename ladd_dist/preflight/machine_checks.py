"""Checks of the machine: PyTorch, devices, communication between processes, memory, compiler."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from ladd_dist.core.machine import usable_cores
from ladd_dist.core.units import si
from ladd_dist.core.versions import ON_DEMAND, cure, floors
from ladd_dist.preflight.check import Check, Fail, Skip, Warn
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.workspace import Workspace

MEETS_WITHIN_S = 20


@dataclass(frozen=True)
class Machine:
    """The subject of the environment's checks; without a recipe some of them do not apply."""

    recipe: Recipe | None
    workspace: Workspace

    def require_recipe(self) -> Recipe:
        """The recipe.

        Raises:
            Skip: none was given.
        """
        if self.recipe is None:
            raise Skip("no recipe was given", cure="ladd doctor RECIPE")
        return self.recipe


def check_python(machine: Machine) -> str:
    """Check that no installed package is older than pyproject.toml asks for; returns the versions that matter most."""
    found = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}"
    known = floors()
    old = [floor for floor in known if not floor.is_met]
    if old:
        outcome = Warn if all(floor.package in ON_DEMAND for floor in old) else Fail
        raise outcome(
            "; ".join(floor.text for floor in old),
            cause="a version was never run with this program, and is known or likely to lack something that it calls",
            cure=cure(old),
        )
    return f"{found}; {sum(floor.installed is not None for floor in known)} packages new enough"


def check_accelerator(machine: Machine) -> str:
    """Check that the run's device computes, and that no GPU is overlooked."""
    device = machine.workspace.device
    if device.type == "cpu":
        built = torch.version.cuda or torch.version.hip
        if built and shutil.which("nvidia-smi"):
            raise Warn(
                "the run would be on the CPU although nvidia-smi is here",
                cause=f"torch was built for {built}, and finds no device: the driver is too old, or "
                f"CUDA_VISIBLE_DEVICES hides them ({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')})",
                cure="compare nvidia-smi's CUDA version with torch.version.cuda; unset CUDA_VISIBLE_DEVICES",
            )
        return f"none; the CPU has {usable_cores()} cores, PyTorch uses {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    probe = torch.ones(8, device=device)
    if float((probe @ probe).cpu()) != 8:
        raise Fail(f"{name} computes 1 + ... + 1 wrongly", cause="driver or hardware", cure="use another device")
    return f"{torch.accelerator.device_count()} x {name}"


def check_precision(machine: Machine) -> str:
    """Check that the device is fast in the precision that `compute.precision` names."""
    device, recipe = machine.workspace.device, machine.recipe
    wanted = {recipe.train.compute.precision, recipe.teacher.compute.precision} if recipe else {"bf16"}
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if "bf16" in wanted and recipe is not None and not fast:
        raise Warn(
            f"bf16 is asked for, and {device.type} only emulates it or gains nothing",
            cause="bf16 needs an Ampere GPU or newer, or a CPU with AMX to be faster than fp32",
            cure="--train.compute.precision fp32 (or fp16 on an older GPU)",
        )
    if "fp16" in wanted and device.type == "cpu":
        raise Warn(
            "fp16 is asked for on the CPU",
            cause="CPUs compute fp16 more slowly than fp32",
            cure="--train.compute.precision fp32",
        )
    return f"{', '.join(sorted(wanted)) if recipe else 'bf16 ' + ('fast' if fast else 'slow')} on {device.type}"


def check_processes(machine: Machine) -> str:
    """Check that a gloo group works over a real connection of this machine to itself."""
    if dist.is_initialized():
        raise Skip("a process group is there already")
    _loopback()
    name = socket.gethostname()
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # as ranks on one machine have it
    try:
        store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        total = torch.ones(3)
        dist.all_reduce(total)
        dist.destroy_process_group()
    finally:
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
    try:
        socket.gethostbyname(name)
    except OSError as error:
        raise Warn(
            f"gloo works on this machine; its own name {name!r} does not resolve",
            cause=f"neither DNS nor /etc/hosts know it ({error})",
            cure="nothing, on one machine; for several, export MASTER_ADDR with an address that the others reach",
        ) from error
    return f"gloo works; {name} resolves"


def _loopback() -> None:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=MEETS_WITHIN_S).close()
    except OSError as error:
        raise Fail(
            f"no connection to 127.0.0.1 ({error})",
            cause="the loopback interface is down, or a firewall or sandbox forbids it",
            cure="`ip link set lo up`, or allow local connections; one process (--nproc 1) works without",
        ) from error


def check_nccl(machine: Machine) -> str:
    """Check that PyTorch has NCCL if the run is on GPUs."""
    if machine.workspace.device.type != "cuda":
        raise Skip(f"no GPU in this run ({machine.workspace.device.type}); gloo connects processes")
    if not dist.is_nccl_available():
        raise Fail(
            "torch was built without NCCL",
            cause="a build for Windows, macOS or CPUs",
            cure="install PyTorch's CUDA wheel; --nproc 1 works without",
        )
    return f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"  # type: ignore[no-untyped-call]


def check_deepspeed(machine: Machine) -> str:
    """Check that DeepSpeed is installed. Check `strategy` imports it, which takes seconds, if the recipe uses it."""
    needed = machine.recipe is not None and machine.recipe.parallel.name.startswith("zero")
    try:
        version = importlib.metadata.version("deepspeed")
    except importlib.metadata.PackageNotFoundError as error:
        outcome = Fail if needed else Warn
        raise outcome(
            "DeepSpeed is not installed",
            cause="parallel zero1, zero2 and zero3 need it" + (": this recipe asks for one" if needed else ""),
            cure="pip install deepspeed, or --parallel fsdp",
        ) from error
    return f"{version} installed" + ("" if needed else "; imported only where --parallel zero1 to zero3 asks for it")


def check_compiler(machine: Machine) -> str:
    """Check that there is a C++ compiler for `torch.compile`."""
    asked = machine.recipe is not None and bool(
        machine.recipe.train.compute.compile or machine.recipe.teacher.compute.compile
    )
    name = os.environ.get("CXX", "")
    found = shutil.which(name) if name else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if found:
        return found
    outcome = Fail if asked else Warn
    raise outcome(
        f"no C++ compiler ({'CXX=' + name if name else 'g++, clang++, c++'})",
        cause="torch.compile writes C++ and compiles it" + ("; the recipe asks for it" if asked else ""),
        cure="install g++ (Debian: apt install g++), or leave train.compute.compile empty",
    )


def check_memory(machine: Machine) -> str:
    """Check that a training step fits into the free memory."""
    from ladd_dist.costs.memory_model import memory, room
    from ladd_dist.stages.dry_step import trial

    recipe = machine.require_recipe()
    few = 4 * recipe.train.compute.accumulate
    with trial(recipe) as step:  # it grows in proportion to the batch, of which two small ones are enough
        small, twice = (memory("single", step.profile(size), 1).total for size in (few, 2 * few))
    needed = small + (twice - small) / few * (recipe.train.batch_size - few)
    device = machine.workspace.device
    on_gpu = device.type == "cuda"
    free = room(torch.cuda.get_device_properties(device).total_memory) if on_gpu else available_bytes()
    if needed > free:
        raise Fail(
            f"a step needs about {si(needed, 'B')}, {si(free, 'B')} are there",
            cause=f"a batch of {recipe.train.batch_size} on one {device.type}",
            cure="a smaller --train.batch-size, or --train.mode alternate --train.compute.accumulate 2; `ladd plan "
            "RECIPE --gpus N` says what several GPUs need",
        )
    return f"a step needs about {si(needed, 'B')}, {si(free, 'B')} are there"


def available_bytes() -> int:
    """Bytes of memory that a process can still allocate, within the machine and its control group."""
    import psutil

    available = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        available = min(available, int(text) - int(used.read_text(encoding="ascii")))
    return available


CHECKS: list[Check[Machine]] = [
    Check("python", "Python and packages are as new as pyproject.toml asks for", check_python),
    Check("accelerator", "The device computes", check_accelerator),
    Check("precision", "The device has the recipe's precision", check_precision),
    Check("processes", "Processes of this machine can talk to each other (gloo)", check_processes),
    Check("nccl", "GPUs can talk to each other (NCCL)", check_nccl),
    Check("deepspeed", "DeepSpeed is there for --parallel zero1 to zero3", check_deepspeed),
    Check("compiler", "torch.compile finds a C++ compiler", check_compiler),
    Check("memory", "A training step fits into memory", check_memory),
]
