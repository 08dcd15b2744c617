"""Written prompts: many, of many kinds, no two alike, and the same for ever."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import pytest

from ladd_dist.datasets.prompt_writer import TEMPLATES, WORDS, written_prompts
from ladd_dist.datasets.prompts import read_prompts
from ladd_dist.prompts import main
from recipes._checkpoints import CHECKPOINT, PROMPTS

THOUSANDS = tuple(written_prompts(5_000))


def test_no_two_prompts_are_alike_and_the_first_of_many_are_those_of_few() -> None:
    assert len(set(THOUSANDS)) == 5_000
    assert list(itertools.islice(written_prompts(1_000_000), 100)) == list(THOUSANDS[:100])


def test_the_prompts_of_a_seed_never_change() -> None:
    """A changed prompt is another signature of every run that was made with them."""
    assert THOUSANDS[0] == "a frozen lake, dust in a beam of light"
    assert hashlib.sha256("\n".join(THOUSANDS).encode()).hexdigest()[:16] == "3f901942d3a38e8d"
    assert len({*THOUSANDS[:500], *written_prompts(500, seed=1)}) > 950


def test_every_form_and_every_word_is_used() -> None:
    slots = {slot for form in TEMPLATES for slot in re.findall(r"\{(?:a:)?(\w+)\}", form)}
    assert slots == WORDS.keys()
    text = "\n".join(THOUSANDS)
    assert [word for words in WORDS.values() for word in words if word not in text] == []


def test_a_prompt_is_one_line_of_english_that_every_encoder_reads_whole() -> None:
    for prompt in THOUSANDS:
        assert re.fullmatch(r"[a-z',\- ]+", prompt), prompt
        assert len(prompt.split()) < 40 and "  " not in prompt
        assert not re.search(r"\ban? (?:an?\b|two|dozens)|\ba [aeiou]|\ban [^aeiou]", prompt), prompt


def test_the_recipes_of_checkpoints_ask_for_thousands_of_them() -> None:
    assert read_prompts(Path(PROMPTS)) == THOUSANDS
    assert CHECKPOINT.dataset.spec().num_classes == 5_000


def test_the_command_prints_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == list(THOUSANDS[:3])
    assert main(["--count", "0"]) == 2
    assert "--count: must be" in capsys.readouterr().err
