"""Names that become parts of paths: one component, of an alphabet that no path, shell or terminal takes for more."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from ladd_dist.core.errors import RecipeError, UserError

MOST_BYTES = 200
"""Bytes of the longest name: a file's name has at most 255, and signatures and endings are added."""
ALPHABET = "letters, digits, blanks and . _ + = , @ ( ) -"
_NAME = re.compile(r"\w[\w .+=,@()-]*")


def is_name(text: str) -> bool:
    """Whether a text can be part of a path as it is: one component, of `ALPHABET`, at most `MOST_BYTES` long.

    It begins with a letter, a digit or an underscore, so it is no `..`, no hidden file and no flag.
    """
    return _NAME.fullmatch(text) is not None and len(text.encode()) <= MOST_BYTES


class Name:
    """Mark of a field that holds a name: `name: Annotated[str, Name()]`."""

    def require(self, value: object, where: str) -> None:
        """Refuse a text that is no name. A value of another type passes: the check of types refuses it.

        Raises:
            RecipeError: the message gives `where`, the alphabet and the value.
        """
        if isinstance(value, str) and not is_name(value):
            raise RecipeError(
                f"{where}: names a folder, so it has {ALPHABET}, begins with a letter, a digit or _, and has at most "
                f"{MOST_BYTES} bytes; got {value[:MOST_BYTES]!r}"
            )


RunName = Annotated[str, Name()]
"""Name of a run, with which its folder begins."""


def require_name(text: str, where: str) -> str:
    """The text, which is a name.

    Raises:
        RecipeError: it is none.
    """
    Name().require(text, where)
    return text


def inside(folder: Path, recorded: str, where: str) -> Path:
    """The path in a folder that a file from outside names, relative to the folder.

    Raises:
        UserError: it is absolute, empty or leads out of the folder.
    """
    path = PurePosixPath(recorded)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in recorded:
        raise UserError(f"{where} is {recorded!r}, which leads out of its folder; nothing was opened")
    return folder / path
