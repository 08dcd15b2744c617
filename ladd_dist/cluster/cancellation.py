"""Ends the jobs of a sweep, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ladd_dist.cluster.scheduler import Scheduler
from ladd_dist.cluster.slurm import JobState
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.progress import Sweep
from ladd_dist.workspace.sweep_record import JobEntry


@dataclass(frozen=True)
class Cancelled:
    """A job that was ended."""

    id: str
    what: str
    """The label of its run, or the folder that it was to fill."""
    state: str
    """What it was doing: running, queued, ending."""
    node: str | None


def cancel(jobs: Sequence[JobEntry], sweep: Sweep, scheduler: Scheduler) -> list[Cancelled]:
    """End those of the sweep's jobs that run or wait.

    Raises:
        UserError: the scheduler cannot be asked, or refuses; nothing was cancelled.
    """
    known = scheduler.ask(jobs)
    if scheduler.problem:
        raise UserError(f"nothing was cancelled, {scheduler.problem}; cancel on a machine of the cluster")
    alive = {job.id: job for job in jobs if job.id in known and known[job.id].is_alive}
    scheduler.cancel(list(alive.values()))
    labels = {Path(run.run).name: run.label for run in sweep.record.runs}
    return [
        Cancelled(job.id, labels.get(Path(job.of).name, job.of), _word(known[job.id]), known[job.id].node)
        for job in alive.values()
    ]


def _word(known: JobState) -> str:
    return "ending" if known.raw == "COMPLETING" else "queued" if known.raw == "PENDING" else known.state


def chosen(sweep: Sweep, labels: Sequence[str]) -> list[JobEntry]:
    """The sweep's jobs, or those of some of its runs.

    Raises:
        RecipeError: no run has such a label.
    """
    if not labels:
        return list(sweep.record.jobs)
    runs = {run.label: Path(run.run).name for run in sweep.record.runs}
    unknown = [label for label in labels if label not in runs]
    if unknown:
        few = list(runs)[:20]
        more = f", ... ({len(runs)} in all)" if len(runs) > len(few) else ""
        raise RecipeError(f"--run: the sweep has no run {unknown[0]!r}; runs: {one_line(', '.join(few))}{more}")
    wanted = {runs[label] for label in labels}
    return [job for job in sweep.record.jobs if job.kind == "run" and Path(job.of).name in wanted]
