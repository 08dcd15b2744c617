"""`Given`: an autoencoder that was trained before, with its weights from the file of a student in its latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ladd_dist.codecs import CODEC_PREFIX, Codec, unpacked
from ladd_dist.codecs.autoencoder_kl import AutoencoderKL
from ladd_dist.core.budget import at_most
from ladd_dist.core.errors import UserError, reading
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import digest
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import Autoencoder, ImageSpec

_REMEDY = "copy it again from the run that trained it"


@register("given")
@dataclass(frozen=True)
class Given(Codec):
    """An autoencoder that was trained before: an architecture, and the weights that a student's file has of it."""

    codec: Codec = AutoencoderKL()
    """The architecture."""
    weights: str = field(default="", metadata=NEUTRAL)
    """A student's file in these latents, like RUN/student.safetensors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.codec.trained:
            raise UserError(f"given.codec: {self.codec.name!r} has no weights of a student's file; take it itself")

    def identity(self) -> Mapping[str, object]:
        return {"weights": digest([self.file()])} if self.weights else {}

    def latent(self, image: ImageSpec) -> ImageSpec:
        return self.codec.latent(image)

    def build(self, *, image: ImageSpec) -> Autoencoder:
        path, weights = self.file(), self.tensors()
        with at_most(weights, str(path)):
            codec = self.codec.build(image=image)
        with reading(path, "has the weights of an autoencoder that is not codec.codec", _REMEDY):
            codec.load_state_dict(weights)
        return codec

    def tensors(self) -> dict[str, Tensor]:
        """The autoencoder's weights, by the names that they have in it.

        Raises:
            UserError: the file is missing or damaged, or holds none.
        """
        path = self.file()
        found = unpacked(load_weights(path, remedy=_REMEDY))
        if not found:
            raise UserError(
                f"{path} does not hold its autoencoder's weights ({CODEC_PREFIX}*), without which nothing gets into "
                f"its latents or out of them; {_REMEDY}"
            )
        return found

    def file(self) -> Path:
        """The file with the weights.

        Raises:
            UserError: it is not there.
        """
        path = Path(self.weights)
        if not path.is_file():
            raise UserError(
                f"codec.weights: {self.weights!r} is no file; name that of a student in the latents, "
                "RUN/student.safetensors"
            )
        return path
