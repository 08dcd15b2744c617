"""Metric `digit_color`: Frechet distances and class accuracy, as a small digit-and-colour network sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladd_dist.core.plugin import register
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.features import NUM_DIGITS, DigitColorNet, load_features
from ladd_dist.metrics.frechet import frechet_distance, moments

_CHUNK = 500


@torch.inference_mode()
def read_images(net: DigitColorNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N,64] and digit classes [N] int64 of images [N,3,S,S] in [-1,1], in passes of 500, where they lie.

    Raises:
        ValueError: images that are not [N,3,S,S].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"the metric 'digit_color' needs RGB images [N,3,S,S], got {list(images.shape)}: leave it out of the recipe"
        )
    net.to(images.device)
    seen = [net(part) for part in torch.split(images, _CHUNK)]
    return torch.cat([part.features for part in seen]), torch.cat([part.digit.argmax(dim=1) for part in seen])


@register("digit_color")
@dataclass(frozen=True)
class DigitColor(Metric):
    """Frechet distance to the real set (`fd`) and to the teacher's samples (`fd_teacher`), and class accuracy.

    The features are those of a small classifier of digit and hue (`metrics/features.py`), made for colour digits: the
    figures compare samples of this data only, and are no FID. `accuracy`: share of samples whose asked class is the
    one the classifier sees.
    """

    def build(self, *, references: References) -> Measure:
        net = load_features()
        real = moments(read_images(net, references.real.images)[0])
        teacher = moments(read_images(net, references.teacher.images)[0])

        def measure(samples: Samples) -> dict[str, float]:
            features, digit = read_images(net, samples.images)
            own = moments(features)
            if int(samples.cond.min()) < 0 or int(samples.cond.max()) >= NUM_DIGITS:
                raise ValueError(
                    f"the metric 'digit_color' knows classes 0 to {NUM_DIGITS - 1}, the samples were asked for "
                    f"{int(samples.cond.min())} to {int(samples.cond.max())}"
                )
            return {
                "fd": frechet_distance(*own, *real),
                "fd_teacher": frechet_distance(*own, *teacher),
                "accuracy": float((digit == samples.cond.to(digit.device)).double().mean()),
            }

        return measure
