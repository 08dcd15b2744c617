"""compare.html: one file that needs no network. Table, curves and grids are drawn by a small script from data in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from ladd_dist.comparison import terminal
from ladd_dist.comparison.curve_names import Named, first, named
from ladd_dist.comparison.curves import MAX_POINTS, bands, is_binned
from ladd_dist.comparison.pictures import MAX_GRIDS, pictures
from ladd_dist.comparison.result import Comparison, Row, direction
from ladd_dist.comparison.statistics import Pooled
from ladd_dist.comparison.variants import ABSENT, differing, show
from ladd_dist.core.rundir import write_bytes
from ladd_dist.reports.details import figure_title
from ladd_dist.reports.html import render
from ladd_dist.reports.table import entry_title, figure

MAX_CURVES = 60
"""Variants whose curves the page holds, best first."""
MAX_NUMBERS = 600_000
"""In all curves together, about four megabytes: beyond it, curves get fewer points."""
MAX_ROWS = 60_000
"""Logged steps read for all curves together: beyond three hundred runs each has fewer than a curve has points."""
FEWEST_POINTS = 40
MAX_NAMED, MAX_CHARACTERS = 4, 120
"""Variants, and characters of all their labels, that the title names."""
HERE = Path(__file__).parent


Cell = list[float | str | None]
"""The key that a column is sorted by, the text, and small text below it."""
Cells = list[Cell]
Columns = Sequence[tuple[str, str, str]]


class Heading(TypedDict, total=False):
    """A column of the table: its title, small text below it, which way is better, and whether it holds numbers."""

    title: str
    small: str
    better: str
    number: bool


class Curves(TypedDict):
    """The curves of all variants.

    `steps` holds the lists of steps there are; `metrics` maps a name to a list for each variant that logged it: the
    variant's index, the index of its steps, mean, lowest and highest seed; the last two are left out for one seed.
    """

    steps: list[tuple[float, ...]]
    metrics: dict[str, list[list[int | list[float]]]]
    names: dict[str, Named]
    """Name and unit of each metric."""
    first: list[str]
    """Metrics that are shown at once; all others are folded."""


class PageData(TypedDict):
    """What compare.js draws from, as JSON in the page."""

    head: list[Heading]
    rows: list[Cells]
    references: list[Cells]
    runs: list[list[float | str | None]]
    curves: Curves
    labels: list[str]
    leaders: int


def write_page(path: Path, result: Comparison) -> Path:
    """Write the page and return its path."""
    from markupsafe import Markup

    script = (HERE / "compare.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "result": result,
        "heading": heading(result),
        "deciding": f"{figure_title(result.metric)} ({result.metric}) of the {entry_title(result.sampler).lower()}",
        "level": "winner" if result.winner and not result.caveat else "open",
        "caption": terminal.caption(result),
        "num_runs": sum(len(row.variant.runs) for row in result.rows),
        "num_seeds": len({run.seed for row in result.rows for run in row.variant.runs}),
        "pictures": pictures(result),
        "max_grids": MAX_GRIDS,
        "tunes": all(run.is_tuning for row in result.rows for run in row.variant.runs),
        "knows_collapse": terminal.knows_collapse(result),
        "max_curves": MAX_CURVES,
        "fields": _fields(result.rows),
        "script": Markup(script),
        "script_hash": Markup(digest),
        "data": Markup(_embedded(data(result))),
    }
    write_bytes(path, render(HERE / "compare.html", values).encode())
    return path


def heading(result: Comparison) -> str:
    """What is compared, as the page's title: the variants by name where they are few, else what they differ in."""
    labels = [row.variant.label for row in result.rows]
    if len(labels) <= MAX_NAMED and sum(map(len, labels)) <= MAX_CHARACTERS:
        return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]} compared"
    paths = differing([row.variant.fields for row in result.rows])
    named = sorted({row.variant.runs[0].name for row in result.rows})
    of = f" of {named[0]}" if len(named) == 1 else f" of {len(named)} recipes"
    more = f" and {len(paths) - MAX_NAMED} more fields" if len(paths) > MAX_NAMED else ""
    return f"{len(labels)} variants{of} compared, by {', '.join(paths[:MAX_NAMED])}{more}"


def _embedded(value: object) -> str:
    """JSON that cannot end the element it stands in, whatever a recipe is called."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub(
        r"[<>&\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text
    )


def data(result: Comparison) -> PageData:
    """The data that the script draws from: tables of cells, curves, runs."""
    columns = _columns(result)
    figures: list[Heading] = [
        {"title": figure_title(metric), "small": f"{metric}, {entry}", "better": way, "number": True}
        for entry, metric, way in columns
    ]
    collapsed: list[Heading] = [{"title": "Collapsed from", "number": True}] if terminal.knows_collapse(result) else []
    away: list[Heading] = [{"title": "From real"}] if terminal.leads_away(result) else []
    head: list[Heading] = [
        {"title": "Variant"},
        {"title": "Seeds", "number": True},
        figures[0],
        {"title": "Minus best", "small": "interval by Holm", "number": True},
        {"title": "Called"},
        *collapsed,
        *away,
        *figures[1:],
    ]
    return {
        "head": head,
        "rows": [_row(row, result, columns) for row in result.rows],
        "references": [_reference(result, index, columns) for index in range(len(result.references))],
        "runs": _runs(result),
        "curves": _curves(result.rows[:MAX_CURVES], result.sampler.partition("@")[2]),
        "labels": [row.variant.label for row in result.rows],
        "leaders": len(result.leaders),
    }


def _columns(result: Comparison) -> list[tuple[str, str, str]]:
    """Columns (sampler, metric, way) of the table: the one that decides first, then all others."""
    first = terminal.columns(result)
    there = dict.fromkeys((entry, key) for row in result.rows for entry, group in row.figures.items() for key in group)
    order = [*first, *(pair for pair in there if pair not in first and pair[0] == result.sampler)]
    return [(e, m, result.better if m == result.metric else direction(m)) for e, m in order]


def _row(row: Row, result: Comparison, columns: Columns) -> Cells:
    cells: Cells = [[row.variant.label.lower(), row.variant.label], [row.num_finished, terminal.seeds(row)]]
    figures = [_figure(row.figures.get(entry, {}).get(metric)) for entry, metric, _ in columns]
    gap = row.called.difference.mean if row.called else (0.0 if result.main(row) else None)
    called = terminal.called(row, result)
    onset = min((step for _, step in row.collapsed), default=None)
    told: Cells = [[gap, terminal.gap(row, result)], [called, called]]
    told += [[onset, terminal.collapse(row)]] if terminal.knows_collapse(result) else []
    told += [[terminal.beside_real(row), terminal.beside_real(row)]] if terminal.leads_away(result) else []
    return [*cells, figures[0], *told, *figures[1:]]


def _figure(value: Pooled | None) -> Cell:
    if value is None:
        return [None, terminal.NONE]
    half = "" if value.high is None else f"±{figure(value.high - value.mean)}"
    return [value.mean, figure(value.mean), half]


def _reference(result: Comparison, index: int, columns: Columns) -> Cells:
    item, held = result.references[index]
    of = f", of {', '.join(item.labels[:3])}" if item.labels else ""
    cells: Cells = [[item.entry, entry_title(item.entry), item.entry + of], [None, ""]]
    figures: Cells = []
    for entry, metric, _ in columns:
        value = item.figures.get(metric) if entry == result.sampler else None
        figures.append([None, ""] if value is None else [value, figure(value)])
    gap = [held.mean if held else None, terminal.against(held)]
    blank: Cells = [["", ""]]
    blank += [[None, ""]] if terminal.knows_collapse(result) else []
    blank += [["", ""]] if terminal.leads_away(result) else []
    return [*cells, figures[0], gap, *blank, *figures[1:]]


def _runs(result: Comparison) -> list[list[float | str | None]]:
    """A list [variant, seed, figure, collapsed from, finished, source] for each run, made a table when asked."""
    lines: list[list[float | str | None]] = []
    for index, row in enumerate(result.rows):
        for run in row.variant.runs:
            value = run.figures.get(result.sampler, {}).get(result.metric)
            known = (
                run.collapse.step if run.collapse.step is not None else ("none" if run.collapse.known else "unknown")
            )
            shown = float(f"{value:.6g}") if value is not None and abs(value) < float("inf") else None
            lines.append([index, run.seed, shown, known, run.is_finished, run.source])
    return lines


def _curves(rows: Sequence[Row], steps_that_decide: str) -> Curves:
    runs = [run for row in rows for run in row.variant.runs]
    at_most = max(FEWEST_POINTS, MAX_ROWS // len(runs))
    last = next((logged[-1] for run in runs if (logged := run.rows(at_most))), {})
    keys = max(1, sum(not is_binned(key) for key in last))
    points = max(FEWEST_POINTS, min(MAX_POINTS, MAX_NUMBERS // (3 * keys * max(1, len(rows)))))
    steps: dict[tuple[float, ...], int] = {}
    found: dict[str, list[list[int | list[float]]]] = {}
    for index, row in enumerate(rows):
        for key, band in bands(row.variant, points, at_most).items():
            number = steps.setdefault(tuple(band.steps), len(steps))
            spread = [] if band.low == band.high else [band.low, band.high]
            found.setdefault(key, []).append([index, number, band.mean, *spread])
    shown = first(found, steps_that_decide)
    order = [*shown, *sorted(found.keys() - set(shown), key=_importance)]
    return {
        "steps": list(steps),
        "metrics": {key: found[key] for key in order},
        "names": {key: named(key) for key in order},
        "first": shown,
    }


def _importance(key: str) -> tuple[int, str]:
    order = ("loss/distill", "loss/", "accuracy", "logit_gap", "guard/", "grad_norm/", "weight/", "rate/")
    of_all = (
        "accuracy/real",
        "accuracy/fake",
        "accuracy/mismatched",
        "guard/",
    )  # one head's figures come after those of all
    whole = key.startswith(of_all) or not key.startswith(("accuracy/", "gap/", "logit_gap/", "grad_share/"))
    whole &= key.count("/") < 2 or key.startswith("guard/")
    return next((i for i, start in enumerate(order) if key.startswith(start)), len(order)) + 10 * (not whole), key


def _fields(rows: Sequence[Row]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The paths at which the recipes differ, and the values of each variant there."""
    paths = differing([row.variant.fields for row in rows])
    return paths, [(row.variant.label, [show(row.variant.fields.get(path, ABSENT)) for path in paths]) for row in rows]
