"""The place in a user's own code that an exception came out of, for a message without a traceback."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD = tuple(str(Path(sysconfig.get_paths()[name]).resolve()) for name in ("stdlib", "platstdlib"))


class Place(NamedTuple):
    """A line of a file that is neither this package's nor an installed one's."""

    file: Path
    line: int
    code: str
    """The line's text; empty if the file cannot be read."""

    def __str__(self) -> str:
        here = Path.cwd()
        shown = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"{shown}:{self.line}" + (f": `{self.code}`" if self.code else "")


def place_of(error: BaseException) -> Place | None:
    """The innermost line of the user's own code that ran when the exception was raised, called by this package.

    None if this package called none: what is above it, such as a test, did not fail.
    """
    found, inside = None, False
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE) or path.resolve().is_relative_to(PACKAGE):
            inside = True
        elif inside and _is_users(path):
            found = Place(path.resolve(), frame.lineno or 0, frame.line or "")
    return found


def _is_users(path: Path) -> bool:
    """Whether a file is neither installed nor of Python itself."""
    resolved = path.resolve()
    if not resolved.is_file() or _INSTALLED & set(path.parts):
        return False
    return not any(resolved.is_relative_to(folder) for folder in _STANDARD)


def with_place(error: BaseException) -> str:
    """Type and text of an exception and, if it came out of the user's own code, the line: `TypeError: ... at F:3`."""
    place = place_of(error)
    said = f"{type(error).__name__}: {error}"
    return said if place is None else f"{said}, at {place}"
