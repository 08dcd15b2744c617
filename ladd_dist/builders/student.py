"""The student as a network and as a file: student.safetensors holds the weights that its form keeps, and a card."""

from __future__ import annotations

import json
from pathlib import Path

from ladd_dist.builders.card import REMEDY, StudentCard
from ladd_dist.builders.codec import codec_card, packed, trained_weights
from ladd_dist.builders.condition_names import class_names
from ladd_dist.builders.networks import adapter_weights, load_network, own_weights
from ladd_dist.builders.origin import names_to_keep
from ladd_dist.builders.teacher import load_start, load_teacher
from ladd_dist.core.budget import at_most
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.serialize import to_data
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import Denoiser
from ladd_dist.workspace.run import Run


def new_student(run: Run) -> Denoiser:
    """The student before training: a copy of the teacher, or of another start, in the recipe's form.

    Raises:
        UserError: weights are missing or do not fit.
    """
    return run.recipe.student.prepare(load_start(run, load_teacher(run)))


def save_student(path: Path, network: Denoiser, run: Run, *, step: int | None = None) -> None:
    """Write the student with its card, and the codec that was trained for it.

    Args:
        network: in the recipe's form, as `new_student` returns it.
        step: the step that an early stop keeps; None: the last one of the recipe.
    """
    recipe = run.recipe
    levels = {str(steps): list(recipe.levels(steps)) for steps in recipe.evaluate.steps}
    card: StudentCard = {
        "network": to_data(recipe.network),
        "image": to_data(recipe.latent()),
        "levels": levels,
        "law": to_data(recipe.levels),
        "rule": recipe.start.rule,
        "recipe": recipe.name,
        "signature": recipe.distill_signature(),
    }
    if names := names_to_keep(class_names(recipe)):
        card["class_names"] = names
    if not recipe.network.pretrained:
        card["base"] = {"signature": recipe.teacher_signature(), "dataset": recipe.dataset.name}
    if step is not None:
        card["step"] = step
    if codec := codec_card(recipe):
        card["codec"], card["pixels"], card["space"] = codec["codec"], codec["pixels"], codec["space"]
    kept = recipe.student.weights(network)
    if recipe.student.needs_teacher:
        card["student"] = to_data(recipe.student)
    elif adapter_weights(kept):
        card["adapter"] = to_data(recipe.student)
    if recipe.student.needs_teacher and not recipe.network.pretrained:
        folder = run.teacher_folder.resolve()
        card["teacher"] = {"signature": recipe.teacher_signature(), "file": str(folder / "teacher.safetensors")}
    tensors = {**kept, **packed(trained_weights(run))}
    save_tensors(path, tensors, {"ladd_dist": json.dumps(card)})


def load_student(run: Run, path: Path) -> Denoiser:
    """The recipe's trained student from its file: a plain network, frozen, in eval mode.

    Raises:
        UserError: the file is missing or does not fit.
    """
    recipe = run.recipe
    if not recipe.student.needs_teacher:
        return load_network(run, path, stage="distill")
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages distill")
    teacher, weights = load_teacher(run), own_weights(load_weights(path, remedy=REMEDY))
    fitting = reading(path, "does not fit the recipe's teacher", REMEDY)
    with fitting, at_most(weights, f"the recipe for {path}"):
        network = recipe.student.restore(teacher, weights)
    return network.eval().requires_grad_(False)
