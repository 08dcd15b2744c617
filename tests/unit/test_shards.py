"""Shards: the same set however it is made, whole or absent, damage named, other people's read, never code."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import webdataset

from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import sample_starts
from ladd_dist.core.signals import Stopped
from ladd_dist.core.transfer import sent
from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.foreign_samples import Wanted
from ladd_dist.engine.foreign_survey import survey_shards
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader, to_device
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.samplers.karras import Heun
from ladd_dist.stages.imported import Imported
from ladd_dist.stages.shards import TeacherSamples
from ladd_dist.starts.couplings import Path as PathCoupling

IMAGE = ImageSpec(channels=3, height=4, width=4, num_classes=10)
WANTED = Wanted(IMAGE)
NUM = 23  # no multiple of anything below
REPO = Path(__file__).resolve().parents[2]


def make(first: int, last: int) -> Chunk:
    """Samples that depend on their index alone, with two path states each."""
    rows = [torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(index)) for index in range(first, last)]
    values = torch.stack(rows)
    return Chunk(values[:, 0], torch.arange(first, last) % 10, values[:, 1], values[:, 2:])


def write(folder: Path, make: Callable[[int, int], Chunk] = make, **options: Any) -> Path:
    defaults: dict[str, Any] = {"num_samples": NUM, "samples_per_chunk": 4, "chunks_per_shard": 2}
    defaults |= {"dtype": torch.float32, "image": IMAGE, "card": {"path_levels": [80.0, 1.0], "seed": 3}}
    write_shards(folder, make=make, **(defaults | options))
    return folder


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("master") / "shards")


@pytest.fixture
def shards(master: Path, tmp_path: Path) -> Path:
    """A whole set that a test may damage."""
    return Path(shutil.copytree(master, tmp_path / "shards"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def everything(folder: Path) -> Any:
    reader = ShardReader(folder)
    return reader.take(np.arange(len(reader)))


# Writing and reading back


def test_a_float32_round_trip_is_exact(master: Path) -> None:
    reader, expected = ShardReader(master), make(0, NUM)
    reader.verify(IMAGE)
    assert len(reader) == NUM
    batch = everything(master)
    assert torch.equal(batch.x0, expected.x0)
    assert torch.equal(batch.cond, expected.cond)
    assert torch.equal(batch.noise, expected.noise)
    assert torch.equal(batch.path, expected.path)
    assert batch.path_levels == (80.0, 1.0)


def test_float16_halves_the_file_and_rounds_once(tmp_path: Path, master: Path) -> None:
    folder, expected = write(tmp_path / "half", dtype=torch.float16), make(0, NUM)
    batch = everything(folder)
    assert expected.noise is not None
    assert batch.x0.dtype == torch.float32
    assert torch.equal(batch.x0, expected.x0.half().float())
    assert torch.equal(batch.noise, expected.noise.half().float())
    assert torch.equal(batch.cond, expected.cond)
    index = json.loads((folder / INDEX).read_text())
    tensors = [chunk["tensors"] for shard in index["shards"] for chunk in shard["chunks"]]
    assert {item["x0"]["dtype"] for item in tensors} == {"F16"}


@pytest.mark.parametrize("without", ["noise", "path"])
def test_what_is_not_stored_comes_back_as_none(tmp_path: Path, without: str) -> None:
    folder = write(tmp_path / "s", make=lambda a, b: make(a, b)._replace(**{without: None}))
    assert getattr(everything(folder), without) is None


def test_samples_can_be_taken_in_any_order_and_twice(master: Path) -> None:
    indices = np.array([22, 0, 7, 8, 7])
    batch, expected = ShardReader(master).take(indices), make(0, NUM)
    assert torch.equal(batch.x0, expected.x0[indices])
    assert torch.equal(batch.cond, expected.cond[indices])


def test_the_index_describes_each_shard(master: Path) -> None:
    index = json.loads((master / INDEX).read_text())
    assert index["num_samples"] == NUM
    assert index["seed"] == 3
    assert [shard["samples"] for shard in index["shards"]] == [8, 8, 7]
    for shard in index["shards"]:
        assert shard["bytes"] == (master / shard["name"]).stat().st_size
        assert len(shard["sha256"]) == 64


def test_the_grouping_changes_no_sample(tmp_path: Path, master: Path) -> None:
    other = everything(write(tmp_path / "other", samples_per_chunk=3, chunks_per_shard=5))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other[:4], everything(master)[:4], strict=True))


def test_webdataset_reads_our_shards(master: Path) -> None:
    rows = []
    for shard in sorted(master.glob("*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
            tensors = safetensors.torch.load(sample["safetensors"])
            assert tensors["x0"].shape[1:] == (3, 4, 4)
            rows.append(tensors)
    assert [row["cond"][0].item() for row in rows] == [0, 4, 8, 2, 6, 0]
    assert torch.equal(torch.cat([row["x0"] for row in rows]), make(0, NUM).x0)


def test_batches_on_a_device_are_channels_last(master: Path) -> None:
    batch = to_device(ShardReader(master).batch(0, 4, seed=0), torch.device("cpu"))
    assert batch.x0.is_contiguous(memory_format=torch.channels_last)
    assert batch.path_levels == (80.0, 1.0)


def test_samples_that_are_kept_on_a_device_are_the_same_numbers_and_the_files_are_not_read_again(
    master: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, kept = ShardReader(master), ShardReader(master)
    kept.keep_on(torch.device("cpu"))
    monkeypatch.setattr(kept, "_gather", lambda *_: pytest.fail("a file was read"))
    for step in (0, 1, 7):
        for found, expected in zip(kept.batch(step, 10, 3), reader.batch(step, 10, 3), strict=True):
            assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected
    with pytest.raises(IndexError, match="samples are 0 to 22, asked for 1 to 23"):
        kept.take(np.array([1, 23]))


def test_what_goes_to_a_gpu_goes_from_page_locked_memory_and_nobody_waits() -> None:
    class Told:
        """A tensor that says how it was moved."""

        device, pinned = torch.device("cpu"), False

        def pin_memory(self) -> Told:
            self.pinned = True
            return self

        def to(self, device: torch.device, *, non_blocking: bool) -> tuple[str, bool, bool]:
            return device.type, self.pinned, non_blocking

    assert sent(Told(), torch.device("cuda")) == ("cuda", True, True)  # type: ignore[arg-type,comparison-overlap]
    assert sent(Told(), torch.device("cpu")) == ("cpu", False, True)  # type: ignore[arg-type,comparison-overlap]


# Interrupted writing


def test_interrupted_writing_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, master: Path) -> None:
    folder = tmp_path / "shards"
    made: list[int] = []

    def interrupted(first: int, last: int) -> Chunk:
        if first == 12:  # in the middle of the second shard
            raise Stopped(signal.SIGINT)
        return make(first, last)

    def counted(first: int, last: int) -> Chunk:
        made.extend(range(first, last))
        return make(first, last)

    with pytest.raises(Stopped):
        write(folder, interrupted)
    assert sorted(path.name for path in folder.iterdir()) == ["000000.json", "000000.tar"]
    finished = (folder / "000000.tar").stat().st_mtime_ns
    write(folder, counted)
    assert (folder / "000000.tar").stat().st_mtime_ns == finished
    assert made == list(range(8, NUM))
    assert contents(folder) == contents(master)


def test_a_whole_set_is_not_written_again(shards: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    write(shards, make=lambda a, b: pytest.fail("made again"))
    assert {path: path.stat().st_mtime_ns for path in shards.glob("*.tar")} == before


@pytest.mark.parametrize("lost", ["000001.tar", "000001.json", "index.json"])
def test_what_is_lost_is_made_again(shards: Path, master: Path, lost: str) -> None:
    (shards / lost).unlink()
    write(shards)
    assert contents(shards) == contents(master)


def test_a_cut_shard_is_made_again(shards: Path, master: Path) -> None:
    path = shards / "000001.tar"
    path.write_bytes(path.read_bytes()[:-700])
    write(shards)
    assert contents(shards) == contents(master)


def test_a_full_disk_leaves_no_partial_shard(tmp_path: Path) -> None:
    def full(first: int, last: int) -> Chunk:
        if first >= 8:
            raise OSError(28, "No space left on device")
        return make(first, last)

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "shards", full)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["000000.json", "000000.tar"]


def spoil(chunk: Chunk, how: str) -> Chunk:
    x0, cond, noise, path = (None if t is None else t.clone() for t in chunk)
    assert x0 is not None
    assert cond is not None
    assert noise is not None
    assert path is not None
    if how == "NaN":
        x0[1, 0, 0, 0] = float("nan")
    elif how == "infinity in the noise":
        noise[1, 2, 0, 0] = float("inf")
    elif how == "NaN in the path":
        path[1, 1, 0, 0, 0] = float("nan")
    elif how == "shape":
        x0, noise = x0[..., :3], noise[..., :3]
    elif how == "shape of the noise":
        noise = noise[:, :1]
    elif how == "shape of the path":
        path = path[..., :3]
    elif how == "number of samples":
        x0 = x0[:-1]
    elif how == "class too high":
        cond[1] = 10
    else:
        cond[1] = -1
    return Chunk(x0, cond, noise, path)


FAULTS = {
    "NaN": r"x0 of sample 1 there holds NaN or infinity",
    "infinity in the noise": r"noise of sample 1 there holds NaN or infinity",
    "NaN in the path": r"path of sample 1 there holds NaN or infinity",
    "shape": r"x0 has shape \(4, 3, 4, 3\), the recipe's dataset needs \(4, 3, 4, 4\)",
    "shape of the noise": r"noise has shape \(4, 1, 4, 4\), x0 has \(4, 3, 4, 4\)",
    "shape of the path": r"path has shape \(4, 2, 3, 4, 3\)",
    "number of samples": r"x0 has shape \(3, 3, 4, 4\)",
    "class too high": r"class ids 0\.\.10, the recipe's dataset has 0\.\.9",
    "class below zero": r"class ids -1\.\.3, the recipe's dataset has 0\.\.9",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_samples_are_refused_before_they_are_written(tmp_path: Path, fault: str) -> None:
    with pytest.raises(ShardError, match=r"samples 0 to 3 for 000000\.tar: " + FAULTS[fault]):
        write(tmp_path / "shards", lambda a, b: spoil(make(a, b), fault))
    assert list((tmp_path / "shards").iterdir()) == []


# Damage


def reopen(folder: Path) -> None:
    ShardReader(folder).verify(IMAGE)


def cut_between_members(path: Path) -> None:
    """What is left is a sound tar file with fewer members."""
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1]
    path.write_bytes(path.read_bytes()[: second.offset] + bytes(1024))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [cut_between_members, flip_a_bit, truncate, empty, Path.unlink])
def test_a_damaged_or_missing_shard_is_named(shards: Path, harm: Callable[[Path], Any]) -> None:
    reopen(shards)
    harm(shards / "000001.tar")
    with pytest.raises(ShardError, match=r"shard .*000001\.tar is (damaged|missing).*again"):
        reopen(shards)


def test_a_shard_that_is_cut_after_it_was_opened_is_an_error_and_not_a_crash(shards: Path) -> None:
    """To read a mapping behind its file's end kills the process (SIGBUS)."""
    reader = ShardReader(shards)
    reader.verify(IMAGE)
    os.truncate(shards / "000001.tar", 100)
    with pytest.raises(ShardError, match=r"000001\.tar was cut to 100 bytes while it was read"):
        reader.take(np.arange(NUM))
    assert torch.equal(reader.take(np.arange(8)).x0, make(0, 8).x0)  # of the whole shard
    (shards / "000002.tar").unlink()
    assert torch.equal(reader.take(np.arange(16, NUM)).x0, make(16, NUM).x0)  # removed, and still mapped


def test_a_shard_cut_between_members_reads_without_an_error_elsewhere(shards: Path) -> None:
    """The reason for the index."""
    cut_between_members(shards / "000001.tar")
    samples = list(webdataset.WebDataset(str(shards / "000001.tar"), shardshuffle=False))
    assert len(samples) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_samples_of_somebody_elses_making_are_refused(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ladd_dist.engine.shard_writer.check_chunk", lambda *_: None)
        folder = write(tmp_path / "shards", lambda a, b: spoil(make(a, b), fault), num_samples=4)
    with pytest.raises(ShardError, match=FAULTS[fault]):
        reopen(folder)


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_index_of_another_format_is_refused(shards: Path) -> None:
    edit_index(shards, format=99)
    with pytest.raises(ShardError, match=r"index\.json: format 99, this version reads 1"):
        reopen(shards)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "shards": [{"name": "x"}]}'])
def test_a_damaged_or_missing_index_is_named(shards: Path, content: str) -> None:
    (shards / INDEX).write_text(content)
    with pytest.raises(ShardError, match=r"index\.json"):
        reopen(shards)
    (shards / INDEX).unlink()
    with pytest.raises(ShardError, match=r"index\.json is missing"):
        reopen(shards)


def test_shards_that_do_not_all_hold_the_same_tensors_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", make=lambda a, b: make(a, b)._replace(noise=None) if a == 8 else make(a, b))
    with pytest.raises(ShardError, match=r"chunk 2 holds cond, path, x0, chunk 0 holds cond, noise, path, x0"):
        reopen(folder)


# Order


def test_every_sample_comes_once_an_epoch_also_in_batches_that_straddle_two(master: Path) -> None:
    reader = ShardReader(master)
    rows = {tuple(row.flatten()[:4].tolist()): index for index, row in enumerate(make(0, NUM).x0)}
    seen = []
    for step in range(23):  # 23 batches of 5 = 5 epochs of 23
        batch = reader.batch(step, 5, seed=0)
        assert len(batch.x0) == 5
        seen += [rows[tuple(row.flatten()[:4].tolist())] for row in batch.x0]
    epochs = [seen[start : start + NUM] for start in range(0, len(seen), NUM)]
    assert len(epochs) == 5
    assert all(Counter(epoch) == Counter(range(NUM)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_the_order_depends_on_seed_and_epoch_alone(master: Path) -> None:
    def conds(step: int, batch_size: int, seed: int) -> list[float]:
        return ShardReader(master).batch(step, batch_size, seed).x0[:, 0, 0, 0].tolist()

    whole = conds(0, NUM, 0)
    assert [value for step in range(4) for value in conds(step, 5, 0)] == whole[:20]  # whatever the batch size
    assert conds(2, 5, 0) == whole[10:15]  # a reader that starts in the middle, as after a resume
    assert conds(0, NUM, 1) != whole
    assert conds(1, NUM, 0) != whole
    second = conds(1, NUM, 0)
    assert conds(0, 3 * NUM, 0)[NUM : 2 * NUM] == second  # a batch of several epochs


# Ranks


@pytest.mark.parametrize("num_ranks", [1, 2, 4])  # 4 ranks have 3 shards between them
def test_ranks_that_write_a_share_each_leave_the_set_that_one_would(
    tmp_path: Path, master: Path, num_ranks: int
) -> None:
    folder, made = tmp_path / "shards", Counter()
    for rank in range(num_ranks):

        def counted(first: int, last: int) -> Chunk:
            made.update(range(first, last))
            return make(first, last)

        write(folder, counted, share=(rank, num_ranks))
        assert not (folder / INDEX).exists()
    write(folder, make=lambda a, b: pytest.fail("made again"))
    assert made == Counter(range(NUM))
    assert contents(folder) == contents(master)


NUM_RANKS = [1, 2, 4]


def rows_of(rank: int, num_ranks: int, batch_size: int) -> range:
    """Contiguous rows as even as they can be, as ranks with uneven parts would take them."""
    return range(rank * batch_size // num_ranks, (rank + 1) * batch_size // num_ranks)


def read_by_ranks(folder: Path, num_ranks: int, steps: int, batch_size: int) -> list[int]:
    """The numbers of the samples that all ranks read, in the order of the global batches; a reader for each rank."""
    number_of = {tuple(row.flatten()[:4].tolist()): index for index, row in enumerate(make(0, NUM).x0)}
    readers, seen = [ShardReader(folder) for _ in range(num_ranks)], []
    for step in range(steps):
        for rank, reader in enumerate(readers):
            rows = rows_of(rank, num_ranks, batch_size)
            batch = reader.batch(step, batch_size, 7, rows)
            assert len(batch.x0) == len(batch.cond) == len(rows)
            seen += [number_of[tuple(row.flatten()[:4].tolist())] for row in batch.x0]
    return seen


def same(mine: Any, theirs: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine[:4], theirs[:4], strict=True))


@pytest.mark.parametrize("num_ranks", NUM_RANKS)
def test_the_ranks_parts_put_together_are_the_whole_batch(master: Path, num_ranks: int) -> None:
    whole = ShardReader(master)
    for step in range(9):  # 9 batches of 8 = 3 epochs of 23 and three samples: two batches straddle epochs
        parts = [ShardReader(master).batch(step, 8, 0, rows_of(rank, num_ranks, 8)) for rank in range(num_ranks)]
        expected = whole.batch(step, 8, 0)
        for tensors, wanted in zip(zip(*(part[:4] for part in parts), strict=True), expected[:4], strict=True):
            assert torch.equal(torch.cat(tensors), wanted)


@pytest.mark.parametrize("num_ranks", NUM_RANKS)
@pytest.mark.parametrize("batch_size", [NUM - 1, NUM, 8, 5])  # NUM - 1: one sample more than a batch
def test_an_epoch_holds_each_sample_once_however_many_ranks_read_it(
    master: Path, num_ranks: int, batch_size: int
) -> None:
    seen = read_by_ranks(master, num_ranks, batch_size * 2 if batch_size < NUM else 2, batch_size)
    for start in range(0, len(seen) - NUM + 1, NUM):
        assert Counter(seen[start : start + NUM]) == Counter(range(NUM))
    assert seen == read_by_ranks(master, 1, batch_size * 2 if batch_size < NUM else 2, batch_size)


@pytest.mark.parametrize("grouping", [(NUM, 1), (4, 1), (1, 1), (5, 3)], ids=str)
def test_neither_fewer_shards_than_ranks_nor_uneven_shards_change_who_reads_what(
    tmp_path: Path, master: Path, grouping: tuple[int, int]
) -> None:
    """One shard for four ranks; shards of 4, 4, 4, 4, 4, 3; a shard a sample; shards of 15 and 8."""
    chunk, shard = grouping
    other = write(tmp_path / "other", samples_per_chunk=chunk, chunks_per_shard=shard)
    for step in range(6):
        for rank in range(4):
            rows = rows_of(rank, 4, 10)
            assert same(ShardReader(other).batch(step, 10, 0, rows), ShardReader(master).batch(step, 10, 0, rows))


def test_more_ranks_than_rows_leave_a_rank_with_an_empty_batch(master: Path) -> None:
    empty = ShardReader(master).batch(3, 2, 0, range(1, 1))
    assert empty.x0.shape == (0, 3, 4, 4)
    assert empty.cond.shape == (0,)


def test_a_rank_reads_its_own_rows_alone(master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, taken = ShardReader(master), []
    take = reader.take
    monkeypatch.setattr(reader, "take", lambda indices: taken.append(len(indices)) or take(indices))  # type: ignore[func-returns-value]
    reader.batch(0, 20, 0, range(5, 8))
    assert taken == [3]


def test_rows_that_the_batch_lacks_are_a_fault_of_ours(master: Path) -> None:
    with pytest.raises(AssertionError):
        ShardReader(master).batch(0, 4, 0, range(2, 5))


@pytest.mark.parametrize("index", [-1, NUM])
def test_a_sample_that_is_not_there_is_an_error(master: Path, index: int) -> None:
    with pytest.raises(IndexError, match=r"samples are 0 to 22"):
        ShardReader(master).take(np.array([3, index]))


def edit_tensor(folder: Path, name: str, **changes: Any) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["shards"][1]["chunks"][0]["tensors"][name] |= changes
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["shards"].pop(1), r"num_samples is 23, its shards have 15"),
        (lambda data: data["shards"].append(data["shards"][0]), r"names a shard twice"),
        (lambda data: data["shards"][0].update(name="../other/000000.tar"), r"is no file name"),
        (lambda data: data["shards"][0].update(name="/etc/passwd"), r"is no file name"),
        (lambda data: data["shards"][0].update(samples=9), r"has 9 samples, its chunks have 8"),
        (lambda data: data["shards"][0].update(bytes=-1), r"Expected `int` >= 0"),
        (lambda data: data["shards"][0].update(bytes=10**400), r"valid JSON|expected form"),
        (lambda data: data["shards"][0].update(sha256="no"), r"expected form"),
        (lambda data: data["shards"][0].update(chunks={}), r"Expected `array`"),
        (lambda data: data["shards"][0]["chunks"][0].update(samples=0), r"Expected `int` >= 1"),
        (lambda data: data["shards"][0]["chunks"][0]["tensors"].pop("cond"), r"a chunk needs x0 and cond"),
        (lambda data: data["shards"][0]["chunks"][0]["tensors"]["x0"].update(shape=[4, 0, 2**60]), r"`int` >= 1"),
        (lambda data: data.update(shards=[]), r"no chunk"),
        (lambda data: data.update(path_levels="high"), r"Expected `array`"),
        (lambda data: data.update(conditions={"name": "..", "bytes": 1, "sha256": "0" * 64}), r"is no file name"),
        (lambda data: data.update(format=[1]), r"expected form"),
    ],
)
def test_an_index_of_another_form_is_one_message(shards: Path, change: Callable[[Any], Any], message: str) -> None:
    data = json.loads((shards / INDEX).read_text())
    change(data)
    (shards / INDEX).write_text(json.dumps(data))
    with pytest.raises(ShardError, match=rf"index\.json.*{message}"):
        ShardReader(shards)


@pytest.mark.parametrize(
    "content", ["[" * 10_000, '{"format": 1, "shards": 1e999}', '{"name": "000000.tar"}', "[]", "\xff"]
)
def test_a_damaged_record_of_a_shard_is_one_message(shards: Path, content: str) -> None:
    (shards / INDEX).unlink()
    (shards / "000000.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"000000\.json (is not valid JSON|does not have the expected form)"):
        write(shards)


@pytest.mark.parametrize(
    "changes", [{"offset": 10**9}, {"offset": -1}, {"dtype": "F16"}, {"shape": [4, 3, 2, 8]}, {"shape": [3, 3, 4, 4]}]
)
def test_an_index_whose_chunk_does_not_fit_is_refused_when_it_is_opened(shards: Path, changes: dict[str, Any]) -> None:
    edit_tensor(shards, "noise", **changes)
    with pytest.raises(ShardError, match=r"chunk 2: noise has shape .* does not fit its 4 samples|`int` >= 0.*offset"):
        ShardReader(shards)


def test_a_type_of_numbers_that_is_not_ours_is_refused(shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text())
    index["shards"][0]["chunks"][0]["tensors"]["x0"]["dtype"] = "BF16"
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(ShardError, match=r"x0 is stored as BF16"):
        ShardReader(shards)


def test_open_shards_hold_no_file_descriptors(tmp_path: Path) -> None:
    """A million samples are a thousand files, and 1024 descriptors are all that many systems give a process."""
    folder = write(tmp_path / "s", samples_per_chunk=1, chunks_per_shard=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader = ShardReader(folder)
    assert len(reader) == NUM
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Samples of a teacher


def teacher_chunk(settings: Recipe, num: int = 7) -> Chunk:
    torch.manual_seed(0)
    teacher = settings.network.build(image=settings.dataset.spec()).eval().requires_grad_(False)
    for parameter in teacher.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return TeacherSamples(settings, teacher, StopFlag())(3, 3 + num)


@pytest.fixture(scope="module")
def settings() -> Recipe:
    recipe = load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke")
    shards = replace(recipe.shards, sampler=Heun(steps=6), batch_size=7)
    return replace(recipe, network=CUNet(widths=(8, 16), embed_dim=16), shards=shards, start=PathCoupling())


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_batch_size_changes_no_sample(settings: Recipe, batch_size: int) -> None:
    whole = teacher_chunk(settings)
    parts = teacher_chunk(replace(settings, shards=replace(settings.shards, batch_size=batch_size)))
    # Convolutions of another batch size may add in another order, over all of the sampler's steps: 1.03e-5 with
    # torch 2.8, 5e-6 with 2.14. A sample with a neighbour's noise would differ by tenths.
    assert torch.allclose(parts.x0, whole.x0, atol=2e-5, rtol=0)
    assert whole.noise is not None
    assert parts.noise is not None
    assert torch.equal(parts.noise, whole.noise)
    assert torch.equal(parts.cond, whole.cond)
    assert whole.path is not None
    assert parts.path is not None
    assert torch.allclose(parts.path, whole.path, atol=1e-4)


def test_a_chunk_holds_the_samples_of_its_own_indices(settings: Recipe) -> None:
    """`teacher_chunk` asks for samples 3 to 9."""
    chunk = teacher_chunk(settings)
    noise, cond = sample_starts(settings.shards.seed, range(3, 10), settings.latent(), torch.device("cpu"))
    assert torch.equal(chunk.noise, noise)  # type: ignore[arg-type]
    assert torch.equal(chunk.cond, cond)


def test_the_stored_noise_is_the_one_from_which_the_sample_was_made(settings: Recipe) -> None:
    chunk = teacher_chunk(settings)
    assert chunk.noise is not None
    assert chunk.path is not None
    assert chunk.path.shape == (7, 4, 3, 16, 16)
    assert torch.allclose(chunk.path[:, 0], 80.0 * chunk.noise)
    assert len(chunk.x0.unique(dim=0)) == 7
    assert (
        teacher_chunk(replace(settings, shards=replace(settings.shards, seed=9))).noise[0, 0, 0, 0]
        != (  # type: ignore[index]
            chunk.noise[0, 0, 0, 0]
        )
    )


# Other people's shards


def foreign(path: Path, samples: list[dict[str, Any]], **options: Any) -> Path:
    with webdataset.TarWriter(str(path), **options) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"{number:05d}", **sample})
    return path


def sample_of(number: int, form: str) -> dict[str, Any]:
    chunk = make(number, number + 1)
    assert chunk.noise is not None
    x0, noise, cond = chunk.x0[0], chunk.noise[0], int(chunk.cond[0])
    if form == "npy":
        return {"npy": x0.numpy(), "cls": cond}
    if form == "x0.npy and noise.npy":
        return {"x0.npy": x0.numpy(), "noise.npy": noise.numpy(), "cls": cond}
    tensors = {"x0": x0.contiguous(), "noise": noise.contiguous(), "cond": torch.tensor(cond)}
    return {"safetensors": safetensors.torch.save(tensors)}


@pytest.mark.parametrize("form", ["npy", "x0.npy and noise.npy", "safetensors"])
def test_ordinary_webdataset_shards_are_read(tmp_path: Path, form: str) -> None:
    foreign(tmp_path / "b.tar", [sample_of(number, form) for number in range(3, 5)])
    foreign(tmp_path / "a.tar", [sample_of(number, form) for number in range(3)])
    chunks, expected = list(read(str(tmp_path / "*.tar"), WANTED)), make(0, 5)
    assert torch.equal(torch.cat([chunk.x0 for chunk in chunks]), expected.x0)
    assert torch.equal(torch.cat([chunk.cond for chunk in chunks]), expected.cond)
    for i, chunk in enumerate(chunks):
        assert expected.noise is not None
        assert (chunk.noise is None) == (form == "npy")
        assert chunk.noise is None or torch.equal(chunk.noise[0], expected.noise[i])


def test_imported_samples_keep_their_noise_row_by_row(tmp_path: Path) -> None:
    samples = [sample_of(number, "safetensors") for number in range(5)]
    foreign(tmp_path / "a.tar", samples)
    chunk = Imported(survey_shards(str(tmp_path / "a.tar"), WANTED), StopFlag())(1, 4)
    expected = make(1, 4)
    assert chunk.noise is not None and expected.noise is not None
    for found, wanted in zip(chunk[:3], expected[:3], strict=True):
        assert torch.equal(found, wanted)


def test_compressed_foreign_shards_are_read(tmp_path: Path) -> None:
    foreign(tmp_path / "a.tar.gz", [sample_of(number, "npy") for number in range(3)], compress=True)
    assert len(list(read(str(tmp_path / "*.tar.gz"), WANTED))) == 3


def test_foreign_shards_are_read_whole_in_a_job_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(tmp_path / "a.tar", [sample_of(number, "npy") for number in range(3)])
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert len(list(read(str(tmp_path / "*.tar"), WANTED))) == 3


def read(source: str, wanted: Wanted) -> Iterator[Chunk]:
    """The samples of shards that every check has passed."""
    return survey_shards(source, wanted).read_from(0)[1]


def array(**changes: Any) -> dict[str, Any]:
    return {**sample_of(1, "npy"), **changes}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (array(npy=np.full((3, 4, 4), np.nan, np.float32)), "x0 of sample 0 there holds NaN"),
        (array(npy=np.zeros((4, 4, 3), np.float32)), r"x0 has shape \(1, 4, 4, 3\)"),
        (array(npy=np.zeros((3, 4, 4), np.uint8)), r"x0 holds torch\.uint8, not floating point in \[-1, 1\]"),
        (array(cls=10), r"class ids 10\.\.10"),
        (array(cls=b"cat"), "cls cannot be read"),
        (array(npy=b"no array"), "npy cannot be read"),
        ({"npy": np.zeros((3, 4, 4), np.float32)}, r"needs x0 .* and a class .*it has"),
        ({"jpg": b"picture", "cls": 3}, r"needs x0 .*\(\.npy or \.safetensors\)"),
        ({"safetensors": b"nonsense"}, "safetensors cannot be read"),
    ],
)
def test_wrong_foreign_samples_are_refused_with_sample_and_shard_named(
    tmp_path: Path, sample: dict[str, Any], message: str
) -> None:
    encoder = not any(isinstance(sample.get(key), bytes) for key in ("npy", "cls", "safetensors", "jpg"))
    if not encoder:
        sample = {key: encode(value) for key, value in sample.items()}
    path = foreign(tmp_path / "a.tar", [sample], encoder=encoder)
    with pytest.raises(ShardError, match=rf"sample '00000' of .*{path.name}.*{message}"):
        list(read(str(path), WANTED))


def encode(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        stream = io.BytesIO()
        np.save(stream, value)
        return stream.getvalue()
    return value if isinstance(value, bytes) else str(value).encode()


def cut_in_member(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 100])


def cut_at_member(path: Path) -> None:
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4]
    path.write_bytes(path.read_bytes()[: third.offset])


def no_tar(path: Path) -> None:
    path.write_bytes(b"this is no tar file" * 100)


@pytest.mark.parametrize("harm", [cut_in_member, cut_at_member, no_tar, empty])
def test_a_truncated_foreign_shard_is_named(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = foreign(tmp_path / "a.tar", [sample_of(number, "npy") for number in range(5)])
    harm(path)
    with pytest.raises(ShardError, match=r"shard .*a\.tar is truncated or no tar file"):
        list(read(str(path), WANTED))


def test_a_pattern_without_shards_and_shards_without_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"shards\.source: nothing matches"):
        list(read(str(tmp_path / "*.tar"), WANTED))
    foreign(tmp_path / "a.tar", [])
    with pytest.raises(ShardError, match=r"shards\.source: .*holds no sample"):
        list(read(str(tmp_path / "*.tar"), WANTED))


def test_foreign_samples_of_which_only_some_have_noise_are_refused(tmp_path: Path) -> None:
    samples = [sample_of(0, "x0.npy and noise.npy"), sample_of(1, "npy")]
    foreign(tmp_path / "a.tar", samples)
    with pytest.raises(
        ShardError, match=r"sample '00001' of .*a\.tar \(byte 7,168\) has no noise, those before it have"
    ):
        list(read(str(tmp_path / "*.tar"), WANTED))


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["pyd", "pkl", "pickle", "pth", "x0.pth", "npy"])
def test_nothing_in_a_foreign_shard_is_unpickled(tmp_path: Path, name: str) -> None:
    target = tmp_path / "pwned"
    evil = pickle.dumps(Evil(target))
    if name == "npy":  # an array of objects is a pickle
        evil = encode(np.array([Evil(target)], dtype=object))
    sample = {key: encode(value) for key, value in sample_of(0, "npy").items()} | {name: evil}
    path = foreign(tmp_path / "a.tar", [sample], encoder=False)
    try:
        chunks = list(read(str(path), WANTED))
    except ShardError:
        assert name == "npy"
    else:
        assert len(chunks) == 1
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(target)))  # the trap works where it is allowed to
    assert target.exists()
