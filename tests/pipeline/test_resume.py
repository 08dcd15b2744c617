"""Killed without a warning (SIGKILL), the same command goes on, and the result is the same bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import REPO, Done, Ladd, half_written, rows, run_command, snapshot, without_rates

DISTILL = ("--stages", "teacher,shards,distill", "--train.steps", 40)
TEACHER = ("--stages", "teacher", "--teacher.steps", 80)
SHARDS = ("--stages", "teacher,shards", "--shards.samples-per-chunk", 4, "--shards.chunks-per-shard", 2)
SHARDS = (*SHARDS, "--shards.batch-size", 4)


def beside(ladd: Ladd, name: str) -> Ladd:
    """The same cache's content in a folder of its own."""
    folder = ladd.cwd / name
    shutil.copytree(ladd.cache, folder / "cache")
    return Ladd(folder, folder / "cache")


def find(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def logged(folder: Path) -> int:
    """Rows in the only metrics.jsonl there."""
    return max((len(rows(path)) for path in folder.glob("*/metrics.jsonl")), default=0)


@pytest.mark.slow
def test_a_distillation_killed_in_the_middle_ends_like_one_never_stopped(ladd: Ladd) -> None:
    whole = ladd(*DISTILL).run
    killed = Ladd(ladd.cwd / "killed", ladd.cache)
    killed.cwd.mkdir()
    running = killed.start(*DISTILL)
    own = killed.runs / whole.name
    # A checkpoint is written while training goes on, on a busy machine for some steps.
    running.wait_until(lambda: logged(killed.runs) >= 7 and any(own.glob("checkpoints/*/meta.json")))
    assert running.send(signal.SIGKILL).code == -signal.SIGKILL
    stopped_at = logged(killed.runs)
    assert 7 <= stopped_at < 40
    assert not (own / "student.safetensors").exists()

    assert killed(*DISTILL).run == own
    assert [row["step"] for row in rows(own / "metrics.jsonl")] == list(range(1, 41))
    assert without_rates(own / "metrics.jsonl") == without_rates(whole / "metrics.jsonl")
    for name in ("student.safetensors", "dumps/step-000010.safetensors", "dumps/step-000040.safetensors"):
        assert (own / name).read_bytes() == (whole / name).read_bytes(), name
    assert {path.name for path in own.glob("checkpoints/*")} == {path.name for path in whole.glob("checkpoints/*")}
    assert not half_written(own / "checkpoints")


@pytest.mark.slow
def test_a_teacher_killed_in_the_middle_ends_like_one_never_stopped(cold: Ladd) -> None:
    whole, killed = Ladd(cold.cwd, cold.cwd / "whole"), Ladd(cold.cwd, cold.cwd / "killed")
    whole(*TEACHER)
    running = killed.start(*TEACHER)
    running.wait_until(lambda: logged(killed.cache) >= 17)
    running.send(signal.SIGKILL)
    assert 17 <= logged(killed.cache) < 80
    killed(*TEACHER)
    one, two = (find(ladd.cache, "teacher-*") for ladd in (whole, killed))
    assert (one / "teacher.safetensors").read_bytes() == (two / "teacher.safetensors").read_bytes()
    assert without_rates(one / "metrics.jsonl") == without_rates(two / "metrics.jsonl")
    assert not list(two.glob("checkpoints"))


@pytest.mark.slow
def test_shards_killed_in_the_middle_are_finished_and_the_whole_ones_left_alone(ladd: Ladd) -> None:
    whole, killed = beside(ladd, "whole"), beside(ladd, "killed")
    known = {path.name for path in killed.cache.glob("shards-*")}

    def shards(ladd: Ladd) -> list[Path]:
        return sorted(path for path in ladd.cache.glob("shards-*/0*.tar") if path.parent.name not in known)

    whole(*SHARDS)
    running = killed.start(*SHARDS)
    running.wait_until(lambda: len(shards(killed)) >= 3)
    running.send(signal.SIGKILL)
    finished = [path for path in shards(killed) if path.with_suffix(".json").exists()]
    assert 2 <= len(finished) < 16
    before = {path: path.stat().st_mtime_ns for path in finished}
    folder = finished[0].parent
    assert not (folder / "index.json").exists()

    killed(*SHARDS)
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert len(shards(killed)) == 16
    assert not half_written(folder)
    contents = [
        {name: data for name, (_, data) in snapshot(ladd.cache / folder.name).items() if name != "done.json"}
        for ladd in (whole, killed)
    ]
    assert contents[0] == contents[1]


def test_a_checkpoint_of_another_recipe_is_refused_and_kept(
    ladd: Ladd, smoke: tuple[Done, Ladd], launch_here: Callable[..., Done]
) -> None:
    facts = json.loads(launch_here(*ladd.words("--seed", 7, "--train.steps", 10, "--dry-run", "--json")).stdout)
    foreign = ladd.runs / f"{facts['recipe']}-{facts['signature']}"
    shutil.copytree(smoke[0].run / "checkpoints", foreign / "checkpoints")
    before = snapshot(foreign / "checkpoints")
    done = ladd("--seed", 7, "--stages", "distill", "--train.steps", 10, code=1)
    assert "belongs to another recipe" in done.stderr
    assert "--from-scratch" in done.stderr
    assert snapshot(foreign / "checkpoints") == before
    assert not (foreign / "student.safetensors").exists()


def test_for_a_damaged_checkpoint_the_one_before_serves_with_one_warning_and_the_same_bytes(
    ladd: Ladd, smoke: tuple[Done, Ladd]
) -> None:
    shutil.copytree(smoke[1].runs, ladd.runs)
    own = ladd.runs / smoke[0].run.name
    (own / "distill.done.json").unlink()
    (own / "student.safetensors").unlink()
    newest = own / "checkpoints" / "step-00000020"
    damaged = find(newest, "*.safetensors")
    content = bytearray(damaged.read_bytes())
    content[-1000] ^= 1
    damaged.write_bytes(content)
    done = ladd("--stages", "distill")
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: checkpoint")]
    assert str(newest) in warning and damaged.name in warning
    assert warning.endswith("going on from the checkpoint before, of step 15")
    assert without_rates(own / "metrics.jsonl") == without_rates(smoke[0].run / "metrics.jsonl")
    assert (own / "student.safetensors").read_bytes() == (smoke[0].run / "student.safetensors").read_bytes()


@pytest.mark.slow
def test_three_kills_of_the_script_that_tries_a_hundred(tmp_path: Path) -> None:
    command = [
        sys.executable,
        REPO / "tests/kills.py",
        "--only",
        "teacher",
        "--cases",
        "3",
        "--place",
        tmp_path / "kills",
    ]
    done = run_command(*command, cwd=tmp_path)
    assert done.code == 0, (done.stdout, done.stderr)
    *cases, summary = [json.loads(line) for line in done.stdout.splitlines() if "whole" not in line]
    assert summary == {"cases": 3, "seed": 2026, "right": 3}
    assert all(case["code"] in (-9, 75, 130) for case in cases)
