"""A student's file: its card, its weights and its codec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ladd_dist.builders.asking import asking_for_plugins
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import weights_sha256

if TYPE_CHECKING:
    import torch

    from ladd_dist.builders.card import StudentCard
    from ladd_dist.core.types import Autoencoder, Denoiser
    from ladd_dist.recipe import Recipe

CARD = ("network", "image", "levels", "rule", "recipe", "signature")
"""Keys without which a student's card is refused."""


def require_same_space(source: Path, network: Denoiser, card: StudentCard, run: Path, recipe: Recipe) -> None:
    """Refuse a student for a run whose data have another shape, other classes, or another codec.

    Args:
        source: the student's file or run, for errors.
        run: the folder of the run with `recipe`, for errors.

    Raises:
        UserError: they do not go together.
    """
    from ladd_dist.builders.codec import codec_card

    if network.image != recipe.latent():
        raise UserError(
            f"{source} makes {network.image}, the data of {run} are {recipe.latent()}: they do not go together"
        )
    if card.get("space") != codec_card(recipe).get("space"):
        raise UserError(f"{source} works in the latents of another codec than {run}")


def levels_of(card: StudentCard, steps: int) -> tuple[float, ...]:
    """The descending levels at which a student is sampled in `steps` steps: those on its card, else by the card's law.

    Raises:
        RecipeError: the card has no levels for this number of steps.
    """
    from ladd_dist.core.serialize import RecipeError, from_data
    from ladd_dist.levels import Levels

    if str(steps) in card["levels"]:
        return tuple(card["levels"][str(steps)])
    known = f"this student has levels for {', '.join(card['levels'])} steps"
    if "law" not in card:  # written by an older version
        raise RecipeError(f"--steps {steps}: {known}; give your own with --levels")
    try:
        law: Levels = from_data(Levels, card["law"], "law")
        return law(steps)
    except ValueError as error:
        raise RecipeError(f"--steps {steps}: {known}, and its law says: {error}; or give your own --levels") from error


def load_student(source: Path, device: torch.device) -> tuple[Denoiser, StudentCard]:
    """The student in a run's folder or file, frozen, in eval mode, and its card. Nothing in the file can run code.

    Raises:
        UserError: the file is missing, is no student, is damaged, or needs a teacher that is missing.
    """
    from safetensors import SafetensorError, safe_open

    from ladd_dist.builders.networks import CODEC_PREFIX
    from ladd_dist.builders.student import from_card

    path = file_of(source)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a finished run's folder, or its student.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            card: StudentCard = json.loads((file.metadata() or {})["ladd_dist"])
            names = [name for name in file.keys() if not name.startswith(CODEC_PREFIX)]  # noqa: SIM118  # no mapping
            weights = {name: file.get_tensor(name) for name in names}
        missing = [name for name in CARD if name not in card]
        if missing or not card["levels"]:
            raise KeyError(missing[0] if missing else "levels")
        network = from_card(card, weights, path)
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no student that ladd_dist wrote ({type(error).__name__}: {reason})") from error
    if "weights_sha256" in card and card["weights_sha256"] != weights_sha256(weights):
        raise UserError(f"{path} is damaged: its weights do not have the sha256 on its card; copy or export it again")
    return network.to(device).eval().requires_grad_(False), card


def file_of(source: Path) -> Path:
    """The student's file in a run's folder, or the file itself."""
    return source / "student.safetensors" if source.is_dir() else source


def load_codec(source: Path, card: StudentCard, device: torch.device) -> Autoencoder:
    """The autoencoder that decodes a student's samples, frozen, in eval mode; the identity for a student on pixels.

    Args:
        source: the student's run folder or file.

    Raises:
        UserError: the weights in the file do not fit.
    """
    from ladd_dist.builders.codec import fill
    from ladd_dist.codecs import Codec
    from ladd_dist.codecs.pixels import Identity
    from ladd_dist.core.serialize import from_data
    from ladd_dist.core.types import ImageSpec

    if "codec" not in card:
        return Identity()
    with asking_for_plugins(file_of(source)):
        described: Codec = from_data(Codec, card["codec"], "codec")
    codec = described.build(image=from_data(ImageSpec, card["pixels"], "pixels"))
    if described.trained:
        fill(codec, codec_weights(source), str(file_of(source)))
    return codec.to(device).eval().requires_grad_(False)


def codec_weights(source: Path) -> dict[str, torch.Tensor]:
    """The weights of the codec that was trained with a student, from its run or file; empty if there is none."""
    from safetensors import safe_open

    from ladd_dist.builders.networks import CODEC_PREFIX

    with safe_open(file_of(source), framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(CODEC_PREFIX)]  # noqa: SIM118  # no mapping
        return {name.removeprefix(CODEC_PREFIX): file.get_tensor(name) for name in names}
