"""What is written is whole or absent; what is read is data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ladd_dist.core.rundir import RunDir, commit_folder, read_json, remove_stale, save_tensors, write_atomic, write_json
from ladd_dist.core.tensor_file import KEY, read_tensors


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, fail)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_target_is_not_visible_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"

    def write(temporary: Path) -> None:
        temporary.write_text("whole")
        assert not target.exists()

    write_atomic(target, write)
    assert target.read_text() == "whole"
    assert names(target.parent) == ["file.txt"]


def test_json_survives_and_nan_is_refused_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    write_json(path, {"b": [1, 2.5, None], "a": "ü"})
    assert read_json(path) == {"b": [1, 2.5, None], "a": "ü"}
    assert list(read_json(path)) == ["b", "a"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path)["a"] == "ü"


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_damaged_json_is_refused_with_the_file_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"data\.json is not valid JSON .*delete it"):
        read_json(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json is missing"):
        read_json(tmp_path / "none.json")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "result"

    def fail(temporary: Path) -> None:
        (temporary / "half").write_text("half")
        assert not folder.exists()
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        commit_folder(folder, fail)
    assert names(tmp_path) == []
    commit_folder(folder, lambda temporary: (temporary / "a").write_text("1") and None)
    with pytest.raises(RuntimeError):
        commit_folder(folder, lambda temporary: fail(temporary) if not folder.exists() else _raise())
    assert (folder / "a").read_text() == "1"
    assert names(tmp_path) == ["result"]


def _raise() -> None:
    raise RuntimeError("killed")


def test_folders_left_by_a_kill_do_not_leak_into_the_next_and_go_whatever_their_name(tmp_path: Path) -> None:
    gone = 2**22 + 1  # beyond any process number
    for left in (f".tmp-{platform.node()}-{os.getpid()}-result", f".tmp-{platform.node()}-{gone}-other"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "stale").write_text("half")
    (tmp_path / ".tmp-another-machine-1-other").mkdir()
    commit_folder(tmp_path / "result", lambda temporary: (temporary / "a").write_text("1") and None)
    assert names(tmp_path / "result") == ["a"]
    assert names(tmp_path) == [".tmp-another-machine-1-other", "result"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing for a minute."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_temporary_file_stays_as_long_as_its_writer_runs(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    left = tmp_path / f".tmp-{platform.node()}-{sleeper.pid}-file.txt"
    left.write_text("half")
    elsewhere = tmp_path / f".tmp-another-machine-{2**22 + 1}-file.txt"
    elsewhere.write_text("half")
    remove_stale(tmp_path)
    assert left.exists()
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its parent has not looked yet
    remove_stale(tmp_path)
    assert names(tmp_path) == [elsewhere.name]


def test_a_process_that_has_the_number_of_a_writer_long_gone_is_not_taken_for_it(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    left = tmp_path / f".tmp-{platform.node()}-{sleeper.pid}-file.txt"
    left.write_text("half")
    before = time.time() - 3600
    os.utime(left, (before, before))  # written before this process started
    remove_stale(tmp_path)
    assert names(tmp_path) == [] and sleeper.poll() is None


def test_writing_a_file_again_removes_what_a_killed_writer_of_it_left(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    """As of `ladd evaluate --out FILE`, whose folder is the user's own: nobody else would ever clean it."""
    left = [tmp_path / f".tmp-{platform.node()}-{pid}-file[1].txt" for pid in (2**22 + 1, sleeper.pid)]
    other = tmp_path / f".tmp-{platform.node()}-{2**22 + 1}-file1.txt"
    for path in (*left, other):
        path.write_text("half")
    write_atomic(tmp_path / "file[1].txt", lambda temporary: temporary.write_text("whole"))
    assert names(tmp_path) == sorted(["file[1].txt", left[1].name, other.name])  # one is being written


def test_tensors_survive_with_their_types_shapes_and_card(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 2), "n": torch.tensor(5), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"card": "a"})
    found = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as opened:
        assert opened.metadata().keys() == {"card", KEY} and opened.metadata()["card"] == "a"
    assert read_tensors(tmp_path / "x.safetensors").metadata == {"card": "a"}


def test_every_path_of_a_run_lies_in_its_folder(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    run.create()  # again is fine
    assert names(run.path) == ["checkpoints", "dumps", "samples"]
    assert all(value.is_relative_to(run.path) for value in vars(run).values())


def test_a_second_process_waits_for_the_one_that_makes_the_same_folder(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ladd_dist.core.rundir import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('in', flush=True); time.sleep(float(sys.argv[2])); print('out')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "made")]
    first = subprocess.Popen([*command, "60"], stdout=subprocess.PIPE, text=True)
    second = None
    try:
        assert first.stdout is not None and first.stdout.readline() == "in\n"
        second = subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None and "waiting for another process" in second.stderr.readline()
        assert second.poll() is None
        first.kill()  # the lock ends with its holder, however that dies
        assert second.wait(timeout=60) == 0
    finally:
        first.kill()
        first.wait()
        if second is not None:
            second.kill()
