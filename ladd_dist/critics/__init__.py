"""Kind `critic`: whose features the heads look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Autoencoder, Denoiser, ImageSpec


class Critic(Plugin):
    """Gives the frozen network below the heads."""

    kind = "critic"
    renoises: ClassVar[bool] = True
    """Whether samples are re-noised to a level tau before the network sees them."""

    def build(self, *, teacher: Denoiser, image: ImageSpec, codec: Callable[[], Autoencoder]) -> Denoiser:
        """A network with named taps and a `cond_vec`, asked for features alone (`denoise=False`): its weights stay.

        It is called with samples x0 [B,C,H,W] as the student makes them (re-noised, if `renoises`), levels tau [B] and
        classes [B], and must pass gradients to x0.

        Args:
            teacher: the recipe's network, on whatever device a run has at that time.
            image: what the dataset has; the networks see the codec's latents of that.
            codec: gives the frozen autoencoder; not called by critics that stay in the latents.

        Raises:
            ValueError: this critic cannot look at the teacher's samples, or its own weights are not there.
        """
        raise NotImplementedError
