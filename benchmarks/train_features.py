"""Train the digit-and-colour network that ships in `ladd_dist/metrics/`.

python benchmarks/train_features.py --mnist-root data/mnist --out ladd_dist/metrics
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.features import CARD_NAME, FEATURE_DIM, NUM_HUES, WEIGHTS_NAME, DigitColorNet, shrink
from ladd_dist.core.rundir import write_bytes
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.color import SATURATION, VALUE, ColorDigits, hsv_to_rgb, paint
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.mnist import Mnist
from ladd_dist.metrics.color import hue

_WARMUP_STEPS = 50
_LABEL_SMOOTHING = 0.05
_EVERY = 100


@dataclass(frozen=True)
class Options:
    """Train the feature network on digits and, where MNIST is at hand, on MNIST at 32 and 16 pixels."""

    out: Path
    """Folder of the weights and their card."""
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


def open_sources(mnist_root: str | None) -> dict[str, Dataset]:
    """Name -> dataset of every source."""
    sources: dict[str, Dataset] = {"digits@16": Digits(size=16)}
    if mnist_root is not None:
        sources |= {f"mnist@{size}": Mnist(root=mnist_root, size=size) for size in (32, 16)}
    return sources


def draw_images(source: ColorDigits, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh training images [N,3,16,16], digits [N] and hue bins [N]: new colours, slight turns, shifts and noise."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    index = torch.randint(len(source.grey), (num,), generator=generator)
    angle, shift = uniform(-0.15, 0.15, num), uniform(-0.125, 0.125, num, 2)
    scale = uniform(0.92, 1.12, num)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grey = source.grey[index].float() / 255.0
    grey = F.grid_sample(grey, F.affine_grid(theta, list(grey.shape), align_corners=False), align_corners=False)
    hue = uniform(0.0, 1.0, num)
    rgb = hsv_to_rgb(torch.stack([hue, uniform(*SATURATION, num), uniform(*VALUE, num)], 1))
    images = shrink(paint(grey, rgb))
    images = images + uniform(0.0, 0.1, num, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    return images, source.labels[index], (hue * NUM_HUES).long().clamp_max(NUM_HUES - 1)


def train(sources: list[ColorDigits], options: Options) -> DigitColorNet:
    """Train from scratch; the same options give the same network (on the same machine and number of threads)."""
    generator = torch.Generator().manual_seed(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = DigitColorNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.learning_rate, weight_decay=0.02)
    for step in range(options.steps):
        warm = min(1.0, (step + 1) / _WARMUP_STEPS)
        rate = options.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / options.steps))
        optimizer.param_groups[0]["lr"] = rate
        parts = [draw_images(source, options.batch_size // len(sources), generator) for source in sources]
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
    """Shares of test images whose digit and whose hue bin (12) are read right, and their number."""
    digits_right = hues_right = 0
    for indices in torch.split(torch.arange(len(test)), 500):
        images, digit = test.batch(indices)
        seen = net(images)
        digits_right += int((seen.digit.argmax(1) == digit).sum())
        hues_right += int((seen.hue.argmax(1) == hue_bin(test.colours[indices])).sum())
    return {
        "digit": round(digits_right / len(test), 4),
        "hue": round(hues_right / len(test), 4),
        "digits": len(test.grey),
        "images": len(test),
    }


def hue_bin(rgb: Tensor) -> Tensor:
    """The bin [N] int64, 0 to 11, of the hue of colours [N,3] in [0,1]."""
    return (hue(rgb) * NUM_HUES).long().clamp_max(NUM_HUES - 1)


def save(net: DigitColorNet, card: dict[str, Any], out: Path) -> None:
    """Write weights, then card, each under a temporary name first: a reader sees whole files only.

    Between the two renames old card and new weights stand together; the sha256 check refuses that pair.
    """
    from safetensors.torch import save as to_bytes

    data = to_bytes({name: value.contiguous() for name, value in net.state_dict().items()})
    card = {**card, "sha256": hashlib.sha256(data).hexdigest()}
    for name, content in ((WEIGHTS_NAME, data), (CARD_NAME, (json.dumps(card, indent=2) + "\n").encode())):
        write_bytes(out / name, content)


def main(options: Options) -> None:
    """Train, measure on the test splits, write."""
    sources = open_sources(options.mnist_root)
    net = train([_grey(source, "train") for source in sources.values()], options)
    measured = {name: accuracies(net, _grey(source, "test")) for name, source in sources.items()}
    for name, row in measured.items():
        print(f"{name}: digit {row['digit']:.4f}, hue {row['hue']:.4f} on {row['digits']} held-out digits")
    command = "python -m ladd_dist.metrics.train_features"
    # A placeholder for the folder: where MNIST lay on one machine tells a reader nothing.
    command += " --mnist-root data/mnist" if options.mnist_root is not None else ""
    command += f" --steps {options.steps} --batch-size {options.batch_size} --learning-rate {options.learning_rate}"
    card = {
        "command": f"{command} --seed {options.seed} --out ladd_dist/metrics",
        "accuracies": measured,
        "feature_dim": FEATURE_DIM,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    save(net, card, options.out)
    print(f"wrote {options.out / WEIGHTS_NAME} and {options.out / CARD_NAME}")


def _grey(source: Dataset, split: Any) -> ColorDigits:
    images = source.build(split=split)
    assert isinstance(images, ColorDigits)
    return images


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
