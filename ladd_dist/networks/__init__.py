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
    """Builds a denoiser for images of a given specification."""

    kind = "network"
    pretrained: ClassVar[bool] = False
    """Whether `load` gives trained weights, so that no teacher need be trained."""

    def build(self, *, image: ImageSpec) -> Denoiser:
        """A randomly initialised denoiser (from torch's global generator).

        Raises:
            UserError: a size or number of channels that this network cannot take.
        """
        raise NotImplementedError

    def load(self, *, image: ImageSpec) -> Denoiser:
        """The denoiser with the weights of its checkpoint.

        Raises:
            UserError: no checkpoint, one that cannot be read, or images that it does not take.
        """
        raise UserError(f"network {self.name!r} has no checkpoint of its own; train it in the stage teacher")

    def encode(self, texts: Sequence[str], *, image: ImageSpec, device: torch.device) -> Iterator[Mapping[str, Tensor]]:
        """Rows [n,...] by name of the table of conditions, on the CPU: one a text, in order, then the null condition.

        Args:
            image: the pictures that the texts describe, in pixels.

        Raises:
            UserError: this network reads no texts, or its checkpoint has no text encoder that can be read.
        """
        raise UserError(f"network {self.name!r} reads no texts")
