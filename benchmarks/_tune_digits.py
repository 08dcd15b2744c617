"""Digits as pictures in folders for `benchmarks.tune`: all hues but blue, and one class in blue."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from ladd_dist.core.rng import generator
from ladd_dist.datasets.color import SATURATION, VALUE, hsv_to_rgb, paint
from ladd_dist.datasets.digits import Digits

BLUE = (0.58, 0.72)
"""Hues of the new pictures; those that the base learns keep .05 away from them."""
REPEAT, APART = 4, 0.05
_DONE = "metadata.jsonl"


def write_digits(folder: Path, *, size: int, only: str = "") -> Path:
    """Write the digits in a folder for each class, unless they are there, each in four colours; returns the folder.

    `metadata.jsonl` says which pictures show the same digit.

    Args:
        only: a class that is written alone and in blue, into the folder itself; empty: all, in every other hue.
    """
    if (folder / _DONE).exists():
        return folder
    ink, labels = (
        torch.cat([getattr(Digits(size=size, repeat=1).build(split=split), name) for split in ("train", "test")])
        for name in ("grey", "labels")
    )
    lines = []
    for turn in range(REPEAT):
        images = paint(ink.float() / 255.0, _colours(len(ink), turn, blue=bool(only)))
        pixels = ((images + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        for number, (pixel, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            if only and str(label) != only:
                continue
            name = f"{'' if only else f'{label}/'}{number:04d}-{turn}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixel).save(folder / name)
            lines.append(json.dumps({"file_name": name, "base": f"{number:04d}"}))
    (folder / _DONE).write_text("\n".join(lines))
    return folder


def _colours(num: int, turn: int, *, blue: bool) -> torch.Tensor:
    """Colours [num,3] as RGB in [0, 1], as vivid as those of `Digits`."""
    hue, saturation, value = torch.rand(3, num, generator=generator("tune-digits", turn, blue))
    low, width = (BLUE[0], BLUE[1] - BLUE[0]) if blue else (BLUE[1] + APART, 1.0 - BLUE[1] + BLUE[0] - 2 * APART)
    parts = (low + width * hue) % 1.0, _within(saturation, SATURATION), _within(value, VALUE)
    return hsv_to_rgb(torch.stack(parts, 1))


def _within(uniform: torch.Tensor, ends: tuple[float, float]) -> torch.Tensor:
    return ends[0] + (ends[1] - ends[0]) * uniform
