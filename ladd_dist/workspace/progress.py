"""What the folders of a sweep and its runs tell: how far, how fast, how it ended. Reads little of each and no torch."""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ladd_dist.core.errors import UserError
from ladd_dist.core.failure import read_failure
from ladd_dist.core.method import method_of
from ladd_dist.core.metrics_log import Row, parse_row
from ladd_dist.core.run_forms import RunConfig, read_guard, read_marker, read_run_config
from ladd_dist.reports.json_object import JsonObject, number
from ladd_dist.workspace.last_words import ERROR, last_error, tail
from ladd_dist.workspace.sweep_record import FILE, Record, RunEntry, logs_of, read_record

SWEEPS = Path("runs/sweeps")
"""Where sweeps are when nothing else was said."""
OUTPUT_BYTES = 262_144
T = TypeVar("T")
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
        runs = [RunEntry(name) for name in loose]
        sweeps.append(Sweep(folder.absolute(), folder.absolute(), Record(runs=runs)))
    if not sweeps:
        raise UserError(f"{folder} holds neither a sweep (sweep.json, sweeps/*/sweep.json) nor runs (*/config.json)")
    return sweeps


def found(read: Callable[[Path], T], path: Path) -> T | None:
    """The content of a file, or None: a folder that is being made, or damaged, is not this reader's to complain about.

    Args:
        read: the reader of such files.
    """
    try:
        return read(path) if path.exists() else None
    except (OSError, UserError):
        return None


def is_marked(marker: Path, signature: str | None = None) -> bool:
    """Whether a stage has left its mark, with this signature if it is known."""
    done = found(read_marker, marker)
    return done is not None and (not signature or done.get("signature") == signature)


def last_row(path: Path) -> Row:
    """The last whole row of a metrics file; empty where there is none."""
    return next((row for line in reversed(tail(path).encode().splitlines()) if (row := parse_row(line))), {})


def is_held(run: Path) -> bool:
    """Whether a process holds the run's lock (`exclusive` in core/rundir.py).

    Asked with a shared lock on a file opened for reading, dropped at once: nothing is written, and a run that starts
    in this very moment waits for a twentieth of a second.
    """
    try:
        number = os.open(run.with_name(f".{run.name}.lock"), os.O_RDONLY | os.O_NONBLOCK)
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
    return is_marked(run / "distill.done.json", signature) and (run / "evaluate.done.json").exists()


def progress_of(run: Path) -> Progress:
    """How far the run in a folder is; all None where nothing is known yet."""
    metrics = run / "metrics.jsonl"
    row = last_row(metrics)
    recipe = (found(read_run_config, run / "config.json") or RunConfig()).recipe
    steps = JsonObject(recipe).part("train").whole("steps")
    step, rate = (int(row["step"]) if row else None), number(row, "rate/steps_per_s")
    left = max(steps - step, 0) if steps is not None and step is not None else None
    eta_s = left / rate if left is not None and rate and rate > 0 else None
    return Progress(
        step=step,
        steps=steps,
        steps_per_s=rate,
        eta_s=eta_s if eta_s is not None and math.isfinite(eta_s) else None,
        losses=Losses(*(number(row, f"loss/{name}") for name in ("heads", "adversarial", "distill"))),
        accuracy=number(row, "accuracy"),
        updated=_time_of(metrics),
        method=method_of(recipe),
    )


def guard_of(run: Path) -> GuardSummary | None:
    """What the run's guard says now, by its guard.json; None where no guard has judged yet."""
    told = found(read_guard, run / "guard.json")
    return None if told is None else GuardSummary(told.level, told.since, told.headline, len(told.rollbacks))


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
