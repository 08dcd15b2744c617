"""Classes on a command line: numbers, or names where the student's file has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ladd_dist.cli.arguments import split_words
from ladd_dist.core.closest import close
from ladd_dist.core.errors import RecipeError
from ladd_dist.core.printable import one_line

MOST_SHOWN = 8
"""Names in a message."""
_NUMBERS = re.compile(r"\d{1,18}(\.\.\d{1,18})?(\s+\d{1,18}(\.\.\d{1,18})?)*")


def class_numbers(words: Sequence[str], names: Sequence[str], num: int) -> tuple[int, ...]:
    """The classes that words stand for, in their order.

    A number is that class, also where a name is a number; `0..2` is 0, 1, 2.

    Args:
        names: of the student's classes; empty where nobody knows them.
        num: how many classes there are, or prompts that stand for them.

    Raises:
        RecipeError: there is no such class; the message lists names that were perhaps meant.
    """
    found = list[int]()
    for word in words:
        if _NUMBERS.fullmatch(word):
            try:
                numbers = list(map(int, split_words([word], int)))
            except ValueError as error:
                raise RecipeError(f"--classes: {error}") from error
        elif word in names:
            numbers = [names.index(word)]
        else:
            raise RecipeError(one_line(f"--classes {word[:80]!r}: {_unknown(word, names, num)}"))
        if wrong := [number for number in numbers if number >= num]:
            raise RecipeError(f"--classes: the student knows the classes 0 to {num - 1}, got {wrong[0]}")
        found += numbers
    return tuple(found)


def _unknown(word: str, names: Sequence[str], num: int) -> str:
    if not names:
        return f"this student's file has no names of classes; give numbers, 0 to {num - 1}"
    if near := close(word, names)[:MOST_SHOWN]:
        return f"the student has no class of this name; near it are {', '.join(near)}"
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"the student has no class of this name; it has {', '.join(names[:MOST_SHOWN])}{more}"
