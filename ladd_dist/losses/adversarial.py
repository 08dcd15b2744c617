"""The adversarial games as plug-ins; the formulas are in `ladd_dist.core.gan`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ladd_dist.core import gan
from ladd_dist.core.plugin import register
from ladd_dist.losses import Adversarial


@register("bce")
@dataclass(frozen=True)
class Bce(Adversarial):
    """Binary cross-entropy. `saturating=True` is the minimax game of the report, False the usual non-saturating one.

    The heads' loss is the same in both. The student minimises log(1 - D) if saturating, whose gradient vanishes where
    the heads are sure that a sample is fake, and -log D otherwise.
    """

    saturating: bool = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(-real) + softplus(fake)."""
        return gan.bce_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-softplus(fake) if saturating, else softplus(-fake)."""
        return gan.bce_generator_saturating(fake) if self.saturating else gan.bce_generator(fake)


@register("hinge")
@dataclass(frozen=True)
class Hinge(Adversarial):
    """Hinge with margin 1, as in the LADD paper (arXiv 2403.12015)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - real) + max(0, 1 + fake)."""
        return gan.hinge_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-fake."""
        return gan.hinge_generator(fake)


@register("lsgan")
@dataclass(frozen=True)
class Lsgan(Adversarial):
    """Least squares with labels 0 and 1 (arXiv 1611.04076)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """(real - 1)^2 + fake^2."""
        return gan.lsgan_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """(fake - 1)^2."""
        return gan.lsgan_generator(fake)


@register("wgan")
@dataclass(frozen=True)
class Wgan(Adversarial):
    """Wasserstein game (arXiv 1701.07875): unbounded, so use it with the regulariser `gradient_penalty`.

    That penalty holds the heads' slope near 1, far above what other games settle at, and the student feels it: choose a
    smaller `adv_weight`, or `train.adv_norm_decay`, with which the weight means the same in every game.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """fake - real."""
        return gan.wgan_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-fake."""
        return gan.wgan_generator(fake)


@register("relativistic")
@dataclass(frozen=True)
class Relativistic(Adversarial):
    """Is the real sample more real than the fake one of the same row (arXiv 1807.00734)? Symmetric for the student."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(-(real - fake))."""
        return gan.relativistic_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """softplus(-(fake - real))."""
        return gan.relativistic_generator(fake, real)
