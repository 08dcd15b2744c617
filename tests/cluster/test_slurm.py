"""Sweeps and single runs on a real SLURM: arrays, several nodes, preemption, time limits, failures.

`python -m pytest -m slurm tests/cluster`; LADD_PREEMPTIONS=10 for a longer look.
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
from bench import ENVIRONMENT, REPO, Bench

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
PREEMPTIONS = int(os.environ.get("LADD_PREEMPTIONS", "3"))
LOCAL = "slurm/local.py"
LONG = {"steps": 400, "every": 50}


def reference(slurm: Bench, file: Path, *words: str) -> list[dict[str, float]]:
    """The trace of the same run by one undisturbed process, here."""
    undisturbed = Bench(slurm.folder / "undisturbed")
    stages = ("--stages", "teacher,shards,distill", "--scale", "smoke", "--json")
    done = undisturbed("launch", file, *stages, *words)
    return undisturbed.rows(Path(json.loads(done.stdout)["run"]))


def run_of(slurm: Bench) -> Path:
    """The only run's folder."""
    [config] = (slurm.folder / "runs").glob("small-*/config.json")
    return config.parent


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


def test_a_run_over_two_nodes_gives_the_trace_of_one_process(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)", steps=20)
    profile = slurm.profile(f'partition="main", nodes=2, time_min=10, {ENVIRONMENT}')
    head = ("--head.width", "16")
    sent = slurm.send(file, "--on", profile, "--stages", "teacher,shards,distill", *head, command="launch")
    assert set(slurm.wait(list(sent["jobs"].values())).values()) == {"COMPLETED"}, slurm.errors()
    job = next(id for of, id in sent["jobs"].items() if of.startswith("small-"))
    assert slurm.job(job)["NumNodes"] == "2"
    expected, found = reference(slurm, file, *head), slurm.rows(run_of(slurm))
    assert [row["step"] for row in found] == list(range(1, 21))
    for one, two in zip(expected, found, strict=True):
        assert two["loss/distill"] == pytest.approx(one["loss/distill"], rel=1e-4)


def test_preempted_at_random_moments_a_run_goes_on_without_a_step_lost_or_repeated(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)", steps=200 + 100 * PREEMPTIONS, every=50)
    sent = slurm.send(file, "--on", LOCAL, "--stages", "teacher,shards,distill", command="launch")
    [job] = [id for of, id in sent["jobs"].items() if of.startswith("small-")]
    run, draw = slurm.folder / "runs" / next(of for of in sent["jobs"] if of.startswith("small-")), random.Random(7)
    for number in range(PREEMPTIONS):
        slurm.wait_until(lambda: slurm.job(job)["JobState"] == "RUNNING")
        time.sleep(draw.uniform(0.0, 7.0))
        slurm.slurm("scancel", "--signal=USR2", job)
        slurm.wait_until(lambda wanted=str(number + 1): slurm.job(job)["Restarts"] == wanted)
    assert slurm.wait([job]) == {job: "COMPLETED"}, slurm.errors()
    assert slurm.rows(run) == reference(slurm, file)


def test_a_job_of_higher_priority_takes_the_nodes_and_the_run_goes_on_after_it(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)", **LONG)
    profile = slurm.profile(f'partition="low", nodes=4, cpus_per_task=2, time_min=10, {ENVIRONMENT}')
    one = ("--train.batch-size", "16")
    sent = slurm.send(file, "--on", profile, "--stages", "teacher,shards,distill", *one, command="launch")
    [job] = [id for of, id in sent["jobs"].items() if of.startswith("small-")]
    slurm.wait_until(lambda: len(slurm.rows(run_of(slurm))) > 5)
    script = slurm.folder / "high.sh"
    script.write_text("#!/bin/sh\nsleep 3\n")
    slurm.slurm("sbatch", "--partition=high", "--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=2", "--chdir=/tmp",
                "--output=/dev/null", script)  # fmt: skip
    slurm.wait_until(lambda: slurm.job(job)["Restarts"] == "1")
    assert slurm.wait([job]) == {job: "COMPLETED"}, slurm.errors()
    found = slurm.rows(run_of(slurm))
    assert [row["step"] for row in found] == list(range(1, LONG["steps"] + 1))


def test_at_its_time_limit_a_run_is_requeued_and_goes_on(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)", steps=1500, every=500)
    profile = slurm.profile(f'partition="main", time_min=1, signal_delay_s=40, {ENVIRONMENT}')
    sent = slurm.send(file, "--on", profile, "--stages", "teacher,shards,distill", command="launch")
    [job] = [id for of, id in sent["jobs"].items() if of.startswith("small-")]
    assert slurm.wait([job], 400) == {job: "COMPLETED"}, slurm.errors()
    assert int(slurm.job(job)["Restarts"]) >= 1
    assert slurm.rows(run_of(slurm)) == reference(slurm, file)


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


def test_when_a_node_goes_down_the_run_goes_on_elsewhere(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)", steps=400, every=20)
    profile = slurm.profile(f'partition="main", nodes=2, time_min=10, {ENVIRONMENT}')
    sent = slurm.send(file, "--on", profile, "--stages", "teacher,shards,distill", command="launch")
    [job] = [id for of, id in sent["jobs"].items() if of.startswith("small-")]
    run = slurm.folder / "runs" / next(of for of in sent["jobs"] if of.startswith("small-"))
    slurm.wait_until(lambda: len(slurm.rows(run)) > 30)
    second = slurm.slurm("scontrol", "show", "hostnames", slurm.job(job)["NodeList"]).split()[1]
    try:
        end_node(slurm, second, job)
        slurm.wait_until(lambda: slurm.job(job)["Restarts"] == "1")
        assert slurm.wait([job]) == {job: "COMPLETED"}, slurm.errors()
        assert second not in slurm.slurm("scontrol", "show", "hostnames", slurm.job(job)["NodeList"]).split()
    finally:
        subprocess.run([REPO / "slurm" / "dev_cluster.sh", "up"], check=True, timeout=120)
    assert [row["step"] for row in slurm.rows(run)] == list(range(1, 401))


def test_a_job_that_fails_leaves_its_own_traceback_and_is_submitted_again_when_asked(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0,)")
    sent = slurm.send(file, "--on", LOCAL, "--train.lr-student", "1e30", "--train.clip", "1e30", command="launch")
    job = next(id for of, id in sent["jobs"].items() if of.startswith("small-"))
    assert slurm.wait([job]) == {job: "FAILED"}
    assert "lower the learning rate" in slurm.errors()
    words = (file, "--on", LOCAL, "--train.lr-student", "1e30", "--train.clip", "1e30")
    shown = slurm.send(*words, "--dry-run", command="launch")
    assert [(item["state"], item["submit"]) for item in shown["items"] if item["kind"] == "run"] == [("failed", True)]


def test_when_the_teacher_fails_the_runs_that_wait_for_it_end_too(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0, 1)")
    text = file.read_text().replace("steps=10)", "steps=10, lr=1e30, clip=1e30)")
    file.write_text(text)
    sent = slurm.send(file, "--on", LOCAL)
    states = slurm.wait(list(sent["jobs"].values()))
    assert sorted(states.values()) == ["CANCELLED", "CANCELLED", "CANCELLED", "FAILED"]


def test_an_unknown_partition_is_one_message_with_those_that_exist(slurm: Bench) -> None:
    profile = slurm.profile('partition="gpus"')
    done = slurm("sweep", slurm.sweep_file("(), seeds=(0,)"), "--on", profile, "--scale", "smoke", code=2)
    assert "no partition 'gpus'; partitions: high, low, main" in done.stderr
    assert not (slurm.folder / "runs").exists()
