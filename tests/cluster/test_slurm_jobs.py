"""`ladd jobs` and its --cancel on a real SLURM."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import Bench, paced

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
LOCAL = "slurm/local.py"


def look(slurm: Bench) -> dict[str, Any]:
    """The only sweep, as `ladd jobs --json` prints it."""
    found: dict[str, Any] = json.loads(
        slurm.slurm(sys.executable, "-m", "ladd_dist.jobs", slurm.folder / "runs", "--json")
    )
    assert found["sweeps"][0]["problem"] is None
    return dict(found["sweeps"][0])


def look_until(slurm: Bench, seen: Callable[[dict[str, Any]], bool], seconds: float = 150.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not seen(found := look(slurm)):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found


def test_a_requeue_is_counted_a_failure_shown_and_what_is_left_cancelled(ready: Bench) -> None:
    slurm = ready
    file = slurm.sweep_file('(Axis("train.lr_student", (1e-4, 1e30)),), seeds=(0,)', steps=20_000, every=50)
    slurm.send(file, "--on", slurm.profile(f'partition="main", time_min=10, {paced(0.1)}'))
    found = look_until(slurm, lambda sweep: sweep["runs"][0]["step"] is not None)
    run = found["runs"][0]
    assert (run["state"], run["scheduler"], run["node"][0]) == ("running", "RUNNING", "n")
    assert run["eta_s"] > 0
    slurm.slurm("scontrol", "requeue", run["job"])
    again = look_until(slurm, lambda sweep: sweep["runs"][0]["requeues"] == 1)
    again = look_until(slurm, lambda sweep: sweep["runs"][0]["scheduler"] == "RUNNING")
    assert again["runs"][0]["job"] == run["job"]

    failed = look_until(slurm, lambda sweep: sweep["runs"][1]["state"] == "failed")["runs"][1]
    assert "lower the learning rate" in failed["error"]
    assert failed["error"] in Path(failed["log"]).read_text()

    sweep = Path(again["folder"])
    said = slurm.slurm(sys.executable, "-m", "ladd_dist.jobs", sweep, "--cancel").splitlines()
    assert said[0].startswith(f"cancelled job {run['job']} (running on n")
    assert said[-1] == "1 cancelled: 1 running"
    look_until(slurm, lambda sweep: [run["state"] for run in sweep["runs"]] == ["stopped", "failed"])
    look_until(slurm, lambda sweep: sweep["runs"][0]["scheduler"] == "CANCELLED")  # it was ending before
    assert "nothing to cancel" in slurm.slurm(sys.executable, "-m", "ladd_dist.jobs", sweep, "--cancel")


def test_runs_whose_teacher_failed_say_why(slurm: Bench) -> None:
    file = slurm.sweep_file("(), seeds=(0, 1)")
    file.write_text(file.read_text().replace("steps=10)", "steps=10, lr=1e30, clip=1e30)"))
    slurm.send(file, "--on", LOCAL)
    found = look_until(slurm, lambda sweep: {run["state"] for run in sweep["runs"]} <= {"failed", "stopped"})
    assert found["jobs"][0]["state"] == "failed"
    for run in found["runs"]:
        assert run["error"].startswith("needs teacher-")
        assert "lower the learning rate" in run["error"]


def test_a_job_of_another_with_the_number_of_ours_is_not_cancelled(slurm: Bench) -> None:
    command = ["sbatch", "--parsable", f"--output={slurm.folder}/other.txt", "--wrap=sleep 100"]
    other = slurm.slurm(*command).strip()
    folder = slurm.folder / "runs" / "sweeps" / "mine-0123456789"
    (folder / "logs").mkdir(parents=True)
    job = {"id": other, "kind": "run", "of": "mine-0000000001", "submitted": "2026-11-22T07:00:00Z", "cluster": "slurm"}
    (folder / "sweep.json").write_text(
        json.dumps({"format": 1, "name": "mine", "signature": "0123456789", "runs": [], "jobs": [job]})
    )
    try:
        assert "nothing to cancel" in slurm.slurm(sys.executable, "-m", "ladd_dist.jobs", folder, "--cancel")
        assert slurm.slurm("squeue", "-h", "-j", other, "-o", "%T").strip() in ("PENDING", "RUNNING")
    finally:
        slurm.slurm("scancel", other)
