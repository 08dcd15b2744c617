"""What is read from disk is a regular file of a bounded size and of a known form; all else is one message."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ladd_dist.core.door import decode, read_bytes, read_typed
from ladd_dist.core.errors import UserError


@dataclass(frozen=True)
class Job:
    id: str
    steps: int
    axes: dict[str, float]


def test_a_file_of_the_expected_form_is_read(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text('{"id": "7", "steps": 3, "axes": {"é": 1}, "of a later version": []}', encoding="utf-8")
    assert read_typed(path, Job) == Job("7", 3, {"é": 1.0})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"id": 7, "steps": 3, "axes": {}}', "$.id"),
        (b'{"id": "7", "steps": 3.5, "axes": {}}', "$.steps"),
        (b'{"id": "7", "steps": 3, "axes": {"a": "b"}}', "$.axes"),
        (b'{"id": "7", "steps": 3}', "axes"),
        (b'{"id": "7", "steps": %s, "axes": {}}' % (b"1" * 400), "400 digits"),
        (b'{"id": "7", "steps": 3, "axes": {"a": 1e999}}', "out of range"),
        (b'{"id": "7", "steps": 3, "axes": {"a": NaN}}', "not valid JSON"),
        (b'{"id": "\xff", "steps": 3, "axes": {}}', "utf-8"),
        (b'{"id": "7", "steps": 3, "axes": {}} {}', "not valid JSON"),
        (b"[]", "object"),
        (b"", "not valid JSON"),
    ],
)
def test_damage_is_one_message_with_place_and_remedy(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_typed(path, Job, "ask its author")
    assert str(path) in str(caught.value) and says in str(caught.value) and "ask its author" in str(caught.value)


def test_deep_nesting_and_long_numbers_are_refused_where_any_json_is_read() -> None:
    for content in ("[" * 100_000 + "]" * 100_000, f'{{"a": [{"9" * 19}]}}', "-" + "9" * 30):
        with pytest.raises(UserError):
            decode(content, Any, "it")  # type: ignore[type-var]
    assert decode(f"[{2**63 - 1}]", list[int], "it") == [2**63 - 1]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer without end
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name, kind in (("fifo", "a pipe"), ("socket", "a socket"), (".", "a folder")):
            with pytest.raises(UserError, match=kind):
                read_bytes(tmp_path / name)
    with pytest.raises(UserError, match="a device"):
        read_bytes(Path("/dev/zero"))
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match="cannot be opened"):
        read_bytes(tmp_path / "circle")


def test_a_file_that_claims_more_than_the_limit_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(20 * 10**9)  # sparse
    with pytest.raises(UserError, match="20 GB"):
        read_bytes(path)
