"""What goes over the wire in a training step: `python -m benchmarks.traffic`.

Two processes (gloo) train under each strategy; PyTorch's profiler records every collective operation with its number of
elements, separately for the heads' update, the student's update, and all of a step.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks._ranks import run_ranks, training
from ladd_dist.parallel import Trainable
from ladd_dist.parallel.ranks import join
from ladd_dist.recipe import load_recipe

STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")


@dataclasses.dataclass(frozen=True)
class Args:
    """Count the elements that collectives move in a step."""

    strategies: tuple[str, ...] = STRATEGIES
    """Which to look at."""
    recipe: Path = Path("recipes/exp6_stored_noise.py")
    """Its networks at scale `smoke` are used."""
    json: bool = False
    """Print one JSON object."""
    worker: str = ""
    """For this script's own processes."""


def recorded(call: Callable[[], Any]) -> dict[str, int]:
    """Run and return the elements given to each kind of collective, by name."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        call()
    counts: Counter[str] = Counter()
    for event in seen.events() or []:
        if event.name.startswith("gloo:"):
            counts[event.name.removeprefix("gloo:")] += sum(math.prod(shape) for shape in event.input_shapes if shape)
    return dict(counts)


def work(given: dict[str, Any]) -> None:
    """One process: every strategy in turn."""
    result = {}
    with join("gloo", 120, needs_group=True) as ranks:
        for strategy in given["strategies"]:
            recipe = load_recipe(Path(given["recipe"]), "smoke")
            one = training(recipe, strategy, ranks)
            for _ in range(3):  # first steps build buckets and record orders
                one()
            turns: dict[str, dict[str, int]] = {}
            one_step = recorded(one)
            for name in ("heads", "student"):
                _record_update(getattr(one.step, name), turns, name)
            one()
            student, heads = one.step.student.module, one.step.heads.module
            result[strategy] = {
                "heads_parameters": _count(heads),
                "student_parameters": sum(part.shape.numel() for part in one.step.student.local("weight").values()),
                "student_tensors": len(list(student.parameters())),
                "heads": turns["heads"],
                "student": turns["student"],
                "step": one_step,
            }
        if ranks.is_first:
            Path(given["out"]).write_text(json.dumps(result), encoding="utf-8")


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _record_update(trainable: Trainable, turns: dict[str, dict[str, int]], name: str) -> None:
    update = trainable.update

    def recording(loss_of: Any) -> Any:
        kept = []
        turns[name] = recorded(lambda: kept.append(update(loss_of)))
        return kept[0]

    trainable.update = recording  # type: ignore[method-assign]


def show(result: dict[str, Any]) -> None:
    """A row for each strategy."""
    table = Table(title="Elements given to collectives on one of 2 ranks (4 bytes each)")
    for heading in (
        "strategy",
        "heads have",
        "in the heads' turn",
        "student has",
        "in the student's turn",
        "whole step",
    ):
        table.add_column(heading)
    for strategy, row in result.items():
        turns = (", ".join(f"{name} {count:,}" for name, count in row[key].items()) for key in ("heads", "student"))
        heads, student = turns
        total = f"{sum(row['step'].values()):,}"
        table.add_row(strategy, f"{row['heads_parameters']:,}", heads, f"{row['student_parameters']:,}", student, total)
    Console(width=150).print(table)


def main() -> None:
    """The command."""
    args = tyro.cli(Args)
    if args.worker:
        work(json.loads(Path(args.worker).read_text(encoding="utf-8")))
        return
    result = run_ranks("benchmarks.traffic", 2, {"strategies": args.strategies, "recipe": str(args.recipe)})
    print(json.dumps(result)) if args.json else show(result)


if __name__ == "__main__":
    main()
