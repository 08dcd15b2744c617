"""The command a second time: what failed, what was interrupted, two commands at once; jobs of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import ENVIRONMENT, REPO, Bench

from ladd_dist.cluster import Cluster
from ladd_dist.cluster.local import controllers
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.submission import _cancel, _run_for
from ladd_dist.cluster.sweep_plan import Plan, SweepRequest, plan
from ladd_dist.recipe.sweep import Sweep, expand
from ladd_dist.workspace.sweep_record import JobEntry, Record, Submitted, read_record
from recipes._base import BASE


def start(bench: Bench, *words: object, command: str = "sweep") -> subprocess.Popen[bytes]:
    """A command of ours beside the test; what it prints goes to a file of the folder."""
    out = ("--out", bench.folder / "runs", "--cache", bench.folder / "cache", "--scale", "smoke", "--json")
    line = [str(word) for word in (sys.executable, "-m", f"ladd_dist.{command}", *words, *out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (bench.folder / f"said-{len(list(bench.folder.glob('said-*')))}").open("wb") as said:
        return subprocess.Popen(
            line, cwd=REPO, env=environment, stdout=said, stderr=said,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # a background shell ignores it
        )  # fmt: skip


def compare(bench: Bench, *words: object) -> dict[str, Any]:
    line = [str(word) for word in (sys.executable, "-m", "ladd_dist.compare", *words, "--json")]
    done = subprocess.run(line, cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_only_failed_submits_what_failed_and_compare_and_jobs_tell_what_there_is(bench: Bench) -> None:
    axis = 'Axis("train.lr_student", (1e-4, 1e30))'
    profile = bench.profile(f'executor="local", array_parallelism=2, {ENVIRONMENT}')
    first = bench.send(bench.sweep_file(f"({axis},), seeds=(0,)"), "--on", profile, code=1)
    [broken] = first["failed"]
    whole = next(item["of"] for item in first["items"] if item["kind"] == "run" and item["of"] != broken)

    more = bench.sweep_file(f"({axis},), seeds=(0, 1)")  # a sweep of its own, with these runs and two that are new
    again = bench.send(more, "--on", profile, "--only-failed", code=1)
    assert list(again["jobs"]) == [broken] == list(again["failed"])
    states = {item["of"]: item["state"] for item in again["items"] if item["kind"] == "run"}
    assert (states.pop(broken), states.pop(whole), set(states.values())) == ("failed", "done", {"new"})
    assert [job.of for job in read_record(Path(again["sweep"])).jobs] == [broken]

    found = compare(bench, Path(again["sweep"]) / "sweep.json")
    assert [(item["label"], item["finished"]) for item in found["variants"]] == [
        ("train.lr_student=0.0001", 1), ("train.lr_student=1e+30", 0),
    ]  # fmt: skip
    assert found["notes"][0] == (
        "2 runs of the sweep have not started: train.lr_student=0.0001 seed=1; train.lr_student=1e+30 seed=1"
    )
    unfinished = "1 of 2 runs are unfinished, without figures (`ladd jobs` tells why): "
    assert any(note.startswith(unfinished) for note in found["notes"])


@pytest.mark.slow
def test_interrupted_and_then_started_twice_a_sweep_submits_each_run_once(bench: Bench) -> None:
    words = (bench.sweep_file("(), seeds=(0, 1)"), "--on", bench.profile(f'executor="local", {ENVIRONMENT}'))
    first = start(bench, *words)
    sweeps = bench.folder / "runs" / "sweeps"

    def jobs() -> list[str]:
        return [job.of for path in sweeps.glob("*/sweep.json") for job in read_record(path.parent).jobs]

    try:
        bench.wait_until(lambda: len(jobs()) == 1)  # the teacher's job is there, nothing else
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert len(jobs()) == 1
    both = [start(bench, *words) for _ in range(2)]
    try:
        assert [process.wait(240) for process in both] == [0, 0], bench.errors()
    finally:
        for process in both:
            process.kill()
    assert Counter(Counter(jobs()).values()) == {1: 4}, "a teacher, shards and two runs, each submitted once"
    [folder] = sweeps.glob("*/sweep.json")
    assert len(read_record(folder.parent).runs) == 2
    assert all((bench.folder / "runs" / run.run / "eval.json").exists() for run in read_record(folder.parent).runs)


@pytest.mark.slow
def test_told_to_end_by_sigterm_alone_a_job_saves_and_goes_on_when_it_starts_again(bench: Bench) -> None:
    """As by an administrator's `scontrol requeue`: SIGTERM, some seconds to save, SIGKILL, and the same job again."""
    profile = bench.profile(f'executor="local", {ENVIRONMENT}')
    file = bench.sweep_file("(), seeds=(0,)", steps=150, every=1000)  # so the only checkpoint is the one for SIGTERM
    words = (file, "--on", profile, "--stages", "teacher,shards,distill")
    process = start(bench, *words, command="launch")
    runs = bench.folder / "runs"
    try:
        bench.wait_until(lambda: any(len(bench.rows(run)) > 20 for run in runs.glob("small-*")))
        [run] = runs.glob("small-*")
        [job] = [job for job in read_record(next((runs / "sweeps").glob("small-*"))).jobs if job.kind == "run"]
        [task] = map(int, Path(f"/proc/{job.id}/task/{job.id}/children").read_text().split())
        os.kill(task, signal.SIGTERM)
        bench.wait_until(lambda: "waiting for the scheduler" in bench.errors())
        os.kill(task, signal.SIGKILL)
        assert process.wait(200) == 1
    finally:
        process.kill()
    saved = [int(path.name.partition("-")[2]) for path in (run / "checkpoints").glob("step-*")]
    assert saved and saved[0] > 20
    assert bench.send(*words, command="launch")["failed"] == {}
    assert [row["step"] for row in bench.rows(run)] == list(range(1, 151))


SBATCH = """#!/bin/sh
here=$(dirname "$0")
case $0 in
*/sbatch) touch "$here/asked"; sleep 1; echo "Submitted batch job 77" ;;
*/sinfo) echo main ;;
esac
"""
"""Stands for SLURM's commands, to be interrupted while it submits."""


@pytest.mark.slow
def test_a_job_that_is_being_submitted_when_ctrl_c_comes_is_not_forgotten(bench: Bench) -> None:
    commands = bench.folder / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "sinfo", "squeue"):
        (commands / name).write_text(SBATCH)
        (commands / name).chmod(0o755)
    profile = bench.profile(f'partition="main", client=(("PATH", "{commands}"),)')
    process = start(bench, bench.sweep_file("(), seeds=(0,)"), "--on", profile)
    try:
        bench.wait_until(lambda: (commands / "asked").exists())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
    [path] = (bench.folder / "runs" / "sweeps").glob("*/sweep.json")
    assert [(job.id, job.kind) for job in read_record(path.parent).jobs] == [("77", "teacher")]


# --- what is decided, without running anything ---


def work(out: Path, seeds: tuple[int, ...] = (0, 1, 2), **asked: bool) -> SweepRequest:
    """A sweep of one recipe at smoke scale."""
    runs, _ = expand(Sweep("small", BASE.smoke, (), seeds), "smoke")
    return SweepRequest("small", tuple(runs), "smoke", Path("small.py"), None, out, out / "cache", (), "", **asked)


def submitted(out: Path, **jobs: str) -> None:
    """A record that says: these jobs, by run, were sent to this machine."""
    record = Record("other", "0" * 10, "other.py", "smoke", {}, [], [])
    for of, id in jobs.items():
        record.add(id, "run", of, "local")
    record.write(out / "sweeps" / "other-0000000000")


def chosen(planned: Plan) -> list[bool]:
    return [item.submit for item in planned.items if item.kind == "run"]


@contextlib.contextmanager
def controller(logs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like submitit's controller of a job that logs there."""
    code = "import time; time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", code, "submitit.local._local", str(logs)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The controller of a job of the sweep that `submitted` records."""
    with controller(tmp_path / "sweeps" / "other-0000000000" / "logs") as process:
        yield process


def test_another_sweeps_controller_with_the_number_of_our_job_is_not_our_job(tmp_path: Path) -> None:
    """Numbers of processes are given out anew: what was one of ours may be another sweep's by now."""
    run = next(item.of for item in plan(work(tmp_path), None).items if item.kind == "run")
    with controller(tmp_path / "sweeps" / "theirs-0000000000" / "logs") as other:
        submitted(tmp_path, **{run: str(other.pid)})
        assert {item.of: item.state for item in plan(work(tmp_path), None).items}[run] == "failed"
        Scheduler(tmp_path / "sweeps" / "other-0000000000" / "logs").cancel(
            [JobEntry(str(other.pid), "run", run, cluster="local")]
        )
        assert other.poll() is None


def test_what_is_submitted_depends_on_what_became_of_earlier_jobs(tmp_path: Path, job: subprocess.Popen[bytes]) -> None:
    runs = [item.of for item in plan(work(tmp_path), None).items if item.kind == "run"]
    submitted(tmp_path, **{runs[0]: str(job.pid), runs[1]: "1"})  # runs; ended; and one that nobody has submitted
    states = [item.state for item in plan(work(tmp_path), None).items if item.kind == "run"]
    assert states == ["in the queue", "failed", "new"]
    assert chosen(plan(work(tmp_path), None)) == [False, True, True]
    assert chosen(plan(work(tmp_path, only_failed=True), None)) == [False, True, False]
    assert chosen(plan(work(tmp_path, resubmit=True), None)) == [True, True, True]
    assert chosen(plan(work(tmp_path, resubmit=True, only_failed=True), None)) == [True, True, False]


def test_a_finished_sweep_asks_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that came from a cluster are done, or not of this sweep: here nobody can be asked for them, nor need be."""
    record = Record("other", "0" * 10, "other.py", "smoke", {}, [], [])
    record.add("7_0", "run", "other-1234567890", "slurm")
    record.write(tmp_path / "sweeps" / "other-0000000000")
    monkeypatch.setenv("PATH", "/nowhere")
    assert chosen(plan(work(tmp_path), None)) == [True, True, True]
    record.add("7_1", "run", plan(work(tmp_path), None).items[-1].of, "slurm")
    record.write(tmp_path / "sweeps" / "other-0000000000")
    with pytest.raises(ValueError, match="no `squeue` on the path: jobs of this sweep may be waiting or running"):
        plan(work(tmp_path), None)


@pytest.mark.parametrize(("ignored", "last"), [((), signal.SIGTERM), ((signal.SIGTERM, signal.SIGINT), signal.SIGKILL)])
def test_resubmitting_first_ends_the_job_of_this_machine_that_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ignored: tuple[signal.Signals, ...], last: signal.Signals
) -> None:
    for name in ("LET_SAVE_S", "LET_DIE_S"):
        monkeypatch.setattr(f"ladd_dist.cluster.local.{name}", 0.5)
    logs = bench.folder / "logs"
    logs.mkdir()
    deaf = "".join(f"signal.signal({number.value}, signal.SIG_IGN); " for number in ignored)
    code = f"import signal, time; {deaf}open({str(logs / 'ready')!r}, 'w'); time.sleep(300)"
    job = subprocess.Popen([sys.executable, "-c", code, "submitit.local._local", str(logs)])
    bench.wait_until(lambda: (logs / "ready").exists())
    assert [process.pid for process in controllers(str(job.pid), logs)] == [job.pid]
    _cancel([Submitted(JobEntry(str(job.pid), "run", "a-0", cluster="local"), logs)], Cluster(executor="local"))
    assert job.wait(10) == -last


def test_a_shared_job_reads_the_config_of_a_run_that_is_submitted(tmp_path: Path) -> None:
    """With --only-failed the sweep's first run may not be among these, and then it has no config.json."""
    runs = [item.of for item in plan(work(tmp_path), None).items if item.kind == "run"]
    submitted(tmp_path, **{runs[1]: "1"})
    planned = plan(work(tmp_path, only_failed=True), None)
    assert {item.of: _run_for(item, planned).of for item in planned.items if item.submit} == {
        item.of: runs[1] for item in planned.items if item.submit
    }
    assert [item.kind for item in planned.items if item.submit] == ["teacher", "shards", "run"]
