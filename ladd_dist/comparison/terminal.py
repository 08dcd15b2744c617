"""The comparison as a table for a terminal, and as the cells that the page shows too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ladd_dist.comparison.result import Comparison, Row, direction
from ladd_dist.comparison.statistics import Difference, Pooled
from ladd_dist.reports.table import figure

if TYPE_CHECKING:
    from rich.table import Table

EXTRA = ("fd", "fd_teacher", "accuracy", "hue_entropy", "colour_variance")
"""Figures shown beside the one that decides; JSON, CSV and the page have all."""
MAX_ROWS = 40
ROOM, COLUMN = 110, 18
"""Characters that the columns always shown take, and one more column."""
NONE = "–"


def columns(result: Comparison) -> list[tuple[str, str]]:
    """Columns (sampler, metric): what decides, the same at other numbers of steps, and the usual others at this one."""
    there = dict.fromkeys((entry, key) for row in result.rows for entry, group in row.figures.items() for key in group)
    main = (result.sampler, result.metric)
    same = [pair for pair in there if pair[1] == result.metric and pair != main]
    others = [(result.sampler, key) for key in EXTRA if key != result.metric]
    return [main, *same, *(pair for pair in others if pair in there)]


def cell(value: Pooled | None) -> str:
    """A figure as text: mean and half of its interval."""
    if value is None:
        return NONE
    return figure(value.mean) if value.high is None else f"{figure(value.mean)} ±{figure(value.high - value.mean)}"


def gap(row: Row, result: Comparison) -> str:
    """A row's difference to the best, as text."""
    if row.called is None:
        return "best" if result.main(row) else "unfinished"
    mean = row.called.difference.mean
    if row.called.low is None or row.called.high is None:
        return f"{mean:+.3g}, one seed"
    return f"{mean:+.3g} [{row.called.low:+.3g}, {row.called.high:+.3g}]"


def called(row: Row, result: Comparison) -> str:
    """The verdict on a row, in a word or two."""
    if row.called is None:
        return ("winner" if result.winner else "") if result.main(row) else ""
    return "worse" if row.called.distinguishable else "not distinguishable"


def collapse(row: Row) -> str:
    """Text that says how many runs lost their colours, and at which steps."""
    if not row.num_known:
        return "unknown"
    if not row.collapsed:
        return "none"
    steps = sorted(step for _, step in row.collapsed)
    when = f"step {steps[0]}" if steps[0] == steps[-1] else f"steps {steps[0]}–{steps[-1]}"
    return f"{len(steps)} of {row.num_known}, {when}"


def seeds(row: Row) -> str:
    """The number of finished seeds as text, and of all where some are not finished."""
    total = len(row.variant.runs)
    return str(total) if row.num_finished == total else f"{row.num_finished} of {total}"


def against(item: Difference | None) -> str:
    """A reference's difference to the best, as text."""
    if item is None:
        return NONE
    return f"{item.mean:+.3g}" + ("" if item.error is None else f" (p {item.p:.2g})")


def table(result: Comparison, width: int) -> Table:
    """A Rich table: a row for each variant, best first, then teacher and untrained student, which have no seeds.

    Figures beside the one that decides are shown as far as the width goes.
    """
    from rich.markup import escape
    from rich.table import Table

    shown = columns(result)[: 1 + max(0, width - ROOM) // COLUMN]
    arrows = {"lower": "↓", "higher": "↑"}
    head = Table()
    head.add_column("variant", overflow="fold", min_width=16)
    head.add_column("seeds", justify="right")
    for entry, metric in shown:
        better = result.better if metric == result.metric else direction(metric)
        head.add_column(f"{metric} {arrows[better]}\n{entry}", justify="right")
    head.add_column("minus best", justify="right", overflow="fold")
    head.add_column("")
    head.add_column("collapsed from")
    for row in result.rows[:MAX_ROWS]:
        cells = [cell(row.figures.get(entry, {}).get(metric)) for entry, metric in shown]
        style = "green" if called(row, result) == "winner" else None
        texts = [row.variant.label, seeds(row), *cells, gap(row, result), called(row, result), collapse(row)]
        head.add_row(*map(escape, texts), style=style)
    if len(result.rows) > MAX_ROWS:
        head.add_row(f"... and {len(result.rows) - MAX_ROWS} more (--csv, --json, --out have all)")
    head.add_section()
    for item, held in result.references:
        title = item.entry + (f" (of {item.labels[0]}{' ...' if len(item.labels) > 1 else ''})" if item.labels else "")
        # What it is measured by does not depend on the student's number of steps: one figure, in the deciding column.
        values = [item.figures.get(metric) if entry == result.sampler else None for entry, metric in shown]
        cells = [figure(value) if value is not None else "" for value in values]
        head.add_row(escape(title), "", *cells, against(held), "", "", style="dim")
    return head


def caption(result: Comparison) -> str:
    """The line below the table that says what the figures mean."""
    methods = sorted({row.called.difference.method for row in result.rows if row.called} - {"none"})
    how = {"paired": "paired by seed", "welch": "Welch's where seeds do not match"}
    tested = f"{' and '.join(how[method] for method in methods)}, intervals by Holm's correction"
    return (
        f"Mean ± half of the 95 % interval over seeds; {result.better} {result.metric} is better. Differences: "
        f"{tested if methods else 'none can be tested'}."
    )
