"""Checkpoints: whole or absent, written while training goes on, read by any number of ranks, never code."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from ladd_toys import Watched, assert_same, make_batch, make_step, weights
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.engine.checkpoint import META, Checkpoints, Saved, replicated, state_of
from ladd_dist.engine.checkpoint_files import Facts
from ladd_dist.engine.dcp_planners import FlatChunk, read_chunks, write_chunks
from ladd_dist.parallel import FlatShard

REPO = Path(__file__).resolve().parents[2]


def checkpoints(folder: Path, identity: str = "abc", keep: int = 2, pinned: tuple[int, ...] = ()) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", identity=identity, keep=keep, pinned=pinned)


def save(saved: Checkpoints, step: int, **tensors: Tensor) -> None:
    """Save whole tensors, and wait until they are on disk."""
    saved.save(step, {name: replicated(tensor) for name, tensor in tensors.items()}, {})
    saved.wait()


def load(saved: Checkpoints | Saved, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Whole tensors of the newest checkpoint."""
    newest = saved if isinstance(saved, Saved) else saved.latest()
    assert newest is not None
    found = {name: torch.full(shape, 77.0) for name, shape in shapes.items()}
    newest.fill({name: replicated(tensor) for name, tensor in found.items()})
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def file_of(saved: Checkpoints, step: int) -> Path:
    """The only file of tensors."""
    (path,) = saved.path(step).glob("*.safetensors")
    return path


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Inside, a write beyond `size` bytes of a file fails (EFBIG), as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


# Saving


def test_the_newest_state_comes_back_with_its_step_and_facts(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    for step in (5, 10, 100_000_000):
        saved.save(
            step,
            {"w": replicated(torch.full((2, 3), float(step)))},
            {"data": {"seed": 0, "epoch": step, "position": 0}},
        )
    saved.wait()
    newest = checkpoints(tmp_path).latest()
    assert newest is not None
    assert newest.step == 100_000_000
    assert newest.meta["data"] == {"seed": 0, "epoch": 100_000_000, "position": 0}
    assert torch.equal(load(newest, w=(2, 3))["w"], torch.full((2, 3), 1e8))


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    assert saved.steps() == []
    assert saved.latest() is None
    saved.wait()
    saved.clear()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    saved = checkpoints(tmp_path, keep=keep)
    for step in range(5):
        save(saved, step, w=torch.ones(2))
    assert saved.steps() == list(range(5))[-keep:]


def test_pinned_steps_stay_whatever_else_goes(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path, keep=1, pinned=(1, 3, 99))
    for step in range(6):
        save(saved, step, w=torch.full((2,), float(step)))
    assert saved.steps() == [1, 3, 5]
    for step in (1, 3):
        found = load(Saved(saved.path(step), {"step": step}), w=(2,))
        assert torch.equal(found["w"], torch.full((2,), float(step)))


def test_a_step_pinned_at_a_save_stays_until_a_save_no_longer_pins_it(tmp_path: Path) -> None:
    """As the last healthy step of a guard does, which moves on."""
    saved, parts = checkpoints(tmp_path, keep=1, pinned=(0,)), {"w": replicated(torch.ones(2))}
    found = []
    for step, pinned in enumerate([(), (), (1,), (1,), (3,)]):
        saved.save(step, parts, {}, pinned=pinned)
        saved.wait()
        found.append(saved.steps())
    assert found == [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 3, 4]]


def test_what_is_written_is_the_state_at_the_call_though_training_goes_on(tmp_path: Path) -> None:
    """In 100 MB, which take longer to write than a step takes to change them."""
    saved = checkpoints(tmp_path)
    state = {name: torch.full((12_500_000,), 1.0) for name in ("a", "b")}
    saved.save(3, {name: replicated(tensor) for name, tensor in state.items()}, {})
    assert saved.steps() == []  # not there yet: nothing waited for it
    for tensor in state.values():
        tensor.add_(1.0)
    saved.wait()
    assert saved.steps() == [3]
    found = load(saved, a=(12_500_000,), b=(12_500_000,))
    assert all(bool((tensor == 1.0).all()) for tensor in found.values())


def test_leaving_a_training_waits_for_its_last_checkpoint_however_it_ends(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt), saved.complete():
        saved.save(1, {"w": replicated(torch.ones(1_000_000))}, {})
        raise KeyboardInterrupt
    assert saved.steps() == [1]


@pytest.mark.parametrize("surfaces_at", ["wait", "next save", "end of training"])
def test_a_checkpoint_that_fails_half_way_leaves_nothing_keeps_the_old_and_is_told(
    tmp_path: Path, surfaces_at: str
) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 1, w=torch.ones(2))
    with full_disk(10_000):
        saved.save(2, {"w": replicated(torch.zeros(100_000))}, {})
        saved._writing.join()  # type: ignore[union-attr]
    with pytest.raises(OSError, match="File too large"):
        if surfaces_at == "wait":
            saved.wait()
        elif surfaces_at == "next save":
            saved.save(3, {"w": replicated(torch.zeros(2))}, {})
        else:
            with saved.complete():
                pass
    saved.wait()  # told once
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    assert torch.equal(load(saved, w=(2,))["w"], torch.ones(2))
    save(saved, 2, w=torch.zeros(2))  # with room it goes on
    assert saved.steps() == [1, 2]


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(OSError, match="checkpoints"):
        checkpoints(tmp_path).save(1, {"w": replicated(torch.ones(2))}, {})


def test_what_a_kill_left_behind_is_no_checkpoint_and_gets_into_none(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 1, w=torch.ones(2))
    left = tmp_path / "checkpoints" / ".tmp-step-00000002"
    shutil.copytree(saved.path(1), left)  # whole but for its name
    (left / "shard-00009-model-00001-of-00001.safetensors").write_bytes(file_of(saved, 1).read_bytes())
    (tmp_path / "checkpoints" / "step-00000003.bak").mkdir()
    (tmp_path / "checkpoints" / "step-00000009").mkdir()  # emptied by a deletion that was cut short
    assert saved.steps() == [1]
    save(saved, 2, w=torch.zeros(3))
    assert saved.steps() == [1, 2]
    assert torch.equal(load(saved, w=(3,))["w"], torch.zeros(3))
    assert not left.exists()


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 1, w=torch.ones(3), v=torch.ones(2))
    save(saved, 1, w=torch.zeros(3))
    assert torch.equal(load(saved, w=(3,))["w"], torch.zeros(3))
    with pytest.raises(ValueError, match="it holds no v"):
        load(saved, v=(2,))


def test_clearing_removes_everything(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 1, w=torch.ones(3))
    saved.clear()
    assert saved.steps() == []
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_tensors_keep_their_bits_whatever_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(3, 5).mul(100).to(dtype).to(memory_format=torch.contiguous_format).t()  # not contiguous
    saved = checkpoints(tmp_path)
    save(saved, 1, w=tensor, scalar=torch.tensor(2.5))
    found, scalar = torch.zeros(5, 3, dtype=dtype), torch.zeros(())
    newest = saved.latest()
    assert newest is not None
    newest.fill({"w": replicated(found), "scalar": replicated(scalar)})
    assert torch.equal(found, tensor)
    assert float(scalar) == 2.5


def test_a_checkpoint_is_safetensors_and_json_that_other_tools_read(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 4, **{"student/weight/a": torch.arange(6.0).view(2, 3)})
    assert [Path(name).suffix for name in names(saved.path(4))] == [".json", ".safetensors"]
    facts = json.loads((saved.path(4) / META).read_text())
    content = file_of(saved, 4).read_bytes()
    assert facts["files"] == {
        file_of(saved, 4).name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    }
    assert {key: facts[key] for key in ("identity", "step", "ranks")} == {"identity": "abc", "step": 4, "ranks": 1}
    content = safetensors.torch.load_file(file_of(saved, 4))
    assert torch.equal(content["student/weight/a"], torch.arange(6.0))


# Refusals


def test_a_checkpoint_of_another_recipe_is_refused_with_both_signatures(tmp_path: Path) -> None:
    save(checkpoints(tmp_path, identity="abc"), 1, w=torch.ones(1))
    with pytest.raises(ValueError, match=r"another recipe \(signature abc, this one is xyz\).*--from-scratch"):
        checkpoints(tmp_path, identity="xyz").latest()


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "cut in the header": whole[:20],
        "one byte short": whole[:-1],
        "noise": bytes(range(256)) * 20,
        "text": b"not a checkpoint",
    }
    path.write_bytes(contents[how])


@pytest.mark.parametrize("how", ["empty", "cut", "cut in the header", "one byte short", "noise", "text"])
def test_a_damaged_checkpoint_is_refused_with_the_folder_named(tmp_path: Path, how: str) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 3, w=torch.randn(1_000))
    damage(file_of(saved, 3), how)
    with pytest.raises(UserError, match=re.escape(str(saved.path(3))) + r" is damaged .*sha256.*delete the folder"):
        load(saved, w=(1_000,))


@pytest.mark.parametrize("how", ["empty", "cut", "noise", "text"])
def test_damaged_facts_are_refused_with_the_file_named(tmp_path: Path, how: str) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 3, w=torch.randn(2))
    damage(saved.path(3) / META, how)
    with pytest.raises(UserError, match=re.escape(str(saved.path(3) / META)) + r" is not valid JSON .*delete"):
        saved.latest()


FACTS = '{"identity": "abc", "step": 3, "ranks": 1'


@pytest.mark.parametrize(
    "content",
    [
        "[1, 2]", '"text"', "3", "{}", '{"identity": "abc"}', '{"step": "x"}', FACTS.replace("3", "true") + "}",
        FACTS.replace("3", "1" * 400) + "}", FACTS.replace("3", "4") + "}", FACTS + ', "counters": {"student": 3}}',
        FACTS + ', "counters": {"student": {"updates": NaN}}}', FACTS + ', "files": {}}',
        FACTS + ', "files": {"/dev/zero": {"bytes": 1, "sha256": ""}}}', FACTS + ', "guard": ' + "[" * 5000 + "}",
    ],
    ids=lambda content: content[:60] + content[-10:],
)  # fmt: skip
def test_facts_of_something_else_are_refused(tmp_path: Path, content: str) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 3, w=torch.randn(2))
    (saved.path(3) / META).write_text(content)
    with pytest.raises(UserError, match=r"step-00000003 is damaged .*meta\.json.*delete") as caught:
        saved.latest()
    assert "\n" not in str(caught.value)


def test_tensors_that_are_missing_or_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    save(saved, 3, w=torch.randn(10))
    for wanted, message in (
        ({"v": (10,)}, "it holds no v"),
        ({"w": (12,)}, "w has 10 elements there, 12 are needed"),
        ({"w": (2, 4)}, "w has 10 elements there, 8 are needed"),
    ):
        with pytest.raises(ValueError, match=re.escape(str(saved.path(3))) + f".*{message}.*delete it"):
            load(saved, **wanted)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch legacy", "facts", "table"])
def test_loading_never_runs_code(tmp_path: Path, form: str) -> None:
    target = tmp_path / "pwned"
    saved = checkpoints(tmp_path)
    save(saved, 3, w=torch.ones(2))
    path = file_of(saved, 3)
    if form in ("pickle", "facts"):
        path = saved.path(3) / META if form == "facts" else path
        path.write_bytes(pickle.dumps(Evil(target), protocol=2))
    elif form == "table":  # where DCP's own format keeps one
        (saved.path(3) / ".metadata").write_bytes(pickle.dumps(Evil(target)))
    else:
        torch.save(Evil(target), path, _use_new_zipfile_serialization=form == "torch")
    if form == "table":
        assert torch.equal(load(saved, w=(2,))["w"], torch.ones(2))
    else:
        with pytest.raises(ValueError, match=r"size and sha256|is not valid JSON"):
            load(saved, w=(2,))
    assert not target.exists()
    if form == "torch":  # the trap works where it is allowed to
        torch.load(path.rename(tmp_path / "trap.pt"), weights_only=False)
        assert target.exists()


# Damage


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def two_steps(folder: Path) -> Checkpoints:
    saved = checkpoints(folder)
    facts: Facts = {"counters": {"student": {"updates": 3.0}}, "guard": None}
    for step in (3, 6):
        saved.save(step, {"w": replicated(torch.full((40,), float(step)))}, facts)
        saved.wait()
    return saved


def test_a_flipped_bit_anywhere_leads_to_the_checkpoint_before_with_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every byte of `meta.json` and of the file of tensors, a bit of each."""
    saved = two_steps(tmp_path)
    for path in (saved.path(6) / META, file_of(saved, 6)):
        whole = path.read_bytes()
        for at in range(len(whole)):
            flip(path, at, at % 8)
            again = checkpoints(tmp_path)
            newest = again.latest()
            assert newest is not None
            warned = capsys.readouterr().err
            if newest.step == 6:  # white space
                assert path.name == META and chr(whole[at]).isspace() and not warned
            else:
                assert newest.step == 3 and again.steps() == [3]
                assert warned.count("\n") == 1 and warned.startswith(f"warning: checkpoint {saved.path(6)} is damaged")
                assert warned.endswith("going on from the checkpoint before, of step 3\n")
            path.write_bytes(whole)
    assert torch.equal(load(checkpoints(tmp_path), w=(40,))["w"], torch.full((40,), 6.0))


@pytest.mark.parametrize("harm", ["lost", "added", "pipe"])
def test_other_files_than_the_facts_say_lead_to_the_checkpoint_before(tmp_path: Path, harm: str) -> None:
    saved = two_steps(tmp_path)
    file = file_of(saved, 6)
    if harm == "added":
        safetensors.torch.save_file({"v": torch.ones(3)}, file.with_name("shard-00002.safetensors"))
    else:
        file.unlink()
    if harm == "pipe":
        os.mkfifo(file)
    newest = saved.latest()
    assert newest is not None and newest.step == 3


def test_a_damaged_checkpoint_counts_for_nothing_and_goes_when_its_step_is_written_or_passed(tmp_path: Path) -> None:
    two_steps(tmp_path)
    flip(file_of(checkpoints(tmp_path), 6), -1)
    saved = checkpoints(tmp_path, keep=1)
    assert saved.latest() is not None
    save(saved, 5, w=torch.ones(2))
    assert saved.steps() == [5]  # not 6, which would have pushed out the whole one
    save(saved, 6, w=torch.ones(2))
    assert saved.steps() == [6] and checkpoints(tmp_path).latest() is not None
    flip(file_of(saved, 6), -1)
    save(saved, 7, w=torch.ones(2))
    assert names(tmp_path / "checkpoints") == ["step-00000007"]


def test_a_checkpoint_of_an_older_version_has_no_sha256_and_is_read(tmp_path: Path) -> None:
    saved = two_steps(tmp_path)
    facts = json.loads((saved.path(6) / META).read_text())
    del facts["files"], facts["sha256"]
    (saved.path(6) / META).write_text(json.dumps(facts))
    assert torch.equal(load(saved, w=(40,))["w"], torch.full((40,), 6.0))


def test_a_step_that_is_asked_for_and_damaged_is_refused(tmp_path: Path) -> None:
    saved = two_steps(tmp_path)
    flip(file_of(saved, 6), -1)
    assert saved.at(3).step == 3
    with pytest.raises(UserError, match=r"step-00000006 is damaged .*take another step"):
        saved.at(6)


def test_what_a_kill_left_of_another_step_goes_with_the_next_save(tmp_path: Path) -> None:
    saved = two_steps(tmp_path)
    shutil.copytree(saved.path(6), tmp_path / "checkpoints" / ".tmp-step-00000007")
    save(saved, 9, w=torch.ones(2))
    assert names(tmp_path / "checkpoints") == ["step-00000006", "step-00000009"]


# Ranges


def bounds(total: int, parts: int) -> list[tuple[int, int]]:
    return [(total * number // parts, total * (number + 1) // parts) for number in range(parts)]


def write_as(folder: Path, tensors: dict[str, Tensor], writers: int) -> None:
    """What that many ranks would leave, each with its range of every tensor: one after another, in folders of their
    own, whose files are then put together."""
    folder.mkdir()
    for rank in range(writers):
        own = folder.with_name(f"rank{rank}")
        own.mkdir()
        chunks = {}
        for name, tensor in tensors.items():
            start, stop = bounds(tensor.numel(), writers)[rank]
            if stop > start:
                chunks[name] = FlatChunk(tensor.flatten()[start:stop].clone(), start, tensor.numel())
        write_chunks(own, chunks, None)
        (file,) = own.iterdir()
        file.rename(folder / f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors")


TENSORS = {"w": torch.arange(10.0), "tiny": torch.tensor([5.0]), "m": torch.arange(100.0, 124.0).view(4, 6)}


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("readers", [1, 2, 4, 7])
def test_ranges_of_any_number_of_writers_are_read_as_those_of_any_number_of_readers(
    tmp_path: Path, writers: int, readers: int
) -> None:
    write_as(tmp_path / "step", TENSORS, writers)
    for name, tensor in TENSORS.items():
        found = []
        for start, stop in bounds(tensor.numel(), readers):
            if stop > start:
                chunk = FlatChunk(torch.full((stop - start,), 77.0), start, tensor.numel())
                read_chunks(tmp_path / "step", {name: chunk})
                found.append(chunk.flat)
        assert torch.equal(torch.cat(found), tensor.flatten()), name


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_file_of_one_writer_is_noticed(tmp_path: Path, lost: int) -> None:
    """The middle one leaves a hole, not a shorter tensor."""
    write_as(tmp_path / "step", TENSORS, 3)
    (tmp_path / "step" / f"shard-{lost:05d}-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"step cannot be read .*w (is not whole there|has \d+ elements there)"):
        load(Saved(tmp_path / "step", {"step": 1}), w=(10,))


def test_a_rank_fills_its_padded_range_in_place(tmp_path: Path) -> None:
    """A sharded strategy pads the last rank's part; the padding is left alone."""
    write_as(tmp_path / "step", TENSORS, 3)
    shard = torch.full((3, 2), 77.0)
    Saved(tmp_path / "step", {"step": 1}).fill({"w": FlatShard(shard, 6, 10, torch.Size([10]), copies=False)})
    assert shard.flatten().tolist() == [6, 7, 8, 9, 77, 77]


def test_a_rank_that_holds_nothing_of_a_tensor_reads_nothing(tmp_path: Path) -> None:
    write_as(tmp_path / "step", TENSORS, 1)
    empty = torch.full((2,), 77.0)
    Saved(tmp_path / "step", {"step": 1}).fill({"tiny": FlatShard(empty, 1, 1, torch.Size([1]), copies=False)})
    assert empty.tolist() == [77, 77]


WORKER = """
import sys
from pathlib import Path
import torch
from ladd_dist.engine.checkpoint import Checkpoints, replicated
from ladd_dist.parallel import FlatShard
from ladd_dist.parallel.ranks import join

with join("gloo", 60.0) as ranks:
    saved = Checkpoints(Path(sys.argv[1]), identity="abc", keep=2, ranks=ranks)
    whole = torch.arange(11.0)
    start, stop = ((0, 6), (6, 11))[ranks.rank]
    parts = {
        "sharded": FlatShard(whole[start:stop].clone(), start, stop, torch.Size([11]), copies=False),
        "copied": replicated(torch.arange(7.0).view(7, 1)),
        "of one": FlatShard(torch.ones(2), 0, 2 * (1 - ranks.rank), torch.Size([2]), copies=False),
    }
    saved.save(5, parts, {})
    parts["sharded"].tensor.zero_()
    saved.wait()
    ranks.barrier()
    newest = saved.latest()
    assert newest.step == 5, newest.step
    newest.fill(parts)
    assert torch.equal(parts["sharded"].tensor, whole[start:stop])
    for damaged in (0, 1):  # the file of either rank
        saved.save(8, parts, {})
        saved.wait()
        ranks.barrier()
        if ranks.is_first:
            file = sorted(saved.path(8).glob("*.safetensors"))[damaged]
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        ranks.barrier()
        newest = Checkpoints(Path(sys.argv[1]), identity="abc", keep=2, ranks=ranks).latest()
        assert newest.step == 5, newest.step
        ranks.barrier()
"""


@pytest.mark.slow
def test_two_processes_write_a_checkpoint_together_pass_over_a_damaged_one_and_one_process_reads_it(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "worker.py",
        str(tmp_path / "checkpoints"),
    ]  # fmt: skip
    (tmp_path / "worker.py").write_text(WORKER)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: checkpoint") == 2  # rank 0's alone, for each of the two
    saved = checkpoints(tmp_path)
    shutil.rmtree(saved.path(8))
    assert json.loads((saved.path(5) / META).read_text())["ranks"] == 2
    files = sorted(saved.path(5).glob("*.safetensors"))
    sizes = [{name: len(tensor) for name, tensor in safetensors.torch.load_file(file).items()} for file in files]
    assert sizes == [{"sharded": 6, "copied": 3, "of one": 2}, {"sharded": 5, "copied": 4}]
    found = load(saved, **{"sharded": (11,), "copied": (7, 1), "of one": (2,)})
    assert torch.equal(found["sharded"], torch.arange(11.0))
    assert torch.equal(found["copied"], torch.arange(7.0).view(7, 1))
    assert torch.equal(found["of one"], torch.ones(2))


# Networks


def fresh_weights(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(1.0)


def test_a_training_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    """Weights, moments, counters, and the buffers of spectral norm."""
    whole, again = make_step(), make_step()
    for number in range(3):
        whole(make_batch(seed=number), number)
    saved = checkpoints(tmp_path)
    networks: dict[str, Any] = {"student": whole.student, "heads": whole.heads}
    parts = {name: part for key, network in networks.items() for name, part in state_of(key, network).items()}
    assert {name.split("/")[1] for name in parts} == {"weight", "exp_avg", "exp_avg_sq", "buffer"}
    saved.save(3, parts, {"counters": {key: network.counters() for key, network in networks.items()}})
    for number in range(3, 5):
        whole(make_batch(seed=number), number)
    saved.wait()

    newest = saved.latest()
    assert newest is not None
    for key in networks:
        trainable = getattr(again, key)
        fresh_weights(trainable.module)
        newest.fill_module(key, trainable.module)
        newest.fill_optimizer(key, trainable)
        assert isinstance(trainable, Watched)
        assert trainable.counters() == {"updates": 3.0}
    for number in range(3, 5):
        again(make_batch(seed=number), number)
    for key, network in networks.items():
        assert_same(weights(network), weights(getattr(again, key)))


def test_going_back_leaves_the_checkpoints_up_to_a_step_pinned_or_not(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path, keep=9, pinned=(4,))
    for step in range(1, 6):
        save(saved, step, w=torch.ones(2))
    saved.forget_after(3)
    assert saved.steps() == [1, 2, 3]
    saved.forget_after(0)
    assert saved.latest() is None
