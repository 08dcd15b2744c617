"""The table of conditions in several files: bit for bit what was put in, without the zeros that were its padding."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.damage import damage_json
from torch import Tensor

from ladd_dist.core.condition_index import INDEX, TableIndex, read_table_index
from ladd_dist.core.conditions import Conditions, DenseTable
from ladd_dist.core.errors import UserError
from ladd_dist.core.pack_rows import forms_of, kept_entries, write_piece
from ladd_dist.core.packed_table import PackedTable

TOKENS, WIDTH, ROWS = 6, 5, 7
Damage = Callable[[dict[str, Any]], object]


def texts() -> dict[str, Tensor]:
    """Rows of every length from none to the longest, in bfloat16, and what goes with them."""
    source = torch.Generator().manual_seed(0)
    mask = torch.arange(TOKENS) < torch.arange(ROWS)[:, None]
    states = torch.randn(ROWS, TOKENS, WIDTH, generator=source).masked_fill(~mask[:, :, None], 0).bfloat16()
    states[2, 0] = 0  # a zero inside is no padding
    return {
        "mask": mask.to(torch.uint8),
        "states": states,
        "pooled": torch.randn(ROWS, 4, generator=source).half(),
        "size": torch.arange(ROWS),
    }


def write_table(folder: Path, rows: dict[str, Tensor], cuts: tuple[int, ...], order: list[int]) -> Path:
    """Write rows into files that end at `cuts`; returns the index."""
    pieces = [
        write_piece(folder / f"conditions-{first}.safetensors", {name: t[first:last] for name, t in rows.items()})
        for first, last in zip((0, *cuts), (*cuts, len(rows["size"])), strict=True)
    ]
    (folder / INDEX).write_text(json.dumps(asdict(TableIndex(order, forms_of(rows), pieces))))
    return folder / INDEX


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_table(tmp_path, texts(), (3, 4), [0, 6, 6, *range(ROWS)])


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4)])
def test_rows_come_back_bit_for_bit_whatever_their_length(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    table = Conditions.read(write_table(tmp_path, texts(), cuts, [0, 6, 6, *range(ROWS)]))
    assert table.num == 9
    assert table.shapes == {"mask": (TOKENS,), "states": (TOKENS, WIDTH), "pooled": (4,), "size": ()}
    ids = torch.tensor([9, 0, 1, 2, 5, 0])
    found, expected = table.take(ids), Conditions({n: t[[0, 6, 6, *range(ROWS)]] for n, t in texts().items()}).take(ids)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(found[name], tensor), name


def test_a_copy_on_a_device_has_the_rows_of_the_files(path: Path) -> None:
    table, ids = PackedTable(path.parent, read_table_index(path)), torch.tensor([9, 0, 1, 2, 5, 0])
    found, expected = table.resident(torch.device("cpu")).rows(ids), table.rows(ids)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [0, 2**30])
def test_rows_come_to_an_accelerator_and_a_small_table_waits_for_nothing(
    path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr("ladd_dist.core.conditions.ON_DEVICE_BYTES", limit)
    table, ids = Conditions.read(path), torch.tensor([9, 0, 1, 2, 5, 0])
    expected = table.take(ids)
    table.take(torch.tensor([0], device="cuda"))  # copies a small table
    there = ids.to("cuda")
    torch.cuda.set_sync_debug_mode("error" if limit else "default")
    try:
        found = table.take(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(found[name].is_cuda and torch.equal(found[name].cpu(), expected[name]) for name in expected)


def test_padding_is_not_stored(path: Path) -> None:
    index = read_table_index(path)
    assert [length for piece in index.files for length in piece.lengths["states"]] == list(range(ROWS))
    tokens = sum(range(ROWS))
    assert index.nbytes == tokens * (1 + 2 * WIDTH) + ROWS * 4 * 2 + (ROWS - 1) * 8  # of a zero nothing is stored
    assert index.nbytes < DenseTable(texts()).nbytes


def test_a_negative_zero_is_a_number_and_no_padding() -> None:
    assert kept_entries(torch.tensor([[1.0, -0.0, 0.0], [0.0, 0.0, 0.0]])).tolist() == [2, 0]


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_piece(tmp_path / name, texts()) for name in ("one", "two"))
    assert one.sha256 == two.sha256


def test_an_id_above_the_table_is_an_error(path: Path) -> None:
    with pytest.raises(IndexError):
        Conditions.read(path).take(torch.tensor([10]))


def test_rows_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one row a condition"):
        write_piece(tmp_path / "a", {"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)})
    with pytest.raises(UserError, match=r"a is torch\.complex64, a table holds"):
        write_piece(tmp_path / "a", {"a": torch.zeros(2, 1, dtype=torch.complex64)})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_missing_or_was_cut_is_named(path: Path) -> None:
    table, piece = Conditions.read(path), path.parent / "conditions-3.safetensors"
    content = piece.read_bytes()
    piece.write_bytes(content[:-5])
    with pytest.raises(UserError, match=r"conditions-3\.safetensors was cut to .* bytes while it was read"):
        table.take(torch.tensor([6]))
    with pytest.raises(UserError, match=r"conditions-3\.safetensors is damaged: .* delete the shards' folder"):
        Conditions.read(path)
    piece.unlink()
    with pytest.raises(UserError, match=r"conditions-3\.safetensors is missing"):
        Conditions.read(path)


def piece_of(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data["files"][0]
    return found


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data["rows"].__setitem__(0, 7), "a condition has row 7, its files hold 7 rows"),
        (lambda data: data["rows"].__setitem__(0, -1), "Expected `int` >= 0"),
        (lambda data: data["rows"].clear(), "has no condition"),
        (lambda data: data["files"].clear(), "no file"),
        (lambda data: data["files"].append(copy.deepcopy(piece_of(data))), "names a file twice"),
        (lambda data: data.update(format=3), "format 3, this version reads 2"),
        (lambda data: data["tensors"]["states"].update(dtype="F8"), "dtype 'F8' is none of"),
        (lambda data: data["tensors"]["states"].update(shape=[2**31, 2**31]), "is larger than"),
        (lambda data: data["tensors"]["states"].update(shape=[2**31 - 1, 0]), "Expected `int` >= 1"),
        (lambda data: data["tensors"].update(more={"dtype": "F32", "shape": [1]}), "the table mask, pooled"),
        (lambda data: data["tensors"]["states"].update(shape=[1, WIDTH]), "has 2 entries, at most 1 fit"),
        (lambda data: piece_of(data).update(name="../conditions-0.safetensors"), "is no file name"),
        (lambda data: piece_of(data)["starts"].update(states=2**40), "states ends behind the file's"),
        (lambda data: piece_of(data)["starts"].update(states=-8), "Expected `int` >= 0"),
        (lambda data: piece_of(data)["starts"].pop("states"), "a start and those with lengths differ"),
        (lambda data: piece_of(data)["lengths"]["states"].append(1), "different numbers of rows"),
        (lambda data: piece_of(data)["lengths"].update(states=[10**30]), r"conditions\.json"),
        (lambda data: piece_of(data).update(sha256="0"), "matching regex"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_one_message(path: Path, damage: Damage, message: str) -> None:
    data = json.loads(path.read_bytes())
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        Conditions.read(path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_with_any_damage_is_refused_or_gives_rows_of_its_form(path: Path) -> None:
    sound, refused = path.read_bytes(), 0
    for seed in range(300):
        random_ = random.Random(f"table of texts/{seed}")
        what = damage_json(path, random_)
        try:
            table = PackedTable(path.parent, read_table_index(path))
            rows = table.rows(torch.arange(min(table.num_rows, 20)))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error), (seed, what)
        else:
            assert {name: tuple(found.shape[1:]) for name, found in rows.items()} == table.shapes, (seed, what)
        finally:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            path.write_bytes(sound)
    assert 150 < refused < 300  # some damage changes nothing that a reader could tell without the sha256


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what a process holds")
def test_reading_a_table_of_many_files_keeps_no_memory(tmp_path: Path) -> None:
    """200 MB on disk, mapped a file at a time: what a process holds grows by far less."""
    rows = {"states": torch.ones(8, 128, 4096)}  # 16 MB
    first = write_piece(tmp_path / "conditions-0", rows)
    pieces = [dataclasses.replace(first, name=f"conditions-{number}") for number in range(12)]
    for piece in pieces[1:]:
        os.link(tmp_path / first.name, tmp_path / piece.name)
    table = PackedTable(tmp_path, TableIndex(list(range(96)), forms_of(rows), pieces))
    assert table.nbytes > 200e6
    table.rows(torch.tensor([0]))
    before = resident_bytes()
    for number in range(96):
        assert table.rows(torch.tensor([number]))["states"][0, -1, -1] == 1
    assert resident_bytes() - before < 30e6


def resident_bytes() -> int:
    """Memory of this process, the mapped part of files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
