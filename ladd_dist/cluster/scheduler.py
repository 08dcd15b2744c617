"""The jobs of one sweep, on SLURM or of submitit's local executor: what they are doing, and their end."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote

from ladd_dist.cluster.local import controllers, end_local
from ladd_dist.cluster.slurm import OTHER, JobState, Slurm
from ladd_dist.core.consent import SHOWN_CHARS
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.sweep_record import JobEntry

SACCT_EVERY_S = 30.0


class Scheduler:
    """Asks about the jobs of one sweep, and ends them. What has ended is remembered: a live table asks once.

    Args:
        logs: the folder that the sweep's jobs log into.
        on: the cluster's profile, read when SLURM is first asked; or the environment of SLURM's commands.
        unasked: a profile that the sweep names and nobody asked for, which a message then offers.
    """

    def __init__(self, logs: Path, on: Path | Mapping[str, str] | None = None, unasked: str = "") -> None:
        self.logs = logs
        self.on = on
        self.unasked = unasked
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
                f"squeue is not on the path here ({self._hint()}): states are those that the run folders show"
            )
            return {}
        found, problem = self.slurm.squeue(ids, self.logs)
        if problem:
            self.problem = f"{problem} ({self._hint()})" if self.unasked else problem
        return found

    def _hint(self) -> str:
        if not self.unasked:
            return "--on PROFILE may lead to it"
        plain = self.unasked.isprintable() and len(self.unasked) <= SHOWN_CHARS
        shown = quote(self.unasked) if plain else "FILE"
        return f"--on {shown} may lead to it: the profile that the sweep names is a program, run only if you ask"

    def _local(self, name: str) -> JobState:
        """A job of the local executor."""
        if controllers(name, self.logs):
            return JobState(name, "running", "RUNNING", os.uname().nodename)
        return JobState(name, "ended", "FINISHED", os.uname().nodename)
