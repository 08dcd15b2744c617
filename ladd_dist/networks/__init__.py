"""Kind `network`: the denoiser that teacher and student share."""

from __future__ import annotations

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Denoiser, ImageSpec


class Network(Plugin):
    """Builds a denoiser for images of a given specification."""

    kind = "network"

    def build(self, *, image: ImageSpec) -> Denoiser:
        """A randomly initialised denoiser (from torch's global generator).

        Raises:
            ValueError: a size or number of channels that this network cannot take.
        """
        raise NotImplementedError
