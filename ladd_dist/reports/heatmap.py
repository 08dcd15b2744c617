"""How often the heads are right, by head and by noise level over training, as heat maps in SVG."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from ladd_dist.reports.verdict import Metrics, number

MAX_COLUMNS = 40
BINS = ("10-inf", "3-10", "1-3", "0.3-1", "0.1-0.3", "0-0.1")
"""Levels at which heads compare, as the keys `accuracy/TAP@LOW-HIGH` have them, highest first."""
LOW, HIGH = 0.4, 1.0
# A ramp whose brightness rises evenly, so that it reads without colour too (the anchors of viridis).
RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_WIDTH, _CELL, _LEFT, _TOP, _BOTTOM = 340, 22, 70, 6, 24


class HeatMap(NamedTuple):
    """A finished panel: `svg` is markup of ours, the rest is text."""

    title: str
    svg: str
    summary: str


Row = Sequence[float | None]


def heat_maps(metrics: Metrics) -> list[HeatMap]:
    """All heads beside each other, then a panel for each head by noise level; none where nothing was logged."""
    heads = _heads(metrics)
    steps = [step for row in metrics if (step := number(row, "step")) is not None]
    if not heads or not steps:
        return []
    panels = [_panel("Head by head", {tap: [_accuracy(row, tap) for row in metrics] for tap in heads}, steps)]
    for tap in heads:
        rows = {bin_: [number(row, f"accuracy/{tap}@{bin_}") for row in metrics] for bin_ in BINS}
        if any(value is not None for row in rows.values() for value in row):
            panels.append(_panel(f"Head on {tap}, by noise level", rows, steps))
    return [panel for panel in panels if panel is not None]


def _heads(metrics: Metrics) -> list[str]:
    """Taps in the order of the first row that names them."""
    keys = dict.fromkeys(key for row in metrics for key in row)
    found = (re.fullmatch(r"accuracy/(?:real/([^@]+)|([^@/]+)@.+)", key) for key in keys)
    return list(dict.fromkeys(match[1] or match[2] for match in found if match))


def _accuracy(row: Mapping[str, object], tap: str) -> float | None:
    """On both sides: as logged, or the mean of the two."""
    known = number(row, f"accuracy/{tap}")
    if known is not None:
        return known
    sides = [number(row, f"accuracy/{side}/{tap}") for side in ("real", "fake")]
    return None if sides[0] is None or sides[1] is None else (sides[0] + sides[1]) / 2


def _panel(title: str, rows: Mapping[str, Row], steps: Sequence[float]) -> HeatMap | None:
    """A line for each row, from the first step at the left to the last; a cell is the mean of the steps it covers."""
    count = min(MAX_COLUMNS, len(steps))
    edges = [round(index * len(steps) / count) for index in range(count + 1)]
    cells = {label: [_mean(row[a:b]) for a, b in itertools.pairwise(edges)] for label, row in rows.items()}
    if not any(value is not None for row in cells.values() for value in row):
        return None
    width, height = (_WIDTH - _LEFT) / count, _TOP + len(cells) * _CELL
    parts = []
    for line, (label, row) in enumerate(cells.items()):
        y = _TOP + line * _CELL
        parts.append(_text(_LEFT - 8, y + _CELL / 2 + 4, label, "end"))
        for column, value in enumerate(row):
            if value is not None:
                x = _LEFT + column * width
                span = f"step {steps[edges[column]]:g}, {label}: {value:.2f}"
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width + 0.3:.1f}" height="{_CELL - 2}" fill="{colour(value)}">'
                    f"<title>{escape(span)}</title></rect>"
                )
    parts.append(_text(_LEFT, height + 16, f"step {steps[0]:g}", "start"))
    parts.append(_text(_WIDTH, height + 16, f"{steps[-1]:g}", "end"))
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {height + _BOTTOM}" aria-hidden="true" focusable="false" font-size="13">'
        f"{''.join(parts)}</svg>"
    )
    ends = []
    for label, row in cells.items():
        known = [value for value in row if value is not None]
        if known:
            ends.append(f"{label} from {known[0]:.2f} to {known[-1]:.2f}")
    return HeatMap(title, svg, f"{title}, share of right answers: {'; '.join(ends)}.")


def _mean(values: Row) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--muted)">{escape(text)}</text>'


def colour(value: float) -> str:
    """The ramp's colour of an accuracy; outside its range the nearest one."""
    place = min(max((value - LOW) / (HIGH - LOW), 0.0), 1.0) * (len(RAMP) - 1)
    index = min(int(place), len(RAMP) - 2)
    share = place - index
    mixed = (round(a + share * (b - a)) for a, b in zip(RAMP[index], RAMP[index + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)
