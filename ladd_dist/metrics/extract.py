"""Features for distances, by name; each network reads each set of samples once."""

from __future__ import annotations

import functools
import json
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.features import DigitColorNet, load_features, read_card
from ladd_dist.core.types import COLOUR_DIGITS, ImageSpec
from ladd_dist.metrics import Read, Samples

Features = Literal["digit_color", "pixels"]
_CHUNK = 512  # shares in `evaluation/feature_cache.py` are multiples of it, so they run in the same batches


def features_misfit(features: Features, image: ImageSpec, shows: tuple[str, ...]) -> str:
    """Reason why a metric in these features says nothing about such images (`Metric.misfit`); empty if it does."""
    if features == "pixels" or (COLOUR_DIGITS in shows and image.channels == 3):
        return ""
    return "its features are of a network that reads colour digits; in a recipe, features='pixels' fits any images"


def extract(samples: Samples, features: Features) -> Tensor:
    """Features [N,D] of samples: 64 of the shipped digit-and-colour network, or the pixels themselves.

    Raises:
        UserError: the network cannot read the images.
    """
    if features == "pixels":
        return samples.images.flatten(1)
    return digit_color(samples)["features"]


def digit_color(samples: Samples) -> Read:
    """Outputs of the shipped network by name: `features` [N,64] and `digit` [N] int64, the predicted class."""
    net, name = _shipped()

    def reader(images: Tensor) -> Read:
        features, digit = read_images(net, images)
        return {"features": features, "digit": digit}

    return samples.read(name, reader)


@functools.lru_cache(maxsize=1)
def _shipped() -> tuple[DigitColorNet, str]:
    """Shipped network, and a name that identifies its weights."""
    return load_features(), f"digit_color {json.dumps(read_card()['sha256'])}"


@torch.inference_mode()
def read_images(net: DigitColorNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N,64] and digit classes [N] int64 of images [N,3,S,S] in [-1,1], on their device, 512 at a time.

    Raises:
        UserError: the images are not [N,3,S,S].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"the digit-and-colour network needs RGB images [N,3,S,S], got {list(images.shape)}: leave its metrics out "
            "of the recipe, or set their features to 'pixels'"
        )
    net.to(images.device)
    seen = [net(part) for part in torch.split(images, _CHUNK)]
    return torch.cat([part.features for part in seen]), torch.cat([part.digit.argmax(dim=1) for part in seen])
