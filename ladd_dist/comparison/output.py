"""A comparison as data: the schema of `--json`, and the lines of `--csv`. Pure."""

from __future__ import annotations

import math
from typing import Any, TypedDict

from ladd_dist.comparison.result import Comparison, Row
from ladd_dist.comparison.runs import Run
from ladd_dist.comparison.scope import scope
from ladd_dist.comparison.statistics import ALPHA, Called, Difference, Pooled
from ladd_dist.comparison.variants import ABSENT, Value, differing, show


class DifferenceJson(TypedDict):
    """A difference to the best as it was measured, before correction."""

    mean: float
    p: float
    method: str
    pairs: int


class CalledJson(DifferenceJson):
    """The same after Holm's correction: the interval, its level, and whether it leaves zero out."""

    difference: Difference
    level: float
    low: float | None
    high: float | None
    distinguishable: bool


class CountJson(TypedDict):
    """Runs of a variant whose colours are known, and those of them that lost theirs."""

    known: int
    collapsed: int


class OnsetJson(TypedDict):
    """Whether a run's dumps could be read, and the step from which its colours were lost."""

    known: bool
    step: int | None


class FartherJson(TypedDict):
    """An entry that is nearer to real pictures than a variant's students: its mean and theirs."""

    entry: str
    metric: str
    own: float
    theirs: float


class RunJson(TypedDict):
    """One run: `value` is the figure that decides, null while it is unfinished."""

    name: str
    signature: str
    seed: int
    teacher_seed: int
    source: str
    finished: bool
    value: float | None
    collapse: OnsetJson


class PooledJson(TypedDict):
    """A figure over the seeds: mean, 95 % interval and number of seeds."""

    mean: float
    low: float | None
    high: float | None
    n: int


class VariantJson(TypedDict):
    """One variant: `fields` are those that differ between variants, `figures` sampler -> metric -> pooled figure."""

    label: str
    fields: dict[str, Value]
    seeds: list[int]
    finished: int
    figures: dict[str, dict[str, PooledJson]]
    difference: CalledJson | None
    collapse: CountJson
    farther_from_real: list[FartherJson]
    """The untrained student in as many steps and the teacher in as few, where they are nearer to real pictures."""
    runs: list[RunJson]


class ReferenceJson(TypedDict):
    """A row without seeds: the teacher, or the untrained student."""

    entry: str
    variants: list[str]
    figures: dict[str, float]
    difference: DifferenceJson | None


class VerdictJson(TypedDict):
    """Who wins, who cannot be told from the best, and what a reader may take away."""

    winner: str | None
    leaders: list[str]
    sentence: str
    caveat: str


class ComparisonJson(TypedDict):
    """The stable schema of `--json` (docs/cli.md)."""

    format: int
    metric: str
    sampler: str
    better: str
    alpha: float
    correction: str
    over: str
    """What a mean and its interval are over: `seeds` of the distillation on one teacher, or `teachers`."""
    scope: str
    """The same in a sentence; empty where there is no interval."""
    verdict: VerdictJson
    differing: list[str]
    variants: list[VariantJson]
    references: list[ReferenceJson]
    notes: list[str]


def to_json(result: Comparison) -> ComparisonJson:
    """A comparison in the schema of `--json`."""
    return {
        "format": 1,
        "metric": result.metric,
        "sampler": result.sampler,
        "better": result.better,
        "alpha": ALPHA,
        "correction": "holm",
        "over": "teachers" if result.over_teachers else "seeds",
        "scope": scope(result),
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
                "difference": _difference(held) if held else None,
            }
            for item, held in result.references
        ],
        "notes": list(result.notes),
    }


def _row(row: Row, result: Comparison) -> VariantJson:
    paths = differing([other.variant.fields for other in result.rows])
    return {
        "label": row.variant.label,
        "fields": {path: row.variant.fields.get(path) for path in paths},
        "seeds": [run.seed for run in row.variant.runs],
        "finished": row.num_finished,
        "figures": {
            entry: {metric: _pooled(value) for metric, value in metrics.items()}
            for entry, metrics in row.figures.items()
        },
        "difference": None if row.called is None else _called(row.called),
        "collapse": {"known": row.num_known, "collapsed": len(row.collapsed)},
        "farther_from_real": [
            {"entry": item.entry, "metric": item.metric, "own": item.own, "theirs": item.theirs} for item in row.farther
        ],
        "runs": [_run(run, result) for run in row.variant.runs],
    }


def _pooled(value: Pooled) -> PooledJson:
    return {"mean": value.mean, "low": value.low, "high": value.high, "n": value.n}


def _called(item: Called) -> CalledJson:
    return {
        "difference": item.difference,
        "level": item.level,
        "low": item.low,
        "high": item.high,
        "distinguishable": item.distinguishable,
        **_difference(item.difference),
    }


def _difference(item: Difference) -> DifferenceJson:
    return {"mean": item.mean, "p": item.p, "method": item.method, "pairs": item.pairs}


def _run(run: Run, result: Comparison) -> RunJson:
    value = run.figures.get(result.sampler, {}).get(result.metric)
    return {
        "name": run.name,
        "signature": run.signature,
        "seed": run.seed,
        "teacher_seed": run.teacher_seed,
        "source": run.source,
        "finished": run.is_finished,
        "value": value if value is not None and math.isfinite(value) else None,
        "collapse": {"known": run.collapse.known, "step": run.collapse.step},
    }


def to_csv(result: Comparison) -> list[list[Any]]:
    """The lines of `--csv`: the names, then a line for each variant, then one for each reference."""
    keys = [
        (e, m) for e, m in dict.fromkeys((e, m) for row in result.rows for e in row.figures for m in row.figures[e])
    ]
    paths = differing([row.variant.fields for row in result.rows])
    own = [name for e, m in keys for name in (f"{e}/{m}", f"{e}/{m}/low", f"{e}/{m}/high")]
    head = ["kind", "label", "seeds", "finished", *own, "difference", "low", "high", "p", "method"]
    lines: list[list[Any]] = [[*head, "distinguishable", "collapse_known", "collapsed", "nearer_to_real", *paths]]
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
        nearer = " ".join(item.entry for item in row.farther)
        lines.append([*cells, *tail, row.num_known, len(row.collapsed), nearer, *fields])
    for item_, held in result.references:
        cells = ["reference", item_.entry, None, None]
        for entry, metric in keys:
            cells += [item_.figures.get(metric) if entry == result.sampler else None, None, None]
        lines.append([*cells, held.mean if held else None, *[None] * (8 + len(paths))])
    return lines
