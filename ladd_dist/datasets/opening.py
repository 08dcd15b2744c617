"""Opening a data set for training: some of its images are looked at first, so that wrong ones train nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Split

NUM_LOOKED_AT = 64
"""Images of a set that are checked before a training, spread over all of it."""
_ROUNDING = 1e-3


def open_images(dataset: Dataset, split: Split) -> ImageSet:
    """Open a split and check images and labels that are spread over it: shape, type, range, classes.

    Raises:
        UserError: they are not what a training needs; the message says what would be.
        FileNotFoundError: the files are missing and cannot be fetched.
    """
    images = dataset.build(split=split)
    who, spec = f"dataset {dataset.name!r}, split {split!r}", dataset.spec()
    if len(images) < 1:
        raise UserError(f"{who}: it holds no image; look at the folder that its settings name")
    if images.image != spec:
        raise UserError(f"{who}: spec() says {spec}, the opened set has {images.image}; they must agree")
    rows = spread(len(images), NUM_LOOKED_AT)
    check_batch(who, spec, images.batch(rows), len(rows))
    return images


def spread(length: int, most: int) -> Tensor:
    """Up to `most` indices [N] int64 of a set of `length`, evenly spread, the first and the last among them."""
    return torch.linspace(0, length - 1, min(length, most), dtype=torch.float64).round().long()


def check_batch(who: str, spec: ImageSpec, batch: Any, num: int) -> None:
    """Check what `ImageSet.batch` gave for `num` indices.

    Args:
        who: beginning of messages.

    Raises:
        UserError: images or labels are not as `spec` and the interface say.
    """
    if not (isinstance(batch, tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise UserError(f"{who}: batch(indices) must return a pair of tensors (images, labels), got {type(batch)}")
    images, labels = batch
    if images.dtype != torch.float32:
        raise UserError(
            f"{who}: images must be float32 in [-1, 1], got {images.dtype}; bytes become that by "
            "images.float() / 127.5 - 1"
        )
    expected = (num, *spec.shape)
    if tuple(images.shape) != expected:
        raise UserError(
            f"{who}: {num} images must be {list(expected)} (as spec() says), got {list(images.shape)}; resize "
            "or crop them in batch"
        )
    if not bool(images.isfinite().all()):
        raise UserError(f"{who}: images hold NaN or infinity")
    low, high = float(images.min()), float(images.max())
    if low < -1 - _ROUNDING or high > 1 + _ROUNDING:
        how = "scale bytes by images.float() / 127.5 - 1" if high > 2 else "scale or clamp them"
        raise UserError(f"{who}: images must lie in [-1, 1], these reach from {low:.4g} to {high:.4g}; {how}")
    _check_labels(who, spec, labels, num)


def _check_labels(who: str, spec: ImageSpec, labels: Tensor, num: int) -> None:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (num,):
        raise UserError(f"{who}: labels must be int64 [{num}], got {labels.dtype} {list(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= spec.num_classes:
        raise UserError(
            f"{who}: labels must be 0 to {spec.num_classes - 1} ({spec.num_classes} classes, as spec() says), these "
            f"reach from {low} to {high}; {spec.num_classes} would mean no class at all"
        )
