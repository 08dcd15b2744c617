"""`ladd jobs` and its --cancel on real folders, locks and processes; SLURM's answers are as it printed them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ladd_dist import jobs
from ladd_dist.cluster import profiles
from ladd_dist.cluster.local import controllers
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.slurm import OTHER, JobState, parse_sacct, parse_squeue
from ladd_dist.cluster.status import look as look_all
from ladd_dist.core.rundir import exclusive
from ladd_dist.workspace.last_words import last_error, tail
from ladd_dist.workspace.progress import Logs, find_sweeps, is_held, last_row

REPO = Path(__file__).parents[2]
ROW = {
    "step": 10,
    "loss/heads": 1.4,
    "loss/adversarial": -0.7,
    "loss/distill": 0.2,
    "accuracy": 0.5,
    "rate/steps_per_s": 2.0,
}


def make_run(out: Path, name: str, *rows: dict[str, Any], done: bool = False) -> Path:
    run = out / name
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"recipe": {"train": {"steps": 30}}}))
    if rows:
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        (run / "distill.done.json").write_text(json.dumps({"signature": name[-10:]}))
        (run / "evaluate.done.json").write_text(json.dumps({"signature": "0" * 10}))
    return run


def make_sweep(out: Path, names: list[str], entries: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    """A sweep of runs `names`, labelled by their first letter."""
    folder = out / "sweeps" / "heads-0123456789"
    (folder / "logs").mkdir(parents=True)
    runs = [
        {"label": f"head={name[0]}", "axes": {"head": name[0]}, "seed": 0, "run": name, "signature": name[-10:],
         "teacher": "teacher-t", "shards": "shards-s"}
        for name in names
    ]  # fmt: skip
    data = {"format": 1, "name": "heads", "signature": "0123456789", "runs": runs, "jobs": entries or [], **more}
    (folder / "sweep.json").write_text(json.dumps(data))
    return folder


def job(id: str, of: str, cluster: str = "debug", kind: str = "run") -> dict[str, str]:
    return {"id": id, "kind": kind, "of": of, "submitted": "2026-11-22T07:00:00Z", "cluster": cluster}


def look(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The first sweep of `--json`."""
    assert jobs.main([str(folder), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["sweeps"][0]
    return found


def cancel(sweep: Path | str, *words: str) -> int:
    """The exit code of `ladd jobs SWEEP --cancel`."""
    return jobs.main([str(sweep), "--cancel", *words])


def states(sweep: dict[str, Any]) -> dict[str, str]:
    return {row["label"]: row["state"] for row in sweep["runs"]}


# --- what the folders tell ---


def test_a_run_is_done_running_stopped_or_not_submitted_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "a-0000000001", ROW, done=True)
    make_run(tmp_path, "b-0000000002", ROW)
    guarded = make_run(tmp_path, "c-0000000003", ROW)
    (guarded / "guard.json").write_text(
        json.dumps({"level": "collapsed", "since": 30, "headline": "why", "rollbacks": []})
    )
    folder = make_sweep(tmp_path, ["a-0000000001", "b-0000000002", "c-0000000003", "d-0000000004"])
    with exclusive(tmp_path / "b-0000000002"):
        found = look(folder, capsys)
    assert states(found) == {"head=a": "done", "head=b": "running", "head=c": "stopped", "head=d": "not submitted"}
    assert found["counts"] == {"done": 1, "running": 1, "stopped": 1, "not submitted": 1}
    running = found["runs"][1]
    assert (running["step"], running["steps"], running["steps_per_s"], running["eta_s"]) == (10, 30, 2.0, 10.0)
    assert running["losses"] == {"heads": 1.4, "adversarial": -0.7, "distill": 0.2}
    assert (running["accuracy"], running["guard"], running["requeues"]) == (0.5, None, 0)
    assert found["runs"][2]["eta_s"] is None
    assert found["runs"][2]["guard"] == {"level": "collapsed", "since": 30, "headline": "why", "rollbacks": 0}
    assert jobs.main([str(folder)]) == 0
    assert "collapsed since 30" in capsys.readouterr().out


def test_a_run_that_finished_with_another_signature_is_not_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, "a-0000000001", ROW, done=True)
    (run / "distill.done.json").write_text(json.dumps({"signature": "f" * 10}))
    assert states(look(make_sweep(tmp_path, ["a-0000000001"]), capsys)) == {"head=a": "stopped"}


def test_looking_at_a_lock_neither_takes_nor_changes_it(tmp_path: Path) -> None:
    run = tmp_path / "a-0000000001"
    assert not is_held(run)
    assert not (tmp_path / ".a-0000000001.lock").exists()
    with exclusive(run):
        before = (tmp_path / ".a-0000000001.lock").stat()
        assert is_held(run)
        assert (tmp_path / ".a-0000000001.lock").stat().st_mtime_ns == before.st_mtime_ns
    assert not is_held(run)
    with exclusive(run):  # at once: nobody was left holding it
        pass


def test_the_last_whole_row_is_read_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) == {}
    rows = [json.dumps({**ROW, "step": step, "more": "x" * 1000}) for step in range(1, 3000)]
    path.write_text("\n".join(rows) + '\n{"step": 3000, "loss/he')
    assert last_row(path)["step"] == 2999
    assert len(tail(path)) <= 32_768


def test_a_damaged_config_hides_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "a-0000000001", ROW)
    (run / "config.json").write_text("{")
    row = look(make_sweep(tmp_path, ["a-0000000001"]), capsys)["runs"][0]
    assert (row["step"], row["steps"], row["eta_s"]) == (10, None, None)


def test_runs_of_no_sweep_are_shown_after_the_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a-0000000001", ROW, done=True)
    make_run(tmp_path, "z-0000000009", ROW)
    make_sweep(tmp_path, ["a-0000000001"])
    assert jobs.main([str(tmp_path), "--json"]) == 0
    sweeps = json.loads(capsys.readouterr().out)["sweeps"]
    assert [sweep["name"] for sweep in sweeps] == ["heads", None]
    assert [(row["label"], row["state"]) for row in sweeps[1]["runs"]] == [("z-0000000009", "stopped")]


def test_a_sweep_is_found_by_its_name_its_folder_and_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs"), "a-0000000001", ROW, done=True)
    folder = make_sweep(Path("runs"), ["a-0000000001"])
    for named in ("heads", "heads-0123456789", folder, folder / "sweep.json"):
        assert states(look(Path(named), capsys)) == {"head=a": "done"}
    assert cancel("heads") == 0
    assert capsys.readouterr().out == "nothing to cancel: none of 0 jobs is queued or running\n"
    other = folder.with_name("heads-9876543210")
    shutil.copytree(folder, other)
    assert jobs.main(["heads"]) == 1
    assert f"2 sweeps are called heads: {folder}, {other}; name one of them" in capsys.readouterr().err
    assert jobs.main(["head"]) == 2
    assert "head is no folder; give a sweep" in capsys.readouterr().err


def test_a_live_table_has_the_rows_that_fit_what_runs_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a-0000000001", "b-0000000002", "c-0000000003"]
    for name in names:
        make_run(tmp_path, name, ROW, done=name[0] == "a")
    make_sweep(tmp_path, names)
    with exclusive(tmp_path / names[1]):
        found = look_all(tmp_path, {})
    Console(width=200).print(jobs._view(found, lines=1))
    shown = capsys.readouterr().out
    assert "3 runs (1 running, 1 stopped, 1 done)" in shown
    assert ("head=b" in shown, "head=a" in shown, "head=c" in shown) == (True, False, False)


def test_the_page_lists_the_keys_of_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("1", "teacher-t", kind="teacher")])
    found = look(folder, capsys)
    page = (REPO / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("\n## `ladd jobs`\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert set(found) <= named
    assert set(found["runs"][0]) <= named
    assert set(found["jobs"][0]) <= named


# --- what the logs tell ---

TRACEBACK = """submitit ERROR (2026-11-22 07:08:25,664) - Submitted job triggered an exception
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
    result = delayed.result()
ValueError: distill: loss/heads is nan at step 2; clip harder
srun: error: n1: task 0: Exited with exit code 1
"""


def test_a_failed_job_shows_its_own_error_and_not_sruns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("7_1", "a-0000000001")])
    log = folder / "logs" / "7_1_0_log.err"
    log.write_text(TRACEBACK)
    row = look(folder, capsys)["runs"][0]
    assert row["state"] == "failed"
    assert (row["error"], row["log"]) == ("ValueError: distill: loss/heads is nan at step 2; clip harder", str(log))
    assert jobs.main([str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "clip harder" in shown
    assert str(log) in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("slurmstepd: error: Detected 1 oom-kill event\nsrun: error: n1: task 0: Out Of Memory\n", "failed"),
        ("RuntimeError: stopped by SIGTERM; what is finished is saved: submit again to go on\n", "stopped"),
        ("  File x, in sleep\nKeyboardInterrupt\n", "stopped"),
        ("", "stopped"),
    ],
)  # fmt: skip
def test_a_job_that_was_told_to_end_has_not_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, state: str
) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("7_1", "a-0000000001")])
    (folder / "logs" / "7_1_0_log.err").write_text(text)
    assert states(look(folder, capsys)) == {"head=a": state}


WAITING = "stopped by SIGTERM; what is finished is saved; waiting for the scheduler"
CANCELLED = """srun: Job step aborted: Waiting up to 32 seconds for job step to finish.
slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-22T07:08:25 ***
"""
ENDS = """srun: error: n1: task 0: Terminated
srun: Force Terminated StepId=7.0
"""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"{CANCELLED}{WAITING}\n{ENDS}", WAITING),
        (f"{WAITING}\n{CANCELLED}srun: error: n1: task 0: Killed\n", WAITING),
        (f"{CANCELLED}{ENDS}", "cancelled: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-22T07:08:25 ***"),
        (ENDS, "cancelled; its log ends with: srun: error: n1: task 0: Terminated"),
        (f"{TRACEBACK}{CANCELLED}", "ValueError: distill: loss/heads is nan at step 2; clip harder"),
    ],
)
def test_after_scancel_a_job_shows_its_own_words_or_that_it_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("7_1", "a-0000000001")])
    (folder / "logs" / "7_1_0_log.err").write_text(text)
    known = {"7_1": JobState("7_1", "stopped", "CANCELLED")}
    monkeypatch.setattr(Scheduler, "ask", lambda self, jobs: known)
    row = look(folder, capsys)["runs"][0]
    assert (row["state"], row["error"]) == ("stopped", error)


def test_a_job_that_ran_out_of_memory_after_an_earlier_requeue_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("7_1", "a-0000000001")])
    killed = (
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0. Some of the step tasks have been OOM Killed."
    )
    (folder / "logs" / "7_1_0_log.err").write_text(f"{WAITING}\n{CANCELLED}{killed}\n")
    row = look(folder, capsys)["runs"][0]
    assert (row["state"], row["error"]) == ("failed", killed)


def test_of_several_tasks_the_one_with_a_cause_is_shown(tmp_path: Path) -> None:
    first, second = tmp_path / "1_0_log.err", tmp_path / "1_1_log.err"
    first.write_text("srun: error: n1: task 0: Killed\n")
    second.write_text("error: no room to write x (No space left on device)\n")
    assert last_error([first, second]) == ("error: no room to write x (No space left on device)", second)


def test_a_rank_of_nproc_that_failed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, "a-0000000001", ROW)
    logs = run / "logs" / "20261122T070000Z-1"
    logs.mkdir(parents=True)
    failure = {"rank": 1, "code": 1, "kind": "failure", "message": "bad luck here", "trace": "", "time": 0.0}
    (logs / "rank1.json").write_text(json.dumps({"ladd": failure}))
    row = look(make_sweep(tmp_path, ["a-0000000001"]), capsys)["runs"][0]
    assert (row["state"], row["error"], row["log"]) == ("failed", "rank 1: bad luck here", str(logs / "rank1.err"))


def test_starts_after_the_first_are_requeues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a-0000000001", ROW, done=True)
    folder = make_sweep(tmp_path, ["a-0000000001"], [job("7_1", "a-0000000001")])
    line = "submitit INFO (2026-11-22 07:08:25,660) - Starting with JobEnvironment(job_id=7_1, hostname=vm)\n"
    (folder / "logs" / "7_1_0_log.out").write_text(line * 3)
    (folder / "logs" / "7_1_1_log.out").write_text(line * 3)
    assert look(folder, capsys)["runs"][0]["requeues"] == 2
    assert Logs(folder / "logs").starts("7_9") == 0


def test_a_run_whose_teacher_failed_shows_the_teachers_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [job("1", "teacher-t", kind="teacher"), job("3_0", "a-0000000001")]
    folder = make_sweep(tmp_path, ["a-0000000001"], entries, cache=str(tmp_path / "cache"))
    (folder / "logs" / "1_0_log.err").write_text(TRACEBACK)
    found = look(folder, capsys)
    assert found["jobs"][0]["state"] == "failed"
    assert found["runs"][0]["error"].startswith("needs teacher-t (job 1), which failed: ValueError")
    (tmp_path / "cache" / "teacher-t").mkdir(parents=True)
    (tmp_path / "cache" / "teacher-t" / "done.json").write_text("{}")
    assert look(folder, capsys)["jobs"][0]["state"] == "done"


# --- what SLURM tells; printed by SLURM 22.05 ---

SQUEUE = """\
1_0{}|RUNNING     |2        |None      |n1    |/w/runs/sweeps/heads-0123456789/logs/%A_%a_0_log.out  |
1_1{}|FAILED      |0        |NonZeroExitCode|n1|/w/runs/sweeps/heads-0123456789/logs/%A_%a_0_log.out  |
1_2{}|PENDING     |0        |JobArrayTaskLimit|  |/w/runs/sweeps/heads-0123456789/logs/%A_%a_0_log.out  |
1_3{}|PENDING     |0        |DependencyNeverSatisfied||/w/runs/sweeps/heads-0123456789/logs/%A_%a_0_log.err|
1_4{}|RUNNING     |0        |None      |n2    |/home/another/logs/%A_%a_0_log.err                     |
77 {}|RUNNING     |0        |None      |n2    |/w/runs/sweeps/heads-0123456789/logs/%j_0_log.err      |
""".format(*[" " * 20] * 6)
SACCT = """JobID|State|NodeList
1_[4-5%3]|PENDING|None assigned
1_1|FAILED|n1
1_5|CANCELLED by 0|None assigned
1_6|COMPLETED|n[1-2]
1_7|RUNNING|n1
"""


def test_squeues_answer_is_read_and_jobs_of_others_are_not_ours() -> None:
    found = parse_squeue(SQUEUE, [f"1_{k}" for k in range(5)], Path("/w/runs/sweeps/heads-0123456789/logs"))
    assert {name: seen.state for name, seen in found.items()} == {
        "1_0": "running", "1_1": "failed", "1_2": "queued", "1_3": "failed", "1_4": OTHER,
    }  # fmt: skip
    assert (found["1_0"].node, found["1_0"].requeues, found["1_0"].reason) == ("n1", 2, None)
    assert (found["1_2"].node, found["1_2"].reason) == (None, "JobArrayTaskLimit")


def test_saccts_answer_is_read_by_its_headings() -> None:
    found = parse_sacct(SACCT, ["1_1", "1_5", "1_6", "1_7"])
    assert {name: (seen.state, seen.node) for name, seen in found.items()} == {
        "1_1": ("failed", "n1"), "1_5": ("stopped", None), "1_6": ("ended", "n[1-2]"),
    }  # fmt: skip
    assert parse_sacct("", ["1_1"]) == {}


def test_without_slurm_the_folders_have_to_do_and_nothing_is_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, "a-0000000001", ROW)
    folder = make_sweep(tmp_path, ["a-0000000001", "b-0000000002"],
                        [job("1_0", "a-0000000001", "slurm"), job("1_1", "b-0000000002", "slurm")])  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look(folder, capsys)
    assert states(found) == {"head=a": "stopped", "head=b": "queued"}
    assert "squeue is not on the path" in found["problem"]
    assert cancel(folder) == 1
    assert "nothing was cancelled, squeue is not on the path" in capsys.readouterr().err


CLIENT = """#!/bin/sh
test "$SLURM_CONF" = /the/cluster || { echo "no such cluster" >&2; exit 1; }
echo "$0 $*" >> "$(dirname "$0")/asked"
case $0 in */squeue) echo "1_0|RUNNING|0|None|n3|N/A|";; esac
"""
"""Stands for SLURM's commands where they need a variable to find their cluster."""


def make_client(project: Path, *, profile: str = "slurm/here.py") -> Path:
    """Such commands, and a profile that leads to them."""
    (project / "bin").mkdir(parents=True)
    for name in ("squeue", "scancel"):
        (project / "bin" / name).write_text(CLIENT)
        (project / "bin" / name).chmod(0o755)
    (project / profile).parent.mkdir(parents=True, exist_ok=True)
    client = f'client=(("SLURM_CONF", "/the/cluster"), ("PATH", "{project / "bin"}"))'
    (project / profile).write_text(f"from ladd_dist.cluster import Cluster\nCLUSTER = Cluster({client})\n")
    return project / "bin" / "asked"


def test_the_profile_that_a_sweep_was_sent_with_leads_to_its_slurm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_client(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    folder = make_sweep(Path("runs"), ["a-0000000001"], [job("1_0", "a-0000000001", "slurm")], on="slurm/here.py")
    profiles.keep(folder, Path("slurm/here.py"))  # as this user's submission does
    found = look(folder, capsys)
    assert (found["problem"], found["runs"][0]["state"], found["runs"][0]["node"]) == (None, "running", "n3")
    assert cancel(folder) == 0
    assert asked.read_text().splitlines()[-1].endswith("scancel 1_0")
    assert "SLURM_CONF" not in os.environ
    monkeypatch.chdir(folder)  # where no such profile is: it can be given
    there = str(tmp_path / folder)
    assert jobs.main([there, "--json", "--on", str(tmp_path / "slurm" / "here.py")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sweeps"][0]["counts"] == {"running": 1}


@pytest.mark.parametrize("profile", ["runs/theirs.py", "theirs.py", "slurm/here.py"])
def test_a_profile_that_came_with_the_runs_is_not_run(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = make_client(tmp_path, profile=profile)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    folder = make_sweep(Path("runs"), ["a-0000000001"], [job("1_0", "a-0000000001", "slurm")], on=profile)
    assert f"--on {profile} may lead to it" in look(folder, capsys)["problem"]
    assert cancel(folder) == 1
    assert f"--on {profile} may lead to it" in capsys.readouterr().err
    assert not asked.exists()
    assert jobs.main([str(folder), "--json", "--on", profile]) == 0
    assert json.loads(capsys.readouterr().out)["sweeps"][0]["counts"] == {"running": 1}  # as its commands say


@pytest.mark.parametrize("change", ["replaced", "moved sweep", "other sweep's note", "broken note"])
def test_the_kept_profile_is_that_of_one_folder_and_one_content(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    sweep, other, profile = tmp_path / "runs" / "sweeps" / "a-1", tmp_path / "b-1", tmp_path / "here.py"
    profile.write_text("CLUSTER = 1\n")
    profiles.keep(sweep, profile)
    assert profiles.kept(sweep) == profile
    (note,) = (tmp_path / "state" / "ladd_dist" / "profiles").iterdir()
    if change == "replaced":
        profile.write_text("CLUSTER = 2\n")
    elif change == "moved sweep":
        sweep = other
    elif change == "other sweep's note":
        profiles.keep(other, profile)
        note.write_bytes(next(path for path in note.parent.iterdir() if path != note).read_bytes())
    else:
        note.write_text("[1")
    assert profiles.kept(sweep) is None


def test_a_state_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    (tmp_path / "here.py").write_text("")
    profiles.keep(tmp_path / "sweep", tmp_path / "here.py")
    assert capsys.readouterr().err.startswith(f"warning: `ladd jobs` will need --on {tmp_path / 'here.py'}")
    assert profiles.kept(tmp_path / "sweep") is None


def test_a_profile_that_cannot_be_read_any_more_hides_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_client(tmp_path)
    (tmp_path / "slurm" / "here.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    make_run(Path("runs"), "a-0000000001", ROW)
    folder = make_sweep(Path("runs"), ["a-0000000001"], [job("1_0", "a-0000000001", "slurm")], on="slurm/here.py")
    profiles.keep(folder, Path("slurm/here.py"))
    found = look(folder, capsys)
    assert found["runs"][0]["step"] == 10
    assert found["problem"]


# --- submitit's local executor ---

SUBMIT = """
import os, sys, time
import submitit
executor = submitit.AutoExecutor(sys.argv[1], cluster="local")
executor.update_parameters(timeout_min=5)
ids = [executor.submit(time.sleep, 300).job_id for _ in range(2)]
open(sys.argv[1] + "/ids", "w").write(" ".join(ids))
os._exit(0)  # the jobs go on
"""


@pytest.fixture
def two_local(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A sweep of two runs, each a sleeping job of the local executor."""
    names = ["a-0000000001", "b-0000000002"]
    folder = make_sweep(tmp_path, names)
    # No pipes: the jobs would hold them open.
    subprocess.run([sys.executable, "-c", SUBMIT, str(folder / "logs")], stderr=subprocess.DEVNULL, check=True)
    ids = (folder / "logs" / "ids").read_text().split()
    data = json.loads((folder / "sweep.json").read_text())
    data["jobs"] = [job(id, name, "local") for id, name in zip(ids, names, strict=True)]
    (folder / "sweep.json").write_text(json.dumps(data))
    yield folder, ids
    for process in (process for id in ids for process in controllers(id, folder / "logs")):
        process.send_signal(2)


def test_local_jobs_run_until_they_are_cancelled_one_by_one(
    two_local: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladd_dist.cluster.local.LET_SAVE_S", 0.5)
    folder, ids = two_local
    wait_until(lambda: len(list((folder / "logs").glob("*_0_log.out"))) == 2)
    found = look(folder, capsys)
    assert states(found) == {"head=a": "running", "head=b": "running"}
    assert found["runs"][0]["node"] == os.uname().nodename
    assert cancel(folder, "--run", "head=b") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"cancelled job {ids[1]} (running on {os.uname().nodename}): head=b", "1 cancelled: 1 running",
    ]  # fmt: skip
    assert states(look(folder, capsys)) == {"head=a": "running", "head=b": "stopped"}
    assert cancel(folder) == 0
    assert "1 cancelled: 1 running" in capsys.readouterr().out
    assert cancel(folder) == 0
    assert capsys.readouterr().out == "nothing to cancel: none of 2 jobs is queued or running\n"


def test_a_process_with_the_number_of_a_job_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        folder = make_sweep(tmp_path, ["a-0000000001"], [job(str(other.pid), "a-0000000001", "local")])
        assert cancel(folder) == 0
        assert capsys.readouterr().out.startswith("nothing to cancel")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def wait_until(seen: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


# --- the commands ---


@pytest.mark.alone
def test_a_thousand_runs_are_read_in_two_seconds(tmp_path: Path) -> None:
    names = [f"r-{number:010d}" for number in range(1000)]
    rows = [{**ROW, "step": step} for step in range(200)]
    for name in names:
        make_run(tmp_path, name, *rows)
    folder = make_sweep(tmp_path, names, [job(f"9_{k}", name) for k, name in enumerate(names)])
    for k in range(1000):
        (folder / "logs" / f"9_{k}_0_log.out").write_text("Starting with JobEnvironment(\n" * 2)
        (folder / "logs" / f"9_{k}_0_log.err").write_text(TRACEBACK)
    started = time.process_time()
    (sweep,) = find_sweeps(folder)
    from ladd_dist.cluster.status import describe

    found = describe(sweep, Scheduler(sweep.logs))
    assert time.process_time() - started < 2.0
    assert found.counts == {"failed": 1000}


def test_jobs_waits_for_no_heavy_import() -> None:
    code = "import sys, ladd_dist.jobs; print('torch' in sys.modules or 'submitit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO).stdout == "False\n"


def test_watching_ends_when_nothing_runs_any_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a-0000000001", ROW, done=True)
    assert jobs.main([str(make_sweep(tmp_path, ["a-0000000001"])), "--watch"]) == 0
    assert "1 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gone"], 2, "gone is no folder"),
        (["."], 1, "holds neither a sweep"),
        ([".", "--watch", "--json"], 2, "--watch is for people"),
        ([".", "--run", "head=a"], 2, "--run says whose jobs --cancel ends"),
        ([".", "--cancel", "--json"], 2, "--cancel ends jobs and lists them"),
    ],
)
def test_wrong_words_for_jobs_are_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert jobs.main(words) == code
    assert message in capsys.readouterr().err


def test_wrong_words_for_cancel_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_sweep(tmp_path, ["a-0000000001"])
    assert cancel(folder, "--run", "head=x") == 2
    assert "the sweep has no run 'head=x'; runs: head=a" in capsys.readouterr().err
    assert cancel(tmp_path) == 1
    assert "sweep.json is missing" in capsys.readouterr().err
    (folder / "sweep.json").write_text('{"format": 2}')
    assert cancel(folder) == 1
    assert "has format 2, this version reads 1" in capsys.readouterr().err
