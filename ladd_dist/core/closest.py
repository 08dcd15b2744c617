"""Names in the order in which a user may have meant them, for messages about an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.65
"""Least similarity of two words (`difflib`, 0 to 1) of which one may be a slip for the other."""


def close(word: str, names: Iterable[str]) -> list[str]:
    """Names that `word` may stand for, the likeliest first: spelt nearly alike, or one the beginning of the other.

    Case does not count. Empty if no name resembles the word.
    """

    def likeness(name: str) -> float:
        one, other = word.lower(), name.lower()
        begins = len(one) > 2 and len(other) > 2 and (one.startswith(other) or other.startswith(one))
        return difflib.SequenceMatcher(None, one, other).ratio() + (_ALIKE if begins else 0.0)

    found = sorted((-likeness(name), name) for name in names)
    return [name for score, name in found if -score >= _ALIKE]


def closest_first(word: str, names: Iterable[str]) -> list[str]:
    """All names: those that `word` may stand for, then the rest in the order given."""
    every = list(names)
    likely = close(word, every)
    return [*likely, *(name for name in every if name not in likely)]


def did_you_mean(word: str, names: Iterable[str], form: str = "{}") -> str:
    """`; did you mean NAME?` for the likeliest name, to be put behind a message; empty if none resembles the word.

    Args:
        form: how the name is written, with `{}` for it.
    """
    likely = close(word, names)
    return f"; did you mean {form.format(likely[0])}?" if likely else ""
