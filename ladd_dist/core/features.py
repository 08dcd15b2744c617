"""Shipped feature networks, small classifiers of class and hue, for distances, `accuracy` and a pixel critic."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ladd_dist.core.door import decode, read_bytes
from ladd_dist.core.errors import MissingFileError, UserError, reading
from ladd_dist.core.types import COLOUR_CLOTHES, COLOUR_DIGITS, ImageSpec

FEATURE_DIM = 64
NUM_DIGITS = 10
NUM_HUES = 12
SIZE = 16
DIGITS, CLOTHES = "digit_color", "fashion_color"
"""Names of the shipped networks: their weights are NAME.safetensors, their cards NAME.json."""
WEIGHTS_NAME = f"{DIGITS}.safetensors"
CARD_NAME = f"{DIGITS}.json"
_FOLDER = Path(__file__).parent.parent / "metrics"


class Reads(NamedTuple):
    """What a shipped network reads, and how its layers are laid out for that."""

    shows: str
    """What the images show, in the words of `Dataset.shows`."""
    channels: tuple[int, ...]
    """Numbers of channels that it reads; grey images are seen as RGB of no colour."""
    size: int
    """Side length in pixels to which images are resized."""
    strides: tuple[int, int, int, int]
    """Strides of the convolutions."""
    train: str
    """Flags with which `benchmarks/train_features.py` trains it."""


NETWORKS = {
    DIGITS: Reads(COLOUR_DIGITS, (3,), SIZE, (1, 2, 1, 2), "--mnist-root data/mnist"),
    CLOTHES: Reads(
        COLOUR_CLOTHES, (3, 1), 2 * SIZE, (2, 2, 1, 2), "--network fashion_color --fashion-root data/fashion-mnist"
    ),
}


def network_for(image: ImageSpec, shows: tuple[str, ...]) -> str | None:
    """Name of the shipped network that was made for such images; None if there is none."""
    fits = (name for name, reads in NETWORKS.items() if reads.shows in shows and image.channels in reads.channels)
    return next(fits, None)


class Reading(NamedTuple):
    """Outputs of the network for N images."""

    features: Tensor  # [N,64] zero mean, unit variance over its training images
    digit: Tensor  # [N,10] logits of the class: the digit, or the kind of clothes
    hue: Tensor  # [N,12] logits; bin k is hue in [k/12, (k+1)/12)


def shrink(images: Tensor, size: int = SIZE) -> Tensor:
    """Images [N,C,H,W] resized to float32 [N,C,size,size], antialiased bilinear; unchanged where they have that size.

    What is no square is squeezed into one, as clean-fid does it: nothing is cut off, and shapes are distorted alike in
    all sets that are compared.
    """
    images = images.float()
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


class DigitColorNet(nn.Module):
    """Four convolutions, 64 features, and two linear classifiers on them (class, hue); about 147,000 parameters.

    Batch norm without scale standardises the features. A Frechet distance is then in units of the spread of real
    images, 64 in all, whatever scale training chose.

    Args:
        name: which of the `NETWORKS` it is.
    """

    def __init__(self, name: str = DIGITS) -> None:
        super().__init__()
        self.reads = NETWORKS[name]
        first, second, third, fourth = self.reads.strides
        self.body = nn.Sequential(
            *_block(3, 32, stride=first),
            *_block(32, 48, stride=second),
            *_block(48, 64, stride=third),
            *_block(64, 64, stride=fourth),
            nn.Flatten(),
            nn.Linear(64 * (SIZE // 4) ** 2, FEATURE_DIM),
            nn.BatchNorm1d(FEATURE_DIM, affine=False),
        )
        self.digit = nn.Linear(FEATURE_DIM, NUM_DIGITS)
        self.hue = nn.Linear(FEATURE_DIM, NUM_HUES)

    def forward(self, images: Tensor) -> Reading:
        """Features and logits of images [N,3,H,W] (grey [N,1,H,W] where it reads them) in [-1,1] of any size.

        Raises:
            UserError: the images have another shape.
        """
        if images.ndim != 4 or images.shape[1] not in self.reads.channels:
            kinds = "RGB" if self.reads.channels == (3,) else "RGB or grey"
            raise UserError(
                f"the shipped network for {self.reads.shows} needs {kinds} images [N,C,H,W], got {list(images.shape)}: "
                "leave its metrics out of the recipe, or set their features to 'pixels'"
            )
        small = shrink(images, self.reads.size).expand(-1, 3, -1, -1)
        features = self.body(small.contiguous(memory_format=torch.channels_last))
        return Reading(features, self.digit(features), self.hue(features))


def _block(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.SiLU()]


def load_features(folder: Path | None = None, name: str = DIGITS) -> DigitColorNet:
    """Load a trained network on the CPU, in eval mode, without gradients, after a check of the weights' sha256.

    Args:
        folder: where the weights `{name}.safetensors` and their card `{name}.json` lie; default: the shipped ones.

    Raises:
        FileNotFoundError: a file is missing.
        UserError: a file is damaged, or the weights are not those of the card.
    """
    from safetensors.torch import load

    card, remedy = read_card(folder, name), _remedy(name)
    path = (folder or _FOLDER) / f"{name}.safetensors"
    data = _read(path, remedy)
    digest = hashlib.sha256(data).hexdigest()
    if digest != card["sha256"]:
        raise UserError(
            f"{path} is damaged or another file than its card {name}.json describes: sha256 {digest[:12]}..., the card "
            f"says {str(card['sha256'])[:12]}...; {remedy}"
        )
    net = DigitColorNet(name)
    with reading(path, "does not fit this version's network", remedy):
        net.load_state_dict(load(data))
    return net.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def read_card(folder: Path | None = None, name: str = DIGITS) -> dict[str, object]:
    """Card of the weights: training command, held-out accuracies per source, sha256, feature dimension, date.

    Raises:
        FileNotFoundError: the card is missing.
        UserError: the file is damaged or no card.
    """
    path, remedy = (folder or _FOLDER) / f"{name}.json", _remedy(name)
    card: dict[str, object] = decode(_read(path, remedy), dict[str, object], str(path), remedy)
    if not isinstance(card.get("sha256"), str):
        raise UserError(f"{path} is no card: it must be a JSON object with the key 'sha256'; {remedy}")
    return card


def _remedy(name: str) -> str:
    how = f"python benchmarks/train_features.py {NETWORKS[name].train} --out ladd_dist/metrics"
    return f"install ladd_dist again, or train it: {how}"


def _read(path: Path, remedy: str) -> bytes:
    if not path.exists():
        raise MissingFileError(f"{path} is missing; {remedy}")
    return read_bytes(path)
