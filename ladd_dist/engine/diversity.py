"""The variety of samples, compared with the teacher's from the same noises and classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.metrics.color import hue_entropy, mean_colour

POOLED = 8
"""Pixels a side to which pictures are averaged down before distances are taken: little to send, and no fine noise."""


def describe(images: Tensor, *, coloured: bool) -> Tensor:
    """A short description of each sample [N,C,H,W]: [N,K] float32 on the CPU; a row depends on its sample alone.

    The first column says whether the sample is finite, then comes its colour if these are `coloured` pictures, then its
    pixels, averaged down.
    """
    images = images.float()
    finite = images.flatten(1).isfinite().all(dim=1, keepdim=True).float()
    images = images.nan_to_num(0.0, 0.0, 0.0)
    height, width = (min(POOLED, size) for size in images.shape[2:])
    parts = [finite, *([mean_colour(images)] if coloured else [])]
    return torch.cat([*parts, functional.adaptive_avg_pool2d(images, (height, width)).flatten(1)], dim=1).cpu()


def compare(student: Tensor, teacher: Tensor, cond: Tensor, *, coloured: bool) -> dict[str, float]:
    """Shares of the teacher's figures, from rows of `describe` [N,K] at the same noises and classes.

    `finite` is the share of the student's samples that are; where it is below 1 it is all there is. `colour_variance`
    and `hue_entropy` need `coloured` pictures; `class_distance` needs classes [N] of which some are there twice.
    Figures that are 0 for the teacher are left out.
    """
    finite = float(student[:, 0].mean())
    if finite < 1:
        return {"finite": finite}
    mine, theirs = (_figures(rows, cond, coloured=coloured) for rows in (student, teacher))
    return {"finite": 1.0, **{name: value / theirs[name] for name, value in mine.items() if theirs[name] > 0}}


def _figures(rows: Tensor, cond: Tensor, *, coloured: bool) -> dict[str, float]:
    first = 4 if coloured else 1
    pixels = rows[:, first:].double()
    squares = torch.cdist(pixels, pixels, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = ~torch.eye(len(rows), dtype=torch.bool)
    found = {"distance": float(squares[others].mean().sqrt())}
    if cond.ndim == 1:
        same = (cond[:, None] == cond) & others
        if same.any():
            found["class_distance"] = float(squares[same].mean().sqrt())
    if coloured:
        colours = rows[:, 1:4]
        found["colour_variance"] = float(colours.double().var(dim=0, correction=0).mean())
        found["hue_entropy"] = hue_entropy(colours)
    return found
