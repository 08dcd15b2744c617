"""The stages of a run, in order, and which of them are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ladd_dist.diagnosis.views import write_page
from ladd_dist.evaluation.class_features import is_trained, trained_features
from ladd_dist.metrics.class_features import trained_by
from ladd_dist.recipe import Recipe
from ladd_dist.stages.autoencoder import is_autoencoder_done, train_autoencoder
from ladd_dist.stages.distill import distill, is_distilled
from ladd_dist.stages.evaluate import evaluate, is_evaluated
from ladd_dist.stages.held_out import require_held_out
from ladd_dist.stages.locking import write_lock
from ladd_dist.stages.old_samples import are_old_samples_done, make_old_samples
from ladd_dist.stages.shards import are_shards_done, make_shards
from ladd_dist.stages.teacher import is_teacher_done, train_teacher
from ladd_dist.workspace.config import StageState
from ladd_dist.workspace.run import Run


@dataclass(frozen=True)
class Stage:
    """A stage as `launch` runs it."""

    doc: str
    run: Callable[[Run], Any]
    is_done: Callable[[Run], bool]


def stage_table(recipe: Recipe) -> dict[str, Stage]:
    """Every stage of the recipe, in order."""
    making = "importing the samples of others" if recipe.shards.source else "the teacher makes its samples"
    if recipe.shards.samples == "dataset":
        making = "taking the dataset's pictures as samples"
    teaching = "checking the pretrained teacher" if recipe.network.pretrained else "training the diffusion teacher"
    codec = {"autoencoder": Stage("training the codec", train_autoencoder, is_autoencoder_done)}
    features = {"features": Stage("training the metrics' features on the data", trained_features, is_trained)}
    first = (
        features if trained_by(recipe.evaluate.metrics) else {}
    )  # before all work: the data may have too few pictures
    return (
        first
        | (codec if recipe.codec.trained else {})
        | {
            "teacher": Stage(teaching, train_teacher, is_teacher_done),
            "shards": Stage(making, _make_samples, lambda run: are_shards_done(run) and are_old_samples_done(run)),
            "distill": Stage("training student and heads", distill, is_distilled),
            "evaluate": Stage("sampling and measuring on held-out noise", evaluate, is_evaluated),
            # Never skipped: it takes seconds, and a page older than its figures would lie.
            "report": Stage("writing the page", _report, lambda run: False),
        }
    )


def _make_samples(run: Run) -> None:
    require_held_out(run)  # before any work: what is missing would show in the next stage
    make_shards(run)
    make_old_samples(run)


def _report(run: Run) -> None:
    write_lock(run)  # first: where there is a page, a sweep takes the run for done
    write_page(run)


def stage_states(run: Run) -> tuple[StageState, ...]:
    """Each stage of the run's recipe, and whether it is done."""
    cached = {name: stage.is_done(run) for name, stage in stage_table(run.recipe).items()}
    cached["report"] = run.folder.report.exists()
    return tuple(StageState(name, done) for name, done in cached.items())
