"""What `ladd plan` says of one GPU beside what PyTorch's allocator gave out: `python -m benchmarks.device_memory`.

For each case a student, heads and teacher are built as `ladd launch --parallel single` builds them, trained for a few
steps on synthetic data, and the peak of `torch.cuda.max_memory_allocated` stands beside the plan's total. The CUDA
context and what the allocator reserves beyond that are in the plan's reserve and in neither figure; `reserved` is
`torch.cuda.max_memory_reserved`, for judging the 5 % that the plan allows. Needs a CUDA device: on a CPU the steps run
and the measured column is empty.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from benchmarks.ladd_step import NET_32, batch_of
from ladd_dist.builders.step import Frozen, build_heads, build_step
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.types import Denoiser
from ladd_dist.costs.memory_model import memory
from ladd_dist.datasets.digits import Digits
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.devices import pick_device
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import trial
from ladd_dist.workspace.config import environment
from recipes import exp6_stored_noise

STEPS = 3


@dataclass(frozen=True)
class Args:
    """Compare the planned with the allocated bytes of a training on one device."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    quick: bool = False
    """A toy network alone, to see that the benchmark works."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Row:
    """Bytes of one case."""

    planned: int
    measured: int | None
    """Most bytes in tensors at a time; None on a CPU."""
    reserved: int | None
    """Most bytes that the allocator held."""
    ratio: float | None
    """Measured by planned."""


def cases(args: Args) -> dict[str, Recipe]:
    """The recipes that are measured, by a name."""
    if args.quick:
        return {"toy, fp32, batch 8": of(exp6_stored_noise.RECIPE.smoke, 8, Compute())}
    laptop = exp6_stored_noise.RECIPE.laptop
    larger = replace(laptop, network=NET_32, dataset=Digits(size=32))
    found = {"laptop net, fp32, batch 64": of(laptop, 64, Compute())}
    for batch in (64, 512):
        found[f"3.5 M net, fp32, batch {batch}"] = of(larger, batch, Compute())
        found[f"3.5 M net, bf16, batch {batch}"] = of(larger, batch, Compute("bf16"))
    found["3.5 M net, bf16, batch 512, checkpoint"] = of(
        larger, 512, Compute("bf16", checkpoint=("student", "teacher"))
    )
    return found


def of(recipe: Recipe, batch: int, compute: Compute) -> Recipe:
    """The recipe with this batch, computed in this way."""
    return replace(recipe, train=replace(recipe.train, batch_size=batch, compute=compute))


def planned(recipe: Recipe) -> int:
    """The total of `ladd plan` for `single`."""
    with trial(recipe) as step:
        profile = step.profile(recipe.train.batch_size)
    return memory("single", profile, 1).total


def train(recipe: Recipe, device: torch.device) -> None:
    """Some steps of a training with everything that it keeps."""
    settings = recipe.train
    common: dict[str, Any] = {"compute": settings.compute, "ranks": SINGLE, "device": device}
    adam = Adam(1e-4, (0.5, 0.99), 0.0, 1.0)
    network = fresh_network(recipe)
    heads = recipe.parallel.build(build_heads(recipe, network), role="heads", adam=adam, **common)
    student = recipe.parallel.build(network, role="student", adam=adam, **common)
    average = WeightAverage(student.local("weight"), half_life=100, ramp=0.0, batch_size=settings.batch_size)
    teacher = cast(Denoiser, recipe.parallel.freeze(fresh_network(recipe), **common))
    step = build_step(recipe, student, heads, Frozen(teacher, None))
    for number in range(STEPS):
        step(batch_of(recipe, device), settings.steps - STEPS + number)  # a finished warm-up: both branches
        average.update(number + 1)


def measure(recipe: Recipe, device: torch.device) -> Row:
    """One case: planned and allocated bytes."""
    plan, on_gpu = planned(recipe), device.type == "cuda"
    before = 0
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)  # workspaces of libraries that earlier cases left
    train(recipe, device)
    if not on_gpu:
        return Row(plan, None, None, None)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    return Row(plan, peak, torch.cuda.max_memory_reserved(device), peak / plan)


def show(result: dict[str, Any]) -> None:
    """The table, a row a case."""
    table = Table(title="`ladd plan` for one GPU beside torch.cuda.max_memory_allocated")
    for heading in ("case", "planned MB", "measured MB", "measured / planned", "reserved MB"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, row in result["cases"].items():
        mega = {key: "" if row[key] is None else f"{row[key] / 1e6:.1f}" for key in ("planned", "measured", "reserved")}
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        table.add_row(name, mega["planned"], mega["measured"], ratio, mega["reserved"])
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(result["machine"], highlight=False, soft_wrap=True)
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.device_memory")
    device = pick_device(args.device)
    about = environment(device)
    machine = ", ".join(f"{key} {about[key]}" for key in ("device", "torch", "platform", "commit"))
    rows = {name: asdict(measure(recipe, device)) for name, recipe in cases(args).items()}
    result = {"machine": machine, "cases": rows}
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
