"""The features that distances are measured in, by name; each set of samples is read once by each network."""

from __future__ import annotations

import functools
import json
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.features import DigitColorNet, load_features, read_card
from ladd_dist.metrics import Read, Samples

Features = Literal["digit_color", "pixels"]
_CHUNK = 512  # a share of `stages/reading.py` is a multiple of it, so shares see the same portions


def extract(samples: Samples, features: Features) -> Tensor:
    """Features [N,D] of samples: 64 of the shipped digit-and-colour network, or the pixels themselves.

    Raises:
        UserError: images that the network cannot read.
    """
    if features == "pixels":
        return samples.images.flatten(1)
    return digit_color(samples)["features"]


def digit_color(samples: Samples) -> Read:
    """`features` [N,64] and `digit` [N] int64, the class seen, by the shipped network."""
    net, name = _shipped()

    def reader(images: Tensor) -> Read:
        features, digit = read_images(net, images)
        return {"features": features, "digit": digit}

    return samples.read(name, reader)


@functools.lru_cache(maxsize=1)
def _shipped() -> tuple[DigitColorNet, str]:
    """The network, and a name that stands for its weights."""
    return load_features(), f"digit_color {json.dumps(read_card()['sha256'])}"


@torch.inference_mode()
def read_images(net: DigitColorNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N,64] and digit classes [N] int64 of images [N,3,S,S] in [-1,1], in passes of 512, where they lie.

    Raises:
        UserError: images that are not [N,3,S,S].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"the digit-and-colour network needs RGB images [N,3,S,S], got {list(images.shape)}: leave its metrics out "
            "of the recipe, or set their features to 'pixels'"
        )
    net.to(images.device)
    seen = [net(part) for part in torch.split(images, _CHUNK)]
    return torch.cat([part.features for part in seen]), torch.cat([part.digit.argmax(dim=1) for part in seen])
