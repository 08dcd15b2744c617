"""Figures of one finished student, by the metrics, samples and levels that the user chose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ladd_dist.core.types import Denoiser
    from ladd_dist.evaluation.hybrid import Split
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.workspace import Workspace


class Student(NamedTuple):
    """What is measured, and against what."""

    network: Denoiser
    card: dict[str, Any]
    recipe: Recipe
    """Of the run whose data and teacher serve, with what the command line says of the evaluation."""
    weights_sha256: str
    splits: tuple[Split, ...]
    """Of the student's steps between the teacher and the student."""


def signature_of(student: Student) -> str:
    """Identifies the figures: the student's weights and levels, and all that they are measured against."""
    from ladd_dist.builders.student_file import levels_of
    from ladd_dist.core.serialize import signature

    recipe, card = student.recipe, student.card
    levels = {str(steps): list(levels_of(card, steps)) for steps in recipe.evaluate.steps}
    against = [recipe.reference_signature(), recipe.shards_signature(), recipe.evaluate]
    if student.splits:
        against.append([list(split) for split in student.splits])
    return signature("evaluation-1", student.weights_sha256, levels, str(card["rule"]), *against)


def measured(student: Student, name: str, workspace: Workspace) -> dict[str, Any]:
    """What the file says: settings, figures, figures by class, versions."""
    from ladd_dist import __version__
    from ladd_dist.builders.networks import attach
    from ladd_dist.builders.sampling import sample_few
    from ladd_dist.builders.student_file import levels_of
    from ladd_dist.builders.teacher import guided_teacher, load_teacher
    from ladd_dist.core.serialize import to_data
    from ladd_dist.engine.loop import StopFlag
    from ladd_dist.evaluation.assess import SampleFn, assess
    from ladd_dist.evaluation.hybrid import rows_of, samplers_of
    from ladd_dist.workspace.config import environment
    from ladd_dist.workspace.run import Run

    run = Run(student.recipe, workspace)
    recipe, card, seed = student.recipe, student.card, student.recipe.evaluate.seed

    network = attach(student.network, run)

    def way(levels: tuple[float, ...]) -> SampleFn:
        return lambda noise, cond: sample_few(network, noise, cond, levels, card["rule"], seed)

    levels = {steps: levels_of(card, steps) for steps in recipe.evaluate.steps}
    ways = {f"student@{steps}": way(values) for steps, values in levels.items()}
    if student.splits:
        teacher = guided_teacher(recipe, load_teacher(run))
        ways |= samplers_of(student.splits, teacher, network, levels, card["rule"], seed)
    with StopFlag().listen() as stop:
        found = assess(run, ways, stop).measured
    return {
        "format": 1,
        "signature": name,
        "student": {
            "recipe": card["recipe"],
            "signature": card["signature"],
            "weights_sha256": student.weights_sha256,
            "levels": {f"student@{steps}": list(values) for steps, values in levels.items()},
            "rule": card["rule"],
        },
        "evaluate": to_data(recipe.evaluate),
        "against": {"teacher": recipe.teacher_signature(), "shards": recipe.shards_signature()},
        "versions": {"ladd_dist": __version__, **environment(workspace.device)},
        "figures": found.figures,
        "classes": {"left_out": found.left_out, "entries": found.classes},
        "hybrid": rows_of(student.splits, recipe.shards.guidance),
    }
