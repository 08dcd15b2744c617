"""The student that a card describes, built with the weights of its file."""

from __future__ import annotations

from pathlib import Path

import torch

from ladd_dist.builders.asking import asking_for_plugins
from ladd_dist.builders.card import StudentCard
from ladd_dist.core.budget import at_most
from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import from_outside
from ladd_dist.core.serialize import from_data
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.networks import Network
from ladd_dist.students import StudentForm
from ladd_dist.students.full import Full


def from_card(card: StudentCard, weights: dict[str, torch.Tensor], path: Path) -> Denoiser:
    """The student that a card describes, with the weights of its file.

    Args:
        path: the file, for errors.

    Raises:
        UserError: the student needs its teacher, which is not where the card says.
        ConsentError: the card names a plug-in that is unknown, or a repository of the hub that nobody asked for.
        KeyError, TypeError, RuntimeError: the card or the weights are damaged.
    """
    from_outside(card, str(path))
    image = from_data(ImageSpec, card["image"], "image")
    with asking_for_plugins(path):
        described: Network = from_data(Network, card["network"], "network")
        form: StudentForm = from_data(StudentForm, card["student"], "student") if "student" in card else Full()
    what = f"the card of {path}"
    if form.needs_teacher and described.pretrained:
        network = described.load(image=image)
    else:
        base = _teacher_of(card, path) if form.needs_teacher else weights
        with at_most(base, what):
            network = described.build(image=image)
        if form.needs_teacher:
            network.load_state_dict(base)
    with at_most(weights, what):
        return form.restore(network, weights)


def _teacher_of(card: StudentCard, path: Path) -> dict[str, torch.Tensor]:
    """The teacher's weights for a partial student: from the file on its card, else from ./cache.

    Raises:
        UserError: neither file exists.
    """
    signature = str(card["teacher"]["signature"])
    places = [Path(card["teacher"]["file"]), Path("cache") / f"teacher-{signature}" / "teacher.safetensors"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"{path} holds the {card['student']['plugin']} weights of a student alone and needs its teacher "
            f"(signature {signature}), which is neither {places[0]} nor {places[1]}: copy it to the latter, or write a "
            "file that needs nothing else where the teacher is: python -m ladd_dist.export RUN"
        )
    return load_weights(found, remedy="copy it again")
