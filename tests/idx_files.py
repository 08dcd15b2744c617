"""Synthetic files in MNIST's format, of the real sizes; each class has a pattern of its own."""

from __future__ import annotations

import struct
from pathlib import Path

import torch

NUM = {"train": 60_000, "t10k": 10_000}


def write_idx(folder: Path, collection: str) -> Path:
    """Write the four files to `folder`/COLLECTION/raw; returns `folder`, the `root` of the data set.

    Image i shows class i mod 10, a bar that reaches the frame's border, with the set's first ink at 255.
    """
    raw = folder / collection / "raw"
    raw.mkdir(parents=True)
    ink = torch.zeros(10, 28, 28, dtype=torch.uint8)
    for number in range(10):
        ink[number, :, 2 * number : 2 * number + 8] = 255
    for name, num in NUM.items():
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, num, 28, 28) + ink.repeat(num // 10, 1, 1).numpy().tobytes()
        )
        labels = bytes(i % 10 for i in range(num))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, num) + labels)
    return folder
