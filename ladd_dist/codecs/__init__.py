"""Kind `codec`: the space in which teacher and student work, and the way between it and images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.types import Autoencoder, ImageSpec


class Codec(Plugin):
    """Describes and builds an autoencoder. Training and shards stay in its latents; dumps and figures are of images."""

    kind = "codec"
    trained: ClassVar[bool] = False
    """Whether a stage of its own trains it (then `build` gives random weights)."""

    def latent(self, image: ImageSpec) -> ImageSpec:
        """What the networks see for images of this specification: latent channels and size, the same classes.

        Raises:
            UserError: a size or number of channels that this codec cannot take.
        """
        raise NotImplementedError

    def build(self, *, image: ImageSpec) -> Autoencoder:
        """The autoencoder for such images, in eval mode, its weights frozen.

        Raises:
            UserError: the weights cannot be found or do not fit; the message says what to do.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class CodecTraining:
    """How the stage `autoencoder` trains a codec; the learning rate falls to 0 along a cosine."""

    steps: int = 1_000
    batch_size: int = 64
    lr: float = 2e-3
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = field(default=250, metadata=NEUTRAL)
    log_every: int = field(default=10, metadata=NEUTRAL)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"training.{name}: must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise UserError(f"training.lr: must be above 0, got {self.lr}")


class TrainableAutoencoder(Autoencoder):
    """An autoencoder that can learn, and has a scale for its latents that is measured when it has learned."""

    def forward(self, images: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """What training minimises, `loss`, and its parts (0-d each).

        Args:
            images: [B,C,H,W] in [-1, 1].
            eps: [B,c,h,w] unit-variance noise of the latents.
        """
        raise NotImplementedError

    def calibrate(self, images: Tensor) -> None:
        """Measure, on images [B,C,H,W], what `encode` must add and multiply for latents of mean 0 and deviation 0.5.

        Raises:
            UserError: latents that are all alike.
        """
        raise NotImplementedError


class TrainedCodec(Codec):
    """A codec whose weights the stage `autoencoder` makes; `build` gives random ones, from torch's generator."""

    trained = True
    training: CodecTraining

    def build(self, *, image: ImageSpec) -> TrainableAutoencoder:
        raise NotImplementedError
