"""Sweeps without SLURM, and what is said when a profile or a cluster is not right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench import ENVIRONMENT, REPO, Bench

from ladd_dist.cluster import Cluster, executor, load_cluster
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.sweep_record import read_record

ONE = "(), seeds=(0,)"


def test_a_sweep_runs_on_this_machine_and_is_done_the_second_time(bench: Bench) -> None:
    file = bench.sweep_file('(Axis("head", ("spectral_norm", "max_pool")),), seeds=(0,)')
    profile = bench.profile('executor="local", array_parallelism=2')
    sent = bench.send(file, "--on", profile)
    assert sent["failed"] == {}
    assert len(sent["jobs"]) == 4
    folder = Path(sent["sweep"])
    record = read_record(folder)
    assert record.axes == {"head": ["spectral_norm", "max_pool"]}
    assert [job.kind for job in record.jobs] == ["teacher", "shards", "run", "run"]
    for run in record.runs:
        assert (bench.folder / "runs" / run.run / "report.html").exists()
        assert (bench.folder / "cache" / run.teacher / "done.json").exists()
        assert (bench.folder / "cache" / run.shards / "index.json").exists()
    assert sorted(path.name for path in (folder / "logs").glob(f"{record.jobs[0].id}_0_log.*")) != []
    assert bench.send(file, "--on", profile)["jobs"] == {}


@pytest.mark.parametrize(
    ("num_jobs", "fields", "set_by_user", "free", "threads"),
    [
        (1, "", "", 8, "8"),
        (2, "", "", 8, "4"),
        (2, "tasks_per_node=2", "", 8, "2"),
        (9, "", "", 8, "1"),
        (1, "", "", 5, "5"),
        (2, "", "", 5, "2"),
        (4, "", "", 1, "1"),
        (2, "", "3", 1, "3"),
        (2, 'environment=(("OMP_NUM_THREADS", "5"),)', "3", 8, "5"),
    ],
)
def test_jobs_of_one_machine_share_the_cores_that_others_leave_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, num_jobs: int, fields: str, set_by_user: str, free: int, threads: str
) -> None:
    monkeypatch.setattr(executor, "usable_cores", lambda: 8)
    monkeypatch.setattr(executor, "free_cores", lambda: free)
    monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
    if not set_by_user:
        monkeypatch.delenv("OMP_NUM_THREADS")
    cluster = load_cluster(Path(bench.profile(f'executor="local", {fields}')))
    with executor._environment(cluster, num_jobs):
        assert os.environ["OMP_NUM_THREADS"] == threads
    assert os.environ.get("OMP_NUM_THREADS", "") == set_by_user


def test_two_processes_of_one_machine_train_one_run(bench: Bench) -> None:
    profile = bench.profile('executor="local", tasks_per_node=2')
    sent = bench.send(bench.sweep_file(ONE), "--on", profile, "--stages", "teacher,shards,distill", command="launch")
    assert sent["failed"] == {}
    [run] = (bench.folder / "runs").glob("small-*")
    assert json.loads((run / "config.json").read_text())["recipe"]["parallel"]["plugin"] == "ddp"
    assert [row["step"] for row in bench.rows(run)] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_fails_says_why_and_the_command_fails(bench: Bench) -> None:
    words = (bench.sweep_file(ONE), "--on", "slurm/laptop.py", "--train.lr-student", "1e30", "--train.clip", "1e30")
    out = ("--out", bench.folder / "runs", "--cache", bench.folder / "cache", "--scale", "smoke")
    line = [str(word) for word in (sys.executable, "-m", "ladd_dist.launch", *words, *out)]
    done = subprocess.run(line, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "NotFiniteError: distill:" in done.stderr
    assert "lower the learning rate" in done.stderr


def test_the_signal_of_a_scheduler_saves_and_starts_the_job_again(bench: Bench) -> None:
    """submitit's controller of this machine stands for SLURM: it starts a job again that asks for it."""
    file = bench.sweep_file(ONE, steps=300, every=1000)
    profile = bench.profile(f'executor="local", {ENVIRONMENT}')
    out = ("--out", bench.folder / "runs", "--cache", bench.folder / "cache", "--scale", "smoke")
    words = (
        sys.executable,
        "-m",
        "ladd_dist.launch",
        file,
        "--on",
        profile,
        "--stages",
        "teacher,shards,distill",
        *out,
    )
    with (bench.folder / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in words], cwd=REPO, stdout=log, stderr=log)
    runs = bench.folder / "runs"
    try:
        bench.wait_until(lambda: any(len(bench.rows(run)) > 20 for run in runs.glob("small-*")))
        [job] = [job for job in read_record(next((runs / "sweeps").glob("small-*"))).jobs if job.kind == "run"]
        for child in Path(f"/proc/{job.id}/task/{job.id}/children").read_text().split():
            os.kill(int(child), signal.SIGUSR2)
        assert process.wait(200) == 0, (bench.folder / "log").read_text() + bench.errors()
    finally:
        process.kill()
    [run] = runs.glob("small-*")
    assert [row["step"] for row in bench.rows(run)] == list(range(1, 301))
    assert "Caught signal SIGUSR2" in bench.errors()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("nodes=0", "Cluster.nodes: must be at least 1, got 0"),
        ('executor="local", nodes=2', "the executor 'local' has one machine"),
        ("partition=3", "CLUSTER.partition: expected str, got int 3"),
        ('executor="slrm"', "expected one of 'slurm', 'local', 'debug'"),
        ("1 / 0", "failed while it was read"),
    ],
)
def test_a_wrong_profile_is_one_message(bench: Bench, fields: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_cluster(bench.profile(fields))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("nowhere.py", "profiles there: .*slurm/laptop.py"), ("lap.py", "did you mean .*slurm/laptop.py")],
)
def test_a_profile_that_is_not_there_is_answered_with_those_beside_it(name: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=f"does not exist; {hint}"):
        load_cluster(REPO / "slurm" / name)


def test_a_dry_run_shows_the_runs_needs_no_cluster_and_writes_nothing(bench: Bench) -> None:
    bench.variables["PATH"] = "/nowhere"
    done = bench("sweep", "recipes/sweep_heads.py", "--scale", "smoke", "--dry-run")
    assert "16 runs: 0 done, 0 in the queue, 0 failed, 16 new; 18 jobs to submit" in done.stdout
    assert list(bench.folder.iterdir()) == []


def test_a_sweep_without_a_place_to_run_is_told_so(bench: Bench) -> None:
    assert "--on PROFILE says where to run" in bench("sweep", bench.sweep_file(ONE), code=2).stderr


def test_a_run_that_cannot_work_is_refused_before_anything_is_written(bench: Bench) -> None:
    file = bench.sweep_file('(Axis("train.batch_size", (16, 15)),), seeds=(0,)')
    done = bench("sweep", file, "--on", bench.profile('executor="local", tasks_per_node=2'), "--scale", "smoke", code=2)
    assert "15 samples cannot be shared evenly by 2 ranks" in done.stderr
    assert not list((bench.folder / "runs").glob("small-*"))


def test_flags_that_a_profile_decides_are_refused_beside_it(bench: Bench) -> None:
    done = bench("launch", bench.sweep_file(ONE), "--on", "slurm/laptop.py", "--from-scratch", code=2)
    assert "--from-scratch does not go with --on" in done.stderr


def test_a_record_of_another_version_or_a_damaged_one_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        read_record(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 1, "jobs": [{"id": ')
    with pytest.raises(ValueError, match="not valid JSON"):
        read_record(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 1, "jobs": [{"id": "1"}]}')
    with pytest.raises(ValueError, match=r"does not have the expected form .*end the jobs that it names"):
        read_record(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_profile_for_gpus_is_refused_where_this_machine_has_none(bench: Bench) -> None:
    done = bench("launch", bench.sweep_file(ONE), "--on", "slurm/shared_gpu.py", "--scale", "smoke", code=2)
    assert (
        "--on slurm/shared_gpu.py: gpus_per_node=1 of this machine, where PyTorch finds 0; slurm/laptop.py"
        in done.stderr
    )
    assert not (bench.folder / "runs").exists()


@pytest.mark.parametrize(("given", "seen"), [("3,5", "3"), ("GPU-8932f937", "GPU-8932f937"), ("", "0")])
def test_jobs_share_the_gpu_that_this_process_was_given(
    given: str, seen: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """submitit numbers a machine's GPUs from 0 on, and would take another user's."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    profile = Cluster(executor="local", gpus_per_node=1, setup=(f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/seen",))
    (job,) = executor.submit(profile, [executor.JobSpec("run", "x", print)], tmp_path / "logs", name="name")  # type: ignore[arg-type]
    job.wait()
    assert (tmp_path / "seen").read_text().strip() == seen


def test_the_shipped_profiles_are_read_and_say_how_many_processes() -> None:
    tasks = {path.stem: load_cluster(path).tasks for path in (REPO / "slurm").glob("[!_]*.py")}
    assert tasks == {"laptop": 1, "local": 1, "multi_node": 32, "node8": 8, "single_gpu": 1, "shared_gpu": 1}
    assert Cluster(gpus_per_node=4).tasks == 4
