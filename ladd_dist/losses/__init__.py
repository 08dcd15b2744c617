"""Kinds `adversarial` and `distance`: the two losses of LADD."""

from __future__ import annotations

from torch import Tensor

from ladd_dist.core import gan
from ladd_dist.core.plugin import Plugin


class Adversarial(Plugin):
    """Game between heads and student, on the logits of ONE head; the engine averages over heads."""

    kind = "adversarial"

    @property
    def large_gap(self) -> float:
        """The mean logit of real minus that of fake samples at which the heads have won; infinite: no gap says so."""
        return gan.LARGE_GAP

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of one head on logits real, fake [B,K]: a scalar, averaged over logits after the non-linearity."""
        raise NotImplementedError

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Loss of the student on logits fake [B,K] (real [B,K] is a constant, for relativistic losses): a scalar.

        `real` comes from the heads as they were before this step's updates of theirs, `fake` from after them.
        """
        raise NotImplementedError

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """How far logits real, fake [B,K] lie on their right side, [B,K] each: above 0 the head tells them apart.

        By default 0 is the boundary. Each value depends on the two logits at its own place alone. Nothing trains on
        this: it is what the heads' accuracy counts.
        """
        return gan.threshold_margins(real, fake)


class Distance(Plugin):
    """Distance of the student's sample from its target."""

    kind = "distance"

    def __call__(self, sample: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        """Distance of sample and target [B,C,H,W]: a scalar >= 0, weighted by w(sigma) for sigma [B]."""
        raise NotImplementedError
