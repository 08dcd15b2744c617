"""Adversarial losses on logits: pure functions, one pair a game.

Each function takes the logits of ONE head [B,K] and averages over them after the non-linearity; `over_heads` averages
over heads after that. Never the other way round: a hinge on the summed logits goes flat for every head, wrong ones
included, once the sum has passed the margin. `real` and `fake` logits of one row belong to the same noise level and
class. All results are scalars, in float32 (float64 for float64 logits).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import LARGE_GAP as LARGE_GAP  # read without torch by whoever reads a config.json

Margins = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits real, fake [B,K] to how far each lies on its right side [B,K]."""


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def check_logits(tap: str, logits: Tensor, batch: int, *, head: str = "") -> None:
    """Check the shape of what a head returned on a tap; looks at no value, so it costs nothing on an accelerator.

    Raises:
        UserError: anything but a floating-point tensor [B,K] with B = `batch` and K >= 1.
    """
    who = f"head {head!r} on tap {tap!r}" if head else f"the head on tap {tap!r}"
    expected = f"expected logits [B, K] with B = {batch} and K >= 1"
    if not isinstance(logits, Tensor):
        raise UserError(f"{who} returned a {type(logits).__name__}, {expected}")
    if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] < 1:
        raise UserError(f"{who} returned shape {tuple(logits.shape)}, {expected}")
    if not logits.is_floating_point():
        raise UserError(f"{who} returned {logits.dtype}, {expected} in floating point")


def over_heads(loss: Callable[..., Tensor], *logits: Mapping[str, Tensor]) -> Tensor:
    """Mean over heads of `loss(*logits of that head)`; each mapping goes from tap name to logits [B,K].

    Raises:
        UserError: no head at all, or mappings with different taps.
    """
    taps = list(logits[0]) if logits else []
    if not taps:
        raise UserError("over_heads needs the logits of at least one head")
    for other in logits[1:]:
        if set(other) != set(taps):
            raise UserError(f"logits of different heads cannot be compared: {sorted(taps)} and {sorted(other)}")
    return torch.stack([loss(*(mapping[tap] for mapping in logits)) for tap in taps]).mean()


def threshold_margins(real: Tensor, fake: Tensor, boundary: float = 0.0) -> tuple[Tensor, Tensor]:
    """Margins of logits real, fake [B,K] where one above the boundary says "real"."""
    return real - boundary, boundary - fake


def pair_margins(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Margins of logits real, fake [B,K] where only their difference in a row means something: the same on both."""
    return real - fake, real - fake


def bce_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(real) - E log(1 - D(fake)), D = sigmoid(logit) (Goodfellow et al. 2014, arXiv 1406.2661, eq. 1)."""
    return functional.softplus(-_precise(real)).mean() + functional.softplus(_precise(fake)).mean()


def bce_generator_saturating(fake: Tensor) -> Tensor:
    """E log(1 - D(fake)), the minimax form; its gradient vanishes where the heads are sure (arXiv 1406.2661, eq. 1)."""
    return -functional.softplus(_precise(fake)).mean()


def bce_generator(fake: Tensor) -> Tensor:
    """-E log D(fake), the non-saturating form (arXiv 1406.2661, section 3)."""
    return functional.softplus(-_precise(fake)).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - real) + E max(0, 1 + fake) (Lim and Ye 2017, arXiv 1705.02894; LADD, arXiv 2403.12015)."""
    return functional.relu(1 - _precise(real)).mean() + functional.relu(1 + _precise(fake)).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-E fake (arXiv 2403.12015), unbounded: only the heads' loss has a margin."""
    return -_precise(fake).mean()


def lsgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E (real - 1)^2 + E fake^2 (Mao et al. 2017, arXiv 1611.04076, labels 0 and 1, without its factor 1/2)."""
    return (_precise(real) - 1).square().mean() + _precise(fake).square().mean()


def lsgan_generator(fake: Tensor) -> Tensor:
    """E (fake - 1)^2 (arXiv 1611.04076, with label 1 for real)."""
    return (_precise(fake) - 1).square().mean()


def wgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E fake - E real (Arjovsky et al. 2017, arXiv 1701.07875); unbounded without a penalty on the gradient."""
    return _precise(fake).mean() - _precise(real).mean()


def wgan_generator(fake: Tensor) -> Tensor:
    """-E fake (arXiv 1701.07875), unbounded like the heads' loss."""
    return -_precise(fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E softplus(-(real - fake)), pairs of the same row (Jolicoeur-Martineau 2019, arXiv 1807.00734, RSGAN)."""
    return functional.softplus(-(_precise(real) - _precise(fake))).mean()


def relativistic_generator(fake: Tensor, real: Tensor) -> Tensor:
    """E softplus(-(fake - real)), pairs of the same row (arXiv 1807.00734, RSGAN)."""
    return functional.softplus(-(_precise(fake) - _precise(real))).mean()
