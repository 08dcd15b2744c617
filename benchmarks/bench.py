"""What a benchmark sweep says: its variants, what each axis does over all others, and the smallest difference it shows.

    ladd sweep recipes/bench_heads.py --on slurm/laptop.py --scale laptop      # run again, it runs what is missing
    ladd compare bench_heads --metric FIGURE --json > bench_heads.json
    python -m benchmarks.bench bench_heads.json
    python -m benchmarks.bench bench_heads.json --keep benchmarks/bench_heads.json    # what the tables need, to commit
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

from benchmarks._runs import commit_of, device_of, put_between
from ladd_dist.comparison.statistics import ALPHA, difference, holm, pool, t_quantile
from ladd_dist.core.checkout import DIRTY
from ladd_dist.core.rundir import write_bytes

AXES = {"head": "head", "taps": "taps", "adversarial": "game", "student_sigma.phases": "schedule of the levels"}
"""Fields that a benchmark varies, and what they are called."""
NAMES = {"floor@real": "real against real"}
"""What entries of eval.json are called here."""
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
    keep: Path | None = None
    """A file for what the tables need, and each run's signature, commit and device; this command reads it too."""


def main() -> int:
    """Read, compare, print."""
    options = tyro.cli(Options)
    compared = json.loads(options.file.read_text(encoding="utf-8"))
    if options.keep:
        write_bytes(options.keep, (json.dumps(kept_of(compared), indent=1) + "\n").encode())
    text = report(compared)
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
    lines = [*variants_table(values, axes, compared), "", *sentences(compared), ""]
    return "\n".join(lines + axes_table(values, axes, compared))


def kept_of(compared: Mapping[str, Any]) -> dict[str, Any]:
    """What the tables need of a comparison, without the figures that they do not show.

    Raises:
        SystemExit: a run's folder is gone, or its code was not committed.
    """
    figure = compared["metric"]
    variants = []
    for variant in compared["variants"]:
        runs = [
            {**{name: run[name] for name in ("seed", "signature", "value")}, **made_of(run)} for run in variant["runs"]
        ]
        variants.append({"fields": variant["fields"], "difference": variant["difference"], "runs": runs})
    references = [
        {"entry": entry["entry"], "figures": {figure: entry["figures"][figure]}}
        for entry in compared["references"]
        if figure in entry["figures"]
    ]
    same = {name: compared[name] for name in ("metric", "sampler", "better", "differing")}
    return {**same, "variants": variants, "references": references}


def made_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Commit and device of a run: as it was kept, or from its folder."""
    if "commit" in run:
        return {name: run[name] for name in ("commit", "device")}
    path = Path(run["source"]) / "config.json"
    if not path.exists():
        raise SystemExit(f"{path} is gone: call this where `ladd compare` was called")
    config = json.loads(path.read_text(encoding="utf-8"))
    if (commit := commit_of(config)).endswith(DIRTY):
        raise SystemExit(f"{path.parent} is of {commit}: commit the code, delete this folder and start again")
    return {"commit": commit, "device": device_of(config)}


def sentences(compared: Mapping[str, Any]) -> list[str]:
    """What the figures stand beside, the teacher's and the untrained student's; and where the runs were made."""
    figure = compared["metric"]
    known = {entry["entry"]: entry["figures"] for entry in compared.get("references", ())}
    told = [f"{NAMES.get(entry, entry)} {known[entry][figure]:.3f}" for entry in known if figure in known[entry]]
    lines = [f"For comparison: {', '.join(told)}."] if told else []
    runs = [run for variant in compared["variants"] for run in variant["runs"] if "commit" in run]
    made = sorted({(run["device"], run["commit"]) for run in runs})
    return lines + [f"Device `{device}`, commit `{commit}`." for device, commit in made]


def values_of(compared: Mapping[str, Any], axes: Sequence[str]) -> dict[Cell, dict[int, float]]:
    """The figure that decides, by the values of the axes and by seed; runs without one are left out."""
    found: dict[Cell, dict[int, float]] = {}
    for variant in compared["variants"]:
        cell = cell_of(variant, axes)
        if cell in found:
            raise SystemExit(f"two variants are {', '.join(cell)}: they differ in {', '.join(compared['differing'])}")
        found[cell] = {run["seed"]: run["value"] for run in variant["runs"] if run["value"] is not None}
    return found


def cell_of(variant: Mapping[str, Any], axes: Sequence[str]) -> Cell:
    """A variant's values of the axes."""
    return tuple(shown(variant["fields"][axis]) for axis in axes)


def shown(value: Any) -> str:
    """A value of an axis; phases of levels as the probabilities from each update on."""
    if isinstance(value, str):
        return value
    if not value:
        return "each as often"
    phases = [json.loads(phase) if isinstance(phase, str) else phase for phase in value]
    parts = [(" ".join(f"{share:g}" for share in phase["probabilities"]), phase["start_step"]) for phase in phases]
    return ", then ".join(f"{shares} from {start}" if start else shares for shares, start in parts)


def variants_table(
    values: Mapping[Cell, Mapping[int, float]], axes: Sequence[str], compared: Mapping[str, Any]
) -> list[str]:
    """Mean and 95 % interval of each variant, the best first, and whether `ladd compare` tells it from that."""
    told = {cell_of(variant, axes): variant["difference"] for variant in compared["variants"]}
    better_low = compared["better"] == "lower"
    headings = [*(AXES[axis] for axis in axes), f"{compared['metric']} of {compared['sampler']}", "seeds"]
    lines = [
        f"| {' | '.join(headings)} | against the first |",
        "|---" * (len(axes) + 3) + "|",
    ]
    pooled = {cell: pool(list(own.values())) for cell, own in values.items() if own}
    for cell, found in sorted(pooled.items(), key=lambda item: item[1].mean if better_low else -item[1].mean):
        half = math.nan if found.high is None else found.high - found.mean
        against = told[cell]
        verdict = "" if against is None else "**worse**" if against["distinguishable"] else "not distinguishable"
        lines.append(f"| {' | '.join(cell)} | {found.mean:.3f} ± {half:.3f} | {found.n} | {verdict} |")
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
        f"The last column is the smallest true difference that so many pairs would find with a chance of "
        f"{100 * POWER:.0f} %, if they scatter as these do.",
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
