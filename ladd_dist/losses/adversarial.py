"""The adversarial games as plug-ins; the formulas are in `ladd_dist.core.gan`."""

from __future__ import annotations

import math
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
    """Whether the student minimises log(1 - D), as in the report, instead of -log D."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(-real) + softplus(fake)."""
        return gan.bce_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-softplus(fake) if saturating, else softplus(-fake)."""
        return gan.bce_generator_saturating(fake) if self.saturating else gan.bce_generator(fake)


@register("hinge")
@dataclass(frozen=True)
class Hinge(Adversarial):
    """Hinge loss with margin 1, as in the LADD paper (arXiv 2403.12015)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - real) + max(0, 1 + fake)."""
        return gan.hinge_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-fake."""
        return gan.hinge_generator(fake)


@register("lsgan")
@dataclass(frozen=True)
class Lsgan(Adversarial):
    """Least-squares game with labels 0 and 1 (arXiv 1611.04076)."""

    large_gap = 0.9  # of 1 between the labels

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The boundary lies between the labels, at .5."""
        return gan.threshold_margins(real, fake, 0.5)

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

    The penalty holds the heads' slope near 1, far steeper than in other games, so the student's gradient is larger:
    choose a smaller `adv_weight`, or `train.adv_norm_decay`, which gives the weight the same meaning in every game.
    """

    large_gap = math.inf  # logits have the unit of the features

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of a row: no logit means anything by itself."""
        return gan.pair_margins(real, fake)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """fake - real."""
        return gan.wgan_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """-fake."""
        return gan.wgan_generator(fake)


@register("relativistic")
@dataclass(frozen=True)
class Relativistic(Adversarial):
    """Relativistic game: which sample of a row is more real (arXiv 1807.00734)? The student swaps real and fake.

    In the student's loss the real logits are those from before this step's updates of the heads, the fake logits from
    after them: real samples do not pass through the heads a second time. The difference is off by these updates.
    """

    large_gap = gan.LARGE_GAP / 2  # the logit of a pair is the difference; in `bce` each side has one of its own

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of a row: no logit means anything by itself."""
        return gan.pair_margins(real, fake)

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """softplus(-(real - fake))."""
        return gan.relativistic_discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """softplus(-(fake - real))."""
        return gan.relativistic_generator(fake, real)
