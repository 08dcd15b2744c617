"""Two ranks import somebody else's shards: a share each, the bytes of one process, and one error for both."""

from __future__ import annotations

import json
from pathlib import Path

from prepared import run_ranks

from tests.foreign_source import NUM, expected, tars, write_source

ROOT = Path(__file__).resolve().parents[2]


def by_two(source: Path, folder: Path) -> list[tuple[str, list[str]]]:
    """What each of two ranks said and which shards it read."""
    folder.mkdir(exist_ok=True)
    run_ranks(2, "tests.distributed.import_worker", source, folder, cwd=ROOT, out=folder / "said.txt")
    told: list[tuple[str, list[str]]] = json.loads((folder / "told.json").read_text())
    return told


def test_two_ranks_read_a_share_each_and_write_the_bytes_of_one(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (_, first), (_, second) = by_two(source, tmp_path)
    assert first[:3] == ["000.tar", "002.tar", "004.tar"]  # verified
    assert second[:2] == ["001.tar", "003.tar"]
    assert first[3:] == ["000.tar", "001.tar", "002.tar", "003.tar"]  # samples 0 to 23
    assert second[2:] == ["003.tar", "004.tar"]  # samples 24 to 45
    (folder,) = (tmp_path / "cache").glob("shards-*")
    assert tars(folder) == expected(tmp_path / "expected", NUM)


def test_both_ranks_name_the_first_wrong_shard_and_what_was_sound_is_not_verified_again(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    whole = {name: (source / name).read_bytes() for name in ("003.tar", "004.tar")}
    for name, content in whole.items():
        (source / name).write_bytes(content[:3000])
    (mine, _), (theirs, _) = by_two(source, tmp_path)
    assert mine == theirs
    assert f"shard {source}/003.tar is truncated" in mine
    assert not list((tmp_path / "cache").glob("shards-*/*.tar"))
    for name, content in whole.items():
        (source / name).write_bytes(content)
    (mine, first), (theirs, second) = by_two(source, tmp_path)
    assert mine == theirs == ""
    assert (first[0], second[0]) == ("004.tar", "003.tar")
    (folder,) = (tmp_path / "cache").glob("shards-*")
    assert tars(folder) == expected(tmp_path / "expected", NUM)
