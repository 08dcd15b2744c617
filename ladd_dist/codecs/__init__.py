"""Kind `codec`: the latent space of teacher and student, and the autoencoder between it and images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.ranges import AnyInteger, BatchSize, Count, NonNegative, Positive, Ranged, Updates
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.types import Autoencoder, ImageSpec

CODEC_PREFIX = "codec."
"""Prefix, in a student's file, of the weights of a codec that was trained with it."""


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the codec among a student's, by the names that they have in it."""
    return {
        name.removeprefix(CODEC_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(CODEC_PREFIX)
    }


class Codec(Plugin):
    """Description of an autoencoder. Training and shards use its latents; dumps and figures are of images."""

    kind = "codec"
    trained: ClassVar[bool] = False
    """Whether the stage `autoencoder` trains it; `build` then gives random weights."""

    def latent(self, image: ImageSpec) -> ImageSpec:
        """Shape of the latents for images of this specification: channels and size, with the same classes.

        Raises:
            UserError: the codec cannot take this size or number of channels.
        """
        raise NotImplementedError

    def build(self, *, image: ImageSpec) -> Autoencoder:
        """Build the autoencoder for such images, in eval mode, with frozen weights.

        Raises:
            UserError: the weights cannot be found or do not fit; the message says what to do.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class CodecTraining(Ranged):
    """Training of a codec by the stage `autoencoder`; the learning rate falls to 0 along a cosine."""

    steps: Updates = 1_000
    """Number of updates."""
    batch_size: BatchSize = 64
    """Images per update."""
    lr: Positive = 2e-3
    """Learning rate at the beginning."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient, to which larger ones are scaled; 0: no limit."""
    seed: AnyInteger = 0
    """Seed of the training."""
    checkpoint_every: Count = field(default=250, metadata=NEUTRAL)
    """Steps between checkpoints."""
    log_every: Count = field(default=10, metadata=NEUTRAL)
    """Steps between rows of the log."""


class TrainableAutoencoder(Autoencoder):
    """Trainable autoencoder that standardises its latents with a shift and a scale measured after training."""

    def forward(self, images: Tensor, eps: Tensor) -> dict[str, Tensor]:
        """Training `loss` and its parts by name, each a scalar.

        Args:
            images: images [B,C,H,W] in [-1, 1].
            eps: unit-variance noise [B,c,h,w] of the latents.
        """
        raise NotImplementedError

    def calibrate(self, images: Tensor) -> None:
        """Measure on images [B,C,H,W] the shift and scale with which `encode` gives mean 0 and deviation 0.5.

        Raises:
            UserError: all latents are alike.
        """
        raise NotImplementedError


class TrainedCodec(Codec):
    """Codec whose weights the stage `autoencoder` trains; `build` gives random ones, from torch's generator."""

    trained = True
    training: CodecTraining

    def build(self, *, image: ImageSpec) -> TrainableAutoencoder:
        raise NotImplementedError
