"""All recipes at laptop scale, several seeds: the figures of docs/results.md, with intervals and paired differences.

    python -m benchmarks.results                          # trains what is missing, then prints the tables
    python -m benchmarks.results --write docs/results.md  # and puts them between the markers of that page

Every run is an ordinary `python -m ladd_dist.launch`; run folders that are done are not trained again.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

NO_HEADS = ("--swap", "adv_weight=constant", "--adv-weight.value", "0")
RUNS: dict[str, tuple[str, ...]] = {
    "exp1": ("recipes/exp1_smallconv.py",),
    "exp2": ("recipes/exp2_smallconv_warmup.py",),
    "exp3": ("recipes/exp3_maxpool.py",),
    "exp4": ("recipes/exp4_specnorm.py",),
    "exp5": ("recipes/exp5_specnorm_5taps.py",),
    "exp5, w_adv 0": ("recipes/exp5_specnorm_5taps.py", *NO_HEADS),
    "control_fresh_adv_only": ("recipes/control_fresh_adv_only.py",),
    "exp6": ("recipes/exp6_stored_noise.py",),
    "control_stored_distill_only": ("recipes/control_stored_distill_only.py",),
    "exp7": ("recipes/exp7_stored_smooth_l1.py",),
    "exp7, w_adv 0": ("recipes/exp7_stored_smooth_l1.py", *NO_HEADS),
}
PAIRS = (
    ("exp7", "exp6"),
    ("exp6", "control_stored_distill_only"),
    ("exp7", "exp7, w_adv 0"),
    ("exp5", "exp5, w_adv 0"),
    ("exp6", "exp5"),
)


@dataclass(frozen=True)
class Options:
    """Train every recipe with several seeds and compare them."""

    seeds: tuple[int, ...] = (0, 1, 2)
    scale: str = "laptop"
    out: Path = Path("runs")
    cache: Path = Path("cache")
    jobs: int = 2
    """Runs at a time, each with one thread."""
    only: tuple[str, ...] = ()
    """Names of rows; all when empty."""
    write: Path | None = None
    """A Markdown page: what stands between its markers `<!-- results -->` and `<!-- /results -->` is replaced."""


def main() -> int:
    """Run, compare, print."""
    options = tyro.cli(Options)
    names = [name for name in RUNS if not options.only or name in options.only]
    first = [(names[0], options.seeds[0])]  # alone: it trains the teacher that the others share
    rest = [(name, seed) for seed in options.seeds for name in names if (name, seed) not in first]
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with ThreadPoolExecutor(options.jobs) as pool:
        found = {key: run(options, *key) for key in first}
        found |= dict(zip(rest, pool.map(lambda key: run(options, *key), rest), strict=True))
    for name in names:
        figures[name] = [found[name, seed] for seed in options.seeds]
    text = report(figures, len(options.seeds))
    print(text)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, _, tail = page.partition("<!-- results -->")
        _, _, after = tail.partition("<!-- /results -->")
        options.write.write_text(f"{before}<!-- results -->\n{text}\n<!-- /results -->{after}", encoding="utf-8")
    return 0


def run(options: Options, name: str, seed: int) -> dict[str, Any]:
    """One run, as anybody would start it; returns eval.json."""
    command = [sys.executable, "-m", "ladd_dist.launch", *RUNS[name], "--scale", options.scale, "--seed", str(seed)]
    command += ["--out", str(options.out), "--cache", str(options.cache), "--json"]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{name} seed {seed}: {result['run']}", file=sys.stderr, flush=True)
    return dict(result["eval"])


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval (Student's t)."""
    from scipy.stats import t

    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))


def report(figures: dict[str, list[dict[str, Any]]], num_seeds: int) -> str:
    """The tables as Markdown."""
    teacher = figures.get("exp6", next(iter(figures.values())))[0]  # exp1 has a set of its own, with a higher floor
    floor = teacher["teacher@50"]
    lines = [
        f"Mean and 95 % interval over {num_seeds} seeds of the distillation. `fd`: Frechet distance to the teacher's "
        f"stored samples; its sampling floor, the teacher's own 50 steps on the same held-out noise, is "
        f"{floor['fd_teacher']:.3f}. Colour variance is a share of teacher@50's, hue entropy is as it is "
        f"(teacher@50: {floor['hue_entropy']:.3f}).",
        "",
        "| run | fd @4 | fd @2 | fd @1 | colour variance @4 | @1 | hue entropy @4 | class accuracy @4 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("teacher@4:good", "teacher@4:karras"):
        row = teacher[name]
        share = row["colour_variance"] / floor["colour_variance"]
        cells = [f"{row['fd_teacher']:.3f}", "", "", f"{share:.2f}", "", f"{row['hue_entropy']:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['accuracy']:.3f} |")
    for name, runs in figures.items():
        cells = [cell(runs, f"student@{steps}", "fd_teacher") for steps in (4, 2, 1)]
        cells += [cell(runs, f"student@{steps}", "colour_variance", floor["colour_variance"]) for steps in (4, 1)]
        cells += [cell(runs, "student@4", key) for key in ("hue_entropy", "accuracy")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Differences of `fd`, paired by seed (first minus second; the winner is named where 0 is outside):",
        "",
    ]
    lines += ["| first | second | @4 | @1 |", "|---|---|---|---|"]
    for first, second in PAIRS:
        if first in figures and second in figures:
            cells = [difference(figures, first, second, f"student@{steps}") for steps in (4, 1)]
            lines.append(f"| {first} | {second} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(runs: list[dict[str, Any]], entry: str, key: str, unit: float = 1.0) -> str:
    """Mean +- half-width."""
    mean, half = interval([run[entry][key] / unit for run in runs])
    return f"{mean:.3f} ± {half:.3f}"


def difference(figures: dict[str, list[dict[str, Any]]], first: str, second: str, entry: str) -> str:
    """Paired difference and who wins."""
    values = [
        a[entry]["fd_teacher"] - b[entry]["fd_teacher"] for a, b in zip(figures[first], figures[second], strict=True)
    ]
    mean, half = interval(values)
    verdict = "not distinguishable" if not abs(mean) > half else f"**{first if mean < 0 else second}**"
    return f"{mean:+.3f} ± {half:.3f}: {verdict}"


if __name__ == "__main__":
    sys.exit(main())
