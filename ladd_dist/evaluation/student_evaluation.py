"""Figures of one finished student, by the metrics, samples and levels that the user chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

from ladd_dist.core.run_forms import ClassFigures, Evaluation, HybridRow

if TYPE_CHECKING:
    from ladd_dist.builders.card import StudentCard
    from ladd_dist.builders.sampling import SampleFn
    from ladd_dist.core.types import Denoiser
    from ladd_dist.evaluation.hybrid import Split
    from ladd_dist.recipe import Recipe
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace


class Student(NamedTuple):
    """A student to measure, and the recipe that says against what."""

    network: Denoiser
    card: StudentCard
    recipe: Recipe
    """Recipe of the run with the data and the teacher; its `evaluate` is as the command line says."""
    weights_sha256: str
    splits: tuple[Split, ...]
    """Divisions of the steps between teacher and student that are measured too."""


class StudentIdentity(TypedDict):
    """The student that was measured, and its levels by entry."""

    recipe: str
    signature: str
    weights_sha256: str
    levels: dict[str, list[float]]
    rule: str


class Against(TypedDict):
    """Signatures of the teacher and of the shards against which a student was measured."""

    teacher: str
    shards: str


class EvaluationFile(TypedDict):
    """The contents of RUN/evaluations/SIGNATURE.json, which `ladd evaluate --json` prints."""

    format: int
    signature: str
    student: StudentIdentity
    evaluate: Mapping[str, object]
    """The recipe's `evaluate` as data."""
    against: Against
    versions: Mapping[str, object]
    figures: Evaluation
    classes: ClassFigures
    hybrid: NotRequired[list[HybridRow]]
    """Missing in files of older versions."""


def signature_of(student: Student) -> str:
    """The signature of a student's figures: of its weights and levels, and of all that it is measured against."""
    from ladd_dist.builders.old_conditions import needs_old
    from ladd_dist.builders.student_file import levels_of
    from ladd_dist.core.serialize import signature
    from ladd_dist.evaluation.tuned import tunes

    recipe, card = student.recipe, student.card
    levels = {str(steps): list(levels_of(card, steps)) for steps in recipe.evaluate.steps}
    against = [recipe.reference_signature(), recipe.shards_signature(), recipe.evaluate]
    if tunes(recipe):
        against.append(recipe.old_signature() if needs_old(recipe) else "no old conditions")
    if student.splits:
        against.append([list(split) for split in student.splits])
    return signature("evaluation-2", student.weights_sha256, levels, str(card["rule"]), *against)


def measured(student: Student, name: str, workspace: Workspace) -> EvaluationFile:
    """Measure a student; returns what its file holds.

    Args:
        name: `signature_of` the student.

    Raises:
        UserError: samples are not finite, a metric cannot measure them, or a file of the run is missing.
    """
    from ladd_dist import __version__
    from ladd_dist.builders.student_file import levels_of
    from ladd_dist.builders.teacher import load_teacher
    from ladd_dist.core.serialize import to_data
    from ladd_dist.engine.loop import StopFlag
    from ladd_dist.evaluation.assess import assess
    from ladd_dist.evaluation.hybrid import hybrid_rows
    from ladd_dist.workspace.config import environment
    from ladd_dist.workspace.run import Run

    run = Run(student.recipe, workspace)
    recipe, card = student.recipe, student.card
    levels = {steps: levels_of(card, steps) for steps in recipe.evaluate.steps}
    teacher = load_teacher(run)
    with StopFlag().listen() as stop:
        found = assess(run, teacher, _samplers(student, run, teacher, levels), stop)
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
        "classes": {
            "left_out": found.measured.left_out,
            "entries": found.measured.classes,
            "unfit": dict(found.measured.unfit),
            "networks": found.networks,
        },
        "hybrid": hybrid_rows(student.splits, recipe.shards.guidance),
    }


def _samplers(
    student: Student, run: Run, teacher: Denoiser, levels: dict[int, tuple[float, ...]]
) -> dict[str, SampleFn]:
    """Samplers of the student at each number of steps and, where it was asked for, with the teacher's first steps."""
    from ladd_dist.builders.networks import attach
    from ladd_dist.builders.sampling import sample_few
    from ladd_dist.builders.teacher import guided_teacher
    from ladd_dist.evaluation.hybrid import samplers_of

    network, rule = attach(student.network, run), student.card["rule"]

    def sampler(levels: tuple[float, ...]) -> SampleFn:
        return lambda noise, cond, source: sample_few(network, noise, cond, levels, rule, source)

    samplers = {f"student@{steps}": sampler(values) for steps, values in levels.items()}
    if student.splits:
        guided = guided_teacher(student.recipe, teacher)
        samplers |= samplers_of(student.splits, guided, network, levels, rule)
    return samplers
