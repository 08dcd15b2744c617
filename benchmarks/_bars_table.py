"""The table of the bars of LADD alone: every seed of its row against its teacher's figures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._result_cells import REAL_FLOOR, TEACHER, Row, half_width, line, values_of
from benchmarks._runs import Kept
from benchmarks.variants import BASE
from ladd_dist.comparison.statistics import difference, holm

COLUMNS = (
    ("to real @4", "student@4", "fd_real", True, 0.0, 1.1),
    ("to real @1", "student@1", "fd_real", True, 0.0, 1.4),
    ("accuracy @4", "student@4", "accuracy", False, 0.97, 1.0),
    ("accuracy @1", "student@1", "accuracy", False, 0.97, 1.0),
    ("colour variance @4", "student@4", "colour_variance", True, 0.9, 1.1),
    ("colour variance @1", "student@1", "colour_variance", True, 0.9, 1.1),
    ("saturation @4", "student@4", "saturation", True, 0.9, 1.1),
    ("saturation @1", "student@1", "saturation", True, 0.9, 1.1),
)
"""Heading, entry, figure, whether as a share of the teacher's, and the bar."""
OTHERS = ("untrained@4", "teacher@4:good")


def bars_table(row: Row) -> str:
    """The bars, each seed's figures, and whether the student is nearer to real images than what costs as much."""
    lines = [
        f"`{BASE}` against its bars, one line per seed, all on one teacher. Distance to real, colour variance and "
        f"saturation are shares of {TEACHER}'s; a figure outside its bar is in **bold**. Guard: verdicts of the "
        "collapse guard during the training.",
        "",
        line("", *(column[0] for column in COLUMNS), "guard"),
        line(*["---"] * (len(COLUMNS) + 2)),
        line("bar", *(_bar(low, high) for *_, low, high in COLUMNS), "silent"),
        *(
            line(str(place), *_cells(run), ", ".join(run.get("alarms", [])) or "silent")
            for place, run in enumerate(row.runs)
        ),
    ]
    if all(REAL_FLOOR in run for run in row.runs):
        lines.append(line("real images", *_cells(row.runs[0], REAL_FLOOR), ""))
    return "\n".join([*lines, "", nearer(row.runs)])


def nearer(runs: Sequence[Kept]) -> str:
    """Whether the students are nearer to real images than the untrained one and the teacher in four steps."""
    asked = [(steps, other) for steps in (4, 1) for other in OTHERS]
    sides = [
        (values_of(runs, f"student@{steps}", "fd_real"), values_of(runs, other, "fd_real")) for steps, other in asked
    ]
    called = holm([difference(dict(enumerate(a)), dict(enumerate(b))) for a, b in sides])
    told = []
    for (steps, other), item in zip(asked, called, strict=True):
        mean = item.difference[0]
        verdict = ("nearer" if mean < 0 else "farther") if item.distinguishable else "not distinguishable"
        told.append(f"@{steps} against {other} {mean:+.3f} ± {half_width(item):.3f} ({verdict})")
    return (
        f"Distance to real images, differences over the seeds, Holm's correction over all of them: {'; '.join(told)}."
    )


def _cells(run: Kept, entry: str = "") -> list[str]:
    cells = []
    for _, own, figure, by_teacher, low, high in COLUMNS:
        value = next(iter(values_of([run], entry or own, figure, by_teacher=by_teacher)), None)
        text = "" if value is None else f"{value:.3f}"
        cells.append(text if value is None or entry or low <= value <= high else f"**{text}**")
    return cells


def _bar(low: float, high: float) -> str:
    if not low:
        return f"<= {high:g}"
    return f">= {low:g}" if high == 1 else f"{low:g} to {high:g}"
