"""The student as a network and as a file: `student.safetensors`, the weights that its form keeps, and a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ladd_dist.builders.codec import codec_card, packed, trained_weights
from ladd_dist.builders.networks import load_network, own_weights
from ladd_dist.builders.teacher import load_teacher
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.networks import Network
from ladd_dist.students import StudentForm
from ladd_dist.students.full import Full
from ladd_dist.workspace.run import Run


def new_student(run: Run) -> Denoiser:
    """The student before training: a copy of the teacher in the recipe's form."""
    return run.recipe.student.prepare(load_teacher(run))


def save_student(path: Path, network: Denoiser, run: Run) -> None:
    """Write the student, and a codec that was trained for it, with a card that says how to build and sample it.

    Args:
        network: in the recipe's form, as `new_student` gave it.
    """
    recipe = run.recipe
    levels = {str(steps): list(recipe.levels(steps)) for steps in recipe.evaluate.steps}
    card: dict[str, Any] = {
        "network": to_data(recipe.network),
        "image": to_data(recipe.latent()),
        "levels": levels,
        "law": to_data(recipe.levels),
        "rule": recipe.start.rule,
        "recipe": recipe.name,
        "signature": recipe.distill_signature(),
        **codec_card(recipe),
    }
    if recipe.student.needs_teacher:
        card["student"] = to_data(recipe.student)
    if recipe.student.needs_teacher and not recipe.network.pretrained:
        folder = run.teacher_folder.resolve()
        card["teacher"] = {"signature": recipe.teacher_signature(), "file": str(folder / "teacher.safetensors")}
    tensors = {**recipe.student.weights(network), **packed(trained_weights(run))}
    save_tensors(path, tensors, {"ladd_dist": json.dumps(card)})


def load_student(run: Run, path: Path) -> Denoiser:
    """The recipe's trained student from its file: a plain network, frozen, in eval mode.

    Raises:
        UserError: it is not there, or does not fit.
    """
    recipe = run.recipe
    if not recipe.student.needs_teacher:
        return load_network(run, path, stage="distill")
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages distill")
    teacher = load_teacher(run)
    with reading(path, "does not fit the recipe's teacher", "delete its folder, then --stages distill"):
        network = recipe.student.restore(teacher, own_weights(load_file(path)))
    return network.eval().requires_grad_(False)


def from_card(card: dict[str, Any], weights: dict[str, torch.Tensor], path: Path) -> Denoiser:
    """The student that a card and what its file holds describe.

    Raises:
        UserError: a form that needs the teacher, and that is not where the card says.
        KeyError, TypeError, RuntimeError: damaged.
    """
    image = from_data(ImageSpec, card["image"], "image")
    described: Network = from_data(Network, card["network"], "network")
    form: StudentForm = from_data(StudentForm, card["student"], "student") if "student" in card else Full()
    if form.needs_teacher and described.pretrained:
        return form.restore(described.load(image=image), weights)
    network = described.build(image=image)
    if form.needs_teacher:
        network.load_state_dict(_teacher_of(card, path))
    return form.restore(network, weights)


def _teacher_of(card: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The weights beside which a partial student works: at the card's place, else in a `cache` of this folder."""
    signature = str(card["teacher"]["signature"])
    places = [Path(card["teacher"]["file"]), Path("cache") / f"teacher-{signature}" / "teacher.safetensors"]
    found = next((workspace for workspace in places if workspace.is_file()), None)
    if found is None:
        raise UserError(
            f"{path} holds the {card['student']['plugin']} weights of a student alone and needs its teacher "
            f"(signature {signature}), which is neither {places[0]} nor {places[1]}: copy it to the latter, or write a "
            "file that needs nothing else where the teacher is: python -m ladd_dist.export RUN"
        )
    return load_file(found)
