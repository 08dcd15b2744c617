"""Shards of pictures in WebDataset's format as a data set: local files, `pipe:` commands, or from web servers."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from ladd_dist.core.errors import ConsentError, UserError
from ladd_dist.core.picture_file import Fit, Fitting, colour_of
from ladd_dist.core.picture_pool import Picture
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import named_outside
from ladd_dist.core.printable import one_line
from ladd_dist.core.ranges import Within
from ladd_dist.core.serialize import NEUTRAL, signature
from ladd_dist.core.sizes import PictureSize, height_width
from ladd_dist.core.typed_line import again
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, Progress, Split
from ladd_dist.datasets.cached_pictures import CachedPictures, open_cache
from ladd_dist.datasets.folder import CACHE
from ladd_dist.datasets.picture_cache import is_cached, make_cache, read_card, refuse_bad, silent
from ladd_dist.datasets.shard_notes import content_fingerprint, noted_texts, stamp_of
from ladd_dist.datasets.shard_pictures import Asked, Captions, read_captions, read_pictures
from ladd_dist.datasets.shard_urls import expand, is_remote, shown


@register("webdataset")
@dataclass(frozen=True)
class Webdataset(Dataset):
    """Pictures in WebDataset's tar files: a picture a key, with its class (`.cls`) or caption (`.txt`, `.json`).

    They are read and decoded once, into a folder of the cache. What pins them: the contents of local files, which may
    be moved; of commands and web addresses the text of `urls` and `revision`, since their content is not known before
    it is fetched. docs/pictures.md says what is read.
    """

    urls: str = field(default="", metadata=NEUTRAL)
    """The shards, like 'pictures/{000..099}.tar', a folder, a glob, 'https://HOST/{000..099}.tar' or 'pipe:COMMAND';
    `::` between several."""
    revision: str = ""
    """Name of your own for the content behind commands and web addresses. Another one makes it be read again."""
    size: PictureSize = 32
    """Size of the images in pixels, a side or height and width."""
    num_classes: Annotated[int, Within("[0, 1000000]")] = 0
    """Number of classes, with ids from 0 in `.cls`; 0: all pictures are of one class."""
    captions: Captions = "none"
    """Texts for a network that reads texts, instead of class ids: `txt`, the member `.txt`; `json`, field `text` of the
    member `.json`; or none. Shards with captions are read twice the first time: texts first, then pictures."""
    fit: Fit = "crop"
    """How a picture of another shape gets the size: `crop` takes its centre, `pad` puts `background` around it,
    `squeeze` changes its shape."""
    background: str = "white"
    """Colour beneath transparent pixels and around padded pictures, like white or #20c0ff."""
    flip: bool = False
    """Whether the teacher is also trained on mirror images (left and right), each picture half of the time."""
    held_out: Annotated[float, Within("[0, 1)")] = 0.05
    """Share of the pictures that no training sees, by a hash of the key."""
    on_bad: Literal["error", "skip"] = field(default="error", metadata=NEUTRAL)
    """What to do about samples that cannot be used: an error that names them, or leave them out. A shard that is
    damaged is always an error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            colour_of(self.background)
        except ValueError as error:
            raise UserError(f"background: {error}") from error
        if self.captions != "none" and self.num_classes:
            raise UserError("num_classes and captions exclude each other; a sample has a class or a text")

    def fingerprint(self) -> str:
        """Hash of the contents of files and the texts of commands and addresses; empty where a file is missing."""
        try:
            return content_fingerprint(self._shards()).content
        except (UserError, OSError):  # `prepare` says so, to whoever needs the pictures
            return ""

    def texts(self) -> tuple[str, ...]:
        if self.captions == "none":
            return ()
        return noted_texts(signature("captions-1", self.fingerprint(), self.captions, self.revision), self._read_texts)

    def spec(self) -> ImageSpec:
        return ImageSpec(3, *height_width(self.size), len(self.texts()) or self.num_classes or 1)

    def flips(self) -> bool:
        return self.flip

    def shares(self, cache: Path) -> Tensor | None:
        return self.open(split="train", cache=cache).shares() if self.num_classes else None

    def facts(self, cache: Path) -> dict[str, str]:
        folder, told = self.cache_folder(cache), {"shards": f"{len(self._shards()):,} ({shown(self.urls)})"}
        if is_cached(folder):
            card = read_card(folder)
            first = one_line("; ".join(f"{bad.name}: {bad.reason}" for bad in card.bad[:3]))
            what = "cannot be used" if card.skipped and self.on_bad == "error" else "left out"
            told |= {"pictures": f"{card.num:,}", what: f"{card.skipped:,}{f' ({first})' if first else ''}"}
        if self.captions != "none":
            return {**told, "captions": f"{len(self.texts()):,} different"}
        return {**told, "classes": f"{self.num_classes:,}" if self.num_classes else "none"}

    def cache_folder(self, cache: Path) -> Path:
        """Where the decoded pictures lie; the name follows from their source and from the settings they depend on."""
        shape = {name: getattr(self, name) for name in ("fit", "background", "captions", "num_classes", "revision")}
        sides = list(height_width(self.size))
        return cache / f"pictures-{signature('webdataset-cache-1', self.fingerprint(), sides, shape)}"

    def prepare(self, cache: Path, progress: Progress) -> None:
        """Read and decode the pictures into `cache`, unless they are there.

        Raises:
            UserError: a shard is missing, damaged or cannot be read to its end, none of the pictures can be decoded,
                or a file changes meanwhile; with `on_bad` error, a sample cannot be used (the others stay decoded).
            ConsentError: a received file names commands or addresses, and nobody has asked for them.
        """
        folder, shards, texts = self.cache_folder(cache), self._shards(), self.texts()
        asked, num = Asked(self.num_classes, self.captions), len(texts) or self.num_classes or 1
        before = content_fingerprint(shards).stamp

        def pictures() -> Iterator[Picture]:
            return read_pictures(self._readable(), asked, {text: number for number, text in enumerate(texts)})

        def verify() -> None:
            if stamp_of(shards) != before:
                raise UserError("dataset.urls: the shards changed while they were read; run the same command again")

        fitting = Fitting(*height_width(self.size), self.fit, colour_of(self.background))
        make_cache(folder, pictures, fitting, num_conditions=num, progress=progress, verify=verify)
        if self.on_bad == "error":
            remedy = "repair or remove them, or take --dataset.on-bad skip, which leaves them out"
            refuse_bad(read_card(folder), f"dataset.urls {shown(self.urls)}", remedy)

    def open(self, *, split: Split, cache: Path) -> CachedPictures:
        self.prepare(cache, silent)
        whole = self.captions == "none"
        images = open_cache(self.cache_folder(cache), split=split, held_out=self.held_out, whole_classes=whole)
        if self.num_classes and split == "train":
            counts = torch.bincount(images.conditions, minlength=self.num_classes)
            if empty := (counts == 0).nonzero().flatten().tolist():
                raise UserError(
                    f"dataset.num_classes is {self.num_classes}, and no picture is of class "
                    f"{', '.join(str(number) for number in empty[:5])}{', ...' if len(empty) > 5 else ''}"
                )
        return images

    def build(self, *, split: Split) -> CachedPictures:
        return self.open(split=split, cache=CACHE)

    def _shards(self) -> tuple[str, ...]:
        return _expanded(self.urls)

    def _readable(self) -> tuple[str, ...]:
        """The shards, which this command may read.

        Raises:
            ConsentError: commands or addresses that a received file names alone.
        """
        shards, where = self._shards(), named_outside(self.urls)
        if where and any(is_remote(shard) for shard in shards):
            raise ConsentError(
                f"{where} names the shards {shown(self.urls)}. A command in it is run and an address in it is fetched "
                f"only if you ask; if you trust it, type: {again({'--hub': [self.urls]})}"
            )
        return shards

    def _read_texts(self) -> Iterator[str]:
        shards = self._readable()
        print(f"reading the captions of {len(shards):,} shards, once", file=sys.stderr, flush=True)
        found = read_captions(shards, self.captions)
        first = next(found, None)
        if first is None:
            raise UserError(f"dataset.captions {self.captions}: no sample of {shown(self.urls)} has one")
        return itertools.chain([first], found)


@functools.lru_cache(maxsize=4)
def _expanded(urls: str) -> tuple[str, ...]:
    return tuple(expand(urls, "dataset.urls"))
