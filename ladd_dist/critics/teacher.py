"""Critic `teacher`: the frozen teacher, as in LADD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.types import Autoencoder, Denoiser, ImageSpec
from ladd_dist.critics import Critic


@register("teacher")
@dataclass(frozen=True)
class Teacher(Critic):
    """Frozen teacher on re-noised samples, in latents if it works there (LADD, arXiv 2403.12015)."""

    def build(self, *, teacher: Denoiser, image: ImageSpec, codec: Callable[[], Autoencoder]) -> Denoiser:
        return teacher
