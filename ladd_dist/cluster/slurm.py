"""SLURM's own commands, in the environment that leads to the cluster, and what their answers mean."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ladd_dist.core.errors import UserError

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
"""The state of a job that is not this sweep's."""
NEVER = "DependencyNeverSatisfied"
ANSWER_WITHIN_S = 20.0
MOST_IDS = 400
"""A command line has an end."""
SQUEUE_FIELDS = {"id": "JobArrayID:60", "raw": "State:30", "requeues": "RestartCnt:12", "reason": "Reason:120",
                 "node": "NodeList:400", "stdout": "STDOUT:1000"}  # fmt: skip
SACCT_FIELDS = "JobID,State,NodeList"
ENDED_MEANWHILE = ("Invalid job id", "already completing or completed")


@dataclass(frozen=True)
class JobState:
    """What is known of one job."""

    id: str
    state: str
    """One of `STATES`, or `OTHER`."""
    raw: str
    """SLURM's own word."""
    node: str | None = None
    reason: str | None = None
    requeues: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether the job would go on. Queued for ever counts: one whose dependency failed may stay in the queue.

        One that is ending counts too: it may be ending in order to be requeued.
        """
        return self.state in ("running", "queued") or self.raw == "PENDING"


@dataclass(frozen=True)
class Slurm:
    """A client of one cluster."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """That of the commands (`ladd_dist.cluster.client_environment`)."""

    def has(self, command: str) -> bool:
        """Whether the command is on the path there."""
        return shutil.which(command, path=self.environment.get("PATH")) is not None

    def squeue(self, ids: Sequence[str], logs: Path) -> tuple[dict[str, JobState], str]:
        """The jobs that SLURM still knows, ended ones for some minutes; and why it does not answer, else empty."""
        layout = ",".join(f"{field}|" for field in SQUEUE_FIELDS.values())
        found: dict[str, JobState] = {}
        for few in _lots(ids):
            text, error = self._ask(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(few), "-O", layout])
            if error and "Invalid job id" not in error:  # that one: SLURM has forgotten the only id asked for
                return found, f"squeue: {error}"
            found |= parse_squeue(text, few, logs)
        return found, ""

    def sacct(self, ids: Sequence[str]) -> dict[str, JobState]:
        """How jobs ended that squeue has forgotten; nothing where there is no accounting."""
        found: dict[str, JobState] = {}
        for few in _lots(ids) if self.has("sacct") else ():
            found |= parse_sacct(self._ask(["sacct", "-X", "--parsable2", "-o", SACCT_FIELDS, "-j", ",".join(few)])[0],
                                 few)  # fmt: skip
        return found

    def partitions(self) -> list[str]:
        """The cluster's partitions.

        Raises:
            UserError: SLURM does not answer.
        """
        text, error = self._ask(["sinfo", "--noheader", "--format=%R"])
        if error:
            raise UserError(f"SLURM does not answer ({error})")
        return sorted(set(text.split()))

    def scancel(self, ids: Sequence[str]) -> None:
        """End jobs, queued or running; those that have ended meanwhile are none to complain about.

        Raises:
            UserError: there is no scancel, or it refused.
        """
        if not self.has("scancel"):
            raise UserError("scancel is not on the path here; cancel on a machine of the cluster")
        for few in _lots(ids):
            _, error = self._ask(["scancel", *few])
            if error and not any(words in error for words in ENDED_MEANWHILE):
                raise UserError(f"scancel refused: {error}")

    def _ask(self, command: list[str]) -> tuple[str, str]:
        """What the command printed, and why it could not, else empty."""
        program = shutil.which(command[0], path=self.environment.get("PATH")) or command[0]
        line, environment = [program, *command[1:]], dict(self.environment)
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=ANSWER_WITHIN_S, env=environment)
        except (OSError, subprocess.TimeoutExpired) as error:
            return "", f"{command[0]} does not answer ({error})"
        if not done.returncode:
            return done.stdout, ""
        lines = done.stderr.strip().replace(f"{command[0]}: ", "").splitlines()
        return done.stdout, lines[-1] if lines else f"exit code {done.returncode}"


def _lots(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[first : first + MOST_IDS] for first in range(0, len(ids), MOST_IDS))


def parse_squeue(text: str, ids: Iterable[str], logs: Path) -> dict[str, JobState]:
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
            found[row["id"]] = JobState(row["id"], OTHER, raw)
            continue
        state = "failed" if row["reason"] == NEVER else OURS.get(raw, "running")
        reason = None if row["reason"] in ("", "None") else row["reason"]
        requeues = int(row["requeues"]) if row["requeues"].isdigit() else 0
        found[row["id"]] = JobState(row["id"], state, raw, row["node"] or None, reason, requeues)
    return found


def _logs_into(stdout: str, logs: Path) -> bool:
    if not stdout.startswith("/"):  # N/A: not told
        return True
    return f"/{logs.parent.name}/{logs.name}/" in stdout


def parse_sacct(text: str, ids: Iterable[str]) -> dict[str, JobState]:
    """Jobs in what `sacct --parsable2` printed, headings first."""
    wanted, found = set(ids), {}
    lines = text.splitlines()
    headings = lines[0].split("|") if lines else []
    for line in lines[1:]:
        row = dict(zip(headings, line.split("|"), strict=False))
        name, raw = row.get("JobID", ""), (row.get("State") or "?").split()[0]  # "CANCELLED by 0"
        if name in wanted and OURS.get(raw) not in (None, "running", "queued"):  # squeue would know it
            node = row.get("NodeList") or None
            found[name] = JobState(name, OURS[raw], raw, None if node == "None assigned" else node)
    return found
