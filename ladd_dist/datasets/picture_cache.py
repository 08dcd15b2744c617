"""Pictures decoded once into a folder of the cache, and read from there by memory map.

A data set that has pictures in files of any sort feeds it with an iterator of `Picture` (`core/picture_pool.py`): a
name, the content (a path, bytes, or pixels), the condition (a class id, or a text of which the cache makes the id), and
the name that near-duplicates share. `make_cache` takes one after the other, decodes them by several processes, and
holds a few pieces of megabytes in memory, whatever the number of pictures. `is_cached` and `read_card` look at a cache
without opening it, and `open_cache` (`cached_pictures.py`) gives a split of it as an `ImageSet`.

The folder's name should hold a signature of everything that the pixels, their order and their conditions depend on.
It appears when it is whole; several makers wait for the first. It holds:

pixels.u8          uint8 [N,3,H,W], nothing else
index.safetensors  for each picture its condition (int64), the CRC-32 of its pixels (int64), and a number in [0, 1),
                   the hash of its base or name (float64), which says its split; that of the first of its copies
names.json         the texts of the conditions by id, where the source gave texts
card.json          shape and number of pictures, how many were left out, and the first of them with the reason
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.picture_file import Fitting
from ladd_dist.core.picture_pool import Bad, Decoded, Picture, decode_all, shown
from ladd_dist.core.printable import one_line
from ladd_dist.core.rundir import commit_folder, exclusive, make_folder, save_tensors, write_json
from ladd_dist.core.units import si
from ladd_dist.datasets import Progress

FORMAT = 1
PIXELS, INDEX, NAMES, CARD = "pixels.u8", "index.safetensors", "names.json", "card.json"
MOST_NAMED = 100
"""Number of bad pictures whose names and reasons are kept."""
AGAIN = "delete this folder and run the same command again"


def silent(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Card:
    """The content of card.json."""

    format: int
    height: int
    width: int
    num: int
    """Number of pictures."""
    num_conditions: int
    """Number of class ids or texts."""
    skipped: int
    """Number of pictures that could not be decoded."""
    bad: tuple[Bad, ...]
    """The first of those."""


def make_cache(
    folder: Path,
    pictures: Callable[[], Iterable[Picture]],
    fitting: Fitting,
    *,
    num_conditions: int = 0,
    total: int = 0,
    progress: Progress = silent,
    verify: Callable[[], None] = lambda: None,
) -> None:
    """Decode pictures into `folder`, unless that is done; another process that does it is waited for.

    Args:
        pictures: begins to give them; called if the folder is to be made.
        num_conditions: number of class ids, where the source gives ids; 0: it gives texts.
        total: number of pictures, if it is known.
        verify: called when all are decoded; raises an error if the source has changed meanwhile.

    Raises:
        UserError: no picture can be decoded, the disk has too little room, or the source raises it.
    """
    if is_cached(folder):
        return
    with exclusive(folder):
        if is_cached(folder):
            return
        _require_room(folder.parent, total * 3 * fitting.height * fitting.width)

        def fill(temporary: Path) -> None:
            with contextlib.closing(decode_all(pictures(), fitting, total=total)) as pieces:
                _fill(temporary, pieces, fitting, num_conditions, total, progress)
            verify()

        commit_folder(folder, fill)


def is_cached(folder: Path) -> bool:
    """Whether the folder holds a whole cache; it appears only so."""
    return (folder / CARD).is_file()


def read_card(folder: Path) -> Card:
    """What card.json says.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    card = read_typed(folder / CARD, Card, AGAIN)
    if card.format != FORMAT or min(card.height, card.width, card.num, card.num_conditions) < 1:
        raise UserError(f"{folder / CARD} is not of this version; {AGAIN}")
    return card


def read_names(folder: Path) -> tuple[str, ...]:
    """Texts of the conditions by id, of a source that gave texts.

    Raises:
        UserError: the file is missing or damaged.
    """
    return tuple(read_typed(folder / NAMES, list[str], AGAIN))


def refuse_bad(card: Card, who: str, remedy: str) -> None:
    """Refuse a cache from which pictures were left out.

    Raises:
        UserError: names the first of them, with reasons.
    """
    if card.skipped:
        raise UserError(
            f"{who}: {card.skipped:,} of {card.num + card.skipped:,} pictures cannot be used: "
            f"{shown(card.bad, card.skipped)}; {remedy}"
        )


def _fill(
    folder: Path, pieces: Iterable[Decoded], fitting: Fitting, num_conditions: int, total: int, progress: Progress
) -> None:
    given, checks, shares, contents = array("q"), array("q"), array("d"), array("q")
    numbers = dict[str, int]()
    bad, skipped = list[Bad](), 0
    with (folder / PIXELS).open("wb") as stream:
        for piece in pieces:
            stream.write(piece.pixels.tobytes())
            checks.extend(piece.checks)
            contents.extend(piece.contents)
            for picture in piece.kept:
                at = picture.condition
                given.append(numbers.setdefault(at, len(numbers)) if isinstance(at, str) else at)
                shares.append(share_of(picture.base or picture.name))
            skipped += len(piece.bad)
            bad += piece.bad[: MOST_NAMED - len(bad)]
            progress(len(given) + skipped, total)
    if not given:
        reason = f": {shown(bad, skipped)}" if bad else ""
        raise UserError(f"none of the {skipped:,} pictures can be used{reason}; repair or replace them")
    conditions = torch.tensor(given, dtype=torch.int64)
    if not num_conditions:
        names = sorted(numbers)
        order = torch.empty(len(names), dtype=torch.int64)
        order[torch.tensor([numbers[name] for name in names])] = torch.arange(len(names))
        conditions, num_conditions = order[conditions], len(names)
        write_json(folder / NAMES, names)
    index = {
        "condition": conditions,
        "check": torch.tensor(checks, dtype=torch.int64),
        "share": with_copies(torch.tensor(shares, dtype=torch.float64), torch.tensor(contents, dtype=torch.int64)),
    }
    save_tensors(folder / INDEX, index)
    told = tuple(Bad(one_line(name[:1_000]), one_line(reason[:1_000])) for name, reason in bad)
    card = Card(FORMAT, fitting.height, fitting.width, len(given), num_conditions, skipped, told)
    write_json(folder / CARD, {**asdict(card), "bad": [list(item) for item in told]})


def share_of(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, evenly spread over names."""
    found = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return (int.from_bytes(found[:8], "little") >> 11) * 2.0**-53


def with_copies(shares: Tensor, contents: Tensor) -> Tensor:
    """The numbers `shares` [N] float64, with one number for pictures that belong together: the first one's.

    Those of one base or name (the same number) belong together, those of one content (`contents` [N] int64), and
    whoever belongs to one of them.
    """
    distinct, by_content = torch.unique(contents, return_inverse=True)
    if len(distinct) == len(contents):
        return shares
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers, by_share = torch.unique(shares, return_inverse=True)
    num, rows, columns = len(numbers) + len(distinct), by_share.numpy(), by_content.numpy() + len(numbers)
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(num, num))
    group = connected_components(links, directed=False)[1][rows]
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    return shares[torch.from_numpy(first[which])]


def _require_room(folder: Path, needed: int) -> None:
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the decoded pictures take {si(needed, 'B')}, and the disk of {folder} has {si(free, 'B')} left; choose a "
            "smaller size, or another --cache"
        )
