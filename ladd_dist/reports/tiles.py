"""The large figures at the top of a run's page, and the bars of its distances. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from ladd_dist.metrics.interval import HIGH, LOW
from ladd_dist.reports.distances import FLOOR, to_real, to_teacher, untrained_of
from ladd_dist.reports.json_object import number
from ladd_dist.reports.run_files import Figures, ShownConfig
from ladd_dist.reports.table import Column, Row, figure, figure_short
from ladd_dist.reports.tuned_verdict import SHARE, new_distance
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, is_tuning
from ladd_dist.reports.verdict import best_teacher, few_step_teacher, few_student

_Entries = tuple[tuple[str, str | None], ...]  # names of what stands beside a figure, and their entries


class Tile(NamedTuple):
    """One of the large figures at the top."""

    text: str
    title: str
    note: str


class Bar(NamedTuple):
    """One bar of the distance chart; `width` in percent."""

    row: Row
    text: str
    width: float


def tiles(evaluation: Figures, config: ShownConfig, columns: list[Column], rows: list[Row]) -> list[Tile]:
    """The tiles of the page: what the student gained and what it kept, from the table."""
    teacher = best_teacher(evaluation)
    figures = {
        row.key: {column.key: cell.value for column, cell in zip(columns, row.cells, strict=True)} for row in rows
    }
    if teacher is None or not any(key.startswith("student@") for key in evaluation):
        return []
    few = few_student(evaluation, config)
    mine, theirs, rival = figures[few], figures[teacher], few_step_teacher(evaluation, few)
    tiles = []
    if (calls := mine.get("calls")) and (slow_calls := theirs.get("calls")):
        note = f"{calls:g} instead of {slow_calls:g} for one picture"
        tiles.append(Tile(f"{figure_short(slow_calls / calls)}×", "fewer network calls", note))
    if speed_up := mine.get("speed_up"):
        low, high = (number(evaluation[few], f"times_faster{end}") for end in (LOW, HIGH))
        spread = f" ({figure_short(low)} to {figure_short(high)})" if low and high else ""
        note = f"{figure(mine.get('ms') or 0)} ms for one picture, {figure(theirs.get('ms') or 0)} by the teacher"
        tiles.append(Tile(f"{figure_short(speed_up)}×", "faster", f"{note}{spread}"))
    if is_tuning(config.recipe):
        return tiles + tuned_tiles(evaluation, few, teacher)
    tiles += distance_tiles(evaluation, few, teacher, rival)
    if (entropy := mine.get("hue_entropy")) is not None and (reference := theirs.get("hue_entropy")):
        tiles.append(Tile(f"{entropy / reference:.0%}", "of the teacher's hue variety", "entropy of hue"))
    if (accuracy := mine.get("accuracy")) is not None:
        note = f"teacher {other:.1%}" if (other := theirs.get("accuracy")) is not None else ""
        tiles.append(Tile(f"{accuracy:.1%}", "show the class asked for", note))
    return tiles


def distance_tiles(evaluation: Figures, few: str, teacher: str, rival: str | None) -> list[Tile]:
    """The student's distance to real pictures, then that to the teacher, each with its floor and what it has to beat.

    Args:
        few: the student.
        teacher: the teacher in many steps; its new samples are the floor of the distance to its stored ones.
        rival: the teacher in as few steps.
    """
    before = ("before training", untrained_of(evaluation, few))
    quick, slow = ("teacher in as few steps", rival), ("teacher in many steps", teacher)
    wanted: tuple[tuple[str, str | None, _Entries], ...] = (
        ("distance to real pictures", to_real(evaluation[few]), (("floor", FLOOR), before, slow, quick)),
        ("distance to the teacher", to_teacher(evaluation[few]), (("floor", teacher), before, quick)),
    )
    return [tile for title, key, beside in wanted for tile in _beside(evaluation, few, title, key, beside)]


def tuned_tiles(evaluation: Figures, few: str, teacher: str) -> list[Tile]:
    """Of a tuning: the distances to new pictures and to the old samples, and how near samples are to the training's."""
    before = ("before training", untrained_of(evaluation, few))
    key = new_distance(evaluation[few])
    which = "distance to held-out new pictures" if key == KID_HELD_OUT else "distance to the new pictures"
    wanted: tuple[tuple[str, str | None, _Entries], ...] = (
        (which, key, (before, ("teacher in many steps", teacher))),
        ("distance to its own old samples", KID_OLD, (("floor", before[1]),)),
        ("of the usual distance to the nearest training picture", SHARE, ()),
    )
    return [tile for title, key, beside in wanted for tile in _beside(evaluation, few, title, key, beside)]


def _beside(evaluation: Figures, few: str, title: str, key: str | None, beside: _Entries) -> list[Tile]:
    """The tile of the student's figure with those of others beside it; none where it was not measured."""
    if key is None or (mine := number(evaluation[few], key)) is None:
        return []
    parts = [
        f"{name} {figure(value)}"
        for name, entry in beside
        if entry is not None and entry in evaluation and (value := number(evaluation[entry], key)) is not None
    ]
    return [Tile(figure(mine), title, "; ".join(parts))]


class BarChart(NamedTuple):
    """The bars of one distance, and the words above and below them."""

    label: str
    note: str
    bars: list[Bar]


def bar_charts(evaluation: Figures, config: ShownConfig, rows: list[Row]) -> list[BarChart]:
    """The bars of the distance to real pictures, then of that to the teacher's samples, where they were measured.

    Of a tuning they are the distance to held-out new pictures.
    """
    if not any(row.key.startswith("student@") for row in rows):
        return []
    few, found = evaluation[few_student(evaluation, config)], []
    wanted: tuple[tuple[str, str | None, str], ...] = (
        ("Distance to real pictures", to_real(few), "Other real pictures are the floor."),
        ("Distance to the teacher\u2019s samples", to_teacher(few), "The teacher with the most steps is the floor."),
    )
    if is_tuning(config.recipe):
        wanted = (
            ("Distance to held-out new pictures", KID_HELD_OUT, "The teacher has not seen the new pictures."),
        )  # the floor of `kid_old` is about 0, which no logarithmic bar can show
    for label, key, note in wanted:
        if key is not None and (own := bars(evaluation, rows, key)):
            found.append(BarChart(label, f"shorter is better, the scale is logarithmic. {note}", own))
    return found


def bars(evaluation: Figures, rows: list[Row], key: str) -> list[Bar]:
    """Bars of a distance of every entry; their axis is logarithmic from half the smallest."""
    values = {row.key: value for row in rows if (value := number(evaluation[row.key], key)) and value > 0}
    if len(values) < 2:
        return []
    # Logarithms before differences: ratios of the smallest and largest numbers are none.
    logs = {key: math.log(value) for key, value in values.items()}
    low = min(logs.values()) - math.log(2)
    scaled = {key: 100 * (log - low) / (max(logs.values()) - low) for key, log in logs.items()}
    return [Bar(row, figure(values[row.key]), round(scaled[row.key], 1)) for row in rows if row.key in values]
