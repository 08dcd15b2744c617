"""Heat maps in SVG of how often the heads are right, by head and by noise level over training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ladd_dist.reports.charts import style, to_svg
from ladd_dist.reports.html import CARD, MUTED
from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Metrics

if TYPE_CHECKING:
    from markupsafe import Markup
    from numpy.typing import NDArray

MAX_COLUMNS = 40
BINS = ("10-inf", "3-10", "1-3", "0.3-1", "0.1-0.3", "0-0.1")
"""Levels at which heads compare, as the keys `accuracy/TAP@LOW-HIGH` have them, highest first."""
LOW, HIGH = 0.4, 1.0
"""Accuracies at the two ends of the colours."""
COLOURS = "viridis"
"""A ramp whose brightness rises evenly, so that it reads without colour too."""
_WIDTH, _ROW, _BOTTOM = 4.6, 0.3, 0.32
"""Inches of a panel, of one of its rows, and of the axis below them."""


class HeatMap(NamedTuple):
    """A finished panel: `svg` is markup of ours, the rest is text."""

    title: str
    svg: Markup
    summary: str


Row = Sequence[float | None]


def heat_maps(metrics: Metrics) -> list[HeatMap]:
    """Draw all heads beside each other, then a panel for each head by noise level; none where nothing was logged."""
    heads = _heads(metrics)
    steps = [step for row in metrics if (step := number(row, "step")) is not None]
    if not heads or not steps:
        return []
    panels = [_panel("Head by head", {tap: [_accuracy(row, tap) for row in metrics] for tap in heads}, steps, "heat")]
    for index, tap in enumerate(heads):
        rows = {bin_: [number(row, f"accuracy/{tap}@{bin_}") for row in metrics] for bin_ in BINS}
        if any(value is not None for row in rows.values() for value in row):
            panels.append(_panel(f"Head on {tap}, by noise level", rows, steps, f"heat{index}"))
    return [panel for panel in panels if panel is not None]


def ramp(count: int = 5) -> str:
    """The colours from `LOW` to `HIGH` as the list of a CSS gradient."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return ", ".join(to_hex(colour) for colour in colormaps[COLOURS](np.linspace(0, 1, count)))


def _heads(metrics: Metrics) -> list[str]:
    """Taps in the order of the first row that names them."""
    keys = dict.fromkeys(key for row in metrics for key in row)
    found = (re.fullmatch(r"accuracy/(?:real/([^@]+)|([^@/]+)@.+)", key) for key in keys)
    return list(dict.fromkeys(match[1] or match[2] for match in found if match))


def _accuracy(row: Values, tap: str) -> float | None:
    """The head's accuracy on both sides: as logged, or the mean of the two."""
    known = number(row, f"accuracy/{tap}")
    if known is not None:
        return known
    sides = [number(row, f"accuracy/{side}/{tap}") for side in ("real", "fake")]
    return None if sides[0] is None or sides[1] is None else (sides[0] + sides[1]) / 2


def averaged(rows: Sequence[Row]) -> NDArray[np.float64]:
    """Cells [rows, at most `MAX_COLUMNS`], each the mean of the logged steps that it covers; NaN without any figure."""
    values = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
    count = min(MAX_COLUMNS, values.shape[1])
    edges = [round(index * values.shape[1] / count) for index in range(count)]
    known = np.add.reduceat(np.isfinite(values).astype(np.float64), edges, axis=1)
    total = np.add.reduceat(np.nan_to_num(values), edges, axis=1)
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)


def _panel(title: str, rows: Mapping[str, Row], steps: Sequence[float], prefix: str) -> HeatMap | None:
    """Draw a line for each row, from the first step at the left to the last; None where no row has a figure."""
    cells = averaged(list(rows.values()))
    if not np.isfinite(cells).any():
        return None
    ends = [
        f"{label} from {known[0]:.2f} to {known[-1]:.2f}"
        for label, row in zip(rows, cells, strict=True)
        if len(known := row[np.isfinite(row)])
    ]
    summary = f"{title}, share of right answers: {'; '.join(ends)}."
    return HeatMap(title, _draw(list(rows), cells, (steps[0], steps[-1]), prefix), summary)


def _draw(labels: Sequence[str], cells: NDArray[np.float64], ends: tuple[float, float], prefix: str) -> Markup:
    from matplotlib.figure import Figure

    lines, columns = cells.shape
    with style(prefix):
        figure = Figure(figsize=(_WIDTH, lines * _ROW + _BOTTOM), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(
            cells, cmap=COLOURS, vmin=LOW, vmax=HIGH, aspect="auto", interpolation="none", extent=(0, columns, lines, 0)
        )
        for line in range(1, lines):
            axes.axhline(line, color=CARD, linewidth=1.6)
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=MUTED, length=0, labelsize=11)
        # Names of taps are text, never formulas, whatever dollar signs they have.
        axes.set_yticks(np.arange(lines) + 0.5, labels, parse_math=False)
        axes.set_xticks([0, columns], [f"step {ends[0]:g}", f"{ends[1]:g}"])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        return to_svg(figure, prefix)
