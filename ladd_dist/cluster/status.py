"""What `ladd jobs --json` prints: each run of a sweep, from its folder, its job and its logs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ladd_dist.cluster.profiles import kept
from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.slurm import JobState
from ladd_dist.workspace.last_words import TOLD, WORSE, is_failure
from ladd_dist.workspace.progress import (
    GuardSummary,
    Logs,
    Losses,
    Sweep,
    error_of_ranks,
    find_sweeps,
    guard_of,
    is_done,
    is_held,
    is_marked,
    progress_of,
)
from ladd_dist.workspace.sweep_record import JobEntry, RunEntry

FORMAT = 1
_WORD = {"failed": "failed", "stopped": "was stopped"}


@dataclass(frozen=True)
class SharedStatus:
    """A job that makes what several runs need."""

    kind: str
    of: str
    job: str
    state: str
    scheduler: str | None
    """The scheduler's own word; None where it does not know the job."""
    reason: str | None
    """Why it waits."""
    node: str | None
    requeues: int
    error: str | None
    """The last line that tells of one."""
    log: str | None
    """The file that this line is in."""


@dataclass(frozen=True)
class RunStatus:
    """A run: what it is, what its job does, how far it is. See `SharedStatus` and `Progress` for the rest."""

    label: str
    axes: dict[str, str]
    seed: int | None
    run: str
    """Its folder."""
    signature: str | None
    state: str
    job: str | None
    """The id of its newest job."""
    scheduler: str | None
    reason: str | None
    node: str | None
    step: int | None
    steps: int | None
    steps_per_s: float | None
    eta_s: float | None
    losses: Losses
    accuracy: float | None
    updated: str | None
    guard: GuardSummary | None
    requeues: int
    error: str | None
    log: str | None
    method: dict[str, str]


@dataclass(frozen=True)
class SweepStatus:
    """A sweep: its shared jobs and its runs; or the runs of no sweep, without a name."""

    name: str | None
    signature: str | None
    folder: str
    problem: str | None
    """Why the scheduler could not be asked."""
    counts: dict[str, int]
    """State to number of runs."""
    jobs: tuple[SharedStatus, ...]
    runs: tuple[RunStatus, ...]


@dataclass(frozen=True)
class Status:
    """All that `--json` prints."""

    format: int
    sweeps: tuple[SweepStatus, ...]


def look(folder: Path, schedulers: dict[Path, Scheduler], on: Path | None = None) -> Status:
    """The state of every sweep in a folder.

    Args:
        schedulers: keeps what jobs that ended were, from one look to the next.
        on: the cluster's profile, in place of the one with which this user sent each sweep.
    """
    described = []
    for sweep in find_sweeps(folder):
        known = schedulers.get(sweep.folder) or scheduler_of(sweep, on)
        described.append(describe(sweep, schedulers.setdefault(sweep.folder, known)))
    return Status(FORMAT, tuple(described))


def scheduler_of(sweep: Sweep, on: Path | None) -> Scheduler:
    """What knows of the sweep's jobs, by the profile given, else by the one with which this user sent the sweep."""
    profile = on or kept(sweep.folder)
    return Scheduler(sweep.logs, profile, unasked="" if profile else sweep.record.on)


def describe(sweep: Sweep, scheduler: Scheduler) -> SweepStatus:
    """One sweep: its shared jobs and its runs."""
    logs, record = Logs(sweep.logs), sweep.record
    newest = {Path(job.of).name: job for job in record.jobs if job.kind == "run"}
    shared = [job for job in record.jobs if job.kind != "run"]
    done = {run.run for run in record.runs if is_done(sweep.out / run.run, run.signature)}
    waited = [newest[name] for run in record.runs if run.run not in done and (name := Path(run.run).name) in newest]
    known = scheduler.ask([*shared, *waited])
    jobs = [_shared(job, known.get(job.id), sweep, logs) for job in shared]
    runs = []
    for run in record.runs:
        job = newest.get(Path(run.run).name)
        row = _row(sweep, run, job, known.get(job.id) if job else None, run.run in done, scheduler.problem, logs)
        runs.append(_blamed(row, run, jobs))
    return SweepStatus(
        name=record.name or None,
        signature=record.signature or None,
        folder=str(sweep.folder),
        problem=scheduler.problem,
        counts=dict(Counter(row.state for row in runs)),
        jobs=tuple(jobs),
        runs=tuple(runs),
    )


def _row(
    sweep: Sweep,
    run: RunEntry,
    job: JobEntry | None,
    known: JobState | None,
    done: bool,
    problem: str | None,
    logs: Logs,
) -> RunStatus:
    folder = sweep.out / run.run
    now = progress_of(folder)
    error = None if done else (logs.error(job.id) if job else error_of_ranks(folder))
    if done:
        state = "done"
    elif is_held(folder):
        state = "running"
    elif job is not None:
        state = _state_of_job(known, error, bool(now.step), problem)
    elif now.step is not None or not sweep.record.name:
        state = "stopped" if error is None else "failed"
    else:
        state = "not submitted"
    shown = _of_cancelled(error, known) if state in ("failed", "stopped") else None
    return RunStatus(
        label=run.label,
        axes=run.axes,
        seed=run.seed,
        run=str(folder),
        signature=run.signature,
        state=state,
        job=job.id if job else None,
        scheduler=known.raw if known else None,
        reason=known.reason if known else None,
        node=known.node if known else None,
        step=now.step,
        steps=now.steps,
        steps_per_s=now.steps_per_s,
        eta_s=now.eta_s if state == "running" else None,
        losses=now.losses,
        accuracy=now.accuracy,
        updated=now.updated,
        guard=guard_of(folder),
        requeues=_requeues(known, logs.starts(job.id) if job else 0),
        error=shown[0] if shown else None,
        log=str(shown[1]) if shown else None,
        method=now.method,
    )


def _of_cancelled(error: tuple[str, Path] | None, known: JobState | None) -> tuple[str, Path] | None:
    """The error; of a cancelled job whose log has nothing but SLURM's own words, that it was cancelled."""
    if error is None or known is None or known.raw != "CANCELLED" or not WORSE.match(error[0]):
        return error
    return f"cancelled; its log ends with: {error[0]}", error[1]


def _requeues(known: JobState | None, starts: int) -> int:
    return max(known.requeues if known else 0, starts - 1, 0)


def _state_of_job(known: JobState | None, error: tuple[str, Path] | None, begun: bool, problem: str | None) -> str:
    """The state of a submitted run that is not done, whose lock nobody holds."""
    if known is not None and known.raw == "COMPLETED":
        return "done"  # with what it was asked for, if not every stage; earlier lives of the job may have left errors
    if known is not None and known.state in ("running", "queued", "stopped"):
        return known.state
    if known is not None and known.state == "failed":
        return "stopped" if known.raw == "FAILED" and error and TOLD.match(error[0]) else "failed"
    if error is None and known is None and not begun and problem:
        return "queued"  # nobody can be asked, and it has left no trace yet
    return "failed" if error and is_failure(error[0]) else "stopped"


def _shared(job: JobEntry, known: JobState | None, sweep: Sweep, logs: Logs) -> SharedStatus:
    error = logs.error(job.id)
    if is_marked((Path(sweep.record.cache) if sweep.record.cache else sweep.out) / job.of / "done.json"):
        state = "done"
    elif known is not None and known.state != "ended":
        state = known.state
    else:  # ended, or forgotten
        failed = error is not None and is_failure(error[0])
        state = "failed" if failed else "done" if known is not None or logs.starts(job.id) else "queued"
    shown = error if state in ("failed", "stopped") else None
    return SharedStatus(
        kind=job.kind,
        of=job.of,
        job=job.id,
        state=state,
        scheduler=known.raw if known else None,
        reason=known.reason if known else None,
        node=known.node if known else None,
        requeues=_requeues(known, logs.starts(job.id)),
        error=shown[0] if shown else None,
        log=str(shown[1]) if shown else None,
    )


def _blamed(row: RunStatus, run: RunEntry, jobs: Sequence[SharedStatus]) -> RunStatus:
    """The row; that of a run that never starts, because what it needs failed, with that job's error.

    SLURM keeps such a job in the queue, or cancels it, as the cluster is set up.
    """
    needed = {Path(run.teacher).name, Path(run.shards).name}
    failed = [job for job in jobs if job.state in ("failed", "stopped") and Path(job.of).name in needed]
    if row.state not in ("failed", "stopped") or row.error is not None or not failed:
        return row
    first = failed[0]
    why = f"needs {first.of} (job {first.job}), which {_WORD[first.state]}: {first.error or 'no output'}"
    return dataclasses.replace(row, error=why, log=first.log)
