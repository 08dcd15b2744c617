"""A comparison: pooled figures, differences to the best, a verdict in one sentence. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ladd_dist.comparison.real import Farther, far_teachers, farther
from ladd_dist.comparison.statistics import ALPHA, Called, Difference, Pooled, difference, difference_to, holm, pool
from ladd_dist.comparison.variants import Variant
from ladd_dist.core.errors import UserError
from ladd_dist.metrics.interval import is_bound
from ladd_dist.reports.verdict import steps_in

Better = Literal["lower", "higher"]
LOWER = ("fd", "kid", "fid", "inception_kid", "clip_", "matched_error", "loss/", "s_per_image", "grad_norm/")
BY_THE_CLOCK = ("s_", "times_faster")
"""Beginnings of names of figures that differ from run to run, whatever is measured."""
ROUNDING = 1e-6
"""Largest difference of two figures, relative or absolute, that are taken for the same one."""
HIDDEN = {"num_samples", "num_seeds", "seed", "timed_turns"}


class Reference(NamedTuple):
    """A row that has no seeds: the teacher, or the untrained student."""

    entry: str
    figures: Mapping[str, float]
    labels: tuple[str, ...]
    """The variants it belongs to, where not all share it."""


class Row(NamedTuple):
    """A variant with its figures (sampler -> metric) and its difference to the best, None for the best itself."""

    variant: Variant
    figures: Mapping[str, Mapping[str, Pooled]]
    called: Called | None
    farther: tuple[Farther, ...] = ()
    """The untrained student in as many steps and the teacher in as few, where they are nearer to real pictures."""

    @property
    def collapsed(self) -> list[tuple[int, int]]:
        """Pairs (seed, step) of the runs that had lost their colours at the end."""
        return [(run.seed, run.collapse.step) for run in self.variant.runs if run.collapse.step is not None]

    @property
    def num_known(self) -> int:
        return sum(run.collapse.known for run in self.variant.runs)

    @property
    def num_finished(self) -> int:
        return sum(run.is_finished for run in self.variant.runs)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison: rows from the best to the worst, those without the figure last, and the verdict."""

    metric: str
    sampler: str
    better: Better
    rows: tuple[Row, ...]
    references: tuple[tuple[Reference, Difference | None], ...]
    winner: str | None
    leaders: tuple[str, ...]
    """The best and all that cannot be told from it."""
    sentence: str
    caveat: str
    """What stands against taking even the best: that the teacher itself does as well in as few steps."""
    notes: tuple[str, ...]

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if self.main(row)), None)

    @property
    def over_teachers(self) -> bool:
        """Whether figures and intervals are over teachers, instead of seeds of the distillation."""
        return any(row.variant.over_teachers for row in self.rows)

    def main(self, row: Row) -> Pooled | None:
        """The deciding figure of a row, None where it was not measured."""
        return row.figures.get(self.sampler, {}).get(self.metric)


def direction(metric: str) -> Better:
    """The better way of a metric: lower for distances, losses and times, higher for everything else."""
    return "lower" if metric.startswith(LOWER) else "higher"


def compare(
    variants: Sequence[Variant], metric: str, sampler: str, *, better: Better | None = None, notes: Sequence[str] = ()
) -> Comparison:
    """Pool seeds, hold every variant against the best, and say who wins.

    Raises:
        UserError: no finished run has this figure; the message lists those there are.
    """
    _check(variants, metric, sampler)
    better = better or direction(metric)
    sign = 1 if better == "lower" else -1
    figures = {variant.label: pooled(variant) for variant in variants}

    def rank(variant: Variant) -> tuple[float, str]:
        mine = figures[variant.label].get(sampler, {}).get(metric)
        return (sign * mine.mean if mine else math.inf, variant.label)

    order = sorted(variants, key=rank)
    measured = [variant for variant in order if variant.values(sampler, metric)]
    best = measured[0].values(sampler, metric)
    called = holm([difference(variant.values(sampler, metric), best) for variant in measured[1:]])
    by_label = {variant.label: item for variant, item in zip(measured[1:], called, strict=True)}
    rows = tuple(
        Row(variant, figures[variant.label], by_label.get(variant.label), farther(variant, sampler))
        for variant in order
    )
    leaders = (measured[0].label, *(label for label, item in by_label.items() if not item.distinguishable))
    held = [(item, _against(item, sampler, metric, best)) for item in references(variants)]
    return Comparison(
        metric=metric,
        sampler=sampler,
        better=better,
        rows=rows,
        references=tuple(held),
        winner=leaders[0] if len(leaders) == 1 and called else None,
        leaders=leaders,
        sentence=_sentence(rows, measured, leaders, metric, sampler),
        caveat=_caveat(held, sampler, measured[0].label, sign),
        notes=(*notes, *far_teachers(order, sampler)),
    )


def _check(variants: Sequence[Variant], metric: str, sampler: str) -> None:
    if any(variant.values(sampler, metric) for variant in variants):
        return
    entries = [entry for variant in variants for run in variant.runs for entry in run.figures.items()]
    if not entries:
        raise UserError("none of these runs is finished: no eval.json has figures yet")
    samplers = sorted({name for name, _ in entries})
    metrics = sorted({key for name, figures in entries if name == sampler for key in figures} - HIDDEN)
    metrics = [key for key in metrics if not is_bound(key)]
    hint = f"metrics of {sampler}: {', '.join(metrics)}" if metrics else f"samplers: {', '.join(samplers)}"
    raise UserError(f"no finished run has the figure {metric!r} of {sampler!r}; {hint}")


def pooled(variant: Variant) -> dict[str, dict[str, Pooled]]:
    """Every figure of a variant's students, pooled over its seeds: sampler -> metric -> figure."""
    keys: dict[str, dict[str, None]] = {}
    for run in variant.runs:
        for entry, figures in run.figures.items():
            if not is_reference(entry):
                keys.setdefault(entry, {}).update(dict.fromkeys(figures))
    result: dict[str, dict[str, Pooled]] = {}
    for entry, metrics in keys.items():
        for metric in metrics:
            if (
                metric not in HIDDEN
                and not is_bound(metric)
                and (values := list(variant.values(entry, metric).values()))
            ):
                result.setdefault(entry, {})[metric] = pool(values)
    return result


def is_reference(entry: str) -> bool:
    """Whether an entry of eval.json does not depend on training: the teacher's, its floor, the untrained student's."""
    return entry.partition("@")[0] in ("teacher", "floor", "untrained")


def references(variants: Sequence[Variant]) -> list[Reference]:
    """The teacher's and the untrained student's rows, once for each set of figures that runs share."""
    found: dict[str, list[tuple[Mapping[str, float], dict[str, None]]]] = {}
    for variant in variants:
        for own in _of_references(variant):
            for entry, figures in own.items():
                if is_reference(entry):
                    sets = found.setdefault(entry, [])
                    shared = next((labels for known, labels in sets if _are_same(known, figures)), None)
                    if shared is None:
                        sets.append((figures, shared := {}))
                    shared[variant.label] = None
    result = [
        Reference(entry, figures, tuple(labels) if len(sets) > 1 else ())
        for entry, sets in found.items()
        for figures, labels in sets
    ]
    return sorted(result, key=lambda item: (_steps(item.entry), item.entry, item.labels))


def _are_same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether figures are equal but for the clock's and for rounding, which differs with the number of threads."""

    def are_close(name: str) -> bool:
        return name in other and math.isclose(one[name], other[name], rel_tol=ROUNDING, abs_tol=ROUNDING)

    own = (name for name in one if not name.startswith(BY_THE_CLOCK))
    others = (name for name in other if not name.startswith(BY_THE_CLOCK))
    return all(map(are_close, own)) and all(name in one for name in others)


def _of_references(variant: Variant) -> list[Mapping[str, Mapping[str, float]]]:
    """The figures of each run, or over teachers their means, from the first run of each."""
    if not variant.over_teachers:
        return [run.figures for run in variant.runs]
    finished = [run for run in reversed(variant.runs) if run.is_finished]
    first = list({run.teacher_seed: run.figures for run in finished}.values())
    entries = dict.fromkeys(entry for figures in first for entry in figures if is_reference(entry))
    means: dict[str, dict[str, float]] = {}
    for entry in entries:
        own = [figures[entry] for figures in first if entry in figures]
        shared = [name for name in own[0] if all(name in figures for figures in own) and not is_bound(name)]
        means[entry] = {name: math.fsum(figures[name] for figures in own) / len(own) for name in shared}
    return [means]


def _steps(entry: str) -> int:
    return -(steps_in(entry.partition("@")[2]) or 0)


def _against(item: Reference, sampler: str, metric: str, best: Mapping[int, float]) -> Difference | None:
    value = item.figures.get(metric)
    return None if value is None or not math.isfinite(value) else difference_to(value, best)


def _sentence(
    rows: Sequence[Row], measured: Sequence[Variant], leaders: Sequence[str], metric: str, sampler: str
) -> str:
    """The sentence that a reader may take away, and no more."""
    what, unit = f"{metric} of {sampler}", "teacher" if measured[0].over_teachers else "seed"
    counts = [len(variant.values(sampler, metric)) for variant in measured]
    called = {row.variant.label: row.called for row in rows if row.called}
    if len(measured) == 1:
        return f"{measured[0].label} is the only variant with figures: there is nothing to compare it with."
    if max(counts) == 1:
        return f"One {unit} each: nothing can be said about {what}. Run every variant with at least three {unit}s."
    if len(leaders) == 1:
        closest = called[measured[1].label]
        assert closest is not None
        gap = f"{_number(abs(closest.difference.mean))} from the next, {measured[1].label}"
        return f"{leaders[0]} wins by {what}: {gap} ({_interval(closest)})."
    single = [v.label for v, count in zip(measured, counts, strict=True) if count == 1 and v.label in leaders]
    if single and (leaders[0] in single or set(leaders[1:]) <= set(single)):
        return f"Not distinguishable by {what}: {_list(single)} {'has' if len(single) == 1 else 'have'} one {unit}."
    if len(leaders) == len(measured):
        return f"Not distinguishable by {what}: no interval of a difference to the best, {leaders[0]}, leaves zero out."
    others = len(measured) - len(leaders)
    rest = "the other is worse" if others == 1 else f"the other {others} are worse"
    return f"Not distinguishable by {what}: {_list(leaders)}; {rest}."


def _caveat(held: Sequence[tuple[Reference, Difference | None]], sampler: str, best: str, sign: int) -> str:
    """A sentence where the best gained nothing over the untrained student or the teacher in as few steps, else "".

    One seed says nothing here either.
    """
    steps = sampler.partition("@")[2]
    own = [(item, gap) for item, gap in held if gap and gap.error is not None and best in (item.labels or (best,))]
    same = [(item, gap) for item, gap in own if item.entry.partition(":")[0].endswith(f"@{steps}")]
    level = [item.entry for item, gap in same if gap.p > ALPHA]
    ahead = [item.entry for item, gap in same if item.entry not in level and sign * gap.mean <= 0]
    texts = [f"{_are(ahead)} better" if ahead else "", f"{_are(level)} not distinguishable from it" if level else ""]
    found = " and ".join(text for text in texts if text)
    return f"But without any training {found}: {best} has gained nothing over that." if found else ""


def _are(entries: Sequence[str]) -> str:
    names = list(dict.fromkeys(entries))
    return f"{_list(names)} {'is' if len(names) == 1 else 'are'}"


def _list(labels: Sequence[str]) -> str:
    shown = [*labels[:4], f"{len(labels) - 4} more"] if len(labels) > 5 else list(labels)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(item: Called) -> str:
    if item.low is None or item.high is None:
        return "no interval"
    ends = sorted((abs(item.low), abs(item.high))) if item.low * item.high > 0 else [item.low, item.high]
    return f"{100 * item.level:.4g} % interval {_number(ends[0])} to {_number(ends[1])}, {item.difference.method}"
