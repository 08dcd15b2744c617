"""The pictures of a folder with their classes, captions and bases, and a fingerprint of their contents."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import time
from array import array
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import MachineError, UserError, unreadable
from ladd_dist.core.printable import one_line
from ladd_dist.core.rundir import write_json
from ladd_dist.datasets.folder_listing import TEXT_SUFFIX, File, Listing, list_pictures
from ladd_dist.datasets.folder_metadata import Line, matched, read_caption, read_metadata

Classes = Literal["folders", "none"]
Captions = Literal["none", "metadata", "txt"]
_READERS = 8
_AT_ONCE = 1_000
_COPIES = b"copies-1\n"
"""Hashed too where pictures have copies, which lie on one side of the split; older versions looked at names alone."""
_NOTED = "2"
"""Version of what is noted: the first one's knew nothing of copies."""
_RACE_S = 2.0
"""Seconds since the last change from which on times tell a change, on any file system."""


class Entry(NamedTuple):
    """A picture, or what looks like one."""

    name: str
    """Path from the root on."""
    condition: int
    """Number of its caption, or of its class."""
    base: str
    bad: str
    """Why it cannot be used, as far as names and texts tell; empty if it can."""


@dataclass(frozen=True)
class Inventory:
    """The pictures of a folder, in the order of their names' bytes, and those that lines of metadata lack at the end.

    `stamp` stays as long as no file is touched.
    """

    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    """Names of the class folders, in the order of their bytes; empty without classes."""
    texts: tuple[str, ...]
    """The distinct captions in order; empty without captions."""
    stamp: str

    @property
    def num_conditions(self) -> int:
        """Number of captions, or of classes; 1 without either."""
        return len(self.texts) or len(self.classes) or 1


def inventory(root: Path, classes: Classes, captions: Captions) -> Inventory:
    """The pictures below a root; a process looks once, so that a run keeps its data while it trains.

    Raises:
        UserError: there is no such folder, it holds no picture, or its classes, captions or metadata are wrong.
        MachineError: a folder or a caption cannot be read now.
    """
    return _inventory(real(root), classes, captions)


def content_fingerprint(root: Path) -> str:
    """Sixteen hexadecimal digits of the names and contents of all files below a root that count; empty without any.

    The contents are read again if a name, a size or a time has changed since the user's cache noted the result.

    Raises:
        MachineError: a file cannot be read now.
    """
    try:
        return _fingerprint(real(root))
    except MachineError:  # without a fingerprint, the pictures would be taken for those of any other folder
        raise
    except UserError:  # `inventory` says so, to whoever needs the pictures
        return ""


def real(root: Path) -> Path:
    """The folder itself, absolute, behind links; of a circle of links it is one of them.

    Raises:
        UserError: it is no path that can exist.
    """
    try:
        return Path(os.path.realpath(root.expanduser()))
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, no such user's home
        raise UserError(f"dataset.root {one_line(str(root))!r} is no folder ({error})") from error


def forget() -> None:
    """Look at folders anew, as another process would."""
    for cached in (_inventory, _fingerprint, _listing):
        cached.cache_clear()


@functools.lru_cache(maxsize=4)
def _listing(root: Path) -> Listing:
    return list_pictures(root)


@functools.lru_cache(maxsize=4)
def _inventory(root: Path, classes: Classes, captions: Captions) -> Inventory:
    listing = _listing(root)
    if not listing.pictures:
        raise UserError(
            f"dataset.root {str(root)!r} holds no picture, nor do the folders below it; PNG, JPEG, WebP and GIF are "
            "read, by the endings of their names"
        )
    good = [file.name for file in listing.pictures if not file.problem]
    lines, lost = matched(read_metadata(root, (file.name for file in listing.metadata)), good)
    names = _class_names(root, good) if classes == "folders" else ()
    if classes == "folders":
        _require_labels(lines.values())
    texts, faults = _captions(root, listing, good, lines, captions)
    number_of = {text: number for number, text in enumerate(sorted(set(texts.values())))}
    class_of = {name: number for number, name in enumerate(names)}

    def entry(file: File) -> Entry:
        line, bad = lines.get(file.name), file.problem or faults.get(file.name, "")
        condition = class_of.get(file.name.partition("/")[0], 0)
        if captions != "none":
            condition = 0 if bad else number_of[texts[file.name]]
        return Entry(file.name, condition, "" if line is None or line.base is None else f"base {line.base}", bad)

    entries = [entry(file) for file in listing.pictures]
    entries += [Entry(line.file_name, 0, "", f"{line.place}, names it, and it is not there") for line in lost]
    return Inventory(tuple(entries), names, tuple(number_of), listing.stamp())


def _class_names(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    loose = [name for name in names if "/" not in name]
    folders = {name.partition("/")[0] for name in names if "/" in name}
    if not folders:
        raise UserError(
            f"dataset.root {str(root)!r} has no folders with pictures, which would be the classes: put the pictures of "
            "each class into a folder of its own, or take --dataset.classes none"
        )
    if loose:
        raise UserError(
            f"dataset.root {str(root)!r}: {len(loose):,} pictures are in no class folder "
            f"({one_line(', '.join(loose[:3]))}{', ...' if len(loose) > 3 else ''}): move them into one of "
            f"{one_line(', '.join(sorted(folders)[:5]))}, or take --dataset.classes none"
        )
    return tuple(sorted(folders, key=os.fsencode))


def _require_labels(lines: Iterable[Line]) -> None:
    """Refuse metadata that says another class than the folder."""
    wrong = [line for line in lines if isinstance(line.label, str) and line.label != line.file_name.partition("/")[0]]
    if wrong:
        first = wrong[0]
        raise UserError(
            one_line(
                f"{first.place}: label {first.label!r} of {first.file_name!r} is not its folder's name, and so in "
                f"{len(wrong):,} lines; move the pictures, correct the labels, or take --dataset.classes none"
            )
        )


def _captions(
    root: Path, listing: Listing, good: list[str], lines: dict[str, Line], captions: Captions
) -> tuple[dict[str, str], dict[str, str]]:
    """Captions by picture, and by picture why it has none."""
    if captions == "none":
        return {}, {}
    if captions == "metadata" and not listing.metadata:
        raise UserError(f"dataset.captions metadata: there is no metadata.jsonl in {str(root)!r}")
    texts, faults = dict[str, str](), dict[str, str]()
    beside = {file.name: file.problem for file in listing.texts}
    for name in good:
        try:
            texts[name] = _caption(root, name, lines, beside) if captions == "txt" else _text_of(lines.get(name))
        except MachineError:
            raise
        except UserError as error:
            faults[name] = str(error)
    if not texts:
        raise UserError(
            f"dataset.captions {captions}: none of the {len(good):,} pictures in {str(root)!r} has one, "
            f"{one_line(next(iter(faults)) + ': ' + next(iter(faults.values()))) if faults else ''}"
        )
    return texts, faults


def _text_of(line: Line | None) -> str:
    if line is None or not (line.text or "").strip():
        raise UserError("metadata.jsonl has no text for it")
    return " ".join((line.text or "").split())


def _caption(root: Path, name: str, lines: dict[str, Line], beside: dict[str, str]) -> str:
    own = os.path.splitext(name)[0] + TEXT_SUFFIX  # noqa: PTH122  # a hundred thousand of them
    if own not in beside:
        raise UserError(f"there is no {own.rpartition('/')[2]} beside it")
    if beside[own]:
        raise UserError(f"{own.rpartition('/')[2]} beside it cannot be used: {beside[own]}")
    text = read_caption(root / own)
    if not text:
        raise UserError(f"{own.rpartition('/')[2]} beside it is empty")
    return text


@functools.lru_cache(maxsize=4)
def _fingerprint(root: Path) -> str:
    listing = _listing(root)
    if not any(listing):
        return ""
    stamp, note = listing.stamp(), _note(root)
    with contextlib.suppress(UserError, OSError):
        known = read_typed(note, dict[str, str])
        if (known.get("version"), known.get("stamp")) == (_NOTED, stamp) and len(known.get("content", "")) == 16:
            return known["content"]
    total, newest, copied = hashlib.sha256(), 0.0, array("Q")
    files = enumerate(listing.all())  # pictures first
    with ThreadPoolExecutor(_READERS) as pool:
        while some := list(itertools.islice(files, _AT_ONCE)):
            marks = pool.map(lambda numbered: _content(root, numbered[1]), some)
            for (number, file), mark in zip(some, marks, strict=True):
                total.update(os.fsencode(file.name) + f"\0{mark}\n".encode())
                if number < len(listing.pictures) and file.size and not file.problem:
                    copied.append(int(mark[:16], 16))
                newest = max(newest, (file.changed >> 64) / 1e9, (file.changed % 2**64) / 1e9)
    if len(set(copied)) < len(copied):
        total.update(_COPIES)
    content = total.hexdigest()[:16]
    if time.time() - newest > _RACE_S:
        with contextlib.suppress(UserError, OSError):
            write_json(note, {"version": _NOTED, "root": ascii(str(root)), "stamp": stamp, "content": content})
    return content


def _content(root: Path, file: File) -> str:
    if file.problem:
        return file.problem
    try:
        with (root / file.name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(root / file.name, error) from error


def _note(root: Path) -> Path:
    """Where this user's cache notes the contents of a folder."""
    home = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(home).expanduser() / "ladd_dist" / "folders" / f"{name}.json"


def class_counts(found: Inventory) -> list[int]:
    """Number of pictures by condition, as far as names tell."""
    counts = Counter(entry.condition for entry in found.entries if not entry.bad)
    return [counts[number] for number in range(found.num_conditions)]
