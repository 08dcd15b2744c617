"""Features for distances, by name; each network reads each set of samples once."""

from __future__ import annotations

import functools
import json
from typing import Literal

import torch
from torch import Tensor

from ladd_dist.core.class_net import NAME as TRAINED
from ladd_dist.core.errors import UserError
from ladd_dist.core.features import NETWORKS, DigitColorNet, load_features, network_for, read_card
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Read, Samples

Features = Literal["digit_color", "pixels", "class_features"]
KNOWN = " or ".join(reads.shows for reads in NETWORKS.values())
"""What the shipped networks read, for messages."""
_CHUNK = 512  # shares in `evaluation/feature_cache.py` are multiples of it, so they run in the same batches


def features_misfit(features: Features, image: ImageSpec, shows: tuple[str, ...]) -> str:
    """Reason why a metric in these features says nothing about such images (`Metric.misfit`); empty if it does."""
    if features in ("pixels", TRAINED) or network_for(image, shows):
        return ""
    return (
        f"its features are of networks that read {KNOWN}; in a recipe, features='pixels' fits any images, and "
        "'class_features' any with enough of them"
    )


def extract(samples: Samples, features: Features) -> Tensor:
    """Features [N,D] of samples: 64 of the shipped or the trained network that reads them, or the pixels themselves.

    Raises:
        UserError: the network cannot read the images.
    """
    if features == "pixels":
        return samples.images.flatten(1)
    if features == TRAINED:
        return trained(samples)["features"]
    return digit_color(samples)["features"]


def digit_color(samples: Samples) -> Read:
    """Outputs by name of the network in `samples.network`: `features` [N,64] and `digit` [N], the class it sees."""
    net, name = _shipped(samples.network)

    def reader(images: Tensor) -> Read:
        features, digit = read_images(net, images)
        return {"features": features, "digit": digit}

    return samples.read(name, reader)


def trained(samples: Samples) -> Read:
    """Outputs by name of the network in `samples.trained`: `features` [N,64] and `group` [N], the class it sees.

    Raises:
        UserError: the samples come without one.
    """
    net = samples.trained
    if net is None:
        raise UserError("the features 'class_features' need the network that the stage 'features' trains: run it first")
    return samples.read(f"{TRAINED} {net.sha256}", net.read)


def features_name(samples: Samples, features: Features) -> str:
    """Name of the features that `extract` gives for such samples, with six digits of the network's sha256."""
    if features == "pixels":
        return features
    if features == TRAINED:
        return samples.trained.label if samples.trained else TRAINED
    return f"{samples.network}-{str(read_card(name=samples.network)['sha256'])[:6]}"


@functools.lru_cache(maxsize=len(NETWORKS))
def _shipped(network: str) -> tuple[DigitColorNet, str]:
    """Shipped network, and a name that identifies its weights."""
    return load_features(name=network), f"{network} {json.dumps(read_card(name=network)['sha256'])}"


@torch.inference_mode()
def read_images(net: DigitColorNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N,64] and classes [N] int64 of images [N,C,H,W] in [-1,1], on their device, 512 at a time.

    Raises:
        UserError: the network does not read such images.
    """
    net.to(images.device)
    seen = [net(part) for part in torch.split(images, _CHUNK)]
    return torch.cat([part.features for part in seen]), torch.cat([part.digit.argmax(dim=1) for part in seen])
