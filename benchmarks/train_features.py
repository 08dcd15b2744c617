"""Train one of the feature networks that ship in `ladd_dist/metrics/`: for colour digits, or for colour clothes.

python benchmarks/train_features.py --mnist-root data/mnist --out ladd_dist/metrics
python benchmarks/train_features.py --network fashion_color --fashion-root data/fashion-mnist --out ladd_dist/metrics
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.features import CLOTHES, DIGITS, FEATURE_DIM, NETWORKS, NUM_HUES, DigitColorNet, shrink
from ladd_dist.core.rundir import write_bytes
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.color import SATURATION, VALUE, ColorDigits, hsv_to_rgb, paint
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.fashion_mnist import ROOT as FASHION_ROOT
from ladd_dist.datasets.fashion_mnist import FashionMnist
from ladd_dist.datasets.mnist import Mnist
from ladd_dist.metrics.color import hue

_WARMUP_STEPS = 50
_LABEL_SMOOTHING = 0.05
_EVERY = 100


@dataclass(frozen=True)
class Options:
    """Train a feature network: on digits (and MNIST at 32 and 16 pixels, if it is at hand), or on clothes."""

    out: Path
    """Folder of the weights and their card."""
    network: Literal["digit_color", "fashion_color"] = "digit_color"
    """Which network: the digits' or the clothes'."""
    fashion_root: str | None = None
    """Folder with FashionMNIST/raw (downloaded there if missing), for the clothes' network."""
    mnist_root: str | None = None
    """Folder with MNIST/raw (downloaded there if missing); without it only scikit-learn's digits are used."""
    steps: int = 2000
    """Training steps."""
    batch_size: int = 252
    """Images a step, shared equally by the sources."""
    learning_rate: float = 4e-3
    """Peak of AdamW's rate; linear warm-up, cosine decay."""
    seed: int = 0
    """Of weights, order, augmentation and colours."""


class Distortion(NamedTuple):
    """Ranges of the random changes of a training image."""

    turn: float  # radians, either way
    shift: float  # share of half the image, either way
    scale: tuple[float, float]
    grey: float  # share of the images that have no colour


DISTORTIONS = {DIGITS: Distortion(0.15, 0.125, (0.92, 1.12), 0.0), CLOTHES: Distortion(0.03, 0.03, (0.96, 1.04), 0.2)}
NO_HUE = -100
"""Hue bin of a grey image, which `cross_entropy` ignores."""


def open_sources(options: Options) -> dict[str, Dataset]:
    """Name -> dataset of every source."""
    if options.network == CLOTHES:
        root = options.fashion_root or FASHION_ROOT
        return {
            "fashion_mnist@32": FashionMnist(root=root),
            "fashion_mnist@32, grey": FashionMnist(root=root, grey=True),
        }
    sources: dict[str, Dataset] = {"digits@16": Digits(size=16)}
    if options.mnist_root is not None:
        sources |= {f"mnist@{size}": Mnist(root=options.mnist_root, size=size) for size in (32, 16)}
    return sources


def draw_images(
    source: ColorDigits, num: int, generator: torch.Generator, network: str = DIGITS
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh training images [N,3,S,S], classes [N] and hue bins [N]: new colours, slight turns, shifts and noise."""
    change, size = DISTORTIONS[network], NETWORKS[network].size

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    index = torch.randint(len(source.grey), (num,), generator=generator)
    angle, shift = uniform(-change.turn, change.turn, num), uniform(-change.shift, change.shift, num, 2)
    scale = uniform(*change.scale, num)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grey = source.grey[index].float() / 255.0
    grey = F.grid_sample(grey, F.affine_grid(theta, list(grey.shape), align_corners=False), align_corners=False)
    hue = uniform(0.0, 1.0, num)
    rgb = hsv_to_rgb(torch.stack([hue, uniform(*SATURATION, num), uniform(*VALUE, num)], 1))
    bins = (hue * NUM_HUES).long().clamp_max(NUM_HUES - 1)
    if change.grey:
        without = uniform(0.0, 1.0, num) < change.grey
        rgb[without], bins[without] = 1.0, NO_HUE
    images = shrink(paint(grey, rgb), size)
    images = images + uniform(0.0, 0.1, num, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    return images, source.labels[index], bins


def train(sources: list[ColorDigits], options: Options) -> DigitColorNet:
    """Train from scratch; the same options give the same network (on the same machine and number of threads)."""
    generator = torch.Generator().manual_seed(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = DigitColorNet(options.network).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.learning_rate, weight_decay=0.02)
    for step in range(options.steps):
        warm = min(1.0, (step + 1) / _WARMUP_STEPS)
        rate = options.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))
        optimizer.param_groups[0]["lr"] = rate
        num = options.batch_size // len(sources)
        parts = [draw_images(source, num, generator, options.network) for source in sources]
        images, digit, hue = (torch.cat(part) for part in zip(*parts, strict=True))
        seen = net(images)
        loss_digit = F.cross_entropy(seen.digit, digit, label_smoothing=_LABEL_SMOOTHING)
        loss_hue = F.cross_entropy(seen.hue, hue)
        optimizer.zero_grad()
        torch.autograd.backward(loss_digit + loss_hue)
        optimizer.step()
        if step % _EVERY == 0 or step + 1 == options.steps:
            print(f"step {step:5d}  digit {loss_digit.item():.3f}  hue {loss_hue.item():.3f}", flush=True)
    return net.eval()


@torch.inference_mode()
def accuracies(net: DigitColorNet, test: ColorDigits) -> dict[str, Any]:
    """Shares of test images whose class and whose hue bin (12) are read right, and their number."""
    digits_right = hues_right = 0
    for indices in torch.split(torch.arange(len(test)), 500):
        images, digit = test.batch(indices)
        seen = net(images)
        digits_right += int((seen.digit.argmax(1) == digit).sum())
        hues_right += int((seen.hue.argmax(1) == hue_bin(test.colours[indices])).sum())
    seen = {"digit": round(digits_right / len(test), 4)}
    if test.image.channels == 3:
        seen["hue"] = round(hues_right / len(test), 4)
    return {**seen, "digits": len(test.grey), "images": len(test)}


def hue_bin(rgb: Tensor) -> Tensor:
    """The bin [N] int64, 0 to 11, of the hue of colours [N,3] in [0,1]."""
    return (hue(rgb) * NUM_HUES).long().clamp_max(NUM_HUES - 1)


def save(net: DigitColorNet, card: dict[str, Any], out: Path, network: str) -> None:
    """Write weights, then card, each under a temporary name first: a reader sees whole files only.

    Between the two renames old card and new weights stand together; the sha256 check refuses that pair.
    """
    from safetensors.torch import save as to_bytes

    data = to_bytes({name: value.contiguous() for name, value in net.state_dict().items()})
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    for name, content in (
        (f"{network}.safetensors", data),
        (f"{network}.json", (json.dumps(card, indent=2) + "\n").encode()),
    ):
        write_bytes(out / name, content)


def main(options: Options) -> None:
    """Train, measure on the test splits, write."""
    sources = open_sources(options)
    trained_on = [source for source in sources.values() if source.spec().channels == 3]  # grey is a distortion of these
    net = train([_grey(source, "train") for source in trained_on], options)
    measured = {name: accuracies(net, _grey(source, "test")) for name, source in sources.items()}
    for name, row in measured.items():
        hues = f", hue {row['hue']:.4f}" if "hue" in row else ""
        print(f"{name}: class {row['digit']:.4f}{hues} on {row['digits']} held-out images")
    card = {
        "command": _command(options),
        "accuracies": measured,
        "feature_dim": FEATURE_DIM,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    save(net, card, options.out, options.network)
    print(f"wrote {options.out / options.network}.safetensors and .json")


def _command(options: Options) -> str:
    """The command that trains this network again.

    Folders are placeholders: where MNIST lay on one machine tells a reader nothing.
    """
    command = "python benchmarks/train_features.py"
    if options.network == CLOTHES or options.mnist_root is not None:
        command += f" {NETWORKS[options.network].train}"
    command += f" --steps {options.steps} --batch-size {options.batch_size} --learning-rate {options.learning_rate}"
    return f"{command} --seed {options.seed} --out ladd_dist/metrics"


def _grey(source: Dataset, split: Any) -> ColorDigits:
    images = source.build(split=split)
    assert isinstance(images, ColorDigits)
    return images


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
