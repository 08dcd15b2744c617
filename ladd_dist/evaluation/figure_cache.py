"""The teacher's figures, kept in the cache: every run with the same teacher, samples and metrics has the same ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import ladd_dist.metrics
from ladd_dist.core.class_net import TrainedFeatures
from ladd_dist.core.door import read_typed
from ladd_dist.core.rundir import write_json
from ladd_dist.core.serialize import signature, to_data
from ladd_dist.evaluation.feature_cache import READ_ONLY
from ladd_dist.evaluation.measurement import Figures, Measured
from ladd_dist.recipe.fitting import fitting_metrics
from ladd_dist.recipe.plugin_sources import sources
from ladd_dist.workspace.run import Run


class _Kept(TypedDict):
    """The content of a file of the cache; see `Measured`."""

    figures: dict[str, Figures]
    classes: dict[str, dict[str, Figures]]
    left_out: dict[str, str]
    features: dict[str, str]


def cached_figures(run: Run, measure: Callable[[], Measured], trained: TrainedFeatures | None = None) -> Measured:
    """The teacher's figures on the noise of `evaluate.seed`, from the cache or by `measure`; a collective call.

    Args:
        trained: the feature network that was trained on the data, whose weights the figures depend on.
    """
    path = run.workspace.cache / "figures" / f"{figures_signature(run, trained)}.json"
    known = run.ranks.from_rank0(lambda: read_typed(path, _Kept) if path.exists() else None)
    if known is not None:
        return Measured(**known)
    found = measure()
    if run.ranks.is_first:
        try:
            told = found._asdict() | {"features": dict(found.features)}
            write_json(path, {name: told[name] for name in _Kept.__annotations__})
        except OSError as error:
            if error.errno not in READ_ONLY:  # a cache that somebody else owns is read only
                raise
    return found


def figures_signature(run: Run, trained: TrainedFeatures | None = None) -> str:
    """The signature of the teacher's figures: of its samples, the references, the metrics, their code and weights."""
    recipe, settings = run.recipe, run.recipe.evaluate
    metrics = [[to_data(metric, neutral=False), sources(type(metric))] for metric in fitting_metrics(recipe)]
    against = [recipe.with_teacher_samples().shards_signature(), settings.num_references]
    weights = [trained.sha256] if trained else []
    made = [recipe.reference_signature(), against, metrics, _code_of_metrics(), *weights]
    return signature("teacher-figures-3", *made)


@functools.cache
def _code_of_metrics() -> str:
    """sha256 of the files that all metrics share: a figure of earlier code must not stand beside one of new code."""
    digest = hashlib.sha256()
    for path in sorted(Path(ladd_dist.metrics.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
