"""How samples a second grow with ranks: `python -m benchmarks.scaling`.

Weak scaling, every rank with one thread and its own batch. In each round rank 0 first trains alone (the others sleep),
then all ranks train independently of each other, then all together under the strategy. The first ratio, together over
`ranks` times alone, is the efficiency; the second, independent over alone, is what the machine gives when nothing is
sent: processes share memory bandwidth and caches. Medians over rounds; the turns are shuffled in each.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks._ranks import run_ranks, training
from ladd_dist.parallel.ranks import join
from ladd_dist.recipe import load_recipe

STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")


@dataclasses.dataclass(frozen=True)
class Args:
    """Time a step alone, independently on every rank, and together."""

    strategies: tuple[str, ...] = STRATEGIES
    """Which to time."""
    ranks: int = 2
    """Processes; no more than cores."""
    recipe: Path = Path("recipes/exp6_stored_noise.py")
    """Its networks are trained, on batches of noise."""
    scale: str = "laptop"
    """Of the recipe."""
    batch: int = 128
    """Samples a rank."""
    rounds: int = 7
    """Each gives one ratio."""
    steps: int = 3
    """Timed together, as one figure."""
    json: bool = False
    """Print one JSON object."""
    worker: str = ""
    """For this script's own processes."""


def work(given: dict[str, Any]) -> None:
    """One process: every strategy in turn."""
    result = {}
    with join("gloo", 120, needs_group=True) as ranks:
        for strategy in given["strategies"]:
            recipe = load_recipe(Path(given["recipe"]), given["scale"])

            def sized(batch: int, recipe: Any = recipe) -> Any:
                return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=batch))

            single = training(sized(given["batch"]), "single", ranks)
            together = training(sized(given["batch"] * ranks.size), strategy, ranks)
            turns: dict[str, Callable[[], Any]] = {
                "alone": lambda single=single: single() if ranks.is_first else None,
                "independent": single,
                "together": together,
            }
            order = random.Random(0)
            times: dict[str, list[float]] = {name: [] for name in turns}
            for number in range(given["rounds"] + 1):
                for name in order.sample(list(turns), len(turns)):
                    ranks.barrier()
                    started = time.perf_counter()
                    for _ in range(given["steps"]):
                        turns[name]()
                    ranks.barrier()
                    if number:  # the first round warms up
                        times[name].append((time.perf_counter() - started) / given["steps"])
            result[strategy] = times
        if ranks.is_first:
            Path(given["out"]).write_text(json.dumps(result), encoding="utf-8")
        dist.barrier()


def summary(times: dict[str, list[float]], ranks: int, batch: int) -> dict[str, float]:
    """Ratios round by round, their medians, and rates."""
    alone = times["alone"]
    efficiency = [a / t for a, t in zip(alone, times["together"], strict=True)]
    machine = [a / i for a, i in zip(alone, times["independent"], strict=True)]
    return {
        "samples_per_s_1": batch / statistics.median(alone),
        "samples_per_s": ranks * batch / statistics.median(times["together"]),
        "efficiency": statistics.median(efficiency),
        "efficiency_low": min(efficiency),
        "efficiency_high": max(efficiency),
        "machine": statistics.median(machine),
    }


def main() -> None:
    """The command."""
    args = tyro.cli(Args)
    if args.worker:
        work(json.loads(Path(args.worker).read_text(encoding="utf-8")))
        return
    result: dict[str, Any] = {}
    for strategy in args.strategies:  # in processes of its own: what one leaves behind slows no other
        given = {**dataclasses.asdict(args), "recipe": str(args.recipe), "strategies": [strategy]}
        result |= run_ranks("benchmarks.scaling", args.ranks, given)
    figures = {name: summary(times, args.ranks, args.batch) for name, times in result.items()}
    if args.json:
        print(json.dumps(figures))
        return
    table = Table(title=f"Weak scaling to {args.ranks} ranks, {args.batch} samples a rank, one thread a rank")
    for heading in (
        "strategy",
        "1 rank, samples/s",
        "together, samples/s",
        "efficiency",
        "range",
        "machine alone gives",
    ):
        table.add_column(heading, justify="left" if heading == "strategy" else "right")
    for name, row in figures.items():
        rates = (f"{row[key]:.1f}" for key in ("samples_per_s_1", "samples_per_s"))
        span = f"{row['efficiency_low']:.2f} to {row['efficiency_high']:.2f}"
        table.add_row(name, *rates, f"{row['efficiency']:.2f}", span, f"{row['machine']:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
