"""Curves of a run as inline SVG, from logged figures alone."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ladd_dist.core.gan import LARGE_GAP
from ladd_dist.reports.html import BAND, CURVES, LINE, MUTED, NUM_COLOURS, inline_svg
from ladd_dist.reports.json_object import number
from ladd_dist.reports.run_files import Metrics
from ladd_dist.reports.tuned_verdict import SHARE
from ladd_dist.reports.verdict import HEALTHY_ACCURACY_BAND, HEALTHY_GAP_BAND

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 240  # of a curve; more cannot be told apart at the width of a chart


class Series(NamedTuple):
    """One curve: its label, steps and values."""

    label: str
    steps: list[float]
    values: list[float]


class Chart(NamedTuple):
    """A finished chart: `svg` is markup of ours, everything else is text."""

    title: str
    note: str
    svg: Markup
    summary: str  # what the curves show, for those who do not see them
    legend: list[tuple[str, int, bool]]  # label, colour, dashed
    points_averaged: int


class _Spec(NamedTuple):
    title: str
    note: str
    keys: str  # pattern of the keys of metrics.jsonl that share the chart; its group is the label
    log: bool = False
    band: tuple[float, float] | None = None
    in_large_gaps: bool = False  # the unit of `band`
    from_zero: bool = False
    marks_kept: bool = False  # a line at the step that an early stop kept


_SPECS = (
    _Spec("Distance to the teacher's samples", "Distillation loss; lower is better.", r"loss/(distill)", log=True),
    _Spec("The game of student and heads", "Adversarial losses; neither should run away.", r"loss/(?!distill$)(.+)"),
    _Spec(
        "How often the heads are right",
        "Right on the teacher's samples (real), on the student's (fake), on all. 0.5 is guessing; shaded is healthy.",
        r"accuracy(?:/(real|fake))?",
        band=HEALTHY_ACCURACY_BAND,
    ),
    _Spec("The same, head by head", "One head a tap.", r"accuracy/real/(.+)", band=HEALTHY_ACCURACY_BAND),
    _Spec(
        "Logit gap",
        "How far apart the heads score the two sides.",
        r"logit_gap(?:/(.+))?",
        band=HEALTHY_GAP_BAND,
        in_large_gaps=True,
    ),
    _Spec("Gradient norms", "Spikes mean instability.", r"grad_norm/([^/]+)", log=True),
    _Spec(
        "The student's variety",
        "Shares of the teacher's at the same noises, in one step and in its own number: what the guard looks at.",
        r"guard/student@(\d+/(?:colour_variance|class_distance))",
        from_zero=True,
    ),
    _Spec(
        "Distance to held-out pictures",
        "Of the averaged student, at each measurement of the early stop; lower is better.",
        rf"held_out/(?!{SHARE}$)(.+)",
        log=True,
        marks_kept=True,
    ),
    _Spec(
        "Nearness to the training pictures",
        "Of the usual distance between these: 0 is a copy, 1 as new as one more picture, above 1 less alike.",
        rf"held_out/({SHARE})",
        from_zero=True,
        marks_kept=True,
    ),
    _Spec("Loss scale of fp16", "Halved by each update that is skipped.", r"loss_scale/(.+)", log=True),
    _Spec("Weights in force", "What each loss counts for in the student's update.", r"weight/(.+)"),
    _Spec(
        "The fixed 32 samples", "While it learned; share: of the teacher's.", r"watch/(accuracy|hue_entropy|.+_share)"
    ),
    _Spec("Error at the same noise", "The same 32 against the teacher's own.", r"watch/(matched_error)", log=True),
    _Spec("Speed", "Training samples a second.", r"rate/(samples)_per_s", from_zero=True),
)


_OF_TUNINGS = {
    "Distance to the teacher's samples": (
        "Distance to the target",
        "Distillation loss: how far old conditions are from what the student made of them before; lower is better.",
    ),
    "How often the heads are right": (
        "How often the heads are right",
        "Right on new pictures and on what the student made before (real), on its samples (fake), on all. 0.5 is "
        "guessing; shaded is healthy.",
    ),
}
"""Title and note of a chart in the page of a tuning, by its title elsewhere."""


def curves(
    metrics: Metrics, large_gap: float | None = LARGE_GAP, *, kept: int | None = None, tunes: bool = False
) -> list[Chart]:
    """Draw the charts of a training run; a chart whose figures were not logged is left out.

    Args:
        large_gap: the logit gap that the run's game calls large; None: no gap is.
        kept: the step that an early stop kept, marked where it was chosen; None without one.
        tunes: whether a finished student learns new pictures.
    """
    keys = list(dict.fromkeys(key for row in metrics for key in row))
    charts = []
    for index, spec in enumerate(_SPECS):
        if spec.band and spec.in_large_gaps:
            band = None if large_gap is None else (spec.band[0] * large_gap, spec.band[1] * large_gap)
            spec = spec._replace(band=band)
        if tunes and spec.title in _OF_TUNINGS:
            title, note = _OF_TUNINGS[spec.title]
            spec = spec._replace(title=title, note=note)
        series = []
        for key in keys:
            match = re.fullmatch(spec.keys, key)
            if match:
                # The head's accuracy is that on both sides, logged as two figures.
                sides = (key, key.replace("/real/", "/fake/")) if key.startswith("accuracy/real/") else (key,)
                series.append(_series(metrics, match[1] or "all", *sides))
        series = [item for item in series if item.steps]
        if series:
            ends = series[0].steps[0], series[0].steps[-1]
            mark = kept if spec.marks_kept and kept is not None and ends[0] <= kept <= ends[1] else None
            charts.append(_chart(spec, series, prefix=f"c{index}", mark=mark))
    return charts


def _series(metrics: Metrics, label: str, *keys: str) -> Series:
    """The curve of the mean of `keys`, at each step which logged them all."""
    points = []
    for row in metrics:
        step, values = number(row, "step"), [value for key in keys if (value := number(row, key)) is not None]
        if step is not None and len(values) == len(keys):
            points.append((step, sum(values) / len(values)))
    return Series(label, [step for step, _ in points], [value for _, value in points])


def _thin(series: Series, width: int) -> Series:
    """A shorter curve: each point is the mean of `width` neighbouring ones."""
    starts = range(0, len(series.steps), width)
    return Series(
        series.label,
        [float(np.mean(series.steps[start : start + width])) for start in starts],
        [float(np.mean(series.values[start : start + width])) for start in starts],
    )


def _chart(spec: _Spec, series: list[Series], *, prefix: str, mark: int | None = None) -> Chart:
    from matplotlib.figure import Figure

    width = math.ceil(max(len(item.steps) for item in series) / MAX_POINTS)
    with style(prefix):
        figure = Figure(figsize=(4.6, 2.7))
        axes = figure.add_axes((0.125, 0.125, 0.845, 0.835))
        legend = []
        for index, item in enumerate(series):
            colour, dashed = index % NUM_COLOURS, index >= NUM_COLOURS
            thin = _thin(item, width)
            shape = ("--" if dashed else "-") + ("o" if len(thin.steps) == 1 else "")
            axes.plot(thin.steps, thin.values, shape, color=CURVES[colour], linewidth=1.6)
            legend.append((item.label, colour, dashed))
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1.2, linestyle=":")
        _decorate(axes, spec, [value for item in series for value in item.values])
        svg = to_svg(figure, prefix)
    ends = [f"{s.label} from {s.values[0]:.3g} at step {s.steps[0]:g} to {s.values[-1]:.3g}" for s in series]
    summary = f"{spec.title}: {'; '.join(ends)} at step {series[0].steps[-1]:g}."
    summary += f" Step {mark:,} is kept." if mark is not None else ""
    note = spec.note if mark is None else f"{spec.note} Dotted: the step that is kept."
    return Chart(spec.title, note, svg, summary, legend, width)


@contextlib.contextmanager
def style(prefix: str) -> Iterator[None]:
    """Matplotlib's settings for a drawing on the page: text stays text, and the same data give the same bytes."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "font.size": 11,
        "axes.linewidth": 0.8,
    }
    with rc_context(settings):
        yield


def to_svg(figure: Figure, prefix: str) -> Markup:
    """A figure as markup for the page; `prefix` keeps its ids apart from those of other drawings."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline_svg(buffer.getvalue(), prefix)


def _decorate(axes: Axes, spec: _Spec, values: list[float]) -> None:
    """Give a chart its calm axes: horizontal lines only, the healthy band, ticks in plain figures."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0, labelsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if spec.band:
        axes.axhspan(*spec.band, color=BAND, linewidth=0)
        low, high = min(*values, spec.band[0]), max(*values, spec.band[1])
        margin = 0.06 * (high - low)
        axes.set_ylim(low - margin, high + margin)
    if spec.log and min(values) > 0:
        axes.set_yscale("log")
        decades = math.log10(max(values) / min(values))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        if spec.from_zero:
            axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
