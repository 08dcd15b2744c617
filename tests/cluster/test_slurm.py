"""Sweeps and single runs on a real SLURM: arrays, several nodes, preemption, time limits, failures.

`python -m pytest -m slurm tests/cluster`
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from bench import ENVIRONMENT, REPO, STAGES, Bench, paced

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
PREEMPTIONS, TIMEOUTS = 7, 3
LOCAL = "slurm/local.py"


def send_one(bench: Bench, file: Path, profile: Path | str, *words: str) -> tuple[str, Path]:
    """Submit a single run; returns its job and its folder."""
    sent = bench.send(file, "--on", profile, *words, command="launch")
    [(of, job)] = [(of, job) for of, job in sent["jobs"].items() if of.startswith("small")]
    return job, bench.folder / "runs" / of


def steps(bench: Bench, run: Path) -> list[float]:
    """The steps that a run has logged."""
    return [row["step"] for row in bench.rows(run)]


def test_an_array_of_two_by_two_by_two_runs_ends_with_every_page_written(slurm: Bench) -> None:
    axes = '(Axis("head", ("spectral_norm", "max_pool")), Axis("train.lr_heads", (1e-4, 5e-4))), seeds=(0, 1)'
    file = slurm.sweep_file(axes)
    sent = slurm.send(file, "--on", LOCAL)
    ids = list(sent["jobs"].values())
    assert [item["kind"] for item in sent["items"]] == ["teacher", "shards", *["run"] * 8]
    assert len({id.partition("_")[0] for id in ids}) == 3  # a teacher, shards, one array
    again = slurm.send(file, "--on", LOCAL)
    assert again["jobs"] == {}, "what waits or runs is not submitted twice"
    states = slurm.wait(ids)
    assert set(states.values()) == {"COMPLETED"}, slurm.errors()
    runs = list((slurm.folder / "runs").glob("small-*"))
    assert len(runs) == 8
    assert all((run / "report.html").exists() and (run / "eval.json").exists() for run in runs)
    last = slurm.send(file, "--on", LOCAL)
    assert last["jobs"] == {}
    assert {item["state"] for item in last["items"]} == {"done"}
    [seen] = json.loads(slurm("jobs", slurm.folder / "runs", "--json", places=False).stdout)["sweeps"]
    assert [job["state"] for job in [*seen["jobs"], *seen["runs"]]] == ["done"] * 10
    page = slurm.folder / "compare.html"
    compared = json.loads(slurm("compare", sent["sweep"], "--json", "--out", page, places=False).stdout)
    assert len(compared["variants"]) == 4
    assert page.exists()


def test_a_run_over_two_nodes_gives_the_trace_of_one_process(ready: Bench) -> None:
    file = ready.sweep_file("(), seeds=(0,)", steps=20)
    profile = ready.profile(f'partition="main", nodes=2, time_min=10, {ENVIRONMENT}')
    words = ("--swap", "head=smooth", "--train.lr-student", "1e-4", "--train.lr-heads", "5e-5")  # as in test_parity
    job, run = send_one(ready, file, profile, *STAGES, *words)
    assert ready.wait([job]) == {job: "COMPLETED"}, ready.errors()
    assert ready.job(job)["NumNodes"] == "2"
    expected, found = ready.undisturbed(file, *words), ready.rows(run)
    assert [row["step"] for row in found] == list(range(1, 21))
    for one, two in zip(expected, found, strict=True):
        for name in (name for name in one if name.startswith("loss/")):
            assert two[name] == pytest.approx(one[name], rel=1e-5), (name, one["step"])


def has_step(bench: Bench, job: str) -> bool:
    """Whether the job's processes have been started."""
    steps = bench.slurm("squeue", "--steps", "--noheader", "--format=%i", "--jobs", job).split()
    return any(step.rpartition(".")[2].isdecimal() for step in steps)


def preempt(bench: Bench, jobs: dict[str, str], number: int, last: int) -> dict[str, int]:
    """Send what a scheduler sends, to one job and at a random moment, so many times; returns how often each got it.

    Args:
        jobs: the run's folder -> the job.
        last: the step from which a run is left alone: it may end before the signal comes.
    """
    draw, sent = random.Random(7), dict.fromkeys(jobs.values(), 0)
    deadline = time.monotonic() + 400
    while sum(sent.values()) < number:
        assert time.monotonic() < deadline, (sent, bench.slurm("squeue"), bench.errors())
        young = {id for of, id in jobs.items() if len(bench.rows(bench.folder / "runs" / of)) < last}
        assert young, f"all are about to end: {sent}"
        facts = {id: bench.job(id) for id in young}
        ready = [id for id in facts if facts[id]["JobState"] == "RUNNING" and int(facts[id]["Restarts"]) == sent[id]]
        if ready:
            chosen = draw.choice(ready)
            time.sleep(draw.uniform(0.0, 3.0))
            while not has_step(bench, chosen):  # scancel reaches job steps alone: before srun it would reach nobody
                time.sleep(0.1)
            bench.slurm("scancel", "--signal=USR2", chosen)
            sent[chosen] += 1
        time.sleep(0.2)
    return sent


def test_preempted_and_timed_out_at_random_moments_no_step_is_lost_or_repeated(ready: Bench) -> None:
    """Two arrays at once: one is preempted task by task, the other meets its time limit."""
    file = ready.sweep_file("(), seeds=(0, 1, 2)", steps=130, every=30)
    limits = {
        "preempted": ("time_min=10", 0.35),
        "limited": ("time_min=1, signal_delay_s=20, array_parallelism=3", 0.1),
    }
    benches = {name: ready.beside(name) for name in limits}
    jobs: dict[str, dict[str, str]] = {}
    for name, bench in benches.items():
        limit, pace = limits[name]
        profile = bench.profile(f'partition="main", {limit}, {paced(pace)}')
        jobs[name] = bench.send(file, "--on", profile)["jobs"]
        assert len(jobs[name]) == 3
    sent = preempt(benches["preempted"], jobs["preempted"], PREEMPTIONS, last=105)
    for name, bench in benches.items():
        assert set(bench.wait(list(jobs[name].values()), 300).values()) == {"COMPLETED"}, bench.errors()
    assert {id: ready.restarts(id) for id in sent} == sent
    assert sum(ready.restarts(id) for id in jobs["limited"].values()) >= TIMEOUTS
    for seed in range(3):
        expected = ready.undisturbed(file, "--seed", str(seed))
        assert [row["step"] for row in expected] == list(range(1, 131))
        for bench in benches.values():
            [run] = [
                path.parent
                for path in (bench.folder / "runs").glob("small-*/config.json")
                if json.loads(path.read_text())["recipe"]["seed"] == seed
            ]
            assert bench.rows(run) == expected
            assert (run / "report.html").exists()


def test_a_job_of_higher_priority_takes_the_nodes_and_the_run_goes_on_after_it(ready: Bench) -> None:
    file = ready.sweep_file("(), seeds=(0,)", steps=80, every=30)
    profile = ready.profile(f'partition="low", nodes=4, cpus_per_task=2, time_min=10, {paced(0.1)}')
    job, run = send_one(ready, file, profile, *STAGES)
    ready.wait_until(lambda: len(ready.rows(run)) > 5)
    script = ready.folder / "high.sh"
    script.write_text("#!/bin/sh\nsleep 3\n")
    ready.slurm("sbatch", "--partition=high", "--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2", "--chdir=/tmp",
                "--output=/dev/null", script)  # fmt: skip
    ready.wait_until(lambda: ready.restarts(job) == 1)
    assert ready.wait([job]) == {job: "COMPLETED"}, ready.errors()
    assert steps(ready, run) == list(range(1, 81))


def end_node(slurm: Bench, node: str, job: str) -> None:
    """What a power failure leaves: neither its slurmd, nor the step of the job there, nor the job's process."""
    os.kill(
        int((Path(slurm.variables["SLURM_CONF"]).parent / "run" / f"slurmd.{node}.pid").read_text()), signal.SIGKILL
    )
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if f"SLURMD_NODENAME={node}".encode() in variables and f"SLURM_JOB_ID={job}".encode() in variables:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if b"slurmstepd" in Path(f"/proc/{parent}/cmdline").read_bytes():
                    os.kill(parent, signal.SIGKILL)
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # it has ended meanwhile


def test_when_a_node_goes_down_the_run_goes_on_elsewhere(ready: Bench) -> None:
    file = ready.sweep_file("(), seeds=(0,)", steps=60, every=5)
    profile = ready.profile(f'partition="main", nodes=2, time_min=10, {paced(0.1)}')
    job, run = send_one(ready, file, profile, *STAGES)
    ready.wait_until(lambda: len(ready.rows(run)) > 15)
    second = ready.slurm("scontrol", "show", "hostnames", ready.job(job)["NodeList"]).split()[1]
    try:
        end_node(ready, second, job)
        ready.wait_until(lambda: ready.restarts(job) == 1)
        assert ready.wait([job]) == {job: "COMPLETED"}, ready.errors()
        assert second not in ready.slurm("scontrol", "show", "hostnames", ready.job(job)["NodeList"]).split()
        [shown] = json.loads(ready("jobs", ready.folder / "runs", "--json", places=False).stdout)["sweeps"][0]["runs"]
        assert (shown["requeues"], shown["state"]) == (1, "done")
    finally:
        subprocess.run([REPO / "slurm" / "dev_cluster.sh", "up"], check=True, timeout=120)
    assert steps(ready, run) == list(range(1, 61))


def test_a_job_that_fails_leaves_its_own_traceback_and_is_submitted_again_when_asked(ready: Bench) -> None:
    file = ready.sweep_file("(), seeds=(0,)")
    job, _ = send_one(ready, file, LOCAL, "--train.lr-student", "1e30", "--train.clip", "1e30")
    assert ready.wait([job]) == {job: "FAILED"}
    assert "lower the learning rate" in ready.errors()
    words = (file, "--on", LOCAL, "--train.lr-student", "1e30", "--train.clip", "1e30")
    shown = ready.send(*words, "--dry-run", command="launch")
    assert [(item["state"], item["submit"]) for item in shown["items"] if item["kind"] == "run"] == [("failed", True)]


def test_an_unknown_partition_is_one_message_with_those_that_exist(slurm: Bench) -> None:
    profile = slurm.profile('partition="gpus"')
    done = slurm("sweep", slurm.sweep_file("(), seeds=(0,)"), "--on", profile, "--scale", "smoke", code=2)
    assert "no partition 'gpus'; partitions: high, low, main" in done.stderr
    assert not (slurm.folder / "runs").exists()
