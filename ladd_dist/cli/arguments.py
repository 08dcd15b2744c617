"""The command line of every command: tyro's, with one way to read lists, and old names of flags that still work."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from ladd_dist.core.errors import RecipeError
from ladd_dist.core.printable import styles_pass
from ladd_dist.core.ranges import hints_of, require_ranges
from ladd_dist.core.typed_line import remember

T = TypeVar("T")

TEXTS = ("--note", "--reported.outcome", "--trial")
"""Flags whose text may have several lines."""
MOST_VALUES = 10_000
"""Most numbers of a range like 0..2."""
LISTS = ConstructorRegistry()
"""tyro's rules, with lists as `split_words` reads them."""
_inside: ContextVar[bool] = ContextVar("inside a list", default=False)
_COMMA = re.compile(r",(?![^(\[{]*[)\]}])")
"""A comma that no bracket encloses: `a{1,2}` is one regular expression."""


def read(
    options: Any,
    arguments: Sequence[str] | None,
    *,
    prog: str,
    renamed: Mapping[str, str] | None = None,
    **more: Any,
) -> Any:
    """Options from the arguments of a command; exits with 2 on a wrong command line, with 0 after --help.

    A number of the options is checked against the range in its annotation.

    Args:
        options: a dataclass, or what else `tyro.cli` takes.
        arguments: those of the process if None.
        renamed: old names of flags and the new ones. An old name works, with a note on stderr, and --help is silent
            about it.
        more: further arguments of `tyro.cli`.

    Raises:
        RecipeError: a number is out of range, or a word is no text (`require_text`); the message names the flag.
    """
    words = new_names(sys.argv[1:] if arguments is None else arguments, renamed or {})
    require_text(words)
    remember(prog, words)
    with styles_pass():  # the help is tyro's, in colours
        made = tyro.cli(options, args=words, prog=prog, registry=LISTS, **more)
    own = made[0] if more.get("return_unknown_args") else made
    for name, hint in hints_of(type(own)).items():
        if not dataclasses.is_dataclass(value := getattr(own, name)):  # a recipe: `validate` knows the paths in it
            require_ranges(hint, value, f"--{name.replace('_', '-')}")
    return made


def require_text(words: Sequence[str]) -> None:
    """Refuse words that could not be written into a run's files, or would act on a terminal that shows them.

    Raises:
        RecipeError: names the flag; a byte is no UTF-8, or a character controls the terminal. Lines of a `TEXTS` may
            end.
    """
    flag = ""
    for word in words:
        flag = word.partition("=")[0] if word.startswith("--") else flag
        for character in word:
            kind = unicodedata.category(character)
            if kind == "Cs" or (kind == "Cc" and not (character in "\t\n" and flag in TEXTS)):
                what = "a byte that is no UTF-8" if kind == "Cs" else "a control character"
                raise RecipeError(f"{ascii(flag)[1:-1] or 'the command line'}: {what} in {ascii(word)[:80]}")


def new_names(arguments: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """The arguments with the new names of flags; a note on stderr for each old one."""
    words = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag in renamed:
            print(f"note: {flag} is called {renamed[flag]} now", file=sys.stderr)
        words.append(f"{renamed.get(flag, flag)}{equals}{value}")
    return words


def path_first(options: type, arguments: Sequence[str]) -> list[str]:
    """The arguments with the path that is no flag's value in front, where a list before it would take it too.

    In `--steps 1,2,4 RUN` it is the first word that exists on disk after a value of a list.
    """
    lists = {
        f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options) if "tuple[" in str(field.type)
    }
    flag, num_values = "", 0
    for place, word in enumerate(arguments):
        if word.startswith("--"):
            flag, num_values = word, 0
        elif flag in lists and num_values and os.path.exists(word):  # noqa: PTH110  False for what no path can be
            return [word, *arguments[:place], *arguments[place + 1 :]]
        else:
            num_values += 1
    return list(arguments)


def split_words(words: Sequence[str], kind: Any = str) -> list[str]:
    """The values in the words of a list: `4 2 1`, `4,2,1` and `4, 2, 1` are the same three.

    Whole numbers may also be a range, `0..2` for 0, 1, 2. In text, a comma inside brackets separates nothing, and
    neither does a space; text with another comma in it cannot be a value.

    Args:
        kind: the type of a value.

    Raises:
        ValueError: a range that falls, or of more than `MOST_VALUES`.
    """
    parts = [part.strip() for word in words for part in _COMMA.split(word)]
    if kind is not str:
        parts = [piece for part in parts for piece in part.split()]
    values = []
    for part in filter(None, parts):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", part) if kind is int else None
        if span and int(span[1]) > int(span[2]):
            raise ValueError(f"the range {part} falls: write {span[2]}..{span[1]}, or the numbers with commas")
        if span and int(span[2]) - int(span[1]) >= MOST_VALUES:
            raise ValueError(f"the range {part} has more than {MOST_VALUES} numbers")
        values += list(map(str, range(int(span[1]), int(span[2]) + 1))) if span else [part]
    return values


@LISTS.primitive_rule
def _list_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | UnsupportedTypeAnnotationError | None:
    """tyro's own rule for a tuple, which is given the values one by one however they are written."""
    if info.type_origin is not tuple or _inside.get():
        return None
    token = _inside.set(True)
    try:
        spec = ConstructorRegistry.get_primitive_spec(info)
    finally:
        _inside.reset(token)
    if not isinstance(spec, PrimitiveConstructorSpec):
        return spec
    kind = next(iter(get_args(info.type)), str)
    made = _Values(spec, get_args(kind)[0] if get_origin(kind) is Annotated else kind)  # without its range
    return dataclasses.replace(spec, nargs="*", choices=None, metavar=_metavar(spec), instance_from_str=made)


@LISTS.primitive_rule
def _size_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A size of pictures: one number, or height and width; a square that is written as two is one number."""
    if set(get_args(info.type)) != {int, tuple[int, int]}:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="INT [INT]",
        instance_from_str=_size,
        is_instance=lambda value: isinstance(value, int) or (isinstance(value, tuple) and len(value) == 2),
        str_from_instance=lambda value: list(map(str, value)) if isinstance(value, tuple) else [str(value)],
    )


def _size(words: list[str]) -> int | tuple[int, int]:
    values = split_words(words, int)
    if len(values) not in (1, 2) or any(not re.fullmatch(r"[+-]?\d+", value) for value in values):
        raise ValueError(f"takes one whole number, or two for height and width, got {' '.join(words)}")
    height, width = int(values[0]), int(values[-1])
    return height if height == width else (height, width)


def _metavar(spec: PrimitiveConstructorSpec[Any]) -> str:
    """`INT ...` in place of tyro's `[INT [INT ...]]`; lists of a fixed length keep theirs, `FLOAT FLOAT`."""
    found = re.fullmatch(r"\[(.+) \[\1 \.\.\.\]\]", spec.metavar)
    return f"{found[1]} ..." if found else spec.metavar


@dataclasses.dataclass(frozen=True)
class _Values:
    """Makes a list of its words."""

    spec: PrimitiveConstructorSpec[Any]
    kind: Any

    def __call__(self, words: list[str]) -> Any:
        values = split_words(words, self.kind)
        wrong = [value for value in values if self.spec.choices and value not in self.spec.choices]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is none of {', '.join(map(str, self.spec.choices or ()))}")
        try:
            return self.spec.instance_from_str(values)
        except ValueError as error:
            some = {int: "whole numbers, like 4,2,1 or 4 2 1 or 0..2", float: "numbers, like 80,3.9 or 80 3.9"}
            if isinstance(self.spec.nargs, int):
                raise ValueError(f"takes {self.spec.nargs} values, got {' '.join(words)}") from error
            raise ValueError(f"takes {some.get(self.kind, 'values')}, got {' '.join(words)}") from error
