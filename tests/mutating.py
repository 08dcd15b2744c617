"""Bugs put into a copy of the package: `tests/pipeline` asks `ladd doctor` about them, `make mutants` the tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGES = ("ladd_dist", "plugins", "recipes")


@dataclass(frozen=True)
class Edit:
    """A replacement in one file; the old text must be there exactly once, so that it cannot rot unnoticed."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One bug."""

    bug: str
    """What the bug does, in a sentence."""
    edits: tuple[Edit, ...]
    check: str = ""
    """The check of `ladd doctor` that must fail."""
    test: str = ""
    """Where doctor cannot see it: the test that must fail."""
    flags: tuple[str, ...] = ()


def mutated(edits: tuple[Edit, ...], root: Path = REPO) -> dict[str, str]:
    """The text of each file after the edits.

    Raises:
        ValueError: an old text is not in its file exactly once; the message says which and how often.
    """
    texts: dict[str, str] = {}
    for edit in edits:
        text = texts.get(edit.file) or (root / edit.file).read_text(encoding="utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file} has {edit.old!r} {text.count(edit.old)} times, not once")
        texts[edit.file] = text.replace(edit.old, edit.new)
    return texts


def mutate(mutation: Mutation, folder: Path, *, with_tests: bool = False) -> None:
    """Make a copy of the packages with the bug in it.

    Raises:
        ValueError: an edit does not apply.
    """
    texts = mutated(mutation.edits)
    for name in (*PACKAGES, *(("tests",) if with_tests else ())):
        shutil.copytree(REPO / name, folder / name)
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")


def one(file: str, old: str, new: str) -> tuple[Edit, ...]:
    """A single edit of a file of the package."""
    return (Edit(f"ladd_dist/{file}", old, new),)
