"""The jobs of one sweep, on SLURM or of submitit's local executor: what they are doing, and their end."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ladd_dist.cluster.local import controllers, end_local
from ladd_dist.cluster.slurm import OTHER, JobState, Slurm
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.sweep_record import JobEntry

SACCT_EVERY_S = 30.0


class Scheduler:
    """Asks about the jobs of one sweep, and ends them. What has ended is remembered: a live table asks once.

    Args:
        logs: the folder that the sweep's jobs log into.
        on: the cluster's profile, read when SLURM is first asked; or the environment of SLURM's commands.
    """

    def __init__(self, logs: Path, on: Path | Mapping[str, str] | None = None) -> None:
        self.logs = logs
        self.on = on
        self.ended: dict[str, JobState] = {}
        self.problem: str | None = None
        """Why SLURM could not be asked, the last time."""
        self._asked_sacct = -SACCT_EVERY_S

    @functools.cached_property
    def slurm(self) -> Slurm:
        """The client of the cluster."""
        if not isinstance(self.on, Path):
            return Slurm() if self.on is None else Slurm(self.on)
        from ladd_dist.cluster import client_environment, load_cluster

        try:
            return Slurm(client_environment(load_cluster(self.on)))
        except RecipeError as error:
            self.problem = str(error)
            return Slurm()

    def ask(self, jobs: Iterable[JobEntry]) -> dict[str, JobState]:
        """Job id -> what is known; jobs that nobody remembers are absent. See `problem` for why."""
        self.problem = None
        wanted = {job.id: job.cluster for job in jobs}
        found = {name: self.ended[name] for name in wanted if name in self.ended}
        found |= {name: self._local(name) for name, cluster in wanted.items() if cluster == "local"}
        asked = [name for name, cluster in wanted.items() if cluster == "slurm" and name not in found]
        if asked:
            found |= self._squeue(asked)
        unknown = [name for name in asked if name not in found]
        if unknown and time.monotonic() - self._asked_sacct >= SACCT_EVERY_S and self.slurm.has("sacct"):
            self._asked_sacct = time.monotonic()
            found |= self.slurm.sacct(unknown)
        over = ("failed", "stopped", "ended")
        self.ended |= {name: state for name, state in found.items() if state.state in over and wanted[name] == "slurm"}
        return {name: state for name, state in found.items() if state.state != OTHER}

    def alive(self, jobs: Iterable[JobEntry]) -> set[str]:
        """The ids of those that wait or run.

        Raises:
            UserError: SLURM does not answer; to guess would submit runs twice.
        """
        jobs = list(jobs)
        local = {job.id for job in jobs if job.cluster == "local" and self._local(job.id).is_alive}
        ids = [job.id for job in jobs if job.cluster == "slurm"]
        if not ids:
            return local
        slurm, self.problem = self.slurm, None  # a profile that cannot be read leaves SLURM's commands to be tried
        if not slurm.has("squeue"):
            raise UserError(
                "no `squeue` on the path: jobs of this sweep may be waiting or running; ask where they were sent from"
            )
        found, problem = slurm.squeue(ids, self.logs)
        if problem:
            raise UserError(f"SLURM does not answer, and jobs of this sweep may be running: {problem}")
        return local | {name for name, state in found.items() if state.state != OTHER and state.is_alive}

    def cancel(self, jobs: Sequence[JobEntry]) -> None:
        """End jobs that wait or run.

        Raises:
            UserError: SLURM refuses.
        """
        on_slurm = [job.id for job in jobs if job.cluster == "slurm"]
        if on_slurm:
            self.slurm.scancel(on_slurm)
        end_local([job.id for job in jobs if job.cluster != "slurm"], self.logs)

    def _squeue(self, ids: Sequence[str]) -> dict[str, JobState]:
        if not self.slurm.has("squeue"):
            self.problem = (
                "squeue is not on the path here (--on PROFILE may lead to it): states are those that the run folders "
                "show"
            )
            return {}
        found, problem = self.slurm.squeue(ids, self.logs)
        self.problem = problem or self.problem
        return found

    def _local(self, name: str) -> JobState:
        """A job of the local executor."""
        if controllers(name, self.logs):
            return JobState(name, "running", "RUNNING", os.uname().nodename)
        return JobState(name, "ended", "FINISHED", os.uname().nodename)


def profile_of(recorded: str, out: Path) -> Path | None:
    """The profile that a sweep.json names, if it is one of this folder, where the command is called, and not of OUT.

    A profile is a program: files that came with somebody's runs must not choose one.
    """
    path, here = Path(recorded).resolve(), Path.cwd().resolve()
    own = bool(recorded) and path.is_file() and path.is_relative_to(here) and not path.is_relative_to(out.resolve())
    return Path(recorded) if own else None
