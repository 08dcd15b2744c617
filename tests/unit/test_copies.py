"""Copies of a picture, under whatever names, are all trained on or all held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import encoded, plain

from ladd_dist.core import picture_pool
from ladd_dist.datasets import Dataset, Split, folder_contents, folder_inventory
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.picture_cache import share_of, with_copies
from ladd_dist.datasets.webdataset import Webdataset
from tests.foreign_source import member, write_tar

NUM = 60
SPLITS: tuple[Split, ...] = ("train", "test")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(picture_pool, "usable_cores", lambda: 1)
    folder_inventory.forget()
    yield
    folder_inventory.forget()


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    folder_inventory.forget()


def picture(number: int) -> bytes:
    return encoded(plain((number, 0, 0)))


def numbers(data: Dataset, split: Split, cache: Path) -> list[int]:
    """Which pictures a split has, by their colour."""
    images = data.open(split=split, cache=cache)
    pixels, _ = images.batch(torch.arange(len(images)))
    return [round((float(value) + 1) * 127.5) for value in pixels[:, 0].mean(dim=(1, 2))]


def sides(data: Dataset, cache: Path) -> tuple[list[int], list[int]]:
    return numbers(data, "train", cache), numbers(data, "test", cache)


def test_copies_under_other_names_and_in_other_classes_lie_on_one_side(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, {f"a/{number}.png": picture(number) for number in range(NUM)})
    write(root, {f"b/copy of {number}.jpg": picture(number) for number in range(NUM)})
    trained, held_out = sides(Folder(root=str(root), size=8, held_out=0.3), tmp_path / "cache")
    assert len(trained) + len(held_out) == 2 * NUM
    assert not set(trained) & set(held_out)
    assert set(held_out) == {number for number in range(NUM) if share_of(f"a/{number}.png") < 0.3}


def test_copies_join_the_pictures_of_their_bases(tmp_path: Path) -> None:
    """Base b0 has the pictures 0 to 9; a copy of 9, which is of no base, is one of theirs."""
    root = tmp_path / "set"
    write(root, {f"a/{number:03d}.png": picture(number) for number in range(NUM)})
    write(root, {f"a/z{number}.png": picture(10 * number + 9) for number in range(NUM // 10)})
    lines = [{"file_name": f"a/{number:03d}.png", "base": f"b{number // 10}"} for number in range(NUM)]
    write(root, {"metadata.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()})
    trained, held_out = sides(Folder(root=str(root), size=8, held_out=0.5), tmp_path / "cache")
    assert {number // 10 for number in trained}.isdisjoint(number // 10 for number in held_out)
    assert {number // 10 for number in held_out} == {n for n in range(NUM // 10) if share_of(f"base b{n}") < 0.5}


def test_samples_with_one_picture_under_several_keys_lie_on_one_side(tmp_path: Path) -> None:
    for shard in ("0", "1"):
        write_tar(tmp_path / f"{shard}.tar", [member(f"{shard}-{n}.png", picture(n)) for n in range(NUM)])
    trained, held_out = sides(Webdataset(urls=f"{tmp_path}/*.tar", size=8, held_out=0.3), tmp_path / "cache")
    assert len(trained) + len(held_out) == 2 * NUM
    assert not set(trained) & set(held_out)
    assert set(held_out) == {number for number in range(NUM) if share_of(f"0-{number}") < 0.3}


@pytest.mark.parametrize("classes", ["folders", "none"])
@pytest.mark.parametrize("held_out", [0.0, 0.02, 0.5])
def test_the_counts_before_decoding_are_those_after(tmp_path: Path, classes: Any, held_out: float) -> None:
    root = tmp_path / "set"
    write(root, {f"{'abc'[number % 3]}/{number}.png": picture(number) for number in range(NUM)})
    write(root, {f"d/copy of {number}.png": picture(number) for number in range(0, NUM, 7)})
    write(root, {"e/alone.png": picture(200), "a/a bitmap.bmp": b"BM"})
    lines = [{"file_name": f"a/{number}.png", "base": "one"} for number in range(0, NUM, 3)]
    write(root, {"metadata.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()})
    data = Folder(root=str(root), size=8, classes=classes, held_out=held_out, on_bad="skip")
    told = data.counts(tmp_path / "cache")
    images = {split: data.open(split=split, cache=tmp_path / "cache") for split in (SPLITS if held_out else SPLITS[:1])}
    assert told == data.counts(tmp_path / "cache")
    assert told.train == tuple(torch.bincount(images["train"].conditions).tolist())
    assert told.held_out == (len(images["test"]) if held_out else 0)


def as_before(root: Path) -> str:
    """The fingerprint of a folder of pictures before copies counted."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.*")):
        total.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def test_only_a_folder_with_copies_has_another_signature_and_split_than_before(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, {f"a/{number}.png": picture(number) for number in range(NUM)})
    write(root, {"a/empty.png": b"", "a/nothing.png": b""})  # which are no pictures
    data = Folder(root=str(root), size=8, held_out=0.3, on_bad="skip")
    assert data.fingerprint() == as_before(root)
    assert set(numbers(data, "test", tmp_path / "cache")) == {n for n in range(NUM) if share_of(f"a/{n}.png") < 0.3}
    write(root, {"a/copy.png": picture(0)})
    assert data.fingerprint() != as_before(root)


def test_what_an_older_version_noted_of_a_folder_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_contents, "_RACE_S", -1.0)
    root = tmp_path / "set"
    write(root, {"a/0.png": picture(0), "a/1.png": picture(0)})
    data = Folder(root=str(root))
    found = data.fingerprint()
    (note,) = (tmp_path / "home").rglob("*.json")
    noted = json.loads(note.read_text())
    assert noted["contents"] == {"fingerprint": found, "copies": [[0, 1]]}
    older = {"root": noted["root"], "stamp": noted["stamp"], "content": as_before(root)}
    strange = {**noted, "contents": {"fingerprint": "0" * 16, "copies": [[0, 2]]}}
    for content in (older, strange):
        note.write_text(json.dumps(content))
        folder_inventory.forget()
        assert data.fingerprint() == found


def joined(shares: list[float], contents: list[int]) -> list[float]:
    """The same as `with_copies`, by joining pairs until nothing changes."""
    group = list(range(len(shares)))
    changed = True
    while changed:
        changed = False
        for i in range(len(shares)):
            for j in range(i):
                if group[i] != group[j] and (shares[i] == shares[j] or contents[i] == contents[j]):
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    return [shares[first] for first in group]


@pytest.mark.parametrize("seed", range(20))
def test_what_belongs_together_has_the_number_of_the_first(seed: int) -> None:
    source = np.random.default_rng(seed)
    shares: list[Any] = (source.integers(0, 25, 30) / 32).tolist()
    contents: list[Any] = source.integers(-12, 12, 30).tolist()
    found = with_copies(torch.tensor(shares, dtype=torch.float64), torch.tensor(contents))
    assert found.tolist() == joined(shares, contents)
