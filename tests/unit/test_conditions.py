"""The table of text conditions: rows by id, looked up once a tensor of ids."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ladd_dist.core.conditions import Conditions


def rows(num: int = 7) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    return {
        "mask": torch.rand(num, 3, generator=source) > 0.5,
        "states": torch.randn(num, 3, 5, generator=source).bfloat16(),
        "pooled": torch.randn(num, 4, generator=source),
        "size": torch.arange(num),
    }


def test_a_table_in_one_file_is_read_as_earlier_versions_wrote_it(tmp_path: Path) -> None:
    table, path = rows(), tmp_path / "conditions.safetensors"
    safetensors.torch.save_file(table, path)
    read = Conditions.read(path)
    assert read.num == 6
    assert read.shapes == {"mask": (3,), "states": (3, 5), "pooled": (4,), "size": ()}
    found = read.take(torch.tensor([6, 0, 0]))
    for name, tensor in table.items():
        assert torch.equal(found[name], tensor[[6, 0, 0]]), name
        assert found[name].dtype == tensor.dtype


def test_a_missing_or_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table"
    with pytest.raises(ValueError, match="table is missing"):
        Conditions.read(path)
    safetensors.torch.save_file(rows(), path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"table is no readable table of conditions .*make the shards again"):
        Conditions.read(path)


def test_the_same_tensor_of_ids_is_looked_up_once_and_again_when_it_has_changed() -> None:
    table, ids = Conditions(rows()), torch.tensor([1, 2])
    first = table.take(ids)
    assert table.take(ids) is first
    assert table.take(ids.clone()) is not first
    ids.fill_(3)
    assert table.take(ids)["size"].tolist() == [3, 3]
    with torch.inference_mode():
        ids = torch.tensor([4])
        assert table.take(ids)["size"].tolist() == [4]
        ids.fill_(5)
        assert table.take(ids)["size"].tolist() == [5]


def test_an_id_above_the_table_is_an_error() -> None:
    with pytest.raises(IndexError):
        Conditions(rows()).take(torch.tensor([7]))


def test_a_table_needs_the_same_number_of_rows_everywhere() -> None:
    for tensors in ({}, {"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)}, {"a": torch.zeros(())}):
        with pytest.raises(ValueError, match="one row a condition"):
            Conditions(tensors)


def test_a_copy_shares_the_table() -> None:
    table = Conditions(rows())
    assert copy.deepcopy(table) is table


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_blank_table_has_shapes_for_any_id_on_any_device(device: str) -> None:
    blank = Conditions.blank({"states": (3, 5), "size": ()})
    found = blank.take(torch.tensor([12345, 0], device=device))
    assert {name: (tuple(t.shape), t.device.type) for name, t in found.items()} == {
        "states": ((2, 3, 5), device), "size": ((2,), device),
    }  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("limit", [0, 2**30])
def test_rows_come_to_the_device_of_the_ids(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr("ladd_dist.core.conditions.ON_DEVICE_BYTES", limit)
    table = rows()
    found = Conditions(table).take(torch.tensor([5, 1], device="cuda"))
    assert all(tensor.is_cuda and torch.equal(tensor.cpu(), table[name][[5, 1]]) for name, tensor in found.items())
