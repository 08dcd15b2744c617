"""Kind `network`: the denoiser that teacher and student share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Denoiser, ImageSpec


class Network(Plugin):
    """Architecture or checkpoint of a denoiser, built for images of a given specification."""

    kind = "network"
    pretrained: ClassVar[bool] = False
    """Whether `load` gives trained weights, which replaces the training of a teacher."""
    class_table: ClassVar[str] = ""
    """Name of the weight with a row for each class and, last, one for none; empty where there is none."""

    def build(self, *, image: ImageSpec) -> Denoiser:
        """Build a randomly initialised denoiser (from torch's global generator).

        Raises:
            UserError: the network cannot take this size or number of channels.
        """
        raise NotImplementedError

    def load(self, *, image: ImageSpec) -> Denoiser:
        """Load the denoiser with the weights of its checkpoint.

        Raises:
            UserError: the checkpoint is missing, cannot be read, or does not take such images.
        """
        raise UserError(f"network {self.name!r} has no checkpoint of its own; train it in the stage teacher")

    def chosen(self, weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Weights of a checkpoint of this architecture as this network takes them: as they are, unless it says more.

        Args:
            where: the checkpoint, for messages.

        Raises:
            UserError: they lack what the network takes from them.
        """
        return dict(weights)

    def encode(self, texts: Sequence[str], *, image: ImageSpec, device: torch.device) -> Iterator[Mapping[str, Tensor]]:
        """Encode texts: rows [n,...] of the table of conditions by name, on the CPU, in order, then the null condition.

        Args:
            image: shape of the images that the texts describe, in pixels.

        Raises:
            UserError: the network reads no texts, or its checkpoint has no text encoder that can be read.
        """
        raise UserError(f"network {self.name!r} reads no texts")
