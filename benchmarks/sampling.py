"""Pictures a second of the teacher and of the student, through the samplers that the stages use.

    python -m benchmarks.sampling                                          # the laptop network, on the CPU
    python -m benchmarks.sampling --device cuda --scale paper --batch 256

The teacher takes its own number of steps with guidance (two forwards a step), as it makes the shards; the student one
forward a step, at each number of steps that the recipe is evaluated at. Batches of one size are made in turns, each
timed between two moments at which the device has nothing to do, after two rounds that do not count: the ratio to the
teacher is the median over rounds. Drawing the first noise is not counted, nor is decoding. The networks are not
trained: their time does not depend on what they learned.
"""

from __future__ import annotations

import copy
import functools
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from benchmarks._clock import time_in_turns
from benchmarks.ladd_step import awake_network
from ladd_dist.builders.sampling import sample_student
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.rng import RowSource, sample_starts, whole_batch
from ladd_dist.core.types import Denoiser
from ladd_dist.parallel.compute import Compute, Precision, prepare
from ladd_dist.parallel.devices import compute_on
from ladd_dist.parallel.single import replicate
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.workspace.config import environment

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "exp6_stored_noise.py"


@dataclass(frozen=True)
class Args:
    """Measure pictures a second of teacher and student."""

    recipe: Annotated[Path, tyro.conf.Positional] = RECIPE
    """Recipe file whose networks, samplers and levels are measured."""
    scale: Literal["laptop", "paper", "smoke"] = "laptop"
    batch: int = 64
    """Pictures of a batch."""
    rounds: int = 5
    """Timed batches of each sampler."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    precision: Precision = "fp32"
    """In which the networks compute."""
    compiled: bool = False
    """Compile the networks block by block."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to PyTorch."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Row:
    """What one sampler does."""

    pictures_per_s: float
    ms_per_picture: float
    times_faster: float
    """Than the teacher: the median over rounds."""
    forwards: int
    """Forwards of the network for a picture."""


Sampler = Callable[[int], Any]


def samplers(recipe: Recipe, args: Args, device: torch.device) -> dict[str, tuple[int, Sampler]]:
    """Forwards a picture and the sampler of each entry, the teacher first; it is called with the number of a round."""
    compute = Compute(args.precision, compile=("teacher", "student") if args.compiled else ())
    awake = awake_network(recipe)
    teacher = cast(Denoiser, replicate(copy.deepcopy(awake), compute, device))
    student = cast(Denoiser, prepare(awake.eval().requires_grad_(False), compute, "student", device))
    noise, cond = sample_starts(recipe.evaluate.seed, range(args.batch), recipe.latent(), device)

    @torch.inference_mode()
    def by_teacher(turn: int) -> None:
        recipe.shards.sampler(guided_teacher(recipe, teacher), noise, cond)

    def by_student(steps: int, turn: int) -> None:
        source = RowSource(whole_batch(args.batch), "timing", turn, device=device)
        sample_student(recipe, student, noise, cond, steps, source)

    levels = len(recipe.shards.sampler.levels())
    guided = 1 if recipe.shards.guidance == 1 else 2
    found: dict[str, tuple[int, Sampler]] = {f"teacher@{levels}": (guided * levels, by_teacher)}
    for steps in recipe.evaluate.steps:
        found[f"student@{steps}"] = (steps, functools.partial(by_student, steps))
    return found


def measure(args: Args) -> dict[str, Any]:
    """All figures: machine, recipe, and a `Row` for each sampler."""
    device = compute_on(args.device, args.threads)
    recipe = load_recipe(args.recipe, args.scale)
    able = samplers(recipe, args, device)
    spent = time_in_turns({name: sample for name, (_, sample) in able.items()}, args.rounds, device)
    slow = next(iter(spent.values()))
    rows = {}
    for name, seconds in spent.items():
        one = statistics.median(seconds) / args.batch
        faster = statistics.median(a / b for a, b in zip(slow, seconds, strict=True))
        rows[name] = asdict(Row(1 / one, 1e3 * one, faster, able[name][0]))
    about = environment(device)
    return {
        "machine": ", ".join(f"{key} {about[key]}" for key in ("device", "threads", "torch", "platform", "commit")),
        "recipe": recipe.name,
        "scale": args.scale,
        "batch": args.batch,
        "precision": args.precision,
        "compiled": args.compiled,
        "rounds": args.rounds,
        "samplers": rows,
    }


def show(result: dict[str, Any]) -> None:
    """The table, a row a sampler."""
    how = f"{result['precision']}{', compiled' if result['compiled'] else ''}, batch {result['batch']}"
    table = Table(title=f"{result['recipe']} at scale {result['scale']}, {how}")
    for heading in ("sampler", "forwards", "pictures/s", "ms a picture", "times faster"):
        table.add_column(heading, justify="left" if heading == "sampler" else "right")
    for name, row in result["samplers"].items():
        figures = (f"{row[key]:.4g}" for key in ("pictures_per_s", "ms_per_picture", "times_faster"))
        table.add_row(name, str(row["forwards"]), *figures)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(result["machine"], highlight=False, soft_wrap=True)
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python -m benchmarks.sampling")
    result = measure(args)
    print(json.dumps(result)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
