"""Kind `codec`: the space in which teacher and student work, and the way between it and images."""

from __future__ import annotations

from typing import ClassVar

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Autoencoder, ImageSpec


class Codec(Plugin):
    """Describes and builds an autoencoder. Training and shards stay in its latents; dumps and figures are of images."""

    kind = "codec"
    trained: ClassVar[bool] = False
    """Whether a stage of its own trains it (then `build` gives random weights)."""

    def latent(self, image: ImageSpec) -> ImageSpec:
        """What the networks see for images of this specification: latent channels and size, the same classes.

        Raises:
            ValueError: a size or number of channels that this codec cannot take.
        """
        raise NotImplementedError

    def build(self, *, image: ImageSpec) -> Autoencoder:
        """The autoencoder for such images, in eval mode, its weights frozen.

        Raises:
            ValueError: the weights cannot be found or do not fit; the message says what to do.
        """
        raise NotImplementedError
