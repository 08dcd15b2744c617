"""Prompts as a dataset: which lines count, what signatures see, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladd_dist.core.serialize import from_data, signature, to_data
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.prompts import LONGEST, Prompts


def prompts(path: Path, content: bytes) -> Prompts:
    path.write_bytes(content)
    return Prompts(file=str(path), size=64)


def test_every_line_that_is_not_blank_is_a_class(tmp_path: Path) -> None:
    found = prompts(tmp_path / "p.txt", "\ufeffa cat \r\n\n  \n# no comment\na cat\nübung".encode())
    assert found.texts() == ("a cat", "# no comment", "a cat", "übung")
    assert found.spec() == ImageSpec(3, 64, 64, 4)


def test_without_a_file_there_are_classes_and_no_texts() -> None:
    assert Prompts(num_classes=10).texts() == ()
    assert Prompts(size=8, channels=1, num_classes=10).spec() == ImageSpec(1, 8, 8, 10)
    with pytest.raises(ValueError, match="no images"):
        Prompts().build(split="train")


def test_signatures_see_what_a_file_says_and_not_where_it_lies(tmp_path: Path) -> None:
    one, two = prompts(tmp_path / "one.txt", b"a cat\n"), prompts(tmp_path / "two.txt", b"a cat\n")
    assert signature(one) == signature(two)
    assert from_data(Dataset, to_data(one)) == one  # the path is kept where it is shown
    before = signature(one)
    (tmp_path / "one.txt").write_bytes(b"a dog\n")
    assert signature(one) != before
    assert one.texts() == ("a dog",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"holds no prompt \(0 lines"),
        (b"\n \n\t\n", r"holds no prompt \(3 lines, all blank\)"),
        (b"a cat\n\n\xff\xfe\n", r"line 3 is not UTF-8"),
        ("a cat\n".encode("utf-16-le"), r"line 1 holds a NUL"),
        (b"a cat\n" + b"x" * 2**20, r"line 2 has 1,048,576 characters"),
        (b"x" * (LONGEST + 1), rf"line 1 has {LONGEST + 1:,} characters, a prompt at most {LONGEST:,}"),
    ],
    ids=["empty", "blank", "latin", "utf-16", "a megabyte", "one too long"],
)
def test_a_file_that_is_no_list_of_prompts_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prompts(tmp_path / "p.txt", content).spec()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(ValueError, match=r"prompts\.file: .* cannot be read .*one prompt a line"):
            Prompts(file=str(path)).texts()


def test_a_file_and_a_number_of_classes_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="leave num_classes out"):
        Prompts(file="p.txt", num_classes=3)
