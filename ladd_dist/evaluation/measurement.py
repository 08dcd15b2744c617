"""All metrics on all sets of samples: as a whole, class by class, and the floor that sampling noise sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ladd_dist.metrics import Metric, References, Samples
from ladd_dist.metrics.interval import HIGH, LOW, is_bound

Figures = dict[str, float]


class Measured(NamedTuple):
    """Figures of several sets of samples (entries)."""

    figures: dict[str, Figures]
    """Entry -> figure -> value."""
    classes: dict[str, dict[str, Figures]]
    """Entry -> class -> figure -> value."""
    left_out: dict[str, str]
    """Reasons, by metric without figures by class and by figure that is not measured at all."""
    unfit: Mapping[str, str] = MappingProxyType({})
    """Reasons, by metric that was left out because it was made for other images."""
    features: Mapping[str, str] = MappingProxyType({})
    """Name of the features that each figure was measured in; figures without any are absent."""

    def joined(self, other: Measured) -> Measured:
        """Figures of both."""
        return Measured(
            self.figures | other.figures,
            self.classes | other.classes,
            self.left_out | other.left_out,
            features={**self.features, **other.features},
        )


class Measurement:
    """Metrics built before there are samples: a missing file, or images that they cannot measure, is reported early."""

    def __init__(self, metrics: Sequence[Metric], references: References) -> None:
        self.metrics, self.references = metrics, references
        self.whole = [metric.build(references=references) for metric in metrics]

    def without(self, name: str) -> Measurement:
        """The same measurement without a metric."""
        found = copy.copy(self)
        kept = [pair for pair in zip(self.metrics, self.whole, strict=True) if pair[0].name != name]
        found.metrics, found.whole = [metric for metric, _ in kept], [whole for _, whole in kept]
        return found

    def __call__(
        self, entries: Mapping[str, Samples], *, num_classes: int, check: Callable[[], None] = lambda: None
    ) -> Measured:
        """Measure each entry against the references.

        Args:
            num_classes: classes are 0 to num_classes - 1; 0: no figures by class.
            check: called between metrics and entries; raises to stop.

        Raises:
            ValueError: a metric cannot measure these images.
        """
        features: dict[str, str] = {}
        found = Measured({name: {} for name in entries}, {name: {} for name in entries}, {}, features=features)
        for metric, whole in zip(self.metrics, self.whole, strict=True):
            for name, samples in entries.items():
                check()
                own = whole(samples)
                found.figures[name].update(own)
                if space := metric.space(samples):
                    features |= {figure: space for figure in own if not is_bound(figure)}
            reason = why_not_by_class(metric, (*entries.values(), *self.references[:2]), num_classes)
            if reason:
                found.left_out[metric.name] = reason
                continue
            for number in range(num_classes):
                check()
                alone = metric.build(references=self.references.of_class(number))
                for name, samples in entries.items():
                    found.classes[name].setdefault(str(number), {}).update(alone(samples.of_class(number)))
        return found


def why_not_by_class(metric: Metric, sets: Sequence[Samples], num_classes: int) -> str:
    """The reason that a metric has no figures by class; empty if it has some."""
    needed = metric.needs()
    if not num_classes or not needed:
        return "it is not measured class by class"
    fewest, number = min(
        (int((samples.cond == number).sum()), number) for samples in sets for number in range(num_classes)
    )
    return f"class {number} has {fewest} samples in one of the sets, it needs {needed}" if fewest < needed else ""


def floor(
    metrics: Sequence[Metric], teacher: Samples, references: References, *, check: Callable[[], None] = lambda: None
) -> Figures:
    """Figures of new samples of the teacher against its stored ones: the best that a finite number of samples allows.

    Figures to real images are left out: their floor is that of other real images (`reports.distances.FLOOR`).
    """
    against = References(real=references.teacher, teacher=references.teacher, matched=teacher)
    found = Measurement(metrics, against)({"floor": teacher}, num_classes=0, check=check).figures["floor"]
    return _kept(found, _names_of_real(metrics))


def without_real(metrics: Sequence[Metric], found: Measured) -> Measured:
    """The figures without those that compare with real images, for a dataset that has none; `left_out` names them."""
    names = _names_of_real(metrics)
    return found._replace(
        figures={entry: _kept(figures, names) for entry, figures in found.figures.items()},
        classes={
            entry: {number: _kept(own, names) for number, own in of.items()} for entry, of in found.classes.items()
        },
        left_out=found.left_out | dict.fromkeys(names, "it compares with real images, and the dataset has none"),
    )


def _names_of_real(metrics: Sequence[Metric]) -> list[str]:
    """The names of all figures that compare with real images."""
    return [name for metric in metrics for name in metric.of_real()]


def _kept(figures: Figures, gone: Sequence[str]) -> Figures:
    """The figures without some, and without the bounds of their intervals."""
    names = {f"{name}{end}" for name in gone for end in ("", LOW, HIGH)}
    return {name: value for name, value in figures.items() if name not in names}
