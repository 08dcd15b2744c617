"""What `ladd jobs --json` prints: each run of a sweep, from its folder, its job and its logs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ladd_dist.cluster.scheduler import Scheduler, Seen, profile_of
from ladd_dist.workspace.progress import (
    TOLD,
    Logs,
    Sweep,
    error_of_ranks,
    figures,
    find_sweeps,
    guard_of,
    is_done,
    is_failure,
    is_held,
    read_object,
)

FORMAT = 1
_WORD = {"failed": "failed", "stopped": "was stopped"}


def look(folder: Path, schedulers: dict[Path, Scheduler], on: Path | None = None) -> dict[str, Any]:
    """All that `--json` prints.

    Args:
        schedulers: keeps what jobs that ended were, from one look to the next.
        on: the cluster's profile, in place of the one that each sweep was sent with.
    """
    described = []
    for sweep in find_sweeps(folder):
        known = schedulers.get(sweep.folder) or Scheduler(sweep.logs, on or profile_of(sweep.on, sweep.out))
        scheduler = schedulers.setdefault(sweep.folder, known)
        described.append(describe(sweep, scheduler))
    return {"format": FORMAT, "sweeps": described}


def describe(sweep: Sweep, scheduler: Scheduler) -> dict[str, Any]:
    """One sweep: its shared jobs and its runs."""
    logs = Logs(sweep.logs)
    newest = {Path(job["of"]).name: job for job in sweep.jobs if job["kind"] == "run"}
    shared = [job for job in sweep.jobs if job["kind"] != "run"]
    done = {run["run"] for run in sweep.runs if is_done(sweep.out / run["run"], run.get("signature"))}
    waited = [
        newest[name] for run in sweep.runs if run["run"] not in done and (name := Path(run["run"]).name) in newest
    ]
    seen = scheduler.ask([*shared, *waited])
    jobs = [_shared(job, seen.get(str(job["id"])), sweep, logs) for job in shared]
    runs = []
    for run in sweep.runs:
        job = newest.get(Path(run["run"]).name)
        known = seen.get(str(job["id"])) if job else None
        runs.append(_row(sweep, run, job, known, run["run"] in done, scheduler, logs))
    for run, row in zip(sweep.runs, runs, strict=True):
        _blame(row, run, jobs)
    return {
        "name": sweep.name,
        "signature": sweep.signature,
        "folder": str(sweep.folder),
        "problem": scheduler.problem,
        "counts": dict(Counter(row["state"] for row in runs)),
        "jobs": jobs,
        "runs": runs,
    }


def _row(
    sweep: Sweep,
    run: dict[str, Any],
    job: dict[str, Any] | None,
    seen: Seen | None,
    done: bool,
    scheduler: Scheduler,
    logs: Logs,
) -> dict[str, Any]:
    folder = sweep.out / run["run"]
    now = figures(folder)
    error = None if done else (logs.error(str(job["id"])) if job else error_of_ranks(folder))
    if done:
        state = "done"
    elif is_held(folder):
        state = "running"
    elif job is not None:
        state = _state_of_job(seen, error, bool(now["step"]), scheduler.problem)
    elif now["step"] is not None or sweep.name is None:
        state = "stopped" if error is None else "failed"
    else:
        state = "not submitted"
    starts = logs.starts(str(job["id"])) if job else 0
    shown = error if state in ("failed", "stopped") else None
    return {
        "label": run.get("label", run["run"]),
        "axes": run.get("axes", {}),
        "seed": run.get("seed"),
        "run": str(folder),
        "signature": run.get("signature"),
        "state": state,
        "job": str(job["id"]) if job else None,
        "scheduler": seen.raw if seen else None,
        "reason": seen.reason if seen else None,
        "node": seen.node if seen else None,
        **now,
        "eta_s": now["eta_s"] if state == "running" else None,
        "guard": guard_of(folder),
        "requeues": max(seen.requeues if seen else 0, starts - 1, 0),
        "error": shown[0] if shown else None,
        "log": str(shown[1]) if shown else None,
    }


def _state_of_job(seen: Seen | None, error: tuple[str, Path] | None, begun: bool, problem: str | None) -> str:
    """The state of a submitted run that is not done, whose lock nobody holds."""
    if seen is not None and seen.raw == "COMPLETED":
        return "done"  # with what it was asked for, if not every stage; earlier lives of the job may have left errors
    if seen is not None and seen.state in ("running", "queued", "stopped"):
        return seen.state
    if seen is not None and seen.state == "failed":
        return "stopped" if seen.raw == "FAILED" and error and TOLD.match(error[0]) else "failed"
    if error is None and seen is None and not begun and problem:
        return "queued"  # nobody can be asked, and it has left no trace yet
    return "failed" if error and is_failure(error[0]) else "stopped"


def _shared(job: dict[str, Any], seen: Seen | None, sweep: Sweep, logs: Logs) -> dict[str, Any]:
    """A job that makes what several runs need."""
    name = str(job["id"])
    error = logs.error(name)
    if read_object((sweep.cache or sweep.out) / job["of"] / "done.json") is not None:
        state = "done"
    elif seen is not None and seen.state != "ended":
        state = seen.state
    else:  # ended, or forgotten
        failed = error is not None and is_failure(error[0])
        state = "failed" if failed else "done" if seen is not None or logs.starts(name) else "queued"
    shown = error if state in ("failed", "stopped") else None
    return {
        "kind": job["kind"],
        "of": job["of"],
        "job": name,
        "state": state,
        "scheduler": seen.raw if seen else None,
        "reason": seen.reason if seen else None,
        "node": seen.node if seen else None,
        "requeues": max(seen.requeues if seen else 0, logs.starts(name) - 1, 0),
        "error": shown[0] if shown else None,
        "log": str(shown[1]) if shown else None,
    }


def _blame(row: dict[str, Any], run: dict[str, Any], jobs: list[dict[str, Any]]) -> None:
    """A run that never starts, because what it needs failed, shows that job's error.

    SLURM keeps such a job in the queue, or cancels it, as the cluster is set up.
    """
    needed = {Path(str(run.get(kind))).name for kind in ("teacher", "shards")}
    failed = [job for job in jobs if job["state"] in ("failed", "stopped") and Path(job["of"]).name in needed]
    if row["state"] in ("failed", "stopped") and row["error"] is None and failed:
        first = failed[0]
        row["error"] = (
            f"needs {first['of']} (job {first['job']}), which {_WORD[first['state']]}: {first['error'] or 'no output'}"
        )
        row["log"] = first["log"]
