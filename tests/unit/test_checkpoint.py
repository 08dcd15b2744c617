"""Checkpoints: whole or absent, the newest kept, others' refused, never code."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.core.rundir import save_state
from ladd_dist.engine.checkpoint import Checkpoints

CPU = torch.device("cpu")


def checkpoints(folder: Path, identity: str = "abc", keep: int = 2) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", identity=identity, keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_the_newest_state_comes_back_with_its_step(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    for step in (5, 10, 100_000_000):
        saved.save(step, {"weights": {"w": torch.full((3,), float(step))}})
    state = checkpoints(tmp_path).load_latest(CPU)
    assert state is not None
    assert state["step"] == 100_000_000
    assert torch.equal(state["weights"]["w"], torch.full((3,), 1e8))


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    assert saved.steps() == []
    assert saved.load_latest(CPU) is None
    saved.clear()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    saved = checkpoints(tmp_path, keep=keep)
    for step in range(5):
        saved.save(step, {})
    assert saved.steps() == list(range(5))[-keep:]


def test_a_checkpoint_that_fails_half_way_leaves_nothing_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoints(tmp_path)
    saved.save(1, {"w": torch.ones(2)})

    def full(state: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        saved.save(2, {"w": torch.zeros(2)})
    monkeypatch.undo()
    assert names(tmp_path / "checkpoints") == ["step-00000001"]
    state = saved.load_latest(CPU)
    assert state is not None
    assert torch.equal(state["w"], torch.ones(2))


def test_what_a_kill_left_behind_is_no_checkpoint(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    saved.save(1, {})
    (tmp_path / "checkpoints" / ".tmp-step-00000002").mkdir()
    (tmp_path / "checkpoints" / "step-00000003.bak").mkdir()
    (tmp_path / "checkpoints" / "step-00000009").mkdir()  # emptied by a deletion that was cut short
    assert saved.steps() == [1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    saved.save(1, {"value": 1})
    saved.save(1, {"value": 2})
    state = saved.load_latest(CPU)
    assert state is not None
    assert state["value"] == 2


def test_a_checkpoint_of_another_recipe_is_refused_with_both_signatures(tmp_path: Path) -> None:
    checkpoints(tmp_path, identity="abc").save(1, {})
    with pytest.raises(ValueError, match=r"another recipe \(signature abc, this one is xyz\).*--from-scratch"):
        checkpoints(tmp_path, identity="xyz").load_latest(CPU)


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "one byte short": whole[:-1],
        "noise": bytes(range(256)) * 20,
        "text": b"not a checkpoint",
    }
    path.write_bytes(contents[how])


@pytest.mark.parametrize("how", ["empty", "cut", "one byte short", "noise", "text"])
def test_a_damaged_checkpoint_is_refused_with_the_file_named(tmp_path: Path, how: str) -> None:
    saved = checkpoints(tmp_path)
    saved.save(3, {"w": torch.randn(1_000)})
    path = saved.path(3) / "state.pt"
    damage(path, how)
    with pytest.raises(ValueError, match=re.escape(str(path)) + r" cannot be read .*delete it"):
        saved.load_latest(CPU)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text"])
def test_a_checkpoint_that_holds_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    saved = checkpoints(tmp_path)
    saved.save(3, {})
    save_state(saved.path(3) / "state.pt", content)
    with pytest.raises(ValueError, match=r"step-00000003.*holds no state"):
        saved.load_latest(CPU)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch legacy", "hidden in the state"])
def test_loading_never_runs_code(tmp_path: Path, form: str) -> None:
    target = tmp_path / "pwned"
    saved = checkpoints(tmp_path)
    saved.save(3, {})
    path = saved.path(3) / "state.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil(target), protocol=2))
    elif form == "torch":
        torch.save(Evil(target), path)
    elif form == "torch legacy":
        torch.save(Evil(target), path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"identity": "abc", "step": 3, "extra": [Evil(target)]}, path)
    with pytest.raises(ValueError, match=r"state\.pt cannot be read"):
        saved.load_latest(CPU)
    assert not target.exists()
    if form == "torch":  # the trap works where it is allowed to
        torch.load(path, weights_only=False)
        assert target.exists()


def test_clearing_removes_everything(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    saved.save(1, {})
    saved.clear()
    assert saved.steps() == []
    assert not (tmp_path / "checkpoints").exists()
