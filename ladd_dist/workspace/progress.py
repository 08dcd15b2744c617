"""What the folders of a sweep and its runs tell: how far, how fast, how it ended. Reads little of each and no torch."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.errors import UserError
from ladd_dist.core.failure import read_failure
from ladd_dist.core.method import method_of
from ladd_dist.workspace.last_words import ERROR, last_error, tail
from ladd_dist.workspace.sweep_record import FILE, Record, RunEntry, logs_of, read_record

SWEEPS = Path("runs/sweeps")
"""Where sweeps are when nothing else was said."""
OUTPUT_BYTES = 262_144
STARTED = "Starting with JobEnvironment("


@dataclass(frozen=True)
class Sweep:
    """A sweep's record and where it lies; or a folder of runs that belong to none, whose record has no name."""

    folder: Path
    out: Path
    """The folder that the runs lie in."""
    record: Record

    @property
    def logs(self) -> Path:
        """The folder of the jobs' output."""
        return logs_of(self.folder)


@dataclass(frozen=True)
class Losses:
    """The newest of each loss; None where there is none yet."""

    heads: float | None
    adversarial: float | None
    distill: float | None


@dataclass(frozen=True)
class Progress:
    """How far a run is, from the newest row of its metrics and the recipe in its config.json."""

    step: int | None
    steps: int | None
    """Those that the recipe asks for."""
    steps_per_s: float | None
    eta_s: float | None
    """Seconds until its last step, at this speed."""
    losses: Losses
    accuracy: float | None
    updated: str | None
    """ISO time, UTC, of the newest row."""
    method: dict[str, str]
    """Names of head, taps, start, adversarial and distance by field; empty where nothing is known yet."""


@dataclass(frozen=True)
class GuardSummary:
    """What a run's guard says now."""

    level: str | None
    since: int | None
    headline: str | None
    rollbacks: int


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder.

    Raises:
        UserError: no sweep.json, or not one that this version reads.
    """
    record, folder = read_record(folder), folder.absolute()
    return Sweep(folder, folder.parent.parent, record)


def folder_of(named: Path) -> Path:
    """The folder that is meant: a path, a sweep.json in it, or a sweep under runs/sweeps by its name.

    Raises:
        UserError: several sweeps have the name.
    """
    if named.name == FILE and named.is_file():
        return named.parent
    if named.exists() or len(named.parts) != 1:
        return named
    there = [path.parent for path in sorted(SWEEPS.glob(f"*/{FILE}"))]
    found = [path for path in there if named.name in (path.name, path.name.rpartition("-")[0])]
    if len(found) > 1:
        raise UserError(f"{len(found)} sweeps are called {named}: {', '.join(map(str, found))}; name one of them")
    return found[0] if found else named


def find_sweeps(folder: Path) -> list[Sweep]:
    """The sweep in `folder`, or those below OUT, and then OUT's runs that belong to none.

    Raises:
        UserError: nothing of that kind is there.
    """
    if (folder / FILE).exists():
        return [read_sweep(folder)]
    sweeps = [read_sweep(path.parent) for path in sorted(folder.glob(f"sweeps/*/{FILE}"))]
    known = {Path(run.run).name for sweep in sweeps for run in sweep.record.runs}
    loose = [path.parent.name for path in sorted(folder.glob("*/config.json")) if path.parent.name not in known]
    if loose:
        runs = [RunEntry(label=name, axes={}, seed=None, run=name, signature=None) for name in loose]
        sweeps.append(Sweep(folder.absolute(), folder.absolute(), Record("", "", runs=runs)))
    if not sweeps:
        raise UserError(f"{folder} holds neither a sweep (sweep.json, sweeps/*/sweep.json) nor runs (*/config.json)")
    return sweeps


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None: a folder that is being made, or damaged, is not this reader's to complain about."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a metrics file; empty where there is none."""
    for line in reversed(tail(path).splitlines()):
        try:
            row = json.loads(line)
        except ValueError:  # half written
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            return row
    return {}


def is_held(run: Path) -> bool:
    """Whether a process holds the run's lock (`exclusive` in core/rundir.py).

    Asked with a shared lock on a file opened for reading, dropped at once: nothing is written, and a run that starts
    in this very moment waits for a twentieth of a second.
    """
    try:
        number = os.open(run.with_name(f".{run.name}.lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(number)
    return False


def is_done(run: Path, signature: str | None) -> bool:
    """Whether the run is distilled and evaluated, with this signature if it is known."""
    distilled = read_object(run / "distill.done.json")
    if distilled is None or (signature and distilled.get("signature") != signature):
        return False
    return (run / "evaluate.done.json").exists()


def progress_of(run: Path) -> Progress:
    """How far the run in a folder is; all None where nothing is known yet."""
    metrics = run / "metrics.jsonl"
    row = last_row(metrics)
    recipe = (read_object(run / "config.json") or {}).get("recipe") or {}
    steps = (recipe.get("train") or {}).get("steps")
    step, rate = row.get("step"), row.get("rate/steps_per_s")
    left = steps - step if isinstance(steps, int) and step is not None else None
    return Progress(
        step=step,
        steps=steps,
        steps_per_s=rate,
        eta_s=left / rate if left is not None and rate else None,
        losses=Losses(*(row.get(f"loss/{name}") for name in ("heads", "adversarial", "distill"))),
        accuracy=row.get("accuracy"),
        updated=_time_of(metrics),
        method=method_of(recipe),
    )


def guard_of(run: Path) -> GuardSummary | None:
    """What the run's guard says now, by its guard.json; None where no guard has judged yet."""
    told = read_object(run / "guard.json")
    if told is None:
        return None
    return GuardSummary(told.get("level"), told.get("since"), told.get("headline"), len(told.get("rollbacks") or ()))


def _time_of(path: Path) -> str | None:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime))
    except OSError:
        return None


class Logs:
    """submitit's logs of a sweep, by job; the folder is listed once."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, list[Path]] = defaultdict(list)
        names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208  # names alone: there are thousands
        for name in names:
            job, _, rest = name.rpartition("_log.")[0].rpartition("_")
            if job and rest.isdigit():
                self.files[job].append(folder / name)

    def starts(self, job: str) -> int:
        """How often the job's first task has started."""
        first = [path for path in self.files.get(job, ()) if path.name == f"{job}_0_log.out"]
        return tail(first[0], OUTPUT_BYTES).count(STARTED) if first else 0

    def error(self, job: str) -> tuple[str, Path] | None:
        """The last error line of a job and the log it is in; the job's last words where nothing looks like one."""
        return last_error([path for path in self.files.get(job, ()) if path.suffix == ".err"])


def error_of_ranks(run: Path) -> tuple[str, Path] | None:
    """How a rank of the newest `--nproc` launch failed, by what it wrote down, else by its stderr."""
    folders = sorted(path for path in (run / "logs").glob("*") if path.is_dir()) if (run / "logs").is_dir() else []
    if not folders:
        return None
    for path in sorted(folders[-1].glob("rank*.json")):
        failure = read_failure(path)
        if failure is not None and failure.kind == "failure":
            text = failure.message or failure.trace.strip().rpartition("\n")[2]
            return f"rank {failure.rank}: {text.splitlines()[0] if text else failure.code}", path.with_suffix(".err")
    found = last_error(sorted(folders[-1].glob("rank*.err")))
    return found if found and ERROR.match(found[0]) else None
