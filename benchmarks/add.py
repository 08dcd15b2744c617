"""What a step of each method costs against LADD's: `python benchmarks/add.py`.

Each recipe's own step at laptop scale (its batch, heads, critic, target and rollout), in turns with LADD's on the same
machine, so that whatever else the machine does hits both; the ratio is the median over pairs. FLOPs are counted, and
memory is worked out from tensors without data, as `ladd plan` does it: both are exact, whatever the machine does.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # recipes and plugins, wherever it is called from

from benchmarks._clock import time_in_turns
from ladd_dist.costs.flops import count_flops
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.stages.dry_step import Trial, trial

ROOT = Path(__file__).resolve().parent.parent
LADD = "exp7_stored_smooth_l1"


@dataclass(frozen=True)
class Args:
    """Cost of a training step of each method, as a multiple of LADD's."""

    recipes: tuple[str, ...] = (
        "add_digits",
        "on_policy",
        "every_step",
        "ot_coupling",
        "path_coupling",
        "no_pairs",
        "ladd_paper",
    )
    pairs: int = 8
    """Timed pairs of steps, after two that are not timed."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to PyTorch."""
    json: bool = False
    """Print one JSON object."""


def held(step: Trial, batch_size: int) -> dict[str, int]:
    """Bytes of a step at its most: what stays between steps, gradients, and what the step itself keeps."""
    own = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in step.own()}
    trained = [p for net in (step.student, step.heads) for p in net.module.parameters() if p.requires_grad]
    peak = step.peak(batch_size)
    return {
        "frozen": sum(p.numel() * p.element_size() for net in step.frozen.networks() for p in net.parameters()),
        "activations": peak.saved,
        "total": sum(own.values()) + sum(p.numel() * p.element_size() for p in trained) + peak.live,
    }


def measure(name: str, pairs: int) -> dict[str, Any]:
    """One recipe against LADD."""
    recipes: dict[str, Recipe] = {
        key: load_recipe(ROOT / "recipes" / f"{key}.py", "laptop") for key in dict.fromkeys((LADD, name))
    }
    memory, flops = {}, {}
    for key, recipe in recipes.items():
        with trial(recipe) as step:
            memory[key] = held(step, recipe.train.batch_size)
    with contextlib.ExitStack() as stack:
        steps = {key: stack.enter_context(trial(recipe, with_data=True)) for key, recipe in recipes.items()}
        batches = {key: step.batch(step.recipe.train.batch_size) for key, step in steps.items()}
        last = {key: recipe.train.steps - 1 for key, recipe in recipes.items()}
        for key, step in steps.items():
            flops[key] = count_flops(lambda step=step, key=key: step.step(batches[key], last[key]))
        works = {key: lambda _, step=step, key=key: step.step(batches[key], last[key]) for key, step in steps.items()}
        spent = time_in_turns(works, pairs, torch.device("cpu"))
    ratios = sorted(a / b for a, b in zip(spent[name], spent[LADD], strict=True))
    return {
        "recipe": name,
        "batch_size": recipes[name].train.batch_size,
        "gflop": flops[name] / 1e9,
        "flops_ratio": flops[name] / flops[LADD],
        "ms": 1e3 * statistics.median(spent[name]),
        "seconds_ratio": statistics.median(ratios),
        "seconds_ratio_range": [ratios[0], ratios[-1]],
        **{f"{part}_mb": size / 1e6 for part, size in memory[name].items()},
        "memory_ratio": memory[name]["total"] / memory[LADD]["total"],
    }


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = tyro.cli(Args, args=argv, prog="python benchmarks/add.py")
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = [measure(name, args.pairs) for name in dict.fromkeys((LADD, *args.recipes))]
    if args.json:
        print(json.dumps(rows))
        return 0
    table = Table(
        "recipe", "batch", "GFLOP", "ratio", "ms", "ratio", "of pairs", "frozen MB", "activations MB", "all MB"
    )
    for row in rows:
        low, high = row["seconds_ratio_range"]
        figures = (row["gflop"], row["flops_ratio"], row["ms"], row["seconds_ratio"])
        megabytes = (row["frozen_mb"], row["activations_mb"], row["total_mb"])
        table.add_row(
            row["recipe"], str(row["batch_size"]), *(f"{value:.2f}" for value in figures), f"{low:.2f} .. {high:.2f}",
            *(f"{value:.1f}" for value in megabytes),
        )  # fmt: skip
    Console(width=150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
