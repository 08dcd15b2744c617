"""A folder of one's own pictures as a data set: classes from folders, captions from metadata.jsonl or texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.picture_file import Fit, Fitting, colour_of
from ladd_dist.core.picture_pool import Picture
from ladd_dist.core.plugin import register
from ladd_dist.core.printable import one_line
from ladd_dist.core.ranges import Within
from ladd_dist.core.serialize import NEUTRAL, signature
from ladd_dist.core.sizes import PictureSize, height_width
from ladd_dist.core.types import ImageSpec
from ladd_dist.core.units import si
from ladd_dist.datasets import Counts, Dataset, Progress, Split
from ladd_dist.datasets.cached_pictures import CachedPictures, cached_counts, condition_counts, open_cache, split_counts
from ladd_dist.datasets.fingerprint import folder_fingerprint as folder_fingerprint  # where plug-ins import it from
from ladd_dist.datasets.folder_inventory import (
    Captions,
    Classes,
    Inventory,
    class_counts,
    content_fingerprint,
    copy_numbers,
    inventory,
    real,
)
from ladd_dist.datasets.folder_listing import list_pictures
from ladd_dist.datasets.picture_cache import is_cached, make_cache, read_card, refuse_bad, share_of, silent, with_copies

CACHE = Path("cache")
"""Folder for decoded pictures where no command says another."""
_MOST_SHOWN = 12


@register("folder")
@dataclass(frozen=True)
class Folder(Dataset):
    """Pictures in a folder and the folders below it: PNG, JPEG, WebP, and the first frame of GIF and APNG.

    They are decoded once, into a folder of the cache. docs/pictures.md says what becomes of each sort.
    """

    root: str = field(default="", metadata=NEUTRAL)
    """The folder."""
    size: PictureSize = 32
    """Size of the images in pixels, a side or height and width."""
    classes: Classes = "folders"
    """Classes: `folders`, one for each folder in `root`, with all that is below it, in the order of names; or none."""
    captions: Captions = "none"
    """Texts for a network that reads texts, instead of class ids: `metadata`, field `text` of metadata.jsonl; `txt`, a
    text beside each picture; or none."""
    fit: Fit = "crop"
    """How a picture of another shape gets the size: `crop` takes its centre, `pad` puts `background` around it,
    `squeeze` changes its shape."""
    background: str = "white"
    """Colour beneath transparent pixels and around padded pictures, like white or #20c0ff."""
    flip: bool = False
    """Whether the teacher is also trained on mirror images (left and right), each picture half of the time."""
    held_out: Annotated[float, Within("[0, 1)")] = 0.05
    """Share of the pictures that no training sees, by a hash of the `base` in metadata.jsonl, or else of the name;
    copies of a picture stay together."""
    on_bad: Literal["error", "skip"] = field(default="error", metadata=NEUTRAL)
    """What to do about pictures that cannot be used: an error that names them, or leave them out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            colour_of(self.background)
        except ValueError as error:
            raise UserError(f"background: {error}") from error

    def fingerprint(self) -> str:
        return content_fingerprint(Path(self.root)) if self.root else ""

    def texts(self) -> tuple[str, ...]:
        return self._inventory().texts if self.captions != "none" else ()

    def class_names(self) -> tuple[str, ...]:
        return self._inventory().classes if self.captions == "none" else ()

    def spec(self) -> ImageSpec:
        return ImageSpec(3, *height_width(self.size), self._inventory().num_conditions)

    def flips(self) -> bool:
        return self.flip

    def shares(self, cache: Path) -> Tensor | None:
        has_classes = self.captions == "none" and self.classes != "none"
        return self.open(split="train", cache=cache).shares() if has_classes else None

    def facts(self, cache: Path) -> dict[str, str]:
        found, folder = self._inventory(), self.cache_folder(cache)
        num, bad = sum(not entry.bad for entry in found.entries), sum(bool(entry.bad) for entry in found.entries)
        told = {"pictures": f"{num:,}", "decoded": f"{si(num * self.spec().num_values, 'B')}, not yet"}
        counts = class_counts(found)
        told |= {"cannot be used": f"{bad:,}"} if bad else {}
        if is_cached(folder):
            card = read_card(folder)
            first = one_line("; ".join(f"{bad.name}: {bad.reason}" for bad in card.bad[:3]))
            counts = condition_counts(folder, found.num_conditions)
            what = "cannot be used" if card.skipped and self.on_bad == "error" else "left out"
            told = {"pictures": f"{card.num:,}", what: f"{card.skipped:,}{f' ({first})' if first else ''}"}
        if self.captions != "none":
            return {**told, "captions": f"{len(found.texts):,} different"}
        listed = [f"{name} ({counts[number]:,})" for number, name in enumerate(found.classes[:_MOST_SHOWN])]
        more = f" and {len(found.classes) - _MOST_SHOWN:,} more" if len(found.classes) > _MOST_SHOWN else ""
        return {**told, "classes": one_line(f"{len(found.classes):,}: {', '.join(listed)}{more}" if listed else "none")}

    def counts(self, cache: Path) -> Counts:
        folder, found, whole = self.cache_folder(cache), self._inventory(), self.captions == "none"
        if is_cached(folder):
            return cached_counts(folder, held_out=self.held_out, whole_classes=whole)
        rows = [row for row, entry in enumerate(found.entries) if not entry.bad]
        good = [found.entries[row] for row in rows]
        shares = torch.tensor([share_of(entry.base or entry.name) for entry in good], dtype=torch.float64)
        numbers = torch.from_numpy(copy_numbers(Path(self.root), len(found.entries)))
        conditions = torch.tensor([entry.condition for entry in good], dtype=torch.int64)
        return split_counts(with_copies(shares, numbers[rows]), conditions, found.num_conditions, self.held_out, whole)

    def cache_folder(self, cache: Path) -> Path:
        """Where the decoded pictures lie; the name follows from their contents and from the settings they depend on."""
        shape = {name: getattr(self, name) for name in ("fit", "background", "classes", "captions")}
        sides = list(height_width(self.size))
        return cache / f"pictures-{signature('picture-cache-1', self.fingerprint(), sides, shape)}"

    def prepare(self, cache: Path, progress: Progress) -> None:
        """Decode the pictures into `cache`, unless they are there.

        Raises:
            UserError: the folder cannot be used, none of its pictures can be decoded, or it changes meanwhile; with
                `on_bad` error, a picture cannot be used (the others stay decoded).
        """
        found, folder, root = self._inventory(), self.cache_folder(cache), real(Path(self.root))

        def pictures() -> Iterator[Picture]:
            for entry in found.entries:
                yield Picture(entry.name, root / entry.name, entry.condition, entry.base, entry.bad)

        def verify() -> None:
            if list_pictures(root).stamp() != found.stamp:
                raise UserError(f"dataset.root {str(root)!r} changed while it was read; run the same command again")

        make_cache(
            folder, pictures, self._fitting(), num_conditions=found.num_conditions, total=len(found.entries),
            progress=progress, verify=verify,
        )  # fmt: skip
        if self.on_bad == "error":
            remedy = "repair or remove them, or take --dataset.on-bad skip, which leaves them out"
            refuse_bad(read_card(folder), f"dataset.root {self.root}", remedy)

    def open(self, *, split: Split, cache: Path) -> CachedPictures:
        self.prepare(cache, silent)
        whole = self.captions == "none"
        images = open_cache(self.cache_folder(cache), split=split, held_out=self.held_out, whole_classes=whole)
        if whole and split == "train":
            self._require_classes(images)
        return images

    def build(self, *, split: Split) -> CachedPictures:
        return self.open(split=split, cache=CACHE)

    def _require_classes(self, images: CachedPictures) -> None:
        found = self._inventory()
        counts = torch.bincount(images.conditions, minlength=found.num_conditions)
        empty = [name for name, count in zip(found.classes, counts.tolist(), strict=False) if not count]
        if empty:
            raise UserError(
                f"dataset.root {self.root}: none of the pictures can be used in class "
                f"{one_line(', '.join(empty[:5]))}; repair them, or remove the folder"
            )

    def _fitting(self) -> Fitting:
        return Fitting(*height_width(self.size), self.fit, colour_of(self.background))

    def _inventory(self) -> Inventory:
        if not self.root:
            raise UserError("dataset.root is empty; name a folder of pictures: --dataset.root my_pictures")
        return inventory(Path(self.root), self.classes, self.captions)
