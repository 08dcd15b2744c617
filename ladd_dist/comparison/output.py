"""A comparison as data: the schema of `--json`, and the lines of `--csv`. Pure."""

from __future__ import annotations

import math
from typing import Any

from ladd_dist.comparison.result import Comparison, Row
from ladd_dist.comparison.runs import Run
from ladd_dist.comparison.statistics import ALPHA, Difference
from ladd_dist.comparison.variants import ABSENT, differing, show


def to_json(result: Comparison) -> dict[str, Any]:
    """The stable schema of `--json` (docs/cli.md)."""
    return {
        "format": 1,
        "metric": result.metric,
        "sampler": result.sampler,
        "better": result.better,
        "alpha": ALPHA,
        "correction": "holm",
        "verdict": {
            "winner": result.winner,
            "leaders": list(result.leaders),
            "sentence": result.sentence,
            "caveat": result.caveat,
        },
        "differing": differing([row.variant.fields for row in result.rows]),
        "variants": [_row(row, result) for row in result.rows],
        "references": [
            {
                "entry": item.entry,
                "variants": list(item.labels),
                "figures": dict(item.figures),
                "difference": _difference(held),
            }
            for item, held in result.references
        ],
        "notes": list(result.notes),
    }


def _row(row: Row, result: Comparison) -> dict[str, Any]:
    paths = differing([other.variant.fields for other in result.rows])
    called = row.called
    corrected = {} if called is None else called._asdict()
    return {
        "label": row.variant.label,
        "fields": {path: row.variant.fields.get(path) for path in paths},
        "seeds": [run.seed for run in row.variant.runs],
        "finished": row.num_finished,
        "figures": {
            entry: {metric: value._asdict() for metric, value in metrics.items()}
            for entry, metrics in row.figures.items()
        },
        "difference": None if called is None else {**corrected, **(_difference(called.difference) or {})},
        "collapse": {"known": row.num_known, "collapsed": len(row.collapsed)},
        "runs": [_run(run, result) for run in row.variant.runs],
    }


def _difference(item: Difference | None) -> dict[str, Any] | None:
    return None if item is None else {"mean": item.mean, "p": item.p, "method": item.method, "pairs": item.pairs}


def _run(run: Run, result: Comparison) -> dict[str, Any]:
    value = run.figures.get(result.sampler, {}).get(result.metric)
    return {
        "name": run.name,
        "signature": run.signature,
        "seed": run.seed,
        "source": run.source,
        "finished": run.is_finished,
        "value": value if value is not None and math.isfinite(value) else None,
        "collapse": {"known": run.collapse.known, "step": run.collapse.step},
    }


def to_csv(result: Comparison) -> list[list[Any]]:
    """One line a variant, then one a reference; the first line has the names."""
    keys = [
        (e, m) for e, m in dict.fromkeys((e, m) for row in result.rows for e in row.figures for m in row.figures[e])
    ]
    paths = differing([row.variant.fields for row in result.rows])
    own = [name for e, m in keys for name in (f"{e}/{m}", f"{e}/{m}/low", f"{e}/{m}/high")]
    head = ["kind", "label", "seeds", "finished", *own, "difference", "low", "high", "p", "method"]
    lines: list[list[Any]] = [[*head, "distinguishable", "collapse_known", "collapsed", *paths]]
    for row in result.rows:
        cells: list[Any] = ["variant", row.variant.label, len(row.variant.runs), row.num_finished]
        for entry, metric in keys:
            value = row.figures.get(entry, {}).get(metric)
            cells += [value.mean, value.low, value.high] if value else [None] * 3
        item = row.called
        tail = [None] * 6
        if item is not None:
            gap = item.difference
            tail = [gap.mean, item.low, item.high, gap.p, gap.method, item.distinguishable]  # type: ignore[list-item]
        fields = [show(row.variant.fields.get(path, ABSENT)) for path in paths]
        lines.append([*cells, *tail, row.num_known, len(row.collapsed), *fields])
    for item_, held in result.references:
        cells = ["reference", item_.entry, None, None]
        for entry, metric in keys:
            cells += [item_.figures.get(metric) if entry == result.sampler else None, None, None]
        lines.append([*cells, held.mean if held else None, *[None] * (7 + len(paths))])
    return lines
