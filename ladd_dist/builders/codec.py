"""The codec of a recipe: the space in which its networks work, and the way from it to images.

Training never decodes, unless the critic sees images: the codec is loaded where images are needed (dumps, figures,
views) and released afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ladd_dist.builders.card import REMEDY, CodecCard, student_card, text_of
from ladd_dist.codecs import CODEC_PREFIX
from ladd_dist.codecs.given import Given
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import signature, to_data
from ladd_dist.core.tensor_file import load_weights, read_tensors
from ladd_dist.core.types import Autoencoder
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

FILE = "autoencoder.safetensors"


def is_pixels(recipe: Recipe) -> bool:
    """Whether the networks work on the images themselves."""
    return recipe.codec.name == "pixels"


def load_codec(run: Run) -> Autoencoder:
    """The recipe's autoencoder, frozen, in eval mode.

    Raises:
        UserError: a trained codec's weights are missing or do not fit.
    """
    recipe = run.recipe
    codec = recipe.codec.build(image=recipe.dataset.spec())
    if recipe.codec.trained:
        fill(codec, trained_weights(run), str(run.autoencoder_folder))
    return codec.to(run.device).eval().requires_grad_(False)


def trained_weights(run: Run) -> dict[str, Tensor]:
    """The weights that the stage `autoencoder` made, or those of a codec that is given; empty for every other codec.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    if isinstance(run.recipe.codec, Given):
        return run.recipe.codec.tensors()
    if not run.recipe.codec.trained:
        return {}
    path = run.autoencoder_folder / FILE
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages autoencoder")
    return load_weights(path, remedy="delete its folder, then --stages autoencoder")


def fill(codec: Autoencoder, weights: Mapping[str, Tensor], where: str) -> None:
    """Load weights into an autoencoder.

    Args:
        where: file or folder that the error names.

    Raises:
        UserError: they do not fit.
    """
    try:
        codec.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{where}: the weights of the codec do not fit it ({' '.join(str(error).split())})") from error


def codec_card(recipe: Recipe) -> CodecCard:
    """The codec's part of a student's card; empty for a student on pixels."""
    if is_pixels(recipe):
        return {}
    codec = recipe.codec
    if isinstance(codec, Given):  # a file holds the weights itself, and its latents are those of the file before
        space = _space_of(codec)
        codec = codec.codec
    else:
        space = recipe.autoencoder_signature() if codec.trained else signature("space-1", codec)
    return {"codec": to_data(codec), "pixels": to_data(recipe.dataset.spec()), "space": space}


def _space_of(codec: Given) -> str:
    path = codec.file()
    card = student_card(text_of(read_tensors(path, remedy=REMEDY).metadata, path, "is no student"), path)
    return card.get("space", signature("space-1", codec))


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A codec's weights under their names in a student's file."""
    return {CODEC_PREFIX + name: tensor for name, tensor in weights.items()}


@torch.inference_mode()
def decode(codec: Autoencoder, latents: Tensor, batch_size: int) -> Tensor:
    """Images [N,C,H,W] of latents [N,c,h,w], decoded a batch at a time, on the latents' device."""
    if next(codec.parameters(), None) is None:
        return codec.decode(latents)
    device = next(codec.parameters()).device
    return torch.cat([codec.decode(part.to(device)).to(latents.device) for part in torch.split(latents, batch_size)])


def decoded(run: Run, latents: Tensor) -> Tensor:
    """Images [N,C,H,W] of the recipe's latents, by its codec, loaded for this call; pixels stay as they are."""
    if is_pixels(run.recipe):
        return latents
    return decode(load_codec(run), latents, run.recipe.evaluate.batch_size)
