"""A student's file: its card, its weights and its codec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ladd_dist.builders.asking import asking_for_plugins
from ladd_dist.core.errors import UserError
from ladd_dist.core.tensor_file import TensorFile, read_tensors, require_finite, weights_sha256

if TYPE_CHECKING:
    import torch

    from ladd_dist.builders.card import StudentCard
    from ladd_dist.core.types import Autoencoder, Denoiser
    from ladd_dist.recipe import Recipe

NONE = "is damaged, or no student that ladd_dist wrote"


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
    from ladd_dist.builders.card import REMEDY
    from ladd_dist.builders.networks import own_weights
    from ladd_dist.builders.student_from_card import from_card

    path = file_of(source)
    content, card = read_student(path)
    weights = own_weights(content.tensors)
    if "weights_sha256" in card and card["weights_sha256"] != weights_sha256(weights):
        raise UserError(f"{path} is damaged: its weights do not have the sha256 on its card; {REMEDY}")
    try:
        network = from_card(card, weights, path)
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} {NONE} ({type(error).__name__}: {reason})") from error
    return network.to(device).eval().requires_grad_(False), card


def read_student(path: Path) -> tuple[TensorFile, StudentCard]:
    """The content of a student's file, with the weights of its codec, and its card.

    Raises:
        UserError: the file is missing, is no student, is damaged, or a weight is not finite.
    """
    from ladd_dist.builders.card import REMEDY, student_card, text_of

    if not path.exists():
        raise UserError(
            f"{path} does not exist; give a finished run's folder, or its student.safetensors (in a run "
            "that was finished, the command that launched it makes it again)"
        )
    content = read_tensors(path, problem=NONE, remedy=REMEDY)
    card = student_card(text_of(content.metadata, path, NONE), path)
    require_finite(content.tensors, path)
    return content, card


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
    from ladd_dist.core.budget import at_most
    from ladd_dist.core.serialize import from_data
    from ladd_dist.core.types import ImageSpec

    if "codec" not in card:
        return Identity()
    with asking_for_plugins(file_of(source)):
        described: Codec = from_data(Codec, card["codec"], "codec")
    weights = codec_weights(source) if described.trained else None
    with at_most(weights, f"the card of {file_of(source)}"):
        codec = described.build(image=from_data(ImageSpec, card["pixels"], "pixels"))
    if weights is not None:
        fill(codec, weights, str(file_of(source)))
    return codec.to(device).eval().requires_grad_(False)


def codec_weights(source: Path) -> dict[str, torch.Tensor]:
    """The weights of the codec that was trained with a student, from its run or file; empty if there is none.

    Raises:
        UserError: as `read_student` raises.
    """
    from ladd_dist.codecs import unpacked

    return unpacked(read_student(file_of(source))[0].tensors)
