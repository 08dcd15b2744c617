"""What is printed cannot steer a terminal, whoever prints it; cells of a CSV file are no formulas."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import PrintableStream, cell, printable, styles_pass
from ladd_dist.core.screen import Screen

FOREIGN = "a\x1b]52;c;ZXZpbA==\x07b\x1b[31mc\x9b2Jd\u202ee\u2066f\x08g\x7fh\udcffi"
SHOWN = r"a\x1b]52;c;ZXZpbA==\x07b\x1b[31mc\x9b2Jd\u202ee\u2066f\x08g\x7fh\udcffi"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
OF_RICH = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|\d*[ABCDGK])")
"""Escape sequences of styles, and the cursor movements of a live display."""


def test_every_control_character_is_shown_but_tab_and_newline() -> None:
    controls = [chr(code) for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"]
    assert all(UNSAFE.search(printable(character)) is None for character in controls)
    assert printable(FOREIGN) == SHOWN
    assert printable("größe 数 😀 café\tx\ny") == "größe 数 😀 café\tx\ny"
    assert printable(printable(FOREIGN)) == SHOWN


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "-1_0", "-x"])
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert str(cell(text)).startswith("'") and UNSAFE.search(str(cell(text))) is None


@pytest.mark.parametrize("value", [-1.5, 3, None, True, "-1.5", "+2e-3", "-inf", "plain", "a=b", ""])
def test_a_number_and_a_harmless_text_stay_as_they_are(value: object) -> None:
    assert cell(value) == value and type(cell(value)) is type(value)


def test_a_stream_keeps_the_returns_of_a_progress_bar_and_no_others() -> None:
    stream = io.StringIO()
    guarded = PrintableStream(stream)
    for text in ("\r 3/10\r", "\r", "error\rfine", "a\r\n"):
        assert guarded.write(text) == len(text)
    assert stream.getvalue() == "\r 3/10\r\rerror\\rfinea\\r\n"
    assert guarded.getvalue() == stream.getvalue(), "what else a stream has is its own"


def _prints(text: str) -> int:
    print(text)
    print(text, file=sys.stderr)
    sys.stderr.writelines([text, "\n"])
    return 0


def _logs(text: str) -> int:
    handler = logging.StreamHandler()
    handler.emit(logging.LogRecord("x", logging.ERROR, "x", 1, text, None, None))
    return 0


def _refuses(text: str) -> int:
    raise UserError(text)


def _fails(text: str) -> int:
    raise RuntimeError(text)


def _cannot_write(text: str) -> int:
    raise OSError(28, "No space left", text)


def _tables(text: str) -> int:
    for shown in (text, Text(text), Text(text, overflow="fold")):
        table = Table(title=text)
        table.add_column(text)
        table.add_row(shown, style="bold")
        console = open_console()
        console.print(Fitted(table))
        console.print(shown, style="red")
    return 0


def _live(text: str) -> int:
    with Live(Text(text), console=open_console(), auto_refresh=False) as live:
        print(text)
        print(f"\x1b]8;;file:///etc/passwd\x07{text}\x1b]8;;\x07")
        live.update(Text(text), refresh=True)
    return 0


WAYS = [_prints, _logs, _refuses, _fails, _cannot_write, _tables, _live]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("terminal", [False, True])
def test_no_way_of_printing_passes_an_escape_sequence_of_the_text(
    way: Callable[[str], int], terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "200")
    run_guarded(lambda: way(FOREIGN))
    captured = capsys.readouterr()
    for text in captured:
        bare = OF_RICH.sub("", text) if terminal else text
        if way is _live:  # Rich reads the colours of what is printed above a live display, and styles it itself
            bare = bare.replace("\r", "") if terminal else bare  # it goes to the beginning of its lines
        else:
            assert "\x1b[31mc" not in text, "a colour of the text's own"
        assert UNSAFE.search(bare) is None, repr(bare)
    assert r"\x1b]52;c;ZXZpbA==" in OF_RICH.sub("", captured.out + captured.err)


def test_a_stream_of_another_encoding_shows_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))

    def run() -> int:
        print("größe")
        open_console().print("größe")
        return 0

    assert run_guarded(run) == 0
    sys.stdout.flush()
    assert buffer.getvalue() == rb"gr\xf6\xdfe" + b"\n" + rb"gr\xf6\xdfe" + b"\n"


def test_the_streams_are_as_before_when_a_command_has_ended() -> None:
    before = sys.stdout, sys.stderr

    def run() -> int:
        assert isinstance(sys.stdout, PrintableStream) and isinstance(sys.stderr, PrintableStream)
        return run_guarded(lambda: int(isinstance(sys.stdout.stream, PrintableStream)))  # type: ignore[attr-defined]

    assert run_guarded(run) == 0, "guarded once, also where a command calls another"
    assert (sys.stdout, sys.stderr) == before


def test_styles_of_our_own_still_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        console: Any = Screen(force_terminal=True, color_system="standard", width=80)
        console.print("[bold red]loud[/]")
        with styles_pass():
            print("\x1b[1mhelp\x1b[0m \x1b]52;c;x\x07")
        print("\x1b[1mnot\x1b[0m")
        return 0

    assert run_guarded(run) == 0
    out = capsys.readouterr().out
    assert "\x1b[1;31mloud\x1b[0m" in out
    assert "\x1b[1mhelp\x1b[0m \\x1b]52;c;x\\x07" in out
    assert "\\x1b[1mnot" in out


def test_a_table_is_as_wide_as_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row("x\x1b[31my")
    Screen(width=80).print(table)
    assert "│ x\\x1b[31my │" in capsys.readouterr().out
    assert issubclass(Screen, Console)


def test_the_work_goes_on_when_nobody_reads_what_it_tells() -> None:
    """Plain prints and Rich's, flushed and at exit; the result on stdout is there, and the exit code is the work's."""
    code = """
import sys
from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.screen import Screen
def work():
    sys.stdin.readline()  # the reader has left
    for number in range(3):
        print("told", number, file=sys.stderr, flush=True)
        Screen(stderr=True).print("told by Rich")
    sys.stderr.write("left in the buffer")
    print("done")
    return 3
sys.exit(run_guarded(work))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    out, _ = process.communicate("go on\n", timeout=120)
    assert (process.returncode, out) == (3, "done\n")
