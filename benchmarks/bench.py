"""What a benchmark sweep says: its variants, what each axis does over all others, and the smallest difference it shows.

    ladd sweep recipes/bench_heads.py --on slurm/laptop.py --scale laptop      # run again, it runs what is missing
    ladd compare bench_heads --metric FIGURE --json > benchmarks/bench_heads.json
    python -m benchmarks.bench benchmarks/bench_heads.json
    python -m benchmarks.bench benchmarks/bench_heads.json --write docs/results.md

`ladd compare` has pooled the seeds and compared each variant with the best one. This adds the axes: two values of one
are compared in pairs of runs that share everything else, the seed too, and Holm's correction is over all such pairs.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks._runs import put_between
from ladd_dist.comparison.statistics import ALPHA, difference, holm, pool, t_quantile

AXES = {"head": "head", "taps": "taps", "adversarial": "game", "student_sigma.phases": "schedule of the levels"}
"""Fields that a benchmark varies, and what they are called."""
POWER = 0.8
"""Chance of finding a difference of the size that the power analysis names."""
QUANTILES = 4_000
Cell = tuple[str, ...]
"""Values of the axes."""


@dataclass(frozen=True)
class Options:
    """Print the tables of a benchmark."""

    file: tyro.conf.Positional[Path]
    """What `ladd compare ... --json` printed."""
    write: Path | None = None
    """A Markdown page: what stands between its markers `<!-- NAME -->` and `<!-- /NAME -->`, with the file's name, is
    replaced."""


def main() -> int:
    """Read, compare, print."""
    options = tyro.cli(Options)
    text = report(json.loads(options.file.read_text(encoding="utf-8")))
    print(text)
    if options.write:
        put_between(options.write, options.file.stem, text)
    return 0


def report(compared: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    axes = [field for field in AXES if field in compared["differing"]]
    if not axes:
        raise SystemExit(f"these runs differ in {', '.join(compared['differing'])}, and none of these is an axis here")
    values = values_of(compared, axes)
    lines = [compared["verdict"]["sentence"], "", *variants_table(values, axes, compared), ""]
    return "\n".join(lines + axes_table(values, axes, compared))


def values_of(compared: Mapping[str, Any], axes: Sequence[str]) -> dict[Cell, dict[int, float]]:
    """The figure that decides, by the values of the axes and by seed; runs without one are left out."""
    found: dict[Cell, dict[int, float]] = {}
    for variant in compared["variants"]:
        cell = tuple(shown(variant["fields"][axis]) for axis in axes)
        if cell in found:
            raise SystemExit(f"two variants are {', '.join(cell)}: they differ in {', '.join(compared['differing'])}")
        found[cell] = {run["seed"]: run["value"] for run in variant["runs"] if run["value"] is not None}
    return found


def shown(value: Any) -> str:
    """A value of an axis; phases of levels as the probabilities from each update on."""
    if isinstance(value, str):
        return value
    phases = [json.loads(phase) if isinstance(phase, str) else phase for phase in value]
    parts = [(" ".join(f"{share:g}" for share in phase["probabilities"]), phase["start_step"]) for phase in phases]
    return ", then ".join(f"{shares} from {start}" if start else shares for shares, start in parts)


def variants_table(
    values: Mapping[Cell, Mapping[int, float]], axes: Sequence[str], compared: Mapping[str, Any]
) -> list[str]:
    """Mean and 95 % interval of each variant, the best first."""
    better_low = compared["better"] == "lower"
    lines = [
        f"| {' | '.join(AXES[axis] for axis in axes)} | {compared['metric']} of {compared['sampler']} | seeds |",
        "|---" * (len(axes) + 2) + "|",
    ]
    pooled = {cell: pool(list(own.values())) for cell, own in values.items() if own}
    for cell, found in sorted(pooled.items(), key=lambda item: item[1].mean if better_low else -item[1].mean):
        half = math.nan if found.high is None else found.high - found.mean
        lines.append(f"| {' | '.join(cell)} | {found.mean:.3f} ± {half:.3f} | {found.n} |")
    return lines


def axes_table(
    values: Mapping[Cell, Mapping[int, float]], axes: Sequence[str], compared: Mapping[str, Any]
) -> list[str]:
    """Every pair of values of an axis, over all values of the others and all seeds."""
    asked = [
        (number, *pair)
        for number in range(len(axes))
        for pair in itertools.combinations(sorted({cell[number] for cell in values}), 2)
    ]
    sides = [(runs_with(values, number, first), runs_with(values, number, second)) for number, first, second in asked]
    known = [(names, pair) for names, pair in zip(asked, sides, strict=True) if len(set(pair[0]) & set(pair[1])) >= 2]
    called = holm([difference(*pair) for _, pair in known])  # type: ignore[arg-type]  # keys are runs, not seeds
    lines = [
        f"Differences of `{compared['metric']}` (first minus second) in pairs of runs that share everything else. ± is "
        f"the 95 % interval of this difference alone; a name means that it also stands among all {len(called)} (Holm). "
        f"The last column is the smallest difference that so many pairs, scattered as these are, show with a chance of "
        f"{100 * POWER:.0f} % at the strictest of Holm's levels.",
        "",
        "| axis | first | second | pairs | difference | better | smallest that shows |",
        "|---|---|---|---|---|---|---|",
    ]
    for ((number, first, second), _), item in zip(known, called, strict=True):
        mean, error, df, _, pairs, _ = item.difference
        if error is None:
            continue
        half = t_quantile(1 - ALPHA / 2, df) * error
        better = first if (mean < 0) == (compared["better"] == "lower") else second
        least = smallest_difference(error * math.sqrt(pairs), pairs, ALPHA / len(called))
        lines.append(
            f"| {AXES[axes[number]]} | {first} | {second} | {pairs} | {mean:+.3f} ± {half:.3f} | "
            f"{f'**{better}**' if item.distinguishable else 'not distinguishable'} | {least:.3f} |"
        )
    return lines


def runs_with(values: Mapping[Cell, Mapping[int, float]], number: int, value: str) -> dict[tuple[Cell, int], float]:
    """The runs whose axis `number` has this value, by what else they are."""
    return {
        ((*cell[:number], *cell[number + 1 :]), seed): figure
        for cell, own in values.items()
        if cell[number] == value
        for seed, figure in own.items()
    }


def smallest_difference(std: float, pairs: int, alpha: float, power: float = POWER) -> float:
    """The true mean of paired differences that a two-sided t-test finds with the chance `power`.

    The test's statistic is noncentral t with df = pairs - 1 and noncentrality d sqrt(pairs) / std (Cohen 1988,
    "Statistical power analysis", chapter 2).

    Args:
        std: standard deviation of the paired differences.
        alpha: level of the test.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm

    df = pairs - 1
    # P(T > limit) by a mean over quantiles of the estimated variance: scipy's nct gives NaN at the limits of few pairs.
    limits = t_quantile(1 - alpha / 2, df) * np.sqrt(chi2.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES, df) / df)

    def lacks(noncentrality: float) -> float:
        return float(norm.cdf(noncentrality - limits).mean()) - power

    return float(brentq(lacks, 0.0, limits[-1] + 10.0)) * std / math.sqrt(pairs)


if __name__ == "__main__":
    sys.exit(main())
