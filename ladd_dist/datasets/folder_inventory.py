"""The pictures of a folder with their classes, captions and bases."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ladd_dist.core.errors import MachineError, UserError
from ladd_dist.core.printable import one_line
from ladd_dist.datasets.folder_contents import contents, listing_of
from ladd_dist.datasets.folder_listing import TEXT_SUFFIX, File, Listing
from ladd_dist.datasets.folder_metadata import Line, matched, read_caption, read_metadata

Classes = Literal["folders", "none"]
Captions = Literal["none", "metadata", "txt"]


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

    Raises:
        MachineError: a file cannot be read now.
    """
    try:
        return contents(real(root)).fingerprint
    except MachineError:  # without a fingerprint, the pictures would be taken for those of any other folder
        raise
    except UserError:  # `inventory` says so, to whoever needs the pictures
        return ""


def copy_numbers(root: Path, num: int) -> npt.NDArray[np.int64]:
    """A number for each of `num` entries of an inventory [num] int64: the same for pictures with the same bytes."""
    numbers = np.arange(num)
    for group in contents(real(root)).copies:
        numbers[list(group)] = group[0]
    return numbers


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
    for cached in (_inventory, contents, listing_of):
        cached.cache_clear()


@functools.lru_cache(maxsize=4)
def _inventory(root: Path, classes: Classes, captions: Captions) -> Inventory:
    listing = listing_of(root)
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


def class_counts(found: Inventory) -> list[int]:
    """Number of pictures by condition, as far as names tell."""
    counts = Counter(entry.condition for entry in found.entries if not entry.bad)
    return [counts[number] for number in range(found.num_conditions)]
