"""The prediction of `ladd diagnose` as sentences and cells, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ladd_dist.reports.json_object import JsonObject, Values, number
from ladd_dist.reports.run_files import Figures
from ladd_dist.reports.verdict import VARIANCE_COLLAPSED, VARIANCE_HEALTHY, best_teacher, share

COLUMNS = ("level", "averaged", "colour var", "share", "in class", "weight", "verdict")
MEANINGS = (
    "averaged: how many stored samples the best answer is the mean of; share: its colour variance as a share of the "
    "samples' own; in class: the same within the classes, over all and from the least to the most of one, by which the "
    "verdict goes; *: no level of the training; fd_teacher: Frechet distance to the "
    "stored samples."
)
REMEMBERS = (
    "Held-out noise belongs to no stored pair, and what the distance asks for there is not defined: these are the "
    "samples of the nearest pairs, which a student that only remembers would give. A student that generalises can do "
    "better."
)


REGRESSES, DULLS, KEEPS = "regresses to the mean", "dulls", "keeps"


class LevelOptimum(NamedTuple):
    """The best answer to the distance at one noise level."""

    sigma: float
    averaged: float
    """How many stored samples it is the mean of."""
    share: float
    """Its variance as a share of the samples' own."""
    in_class: float | None
    """The same within classes, by which the verdict goes; None in files of earlier versions."""
    by_class: tuple[float, ...]
    """The same within each class."""
    figures: Values
    verdict: str
    trained: bool
    """Whether the student is trained at this level."""


class SampledOptimum(NamedTuple):
    """Samples of a student that always gives the best answer: its levels and the samples' figures."""

    levels: tuple[float, ...]
    figures: Values


class Suggestion(NamedTuple):
    """A change to the recipe, its reason, and the flags of `launch` that make it."""

    what: str
    why: str
    flags: str


class Optimum(NamedTuple):
    """The contents of diagnose.json."""

    num_pairs: int
    deterministic: bool
    """Whether each input belongs to one stored sample, so that nothing is averaged."""
    levels: list[LevelOptimum]
    samples: dict[str, SampledOptimum]
    advice: list[Suggestion]

    @classmethod
    def of(cls, data: JsonObject) -> Optimum:
        """The prediction in an object as diagnose.json holds it."""
        levels = [
            LevelOptimum(
                row.number("sigma") or 0.0,
                row.number("averaged") or 0.0,
                row.number("share") or 0.0,
                row.number("in_class"),
                tuple(value for value in row.part("classes").values().values() if value is not None),
                row.values(),
                row.text("verdict"),
                bool(row.fields.get("trained")),
            )
            for row in data.listed("levels")
        ]
        samples = {
            name: SampledOptimum(row.numbers("levels"), row.values())
            for name, row in data.part("samples").parts().items()
        }
        advice = [Suggestion(item.text("what"), item.text("why"), item.text("flags")) for item in data.listed("advice")]
        return cls(data.whole("num_pairs") or 0, bool(data.fields.get("deterministic")), levels, samples, advice)


def headline(optimum: Optimum) -> str:
    """The levels at which the distance regresses to the mean, in one sentence."""
    bad = [f"{row.sigma:g}" for row in optimum.levels if row.verdict == REGRESSES and row.trained]
    if optimum.deterministic:
        return "each input belongs to one sample; the distance averages nothing"
    if not bad:
        return "the distance keeps the samples apart at every trained level"
    return f"the distance regresses to the mean at level{'s' if len(bad) > 1 else ''} {', '.join(bad)}"


def level_rows(optimum: Optimum) -> list[tuple[str, ...]]:
    """A row of cells (`COLUMNS`) for each level, highest noise first."""
    rows: list[tuple[str, ...]] = []
    for row in optimum.levels:
        within = "-" if row.in_class is None else f"{row.in_class:.2f}"
        if row.by_class:
            within += f" ({min(row.by_class):.2f}-{max(row.by_class):.2f})"
        name = f"{row.sigma:.4g}" + ("" if row.trained else " *")
        rows.append((
            name, f"{row.averaged:.1f}", _cell(row.figures, "colour_variance", ".4f"), f"{row.share:.2f}", within,
            _cell(row.figures, "weight", ".2g"), row.verdict,
        ))  # fmt: skip
    return rows


def sample_rows(optimum: Optimum, evaluation: Figures) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells of the samples, beside the trained student's where `eval.json` is known."""
    header: tuple[str, ...] = ("sampled", "levels", "share", "in class", "hues", "fd_teacher")
    trained = {key.partition("@")[2]: value for key, value in evaluation.items() if key.startswith("student@")}
    if trained:
        header += ("trained share", "trained fd_teacher")
    rows = []
    for key, row in optimum.samples.items():
        levels = ", ".join(f"{level:.3g}" for level in row.levels)
        name = key.replace("optimum", "nearest pair") if optimum.deterministic else key
        cells = [name, levels, _cell(row.figures, "share", ".2f"), _cell(row.figures, "in_class", ".2f")]
        cells += [_cell(row.figures, "hue_entropy", ".2f"), _cell(row.figures, "fd_teacher", ".2f")]
        if trained:
            own = trained.get(key.partition("@")[2], {})
            cells += [_trained_share(evaluation, key), _cell(own, "fd_teacher", ".2f")]
        rows.append(tuple(cells))
    return header, rows


def _trained_share(evaluation: Figures, key: str) -> str:
    teacher, student = best_teacher(evaluation), f"student@{key.partition('@')[2]}"
    found = share(evaluation, student, teacher, "colour_variance") if teacher and student in evaluation else None
    return "-" if found is None else f"{found:.2f}"


def _cell(row: Mapping[str, object], key: str, form: str) -> str:
    value = number(row, key)
    return "-" if value is None else format(value, form)


def verdict_of(share: float) -> str:
    """The words for a share of the samples' variance, by the thresholds of a run's verdict."""
    return REGRESSES if share < VARIANCE_COLLAPSED else DULLS if share < VARIANCE_HEALTHY else KEEPS
