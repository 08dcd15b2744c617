"""Shipped feature network, a small classifier of digit and hue, for distances, `accuracy` and a pixel critic."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ladd_dist.core.door import decode, read_bytes
from ladd_dist.core.errors import MissingFileError, UserError, reading

FEATURE_DIM = 64
NUM_DIGITS = 10
NUM_HUES = 12
SIZE = 16
WEIGHTS_NAME = "digit_color.safetensors"
CARD_NAME = "digit_color.json"
_FOLDER = Path(__file__).parent.parent / "metrics"
_REMEDY = (
    "install ladd_dist again, or train it: python benchmarks/train_features.py --mnist-root data/mnist "
    "--out ladd_dist/metrics"
)


class Reading(NamedTuple):
    """Outputs of the network for N images."""

    features: Tensor  # [N,64] zero mean, unit variance over its training images
    digit: Tensor  # [N,10] logits
    hue: Tensor  # [N,12] logits; bin k is hue in [k/12, (k+1)/12)


def shrink(images: Tensor) -> Tensor:
    """Images [N,3,S,S] resized to float32 [N,3,16,16], antialiased bilinear; unchanged at S = 16."""
    images = images.float()
    if images.shape[-2:] == (SIZE, SIZE):
        return images
    return F.interpolate(images, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)


class DigitColorNet(nn.Module):
    """Four convolutions, 64 features, and two linear classifiers on them (digit, hue); about 147,000 parameters.

    Batch norm without scale standardises the features. A Frechet distance is then in units of the spread of real
    images, 64 in all, whatever scale training chose.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_block(3, 32, stride=1),
            *_block(32, 48, stride=2),
            *_block(48, 64, stride=1),
            *_block(64, 64, stride=2),
            nn.Flatten(),
            nn.Linear(64 * (SIZE // 4) ** 2, FEATURE_DIM),
            nn.BatchNorm1d(FEATURE_DIM, affine=False),
        )
        self.digit = nn.Linear(FEATURE_DIM, NUM_DIGITS)
        self.hue = nn.Linear(FEATURE_DIM, NUM_HUES)

    def forward(self, images: Tensor) -> Reading:
        """Features and logits of images [N,3,S,S] in [-1,1] of any size S.

        Raises:
            UserError: the images are not [N,3,S,S].
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"the digit-and-colour network reads RGB images [N,3,S,S], got {list(images.shape)}")
        features = self.body(shrink(images).contiguous(memory_format=torch.channels_last))
        return Reading(features, self.digit(features), self.hue(features))


def _block(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.SiLU()]


def load_features(folder: Path | None = None) -> DigitColorNet:
    """Load the trained network on the CPU, in eval mode, without gradients, after a check of the weights' sha256.

    Args:
        folder: where `digit_color.safetensors` and its card `digit_color.json` lie; default: the shipped ones.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: a file is damaged, or the weights are not those of the card.
    """
    from safetensors.torch import load

    card = read_card(folder)
    path = (folder or _FOLDER) / WEIGHTS_NAME
    data = _read(path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise UserError(
            f"{path} is damaged or another file than its card {CARD_NAME} describes: sha256 {digest[:12]}..., the card "
            f"says {str(card['sha256'])[:12]}...; {_REMEDY}"
        )
    net = DigitColorNet()
    with reading(path, "does not fit this version's network", _REMEDY):
        net.load_state_dict(load(data))
    return net.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def read_card(folder: Path | None = None) -> dict[str, object]:
    """Card of the weights: training command, held-out accuracies per source, sha256, feature dimension, date.

    Raises:
        FileNotFoundError: the card is missing.
        UserError: the file is damaged or no card.
    """
    path = (folder or _FOLDER) / CARD_NAME
    card: dict[str, object] = decode(_read(path), dict[str, object], str(path), _REMEDY)
    if not isinstance(card.get("sha256"), str):
        raise UserError(f"{path} is no card: it must be a JSON object with the key 'sha256'; {_REMEDY}")
    return card


def _read(path: Path) -> bytes:
    if not path.exists():
        raise MissingFileError(f"{path} is missing; {_REMEDY}")
    return read_bytes(path)
