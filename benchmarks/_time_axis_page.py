"""What `benchmarks.time_axis` shows: a figure, a picture of dumps, and tables, from kept runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._runs import Kept
from ladd_dist.reports.verdict import VARIANCE_COLLAPSED

RATIO = 15.48 / 3.66
"""The report's FID of experiment 6 in four steps over that of its teacher in fifty."""
EARLY = 0.25
"""Share of the updates that counts as early: the first of the report's two figures."""
NUM_SHOWN = 8
"""Samples of each dump in the picture."""


class Course(NamedTuple):
    """A run's colour variance at four steps as a share of the teacher's, by step."""

    steps: list[int]
    shares: list[float]

    def at(self, step: float) -> float:
        """The share at the last measured step up to `step`; 1, the teacher's own, before the first."""
        found = [share for own, share in zip(self.steps, self.shares, strict=True) if own <= step]
        return found[-1] if found else 1.0

    def collapsed_at(self, step: float) -> bool:
        """The rule: the colours have less than `VARIANCE_COLLAPSED` of the teacher's variance."""
        return self.at(step) < VARIANCE_COLLAPSED

    def onset(self) -> int | None:
        """The first step from which on the run is collapsed to its end; None where it ends varied."""
        first = None
        for step, share in zip(self.steps, self.shares, strict=True):
            first = None if share >= VARIANCE_COLLAPSED else step if first is None else first
        return first


def course(run: Mapping[str, Any]) -> Course:
    """The course of a run: the finished and the measured students, not the few samples of a dump, where both exist."""
    teacher = run["teacher@50"]["colour_variance"]
    found = dict(map(tuple, run["watched"]))
    found |= {point["step"]: point["colour_variance"] / teacher for point in run["points"] if point["step"]}
    steps = sorted(found)
    return Course(steps, [found[step] for step in steps])


def text_of(runs: Mapping[str, Kept], updates: int) -> str:
    """Pictures and tables as Markdown."""
    if not runs:
        return "Not measured yet."
    return "\n".join(
        [
            "![Colour variance and distance to real images over the updates](images/time_axis.svg)",
            "",
            "Dots are the measured students; the thin curves are the 32 samples of each dump.",
            "",
            f"Eight samples of each experiment at four steps after {updates // 4:,} (left) and {updates:,} updates:",
            "",
            "![Samples of every experiment early and at the end](images/time_axis_dumps.png)",
            "",
            f"A collapse begins at the first step from which on the colour variance in four steps stays below "
            f"{VARIANCE_COLLAPSED:g} of the teacher's to the end (averaged weights). Early: within "
            f"{int(EARLY * updates):,} updates. One seed each, and the pictures show one sample of a class.",
            "",
            *claims_table(runs, updates),
            "",
            *runs_table(runs, updates),
        ]
    )


def claims_table(runs: Mapping[str, Kept], updates: int) -> list[str]:
    """Each of the report's claims, and whether it is seen here."""
    lines = ["| experiment | the report | seen? | here |", "|---|---|---|---|"]
    for name, run in runs.items():
        own = course(run)
        (claim, seen), onset = judged(name, own, updates), own.onset()
        here = f"collapsed from {onset:,} on" if onset is not None else "varied at the end"
        least, at = min(zip(own.shares, own.steps, strict=True))
        shares = f"{own.at(EARLY * updates):.2f} at {int(EARLY * updates):,}, {own.at(updates):.2f} at the end, lowest "
        shares += f"{least:.2f} at {at:,}"
        lines.append(f"| {name} | {claim} | {'yes' if seen else '**no**'} | {here}; colour variance {shares} |")
    if "exp6" in runs:
        lines += ratio_lines(runs["exp6"])
    return lines


def judged(name: str, own: Course, updates: int) -> tuple[str, bool]:
    """What the report says of an experiment, and whether this run shows it. Steps scale with the updates."""
    unit, onset = updates / 20_000, own.onset()
    if name == "exp1":
        return "collapse to one colour", onset is not None
    if name == "exp2":
        return "varied at step 5,000, collapsed at 20,000", not own.collapsed_at(5_000 * unit) and onset is not None
    if name == "exp3":
        return "collapse by step 1,000", onset is not None and onset <= 1_000 * unit
    if name in ("exp4", "exp5"):
        return "early collapse", onset is not None and onset <= EARLY * updates
    return "no collapse", all(share >= VARIANCE_COLLAPSED for share in own.shares)


def ratio_lines(run: Kept) -> list[str]:
    """The report's ratio of distances of experiment 6, seen within a factor of two."""
    student, teacher = run["points"][-1]["fd_real"], run["teacher@50"]["fd_real"]
    ratio = student / teacher
    seen = "yes" if 0.5 <= ratio / RATIO <= 2 else "**no**"
    here = f"{ratio:.1f} times, {student:.2f} and {teacher:.2f}"
    return [f"| exp6 | in four steps {RATIO:.1f} times as far from real images as teacher@50 | {seen} | {here} |"]


def alarm(run: Mapping[str, Any], of: str = "student@") -> int | None:
    """The step of the guard's first verdict `collapsed` that names such students; None where it gave none."""
    told = [item for item in run["guard"] if item["level"] == "collapsed"]
    return next((item["step"] for item in told if any(text.startswith(of) for text in item["says"])), None)


def runs_table(runs: Mapping[str, Kept], updates: int) -> list[str]:
    """Distances to real images early and at the end, and the moments at which the guard spoke."""
    lines = [
        "`to real`: Frechet distance to real images in four steps, mean over five noises. Alarms are those of the "
        "guard, which looks at 32 stored noises with the weights of the moment, and only watched. In one step: the "
        "finished student's distance to real images, and its colour variance as a share of the teacher's.",
        "",
        "| run | to real, untrained | early | at the end | accuracy | to real in one step | colours in one step | "
        "alarm, one step | alarm, four steps | device | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        points = run["points"]
        early = min(points, key=lambda point: abs(point["step"] - EARLY * updates))
        steps = [alarm(run, of) for of in ("student@1 ", "student@4 ")]
        cells = [f"{point['fd_real']:.2f}" for point in (points[0], early, points[-1])]
        one, of_teacher = run["student@1"], run["teacher@50"]["colour_variance"]
        cells += [f"{points[-1]['accuracy']:.3f}", f"{one['fd_real']:.2f}"]
        cells += [f"{one['colour_variance'] / of_teacher:.2f}"]
        cells += ["-" if step is None else f"{step:,}" for step in steps]
        lines.append(f"| {name} | {' | '.join(cells)} | {run['device']} | `{run['commit']}` |")
    teacher = next(iter(runs.values()))
    for entry in ("teacher@50", "teacher@4:karras"):
        if entry in teacher:
            figures = teacher[entry]
            lines.append(f"| {entry} | | | {figures['fd_real']:.2f} | {figures['accuracy']:.3f} | | | | | | |")
    return lines


def light_colours() -> list[str]:
    """The colours of curves of the report's light theme."""
    from ladd_dist.reports import html

    found = re.findall(r"--s\d: (#[0-9a-f]{6})", (html.HERE / "base.css").read_text(encoding="utf-8"))
    return found[: html.NUM_COLOURS]


def draw_curves(path: Path, runs: Mapping[str, Kept]) -> None:
    """Colour variance and distance to real images over the updates, one curve a run, as SVG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    from ladd_dist.reports.charts import style

    with style("time-axis"):
        figure = Figure(figsize=(9.2, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for (name, run), colour in zip(runs.items(), light_colours(), strict=False):
            teacher, points = run["teacher@50"]["colour_variance"], run["points"]
            steps = [point["step"] for point in points]
            measured: dict[str, Any] = {"color": colour, "linewidth": 1.6, "markersize": 3}
            shares = [point["colour_variance"] / teacher for point in points]
            left.plot(steps, shares, "o-", label=name, **measured)
            # The few samples of each dump are others than those measured: a curve of its own, or it would jump.
            left.plot(*zip(*run["watched"], strict=True), color=colour, linewidth=0.7, alpha=0.5)
            right.plot(steps, [point["fd_real"] for point in points], "o-", **measured)
        left.axhline(VARIANCE_COLLAPSED, color="#888888", linewidth=0.8, linestyle="--")
        left.set_title("Colour variance at four steps, share of the teacher's", fontsize=11)
        right.set_title("Distance to real images at four steps", fontsize=11)
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
        left.set_ylim(bottom=0)
        for axes in (left, right):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(axis="y", color="#dddddd", linewidth=0.8)
            axes.tick_params(length=0, which="both")
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter("{x:,.0f}")
        figure.legend(loc="outside lower center", ncols=len(runs), frameon=False)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


def draw_dumps(path: Path, runs: Mapping[str, Kept], updates: int) -> None:
    """The students' samples a quarter in and at the end, side by side; left as it is where a dump is gone."""
    import torch

    from ladd_dist.core.tensor_file import load_tensors
    from ladd_dist.reports.grids import GROUND, write_grid

    rows: list[tuple[str, Any]] = []
    for name, run in runs.items():
        dumps = [Path(run["run"]) / "dumps" / f"step-{step:06d}.safetensors" for step in (updates // 4, updates)]
        if not all(dump.exists() for dump in dumps):
            return
        early, late = (load_tensors(dump) for dump in dumps)
        between = torch.tensor(GROUND).view(1, 3, 1, 1).expand(1, 3, *early["student"].shape[2:]) / 127.5 - 1
        halves = [side[key][:NUM_SHOWN] for key in ("teacher", "student") for side in (early, late)]
        if not rows:
            rows.append(("teacher@50", torch.cat([halves[0], between, halves[1]])))
        rows.append((name, torch.cat([halves[2], between, halves[3]])))
    write_grid(path, rows, columns=2 * NUM_SHOWN + 1, scale=2)
