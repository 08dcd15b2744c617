"""Tables on a console: no name is cut in a narrow terminal, and a pipe gets lines as long as their text."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from ladd_dist import compare, doctor, jobs, plugins
from ladd_dist.cli.console import Fitted, open_console
from ladd_dist.cluster.status import Losses, RunStatus, Status, SweepStatus
from ladd_dist.core.units import si

NAMES = ["exp4_specnorm_with_a_long_name-0123456789", "exp4_specnorm_with_a_long_name-0123456780"]


def drawn(table: Fitted, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def columns_of(text: str) -> list[list[str]]:
    """The cells of a drawn table by column, their lines joined."""
    rows = [line for line in text.splitlines() if line[:1] in (*"│┃┏┡├└",)]
    assert all(line[-1] in "│┃┓┩┤┘" for line in rows), "the right edge is not on the screen"
    lines = [line.strip("│┃").split("│") for line in text.replace("┃", "│").splitlines() if line[:1] in "│┃"]
    return [["".join(part.strip() for part in column)] for column in zip(*lines, strict=True)]


def many(num: int) -> Table:
    table = Table("run", "state", *(f"figure {index}" for index in range(num)), title="A sweep")
    for name in NAMES:
        table.add_row(name, "running", *(f"0.{index}123 ±0.01" for index in range(num)))
    return table


@pytest.mark.parametrize("width", [80, 60, 40, 20])
def test_no_name_is_cut_however_narrow_the_terminal(width: int) -> None:
    text = drawn(Fitted(many(9), keep=("state",)), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    first = columns_of(text)[0][0]
    assert all(name in first for name in NAMES), first
    assert "running" in columns_of(text)[1][0]


def test_columns_that_do_not_fit_are_named_and_the_last_go_first() -> None:
    text = drawn(Fitted(many(9), keep=("state", "figure 8"), rest="--json"), 80)
    note = " ".join(text[text.index("Not shown") :].split())
    shown = re.findall(r"figure \d", text[: text.index("Not shown")])
    assert note.endswith("(see --json).") and "in 80 columns" in note
    left_out = re.findall(r"figure \d", note)
    assert "figure 8" in shown and "figure 8" not in left_out
    assert [*shown[:-1], *left_out] == [f"figure {index}" for index in range(8)]


def test_a_column_in_which_nothing_stands_goes_first_and_unnamed() -> None:
    table = Table("run", "node", *(f"figure {index}" for index in range(9)))
    table.add_row(NAMES[0], "", *["0.1"] * 9)
    text = drawn(Fitted(table), 80)
    assert "node" not in text and "Not shown in 80 columns: figure" in text


def test_a_table_that_fits_is_left_as_it_is() -> None:
    plain = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    plain.print(many(1))
    assert isinstance(plain.file, io.StringIO)
    assert drawn(Fitted(many(1)), 80) == plain.file.getvalue()


def test_a_pipe_gets_every_column_on_one_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(Fitted(many(40)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 4 + len(NAMES)  # title, borders and heading, rows
    assert all(f"0.{index}123 ±0.01" in lines[-2] for index in range(40))
    assert len({len(line) for line in lines[1:]}) == 1 and len(lines[1]) < 1_000, "no wider than what it holds"


# --- the commands ---


def test_every_table_of_a_command_is_fitted_to_the_console_that_all_share() -> None:
    package = Path(compare.__file__).parent
    texts = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    own = [name for name, text in texts.items() if re.search(r"(?<!class )\bScreen\((?!stderr=True)", text)]
    assert own == ["cli/console.py"]
    assert not [name for name, text in texts.items() if re.search(r"\bConsole\(", text)]  # it cleans no text
    unfitted = [
        name for name, text in texts.items() if "Table(" in text and ".print(" in text and "Fitted(" not in text
    ]
    assert set(unfitted) <= {"cli/recipe_help.py"}, "its tables are flags and texts without frames, which wrap"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    """Calls a function whose stdout is a terminal of 80 columns; gives what it printed there."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    def call(function: Callable[[], object]) -> str:
        with contextlib.redirect_stdout(Terminal()) as shown:
            function()
        return re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())

    return call


def check_eighty(text: str) -> None:
    """No line is longer than 80 characters, no cell ends in an ellipsis."""
    assert text and "…" not in text
    tables = [line for line in text.splitlines() if line[:1] in (*"│┃┏┡├└",)]
    assert all(len(line) <= 80 and line[-1] in "│┃┓┩┤┘" for line in tables), tables


def test_plug_ins_at_80_columns(terminal: Callable[[Callable[[], object]], str]) -> None:
    text = terminal(lambda: plugins.main([]))
    check_eighty(text)
    assert all(name in text for name in ("spectral_norm", "teacher_denoised", "downs_middle"))


def test_jobs_at_80_columns(terminal: Callable[[Callable[[], object]], str]) -> None:
    fields: dict[str, Any] = {field.name: None for field in dataclasses.fields(RunStatus)}
    known: dict[str, Any] = {
        "state": "running",
        "job": "123456_12",
        "node": "gpu-node-17",
        "step": 12_000,
        "steps": 20_000,
    }
    known |= {"steps_per_s": 12.3, "eta_s": 4_000.0, "losses": Losses(1.3, 0.7, 0.1), "accuracy": 0.7, "requeues": 0}
    rows = tuple(RunStatus(**{**fields, **known, "label": name}) for name in NAMES)
    sweep = SweepStatus(
        **{field.name: None for field in dataclasses.fields(SweepStatus)}
        | {"name": "heads", "signature": "0123456789", "counts": {"running": 2}, "jobs": (), "runs": rows}
    )
    text = terminal(lambda: jobs._show(Status(1, (sweep,))))
    check_eighty(text)
    assert all(name in columns_of(text)[0][0] for name in NAMES)
    assert "12000/20000" in text and "Not shown" in text


def test_doctor_at_80_columns(terminal: Callable[[Callable[[], object]], str], tmp_path: Path) -> None:
    folders = ["--out", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    check_eighty(terminal(lambda: doctor.main(["--only", "disk", "locks", *folders])))


def test_a_comparison_at_80_columns(terminal: Callable[[Callable[[], object]], str], tmp_path: Path) -> None:
    for index, width in enumerate((16, 32)):
        for seed in range(2):
            folder = tmp_path / "runs" / f"run-{width}-{seed}"
            folder.mkdir(parents=True)
            recipe = {
                "name": "exp4",
                "seed": seed,
                "student_steps": 4,
                "head": {"plugin": "spectral_norm", "width": width},
            }
            (folder / "config.json").write_text(json.dumps({"format": 1, "recipe": recipe}))
            own = {
                "fd_teacher": 5.0 + index + 0.01 * seed * (1 + index),
                "fd_real": 6.0,
                "accuracy": 0.9,
                "hue_entropy": 2.0,
            }
            figures = dict.fromkeys(("student@4", "student@2", "student@1", "untrained@4", "teacher@50"), own)
            (folder / "eval.json").write_text(json.dumps(figures))
    text = terminal(lambda: compare.main([str(tmp_path / "runs")]))
    check_eighty(text)
    cells = [" ".join(column) for column in columns_of(text)]
    assert "head.width=16" in cells[0] and "head.width=32" in cells[0]
    assert any("minusbest" in cell.replace(" ", "") for cell in cells)
    assert "collapsed from" not in text, "no run has dumps: nothing is known, and nothing is shown"
    assert "untrained@4: the student before its training" in " ".join(text.split())


# --- numbers ---


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3_315_244.463e9, "FLOP", "3.32 PFLOP"),
        (12.34e18, "FLOP", "12.3 EFLOP"),
        (834_211, "", "834 k"),
        (999_900, "B", "1 MB"),
        (80e9, "B", "80 GB"),
        (12, "", "12"),
        (0, "B", "0 B"),
    ],
)
def test_numbers_have_the_prefix_that_leaves_three_digits(value: float, unit: str, text: str) -> None:
    assert si(value, unit) == text
