"""Full and read-only disks: one message, nothing half-written, and with room the same command goes on."""

from __future__ import annotations

import errno
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Done, Ladd, error_of, half_written

from ladd_dist.core.errors import UserError
from ladd_dist.core.targets import output_folder


def no_larger_files_than(size: int) -> None:
    """Let a write beyond `size` bytes of a file fail (EFBIG), as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system of 6 MiB; skipped where mounting is not permitted."""
    place = tmp_path / "tmpfs"
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=True, capture_output=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system of its own cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", place], check=True, timeout=30)


@pytest.mark.parametrize(
    ("stage", "size", "whole"),
    [
        ("teacher", 200_000, "teacher-*/teacher.safetensors"),
        ("shards", 200_000, "shards-*/index.json"),
        ("distill", 1_000_000, "../runs/*/student.safetensors"),
        ("evaluate", 300_000, "reference-*/done.json"),
    ],
)
def test_no_room_in_a_stage_is_one_message_and_with_room_it_goes_on(
    ladd: Ladd, smoke: tuple[Done, Ladd], stage: str, size: int, whole: str
) -> None:
    needed = {"teacher": (), "shards": ("teacher-*",), "distill": ("teacher-*", "shards-*")}
    own = Ladd(ladd.cwd, ladd.cwd / "cache")
    own.cache.mkdir()
    for pattern in needed.get(stage, ("teacher-*", "shards-*")):
        for folder in ladd.cache.glob(pattern):
            shutil.copytree(folder, own.cache / folder.name)
    if stage == "evaluate":
        shutil.copytree(smoke[1].runs, own.runs)
        (own.runs / smoke[0].run.name / "evaluate.done.json").unlink()
    done = own("--stages", stage, code=1, limit=lambda: no_larger_files_than(size))
    message = error_of(done)
    assert "no room to write" in message
    assert "--out" in message and "--cache" in message
    assert "\n" not in message
    assert not half_written(own.runs, own.cache)
    assert not list(own.cache.glob(whole))
    own("--stages", stage)
    assert len(list(own.cache.glob(whole))) == 1


def test_a_disk_that_is_really_full_is_one_message_and_with_room_it_goes_on(
    ladd: Ladd, smoke: tuple[Done, Ladd], tmpfs: Path
) -> None:
    stages = ("--stages", "teacher,shards,distill")
    full = tmpfs / "full"
    full.write_bytes(bytes(3_000_000))
    done = ladd(*stages, "--out", tmpfs / "runs", code=1)
    assert "no room to write" in error_of(done)
    assert "No space left on device" in done.stderr
    assert not half_written(tmpfs)
    full.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", tmpfs], check=True, timeout=30)
    run = ladd(*stages, "--out", tmpfs / "runs").run
    assert (run / "student.safetensors").read_bytes() == (smoke[0].run / "student.safetensors").read_bytes()


def test_a_read_only_output_folder_is_one_message(ladd: Ladd, tmpfs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True, timeout=30)
    message = error_of(ladd("--out", tmpfs / "runs", code=1))
    assert "Read-only file system" in message
    assert "--out" in message


def test_a_folder_that_is_put_in_place_whole_needs_a_place_beside_it(tmpfs: Path) -> None:
    """The exported pipeline: found before it is made, and not when it is put there."""
    with pytest.raises(UserError, match="a file system is mounted there"):
        output_folder(tmpfs, whole=True)
    (tmpfs / "empty").mkdir()
    assert output_folder(tmpfs / "empty", whole=True) == tmpfs / "empty"
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True, timeout=30)
    with pytest.raises(UserError, match=r"nothing can be made in .*tmpfs \(Read-only file system\)"):
        output_folder(tmpfs / "empty", whole=True)


def test_an_output_folder_below_a_file_is_one_message(ladd: Ladd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = error_of(ladd("--out", tmp_path / "file" / "runs", code=1))
    assert "no access to" in message
    assert str(tmp_path / "file") in message
    assert errno.ENOTDIR and "--out" in message


def test_a_read_only_cache_that_holds_everything_is_enough(ladd: Ladd, smoke: tuple[Done, Ladd], tmpfs: Path) -> None:
    shutil.copytree(ladd.cache, tmpfs / "cache")
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True, timeout=30)
    done = Ladd(ladd.cwd, tmpfs / "cache")()
    assert (done.run / "eval.json").exists()
