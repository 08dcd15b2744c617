"""The contract of kind `dataset`; see `ladd_dist/testing/checks.py`."""

from __future__ import annotations

import torch

from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Split
from ladd_dist.datasets.opening import NUM_LOOKED_AT, open_images, spread
from ladd_dist.testing.basics import ContractError, call, check_basics, label, require


def check_dataset(dataset: Dataset) -> None:
    """Check images and labels of both splits: shape, type, range, classes, and that they depend on the index alone.

    It opens the data as a training would; a dataset without images has its settings checked alone.

    Raises:
        ContractError: one of these does not hold, or the files are not there.
    """
    check_basics(dataset)
    who = label(dataset)
    mark = call(who, "in fingerprint()", dataset.fingerprint)
    require(isinstance(mark, str), f"{who}: fingerprint() must return text, got {mark!r}")
    if not dataset.has_images:
        return
    spec = call(who, "in spec()", dataset.spec)
    require(isinstance(spec, ImageSpec), f"{who}: spec() must return an ImageSpec, got {spec!r}")
    good = min(*spec.shape, spec.num_classes) >= 1
    require(good, f"{who}: channels, height, width and num_classes must be at least 1, spec() says {spec}")
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        try:
            images = call(who, f"to open split {split!r}", open_images, dataset, split)
        except ContractError as error:  # of what was looked at, the message says enough
            raise ContractError(str(error.__cause__)) if isinstance(error.__cause__, UserError) else error from None
        _check_rows(f"{who}, split {split!r}", images)
        again = dataset.build(split=split)
        rows = spread(len(images), NUM_LOOKED_AT)
        same = len(again) == len(images) and torch.equal(again.batch(rows)[0], images.batch(rows)[0])
        require(same, f"{who}: split {split!r} opened twice gives other images; sort what a folder lists")


def _check_rows(who: str, images: ImageSet) -> None:
    rows = spread(len(images), NUM_LOOKED_AT)
    shown, labels = images.batch(rows)
    require(
        float(shown.min()) < 0,
        f"{who}: all values of {len(rows)} images lie in [0, 1], black is -1: scale them by 2 * images - 1",
    )
    back = torch.arange(len(rows) - 1, -1, -1)
    turned = call(who, "on indices in another order", images.batch, rows[back])
    same = torch.equal(turned[0][back], shown) and torch.equal(turned[1][back], labels)
    require(same, f"{who}: images and labels must depend on their index alone; in another order they differ")
