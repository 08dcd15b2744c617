"""A wrong flag or environment variable is one message that names it, exit code 2, before anything is written."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ranges import Number, beyond, ends, numbers

from ladd_dist import (
    compare,
    control,
    diagnose,
    doctor,
    evaluate,
    export,
    jobs,
    launch,
    plan,
    plugins,
    sample,
    search_levels,
    sweep,
)
from ladd_dist.cli.arguments import path_first, read, split_words
from ladd_dist.core.errors import RangeError, RecipeError
from ladd_dist.core.ranges import hints_of

REPO = Path(__file__).resolve().parents[2]
EXP4 = str(REPO / "recipes" / "exp4_specnorm.py")
SWEEP = str(REPO / "recipes" / "sweep_heads.py")
OPTIONS = (
    compare.Options, control.Train, control.Apply, control.Transfer, diagnose.Options, doctor.Options,
    evaluate.Options, export.Options, jobs.Options, launch.Options, plan.Options, plugins.Options, sample.Options,
    search_levels.Options, sweep.Options,
)  # fmt: skip
"""The options of every command."""


def numbers_of(cls: type) -> Iterator[Number]:
    for name, hint in hints_of(cls).items():
        for found in numbers(hint, ()):
            yield Number(name, *found)


FLAGS = [
    pytest.param(cls, number, id=f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}.{number.field}")
    for cls in OPTIONS
    for number in numbers_of(cls)
]


def test_the_table_of_flags_covers_the_commands() -> None:
    """Every module of a command is in the table, and so are flags of every sort: optional, in lists, with floats."""
    modules = {path.stem for path in (REPO / "ladd_dist").glob("*.py") if "class Options" in path.read_text()}
    assert modules | {"control"} == {cls.__module__.rpartition(".")[2] for cls in OPTIONS}
    covered = {str(flag.id) for flag in FLAGS}
    named = {"launch.Options.nproc", "launch.Options.timeout_s", "export.Options.step", "evaluate.Options.levels"}
    assert named | {"plan.Options.gpu_memory_gb", "control.Train.lr", "doctor.Options.threads"} <= covered


@pytest.mark.parametrize(("cls", "number"), FLAGS)
def test_a_number_of_a_flag_declares_its_range_and_is_held_to_it(cls: type, number: Number) -> None:
    assert number.within is not None, "annotate the option with a range of ladd_dist.core.ranges"
    required = [field for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    flag = f"--{number.field.replace('_', '-')}"
    words = ["x" for _ in required]
    for value in [*beyond(number), *([2**70] if number.kind is int else [])]:
        with pytest.raises(
            RangeError, match=rf"^{flag}(\[0\])?: must be .*, got (one of 71 bits|{re.escape(str(value))})$"
        ):
            read(cls, [*words, f"{flag}={value}"], prog="ladd")
    for value in ends(number):
        made = getattr(read(cls, [*words, f"{flag}={value}"], prog="ladd"), number.field)
        assert made in (value, (value,))
    if number.kind is float:
        assert all(math.isnan(value) or value not in number.within for value in (math.nan, math.inf, -math.inf))


BAD_TEXT = "caf\udce9"
"""What Python makes of the bytes `caf\\xe9`, which are no UTF-8."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--note", BAD_TEXT], r"--note: a byte that is no UTF-8 in 'caf\\udce9'"),
        ([f"--note={BAD_TEXT}"], r"--note: a byte that is no UTF-8 in '--note=caf\\udce9'"),
        (["--out", "a\0b"], r"--out: a control character in 'a\x00b'"),
        (["--name", "a\nb"], r"--name: a control character in 'a\nb'"),
        (["--name", "\x1b]52;c;aGk=\a"], r"--name: a control character in '\x1b]52;c;aGk=\x07'"),
        (["--name", "a\x9bm"], r"--name: a control character in 'a\x9bm'"),
        ([BAD_TEXT], r"the command line: a byte that is no UTF-8 in 'caf\udce9'"),
    ],
)
def test_words_that_are_no_text_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        launch._main([*words, EXP4])
    assert str(refused.value).replace("\\\\", "\\") == message.replace("\\\\", "\\")


def test_a_note_may_have_several_lines_and_any_alphabet() -> None:
    words = [EXP4, "--scale", "smoke", "--note", "erste Zeile: größer\nzweite\tZeile: 火", "--dry-run"]
    assert launch.main(words) == 0


def test_a_range_of_numbers_is_bounded() -> None:
    assert len(split_words(["1..10000"], int)) == 10_000
    with pytest.raises(ValueError, match=r"the range 1\.\.10+ has more than 10000 numbers"):
        split_words(["1..1000000000"], int)


def test_a_word_that_no_path_can_be_is_no_path() -> None:
    words = ["--steps", "1", "x" * 5000, "a\0b"]
    assert path_first(evaluate.Options, words) == words
