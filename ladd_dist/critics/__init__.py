"""Kind `critic`: the frozen network whose features the heads classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import Autoencoder, Denoiser, ImageSpec


class Critic(Plugin):
    """Frozen network below the heads."""

    kind = "critic"
    renoises: ClassVar[bool] = True
    """Whether samples are re-noised to a level tau before the network sees them."""

    def build(self, *, teacher: Denoiser, image: ImageSpec, codec: Callable[[], Autoencoder]) -> Denoiser:
        """Build a network with named taps and a `cond_vec`; it is called for features alone (`denoise=False`).

        Its inputs are samples x0 [B,C,H,W] as the student makes them (re-noised, if `renoises`), levels tau [B] and
        classes [B]. It must pass gradients to x0. Its weights do not train.

        Args:
            teacher: the recipe's network, on the device that the run uses at that time.
            image: shape of the dataset's images; the networks see the codec's latents of them.
            codec: function that returns the frozen autoencoder; critics that stay in the latents do not call it.

        Raises:
            ValueError: the critic cannot read the teacher's samples, or its own weights are missing.
        """
        raise NotImplementedError
