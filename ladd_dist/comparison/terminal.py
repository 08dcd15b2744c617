"""The comparison as a table for a terminal, and as the cells that the page shows too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ladd_dist.comparison.result import Comparison, Row, direction
from ladd_dist.comparison.scope import scope
from ladd_dist.comparison.statistics import Difference, Pooled
from ladd_dist.reports.distances import to_real, to_teacher
from ladd_dist.reports.table import entry_meaning, figure
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD

if TYPE_CHECKING:
    from rich.table import Table

EXTRA = ("accuracy", "hue_entropy", "colour_variance")
"""Figures shown beside the one that decides; JSON, CSV and the page have all."""
MAX_ROWS = 40
NONE = "–"


def columns(result: Comparison) -> list[tuple[str, str]]:
    """Columns (sampler, metric): what decides, of tunings what was forgotten, the distances to real and to the teacher,
    and the usual others.

    The distances come at the same number of steps; what decides also at the others.
    """
    there = dict.fromkeys((entry, key) for row in result.rows for entry, group in row.figures.items() for key in group)
    main = (result.sampler, result.metric)
    measured = {key: None for entry, key in there if entry == result.sampler}
    tuned = [key for key in (KID_HELD_OUT, KID_OLD) if key in measured]
    found = [*tuned, *(key for find in (to_real, to_teacher) if (key := find(measured)))]
    distances = [(result.sampler, key) for key in found]
    same = [pair for pair in there if pair[1] == result.metric]
    others = [pair for key in EXTRA if (pair := (result.sampler, key)) in there]
    return list(dict.fromkeys([main, *distances, *same, *others]))


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
    if row.called.low is None:
        return ""  # of one seed: no test
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


def beside_real(row: Row) -> str:
    """Text that says what is nearer to real pictures than the row's students, with its figure; empty for nothing."""
    return "; ".join(f"farther than {item.entry} ({item.own:.3g} to {item.theirs:.3g})" for item in row.farther)


def leads_away(result: Comparison) -> bool:
    """Whether anything that was not trained is nearer to real pictures than a row's students."""
    return any(row.farther for row in result.rows)


def seeds(row: Row) -> str:
    """The number of finished runs as text, of all where some are not finished, and of teachers where that counts."""
    total = len(row.variant.runs)
    text = str(total) if row.num_finished == total else f"{row.num_finished} of {total}"
    num = len(row.variant.teacher_seeds)
    return f"{text} on {num} teacher{'' if num == 1 else 's'}" if row.variant.over_teachers else text


def against(item: Difference | None) -> str:
    """A reference's difference to the best, as text."""
    if item is None:
        return NONE
    return f"{item.mean:+.3g}" + ("" if item.error is None else f" (p {item.p:.2g})")


def knows_collapse(result: Comparison) -> bool:
    """Whether the samples of any run tell if, and when, its colours were lost."""
    return any(row.num_known for row in result.rows)


def kept(result: Comparison) -> tuple[str, ...]:
    """Headings of the columns that a reader cannot do without, however narrow the terminal."""
    beside = ("from real",) if leads_away(result) else ()
    return (_heading(result, result.sampler, result.metric), "minus best", "", *beside)


def table(result: Comparison) -> Table:
    """A Rich table: a row for each variant, best first, then teacher and untrained student, which have no seeds.

    What decides comes first; the figures beside it are the last columns.
    """
    from rich.table import Table

    main, *extra = columns(result)
    head = Table()
    head.add_column("variant")
    head.add_column("seeds", justify="right")
    head.add_column(_heading(result, *main), justify="right")
    head.add_column("minus best", justify="right")
    head.add_column("")
    if knows_collapse(result):
        head.add_column("collapsed from")
    if leads_away(result):
        head.add_column("from real")
    for pair in extra:
        head.add_column(_heading(result, *pair), justify="right")
    for row in result.rows[:MAX_ROWS]:
        told = [gap(row, result), called(row, result), *([collapse(row)] if knows_collapse(result) else [])]
        told += [beside_real(row)] if leads_away(result) else []
        texts = [row.variant.label, seeds(row), _figure(row, main), *told, *(_figure(row, pair) for pair in extra)]
        head.add_row(*texts, style="green" if told[1] == "winner" else None)
    if len(result.rows) > MAX_ROWS:
        head.add_row(f"... and {len(result.rows) - MAX_ROWS} more (--csv, --json, --out have all)")
    head.add_section()
    for item, held in result.references:
        title = item.entry + (f" (of {item.labels[0]}{' ...' if len(item.labels) > 1 else ''})" if item.labels else "")
        # What it is measured by does not depend on the student's number of steps: one figure, in the deciding column.
        first, *others = (
            figure(value) if entry == result.sampler and (value := item.figures.get(metric)) is not None else ""
            for entry, metric in (main, *extra)
        )
        blank = [""] * (1 + knows_collapse(result) + leads_away(result))
        head.add_row(title, "", first, against(held), *blank, *others, style="dim")
    return head


def _heading(result: Comparison, entry: str, metric: str) -> str:
    better = result.better if metric == result.metric else direction(metric)
    return f"{metric} {'↓' if better == 'lower' else '↑'} {entry}"


def _figure(row: Row, pair: tuple[str, str]) -> str:
    entry, metric = pair
    return cell(row.figures.get(entry, {}).get(metric))


def caption(result: Comparison) -> str:
    """The line below the table that says what the figures mean."""
    methods = sorted({row.called.difference.method for row in result.rows if row.called} - {"none"})
    unit = "teacher" if result.over_teachers else "seed"
    how = {"paired": f"paired by {unit}", "welch": f"Welch's where {unit}s do not match"}
    tested = f"{' and '.join(how[method] for method in methods)}, intervals by Holm's correction"
    shown = dict.fromkeys(item.entry for item, _ in result.references)
    explained = [f"{entry}: {meaning}" for entry in shown if (meaning := entry_meaning(entry))]
    return " ".join(
        (
            f"Mean ± half of the 95 % interval over {unit}s; {result.better} "
            f"{result.metric} is better. Differences: {tested if methods else 'none can be tested'}.",
            *([found] if (found := scope(result)) else []),
            *explained,
        )
    )
