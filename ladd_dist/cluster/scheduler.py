"""What SLURM, or submitit's local executor, says about jobs: states in one question for all of them, and their end."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.cluster.local import controllers
from ladd_dist.core.errors import UserError
from ladd_dist.core.serialize import RecipeError
from ladd_dist.workspace.sweep_record import JobEntry

STATES = {
    "running": "RUNNING COMPLETING CONFIGURING SIGNALING STAGE_OUT RESIZING SUSPENDED STOPPED",
    "queued": "PENDING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT RESV_DEL_HOLD",
    "failed": "FAILED NODE_FAIL BOOT_FAIL OUT_OF_MEMORY LAUNCH_FAILED RECONFIG_FAIL DEADLINE TIMEOUT",
    "stopped": "CANCELLED PREEMPTED REVOKED",
    "ended": "COMPLETED FINISHED",
}
"""Our word for each of SLURM's; `ended` says nothing about what was reached."""
OURS = {theirs: ours for ours, words in STATES.items() for theirs in words.split()}
OTHER = "other"
"""Of a job that is not this sweep's."""
NEVER = "DependencyNeverSatisfied"
ANSWER_WITHIN_S = 20.0
SACCT_EVERY_S = 30.0
MOST_IDS = 400
"""A command line has an end."""
SQUEUE_FIELDS = {"id": "JobArrayID:60", "raw": "State:30", "requeues": "RestartCnt:12", "reason": "Reason:120",
                 "node": "NodeList:400", "stdout": "STDOUT:1000"}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What is known of one job."""

    id: str
    state: str
    raw: str
    node: str | None = None
    reason: str | None = None
    requeues: int = 0


class Scheduler:
    """Asks about the jobs of one sweep. What has ended is remembered, so that a live table asks once."""

    def __init__(self, logs: Path, on: Path | None = None) -> None:
        self.logs = logs
        self.on = on
        """The cluster's profile, read when SLURM is first asked."""
        self.ended: dict[str, Seen] = {}
        self.problem: str | None = None
        self._asked_sacct = -SACCT_EVERY_S

    def ask(self, jobs: Iterable[dict[str, Any]]) -> dict[str, Seen]:
        """Job id -> what is known; jobs that nobody remembers are absent."""
        self.problem = None
        wanted = {str(job["id"]): str(job.get("cluster", "slurm")) for job in jobs}
        found = {name: self.ended[name] for name in wanted if name in self.ended}
        found |= {name: local(name, self.logs) for name, cluster in wanted.items() if cluster == "local"}
        asked = [name for name, cluster in wanted.items() if cluster == "slurm" and name not in found]
        for few in (asked[first : first + MOST_IDS] for first in range(0, len(asked), MOST_IDS)):
            found |= self._squeue(few)
        unknown = [name for name in asked if name not in found]
        if unknown and time.monotonic() - self._asked_sacct >= SACCT_EVERY_S and self._has("sacct"):
            self._asked_sacct = time.monotonic()
            for few in (unknown[first : first + MOST_IDS] for first in range(0, len(unknown), MOST_IDS)):
                command = ["sacct", "-X", "--parsable2", "-o", SACCT, "-j", ",".join(few)]
                found |= parse_sacct(_output(command, self.environment)[0], few)
        over = ("failed", "stopped", "ended")
        self.ended |= {name: seen for name, seen in found.items() if seen.state in over and wanted[name] == "slurm"}
        return {name: seen for name, seen in found.items() if seen.state != OTHER}

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """That of SLURM's commands."""
        if self.on is None:
            return dict(os.environ)
        from ladd_dist.cluster import client_environment, load_cluster

        try:
            return client_environment(load_cluster(self.on))
        except RecipeError as error:
            self.problem = str(error)
            return dict(os.environ)

    def _has(self, command: str) -> bool:
        return shutil.which(command, path=self.environment.get("PATH")) is not None

    def _squeue(self, ids: Sequence[str]) -> dict[str, Seen]:
        if not self._has("squeue"):
            self.problem = (
                "squeue is not on the path here (--on PROFILE may lead to it): states are those that the "
                "run folders show"
            )
            return {}
        layout = ",".join(f"{field}|" for field in SQUEUE_FIELDS.values())
        text, error = _output(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(ids), "-O", layout], self.environment)
        if error and "Invalid job id" not in error:  # that one: SLURM has forgotten the only id asked for
            self.problem = f"squeue: {error}"
        return parse_squeue(text, ids, self.logs)


SACCT = "JobID,State,NodeList"


def profile_of(recorded: str, out: Path) -> Path | None:
    """The profile that a sweep.json names, if it is one of this folder, where the command is called, and not of OUT.

    A profile is a program: files that came with somebody's runs must not choose one.
    """
    path, here = Path(recorded).resolve(), Path.cwd().resolve()
    own = bool(recorded) and path.is_file() and path.is_relative_to(here) and not path.is_relative_to(out.resolve())
    return Path(recorded) if own else None


def _output(command: list[str], environment: Mapping[str, str]) -> tuple[str, str]:
    """stdout, and why there is none."""
    program = shutil.which(command[0], path=environment.get("PATH")) or command[0]
    line = [program, *command[1:]]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=ANSWER_WITHIN_S, env=dict(environment))
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{command[0]} does not answer ({error})"
    error_lines = done.stderr.strip().replace(f"{command[0]}: ", "").splitlines()
    return done.stdout, (error_lines[-1] if error_lines else f"exit code {done.returncode}") if done.returncode else ""


def parse_squeue(text: str, ids: Iterable[str], logs: Path) -> dict[str, Seen]:
    """Jobs in what `squeue -O` printed (see SQUEUE_FIELDS).

    Numbers are given out anew when SLURM's state is lost or they run out: a job that does not log into `logs` is not
    ours, whatever its number.
    """
    wanted, found = set(ids), {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) <= len(SQUEUE_FIELDS):
            continue
        row = dict(zip(SQUEUE_FIELDS, cells, strict=False))
        if row["id"] not in wanted:
            continue
        raw = row["raw"].split()[0]
        if not _logs_into(row["stdout"], logs):
            found[row["id"]] = Seen(row["id"], OTHER, raw)
            continue
        state = "failed" if row["reason"] == NEVER else OURS.get(raw, "running")
        reason = None if row["reason"] in ("", "None") else row["reason"]
        requeues = int(row["requeues"]) if row["requeues"].isdigit() else 0
        found[row["id"]] = Seen(row["id"], state, raw, row["node"] or None, reason, requeues)
    return found


def _logs_into(stdout: str, logs: Path) -> bool:
    if not stdout.startswith("/"):  # N/A: not told
        return True
    return f"/{logs.parent.name}/{logs.name}/" in stdout


def parse_sacct(text: str, ids: Iterable[str]) -> dict[str, Seen]:
    """Jobs in what `sacct --parsable2` printed, headings first."""
    wanted, found = set(ids), {}
    lines = text.splitlines()
    headings = lines[0].split("|") if lines else []
    for line in lines[1:]:
        row = dict(zip(headings, line.split("|"), strict=False))
        name, raw = row.get("JobID", ""), (row.get("State") or "?").split()[0]  # "CANCELLED by 0"
        if name in wanted and OURS.get(raw) not in (None, "running", "queued"):  # squeue would know it
            node = row.get("NodeList") or None
            found[name] = Seen(name, OURS[raw], raw, None if node == "None assigned" else node)
    return found


def local(name: str, logs: Path) -> Seen:
    """A job of the local executor."""
    if controllers(name, logs):
        return Seen(name, "running", "RUNNING", os.uname().nodename)
    return Seen(name, "ended", "FINISHED", os.uname().nodename)


def scancel(ids: Sequence[str], environment: Mapping[str, str]) -> None:
    """End SLURM jobs, queued or running.

    Raises:
        UserError: there is no scancel, or it refused.
    """
    if not shutil.which("scancel", path=environment.get("PATH")):
        raise UserError("scancel is not on the path here; cancel on a machine of the cluster")
    for few in (ids[first : first + MOST_IDS] for first in range(0, len(ids), MOST_IDS)):
        _, error = _output(["scancel", *few], environment)
        if error:
            raise UserError(f"scancel refused: {error}")


ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


def active_ids(jobs: Iterable[JobEntry]) -> set[str]:
    """The ids of those that wait or run.

    Raises:
        UserError: SLURM does not answer; to guess would submit runs twice.
    """
    jobs = list(jobs)
    active = {job.id for job in jobs if job.cluster == "local" and _is_controller(job.id)}
    ids = {job.id for job in jobs if job.cluster == "slurm"}
    return active | (ids & _queued() if ids else set())


def _queued() -> set[str]:
    if shutil.which("squeue") is None:
        raise UserError(
            "no `squeue` on the path: jobs of this sweep may be waiting or running; ask where they were sent from"
        )
    command = ["squeue", "--noheader", "--array", "--format=%i|%T"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if found.returncode != 0:
        raise UserError(f"SLURM does not answer, and jobs of this sweep may be running: {found.stderr.strip()}")
    pairs = (line.strip().split("|") for line in found.stdout.splitlines() if "|" in line)
    return {id for id, state in pairs if state not in ENDED}


def _is_controller(pid: str) -> bool:
    """Whether a process of this machine is the one that submitit started for a job (not one that got its number)."""
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        pass
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return False
    return not Path("/proc/self").exists()  # no /proc on this system: the number has to do
