"""The pictures of `benchmarks.tune`: a class in a style of its own, parted so that near-duplicates stay together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ladd_dist.core.rng import derive_seed

TINT = (1.0, 0.8, 0.0)
"""How much of the darkness each channel keeps: blue keeps none."""


def bases_of(pictures: Path) -> dict[str, str]:
    """What near-duplicates share, by the name of a picture's file; empty without metadata."""
    path = pictures / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {Path(line["file_name"]).name: line["base"] for line in lines if "base" in line}


def write_styled(pictures: Path, new: str, folder: Path) -> Path:
    """Write the pictures of a class in the new style, blue on white, unless they are there; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((pictures / new).glob("*.png")):
        target = folder / path.name
        if not target.exists():
            picture = Image.open(path).convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("L")
            dark = 255.0 - np.asarray(flat, np.float32)[..., None]
            Image.fromarray((255.0 - dark * np.array(TINT, np.float32)).round().astype(np.uint8)).save(target)
    return folder


def parted(folder: Path, bases: dict[str, str]) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder in random order: for training, and held out."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for path in folder.glob("*.png"):
        found[derive_seed("tune-base", bases.get(path.name, path.name)) % 2].append(path)
    for part in found:
        part.sort(key=lambda path: derive_seed("tune-picture", path.name))
    return found


def read_pictures(paths: list[Path], side: int) -> Tensor:
    pictures = []
    for path in paths:
        picture = Image.open(path).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        pictures.append(np.asarray(flat.resize((side, side), Image.Resampling.LANCZOS), np.float32))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1.0
