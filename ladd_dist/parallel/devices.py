"""What the commands choose on the machine they run on: scale, device, threads, and how many processes there are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ladd_dist.core.allocator import keep_freed_memory
from ladd_dist.core.environment import env_number, require_meeting
from ladd_dist.core.errors import RecipeError
from ladd_dist.core.failure import rank_here, world_size

if TYPE_CHECKING:
    import torch


def pick_device(asked: str) -> torch.device:
    """The device named, or for `auto` the accelerator where there is one.

    Raises:
        RecipeError: it cannot be used here.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if asked == "auto":
        return accelerator or torch.device("cpu")
    works = ["auto", "cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        works += [accelerator.type, *(f"{accelerator.type}:{index}" for index in range(count))]
    if asked not in works:
        raise RecipeError(f"--device {asked}: not usable here; what is: {', '.join(works)}")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"--device {asked}: not usable here ({str(error).splitlines()[0]}); try cpu") from error
    return device


def compute_on(asked: str, threads: int) -> torch.device:
    """The device that a command computes on (`pick_device`), with `threads` CPU threads (`set_threads`).

    On a CPU, tensors of this process reuse the memory of those before them from now on (`core.allocator`).

    Raises:
        RecipeError: the device cannot be used here.
    """
    set_threads(threads)
    device = pick_device(asked)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def set_threads(count: int) -> None:
    """Use `count` CPU threads, as many as `ranges.Threads` allows; 0 leaves the choice to PyTorch."""
    import torch

    if count > 0:
        torch.set_num_threads(count)


def count_processes(nproc: int) -> int:
    """How many processes the training has: what the launcher says (torchrun, SLURM), or `nproc` without one.

    Raises:
        RecipeError: `nproc` is not what the launcher says, or the launcher does not say where rank 0 is.
    """
    if "RANK" not in os.environ and world_size() == 1:
        return nproc
    here = env_number("LOCAL_WORLD_SIZE", default=world_size())
    if nproc not in (1, here):
        raise RecipeError(
            f"--nproc {nproc}: this is rank {rank_here()} of {world_size()}, of which a launcher started {here} here; "
            "leave --nproc out, or start without torchrun and srun"
        )
    require_meeting()
    return world_size()


def local_device(device: torch.device, num_here: int, local_rank: int) -> torch.device:
    """The device of one of `num_here` processes on this machine.

    Raises:
        RecipeError: there are not enough, or one is named for all.
    """
    import torch

    if num_here == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise RecipeError(f"--device {device} is one device, and there are {num_here} processes; use {device.type}")
    count = torch.accelerator.device_count()
    if count == 1 and os.environ.get("CUDA_VISIBLE_DEVICES", "").isdigit() and "SLURM_PROCID" in os.environ:
        return torch.device(device.type, 0)  # srun --gpus-per-task shows each process its own device alone
    if num_here > count:
        raise RecipeError(
            f"{num_here} processes on this machine, but {count} {device.type} device{'s' if count != 1 else ''}; use "
            f"{count} processes, or --device cpu"
        )
    return torch.device(device.type, local_rank)
