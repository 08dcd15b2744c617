"""What is printed: text that came from a file cannot move the cursor, colour the screen or reach the clipboard.

Names, labels, log lines and messages may hold escape sequences. A terminal obeys them; here they are shown as text.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 without tab and newline, DEL, C1, line separators, what turns the direction of writing, and lone surrogates."""
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")
"""Colours and weights, and nothing else."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def printable(text: str) -> str:
    r"""The text with each control character as a visible escape, such as `\x1b`; tab and newline stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The `printable` text in one line, for a label or a message that must not begin lines of its own."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def cell(value: object) -> object:
    """A value for a cell of a CSV file: text that a spreadsheet would take for a formula gets a `'` in front.

    Numbers stay numbers, also where they come as text, such as `-1.5`.
    """
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(_FORMULA) and not _is_number(value) else printable(value)


def _is_number(text: str) -> bool:
    return (
        re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", text, re.IGNORECASE | re.ASCII) is not None
    )


class PrintableStream:
    """A text stream that writes `printable` text to another one, which has all the rest: flush, fileno, isatty.

    A carriage return stays where a text begins or ends with it, because progress bars write it there.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.styled = False
        """Whether colours pass, of text that is ours (`styles_pass`)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text, cleaned; returns its own number of characters."""
        middle = text.strip("\r")
        before, _, after = text.partition(middle) if middle else (text, "", "")
        parts = _STYLE.split(middle) if self.styled else [middle]  # every second one is a style
        shown = "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))
        self.stream.write(f"{before}{shown}{after}")
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)


def to_nobody(stream: TextIO) -> None:
    """Drop what is written to a stream whose reader has left; what is buffered would fail again at exit."""
    with Path(os.devnull).open("wb") as nobody:
        os.dup2(nobody.fileno(), stream.fileno())


class UnreadStream:
    """A text stream whose reader may leave, as `2>&1 | tee` may be stopped: what is told is lost, the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write the text, or drop it where nobody reads."""
        with self._alone():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what is there, or drop it where nobody reads."""
        with self._alone():
            self.stream.flush()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            to_nobody(self.stream)


def bare(stream: TextIO) -> TextIO:
    """The stream itself, for a writer that cleans its own text (`ladd_dist.core.screen.Screen`)."""
    return bare(stream.stream) if isinstance(stream, PrintableStream) else stream


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Clean whatever is printed to stdout and stderr, by plug-ins and libraries too; also usable as a decorator.

    Characters that the stream's encoding lacks are shown as escapes, where they would otherwise be an error. When a
    reader of stderr leaves, the work goes on.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guarded(before[0]), _guarded(_unread(before[1]))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _unread(stream: TextIO) -> TextIO:
    return stream if stream is None or isinstance(stream, PrintableStream) else cast("TextIO", UnreadStream(stream))


def _guarded(stream: TextIO) -> TextIO:
    if stream is None or isinstance(stream, PrintableStream):
        return stream
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return cast("TextIO", PrintableStream(stream))


@contextlib.contextmanager
def styles_pass() -> Iterator[None]:
    """Let colours of printed text reach the terminal, for help that a library has coloured."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, PrintableStream)]
    for stream in streams:
        stream.styled = True
    try:
        yield
    finally:
        for stream in streams:
            stream.styled = False
