"""The command line of this process, for messages that say what to type in place of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

_typed: list[str] = []


def remember(prog: str, words: Sequence[str]) -> None:
    """Keep the line: `python -m ladd_dist.NAME` and its arguments."""
    _typed[:] = ["ladd", prog.rpartition(".")[2], *words]


def again(lists: Mapping[str, Sequence[str]], *, first: str = "") -> str:
    """The same line with more values of flags that take lists, and another word in front of the arguments.

    The words are quoted for a shell. Where no command line is known (within a job), only what is to be added.
    """
    words = list(_typed)
    if first:
        words.insert(min(2, len(words)), first)
    for flag, values in lists.items():
        places = [place for place, word in enumerate(words) if word.partition("=")[0] == flag]
        if not places:
            words += [flag, *values]
        elif words[places[-1]] == flag:
            words[places[-1] + 1 : places[-1] + 1] = values
        else:
            words[places[-1]] += f",{','.join(values)}"
    words = [word if word.isprintable() else repr(word) for word in words]
    return shlex.join(words) if _typed else f"the same command with {shlex.join(words)}"
