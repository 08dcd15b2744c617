"""Codec `pixels`, for networks that work on pixels: it changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ladd_dist.codecs import Codec
from ladd_dist.core.plugin import register
from ladd_dist.core.types import Autoencoder, ImageSpec


@register("pixels")
@dataclass(frozen=True)
class Pixels(Codec):
    """No autoencoder: the latents are the images themselves."""

    def latent(self, image: ImageSpec) -> ImageSpec:
        return image

    def build(self, *, image: ImageSpec) -> Autoencoder:
        return Identity()


class Identity(Autoencoder):
    """Autoencoder that returns its input."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents
