"""What people write down about pictures: `metadata.jsonl` (Hugging Face's imagefolder), or a text beside each."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ladd_dist.core.door import decode, read_bytes, read_listed
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.datasets.prompts import LONGEST

REMEDY = 'a line is an object like {"file_name": "cats/1.png", "text": "a grey cat"}'
_MOST_TEXT_BYTES = 4 * LONGEST


@dataclass(frozen=True)
class Line:
    """A line of metadata.jsonl; it may have more than this."""

    file_name: str
    """The picture's path from the folder of metadata.jsonl on."""
    text: str | None = None
    """Its caption."""
    base: str | int | None = None
    """What it shares with its near-duplicates."""
    label: str | int | None = None
    """Its class, which must be its folder's where folders are classes."""
    place: str = ""
    """File and number of the line, for messages; what the file says of it is overwritten."""


def read_metadata(root: Path, names: Iterable[str]) -> dict[str, Line]:
    """The lines of metadata files, by the pictures' paths from the root on.

    Args:
        names: the metadata files' paths from the root on.

    Raises:
        UserError: a file is no text of JSON lines, a line is broken (the message has its number), names a file outside
            of its folder, or one that another line has.
    """
    found = dict[str, Line]()
    for name in names:
        content = _read(root / name).removeprefix(b"\xef\xbb\xbf")
        folder = name.rpartition("/")[0]
        for number, text in enumerate(content.split(b"\n"), start=1):
            if not text.strip():
                continue
            place = f"{name}, line {number}"
            line = decode(text, Line, one_line(f"{root / name}, line {number}"), REMEDY)
            picture = _path(folder, line.file_name, place)
            if picture in found:
                raise UserError(one_line(f"{place}: {found[picture].place} has {picture!r} too; remove one"))
            if len(line.text or "") > LONGEST:
                raise UserError(f"{place}: a text of {len(line.text or ''):,} characters; at most {LONGEST:,} are read")
            found[picture] = Line(picture, line.text, line.base, line.label, place)
    return found


def matched(lines: dict[str, Line], pictures: Iterable[str]) -> tuple[dict[str, Line], list[Line]]:
    """The lines by names of pictures that are there, and the lines whose pictures are not.

    A name that some system wrote with its accents apart is the same name.
    """
    there = set(pictures)
    lost = [name for name in lines if name not in there]
    if not lost:
        return lines, []
    composed = {unicodedata.normalize("NFC", name): name for name in there}
    found = {name: line for name, line in lines.items() if name in there}
    missing = list[Line]()
    for name in lost:
        other = composed.get(unicodedata.normalize("NFC", name))
        if other is None or other in found:
            missing.append(lines[name])
        else:
            found[other] = lines[name]
    return found, missing


def read_caption(path: Path) -> str:
    """The text of a file beside a picture, in one line.

    Raises:
        UserError: it is no regular file, too long, or not UTF-8. MachineError: it cannot be read now.
    """
    content = read_listed(path, most=_MOST_TEXT_BYTES)
    try:
        text = " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 ({error.reason}); convert it") from error
    if len(text) > LONGEST or "\0" in text:
        raise UserError(f"{path.name} is no caption: {len(text):,} characters, at most {LONGEST:,} are read, none NUL")
    return text


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror or error})") from error


def _path(folder: str, file_name: str, place: str) -> str:
    parts = [part for part in file_name.split("/") if part not in ("", ".")]
    if file_name.startswith("/") or ".." in parts or not parts:
        raise UserError(one_line(f"{place}: file_name {file_name[:100]!r} is no path below the folder of the file"))
    return "/".join([folder, *parts] if folder else parts)
