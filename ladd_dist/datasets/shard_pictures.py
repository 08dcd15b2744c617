"""The samples of picture shards: a picture, and its class or caption, one of them in memory at a time.

Members are read by `core/tar_members.py`. `webdataset` takes a damaged header for the end of a shard, and what a shard
declares would decide how much memory its reader takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.picture_file import OTHER_SUFFIXES, SUFFIXES
from ladd_dist.core.picture_pool import Picture
from ladd_dist.core.tar_members import read_stream
from ladd_dist.core.tar_samples import TarSample, grouped
from ladd_dist.core.tar_stream import Stream
from ladd_dist.datasets.prompts import LONGEST
from ladd_dist.datasets.shard_urls import opened, shown

Captions = Literal["none", "txt", "json"]
MOST_MEMBER_BYTES = 2**28
"""Bytes of the largest member that is read: 256 MiB, more than a file of the largest picture that is decoded has."""
_MOST_DIGITS = 18
_KINDS = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
_OTHER_KINDS = frozenset(suffix.removeprefix(".") for suffix in OTHER_SUFFIXES)
_DATA = frozenset({"cls", "txt", "json"})


@dataclass(frozen=True)
class _Json:
    text: str | None = None


class Asked(NamedTuple):
    """What samples must have beside their picture."""

    num_classes: int = 0
    """Number of classes, of which `.cls` has the id; 0: no class is read."""
    captions: Captions = "none"
    """The member that has the caption."""


def read_pictures(urls: Iterable[str], asked: Asked, numbers: Mapping[str, int]) -> Iterator[Picture]:
    """The pictures of shards in their order, as the picture cache takes them. A wrong sample is a bad picture.

    Args:
        numbers: ids of captions, where captions are asked for.

    Raises:
        UserError: a shard is missing, damaged, or cannot be read to its end.
    """
    for url in urls:
        with opened(url) as stream:
            for sample in _samples(url, stream):
                yield _picture(sample, url, asked, numbers)


def read_captions(urls: Iterable[str], captions: Captions) -> Iterator[str]:
    """The captions of shards, of those samples that have one that can be used; no picture is kept.

    Raises:
        UserError: as `read_pictures` raises.
    """
    for url in urls:
        with opened(url) as stream:
            for sample in _samples(url, stream, pictures=False):
                text, bad = _caption(sample, captions)
                if not bad:
                    yield text


def _samples(url: str, stream: Stream, *, pictures: bool = True) -> Iterator[TarSample]:
    kept = _DATA | _KINDS if pictures else _DATA
    members = read_stream(stream, shown(url), MOST_MEMBER_BYTES, raise_it="larger files are no pictures for training")
    return grouped(members, shown(url), lambda extension: extension in kept)


def _picture(sample: TarSample, url: str, asked: Asked, numbers: Mapping[str, int]) -> Picture:
    name = f"{shown(url)}, sample {sample.key!r}"
    found = [extension for extension in sample.members if extension in _KINDS]
    condition, bad = 0, ""
    if len(found) > 1:
        bad = f"it has {len(found)} pictures (.{', .'.join(sorted(found))}); a sample has one"
    elif not found:
        bad = _no_picture(sample)
    elif asked.captions != "none":
        text, bad = _caption(sample, asked.captions)
        condition = numbers.get(text, 0)
        if not bad and text not in numbers:
            bad = "its caption was another one when the captions were read; run the same command again"
    elif asked.num_classes:
        condition, bad = _class_id(sample, asked.num_classes)
    return Picture(name, b"" if bad else sample.members[found[0]], condition, sample.key, bad)


def _no_picture(sample: TarSample) -> str:
    others = sorted(extension for extension in sample.members if extension in _OTHER_KINDS)
    if others:
        return f".{others[0]} is not read; convert it to PNG, JPEG or WebP"
    return f"it has no picture (.png, .jpg, .webp), only .{', .'.join(sorted(sample.members)[:5])}"


def _class_id(sample: TarSample, num_classes: int) -> tuple[int, str]:
    content = sample.members.get("cls")
    if content is None:
        return 0, "it has no class (.cls)"
    try:
        number = int(content) if len(content) <= _MOST_DIGITS else None
    except ValueError:
        number = None
    if number is None:
        return 0, f".cls holds {content[:20]!r}, not the number of a class"
    if not 0 <= number < num_classes:
        return 0, f".cls holds class {number}, and --dataset.num-classes says 0 to {num_classes - 1}"
    return number, ""


def _caption(sample: TarSample, captions: Captions) -> tuple[str, str]:
    """The caption in one line, or why there is none."""
    content = sample.members.get(captions)
    if content is None:
        return "", f"it has no caption (.{captions})"
    try:
        if captions == "json":
            text = decode(content, _Json, ".json", "field text has the caption").text or ""
        else:
            text = content.decode("utf-8-sig")
    except UserError as error:
        return "", str(error)
    except UnicodeDecodeError as error:
        return "", f".{captions} is not UTF-8 ({error.reason})"
    text = " ".join(text.split())
    if not text:
        return "", f"its caption (.{captions}) is empty"
    if len(text) > LONGEST or "\0" in text:
        return "", f".{captions} is no caption: {len(text):,} characters, at most {LONGEST:,} are read, none NUL"
    return text, ""
