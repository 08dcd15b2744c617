"""The schema of diagnose.json, as typed dictionaries: a figure that the data do not have is absent from the file."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from ladd_dist.diagnosis.sample_metrics import SampleFigures


class LevelFigures(TypedDict):
    """The L2-optimal student at one noise level."""

    sigma: float
    weight: float | None
    """The distance's own weight of this level, where it has one."""
    spread: float
    """Standard deviation of the inputs that the coupling makes of one pair; 0: each pair has a single input."""
    averaged: float
    """Mean effective number of stored samples that the optimum averages."""
    kept: float
    """Share of the samples' variance within their class that the optimum explains."""
    share: float
    """Colour variance of the optimum over that of the samples; `kept` where `measure` says so."""
    in_class: float
    """The part of the variance that is left within classes, which the verdict judges: of colour, or `kept`."""
    classes: dict[str, float]
    """`share` within each class."""
    colour_variance: NotRequired[float]
    verdict: str


class LevelRow(LevelFigures):
    """The optimum at one of the recipe's levels, and whether the student is trained there."""

    trained: bool


class OptimumFigures(SampleFigures):
    """Samples of the L2-optimal student from held-out noise, by the student's rule."""

    levels: list[float]
    num_samples: int


class FoundLevels(SampleFigures):
    """Levels that a search found for as many steps as the student has, and the optimum's figures with them."""

    levels: list[float]


class Advice(TypedDict):
    """A change of the recipe, its reason, and the flags of `launch` that make it (empty: there is nothing to set)."""

    what: str
    why: str
    flags: str


class Findings(TypedDict):
    """The L2-optimal student of a recipe over its stored samples."""

    format: int
    recipe: str
    signature: str
    shards: str
    start: str
    rule: str
    distance: str
    num_pairs: int
    num_stored: int
    deterministic: bool
    """Whether each input belongs to one stored sample at every level, so that nothing is averaged."""
    measure: str
    """The figure that is compared: `colour_variance`, or `kept` for latents and where no class has several colours."""
    stored: SampleFigures
    levels: list[LevelRow]
    samples: dict[str, OptimumFigures]
    threshold: float | None
    """The level above which the optimum keeps less than half of the variance; None: nowhere."""
    reproduced: float | None
    """Mean square error of the optimum's samples from stored noise; None for couplings with new noise."""
    found_levels: FoundLevels | None


class Diagnosis(Findings):
    """The contents of diagnose.json: the findings, and the advice that follows from them."""

    advice: list[Advice]
