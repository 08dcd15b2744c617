"""Runs of a benchmark: ordinary launches, two at a time with one thread each, kept one by one in a JSON file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro

from ladd_dist.core.checkout import DIRTY, current_commit
from ladd_dist.core.rundir import write_bytes

RATE = 100e9
"""FLOP/s of one core in the laptop network: 16 updates a second of 6.2 GFLOP."""
BESIDES_S = 30.0
"""Seconds of a run besides its updates: imports, checks, five evaluations of finished samples."""
Kept = dict[str, Any]
"""What is kept of a run."""


@dataclass(frozen=True)
class RunOptions:
    """Where a benchmark's runs lie, and how they are made."""

    scale: str = "laptop"
    out: Path = Path("runs")
    cache: Path = Path("cache")
    jobs: int = 2
    """Runs at a time; the machine's cores are shared among them."""
    again: bool = False
    """Measure also what is kept already."""
    show: bool = False
    """Run nothing; show what is kept."""
    dirty: bool = False
    """Keep runs of code that differs from its commit too; without this flag they are neither kept nor shown."""
    write: Path | None = None
    """A Markdown page: what stands between its markers is replaced."""
    more: Annotated[tuple[str, ...], tyro.conf.Suppress] = ()
    """Further flags of every launch, which change no result: one that does makes the run stale."""


Chosen = TypeVar("Chosen", bound=RunOptions)


def read_options(kind: type[Chosen]) -> Chosen:
    """The options of a command; flags that it does not know go to every launch, like `--train.compute.graph`."""
    options, more = tyro.cli(kind, return_unknown_args=True)
    return replace(options, more=tuple(more))


class Store:
    """A JSON file of runs by key. Several threads may add to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()

    def read(self) -> dict[str, Kept]:
        """All that is kept."""
        found: dict[str, Kept] = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return found

    def keep(self, key: str, found: Kept) -> None:
        """Add a run, in place of an earlier one with this key."""
        with self.lock:
            stored = self.read() | {key: found}
            ordered = {name: stored[name] for name in sorted(stored)}
            write_bytes(self.path, (json.dumps(ordered, indent=1) + "\n").encode())


class Launched(NamedTuple):
    """A finished launch."""

    folder: Path
    config: dict[str, Any]
    evaluation: dict[str, dict[str, Any]]
    seconds: float
    """Seconds of training and evaluation, over all launches of this run; teacher and shards are shared and do not
    count."""


class Failed(Exception):
    """A run that ended with an error; the others go on."""


def launch(options: RunOptions, arguments: Sequence[str]) -> Launched:
    """One run, as anybody would start it; one that was cut goes on from its checkpoint.

    Raises:
        Failed: it ended with an error, or is of code that differs from its commit.
    """
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    where = ["--scale", options.scale, "--out", str(options.out), "--cache", str(options.cache)]
    command = [sys.executable, "-m", "ladd_dist.launch", *arguments, *options.more, *where]
    command += ["--threads", threads, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": threads})
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    folder = Path(result["run"])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if commit_of(config).endswith(DIRTY) and not options.dirty:
        raise Failed(f"{folder} is of {commit_of(config)}: commit the code, delete this folder and start again")
    timings = json.loads((folder / "timings.json").read_text(encoding="utf-8"))
    seconds = timings.get("distill", 0.0) + timings.get("evaluate", 0.0)
    return Launched(folder, config, result["eval"] or {}, round(seconds, 1))


def commit_of(config: Mapping[str, Any]) -> str:
    """The commit of the code that made a run's figures."""
    return str(config["environment"]["commit"])


def require_clean(options: RunOptions) -> None:
    """Refuse to begin with code that differs from its commit: nobody could make such runs again.

    Raises:
        SystemExit: it differs, and `--dirty` was not given.
    """
    if current_commit().endswith(DIRTY) and not options.dirty:
        raise SystemExit("the checkout has uncommitted changes in code: commit them, or give --dirty to run anyway")


def device_of(config: Mapping[str, Any]) -> str:
    """The device that a run trained on: `cpu`, or the name of a GPU."""
    return str(config["environment"]["device"])


def expected_s(kept: Sequence[Kept], others: Sequence[Kept], updates: int) -> float:
    """Seconds that a run of so many updates will take on a CPU: as its row's kept runs did, else by its FLOPs.

    Args:
        kept: runs of the same row, of earlier recipes too.
        others: runs of all rows, whose median of FLOPs stands in where the row has none.
    """
    on_cpu = [run for run in kept if run.get("device", "cpu") == "cpu"]
    same = [run["seconds"] for run in on_cpu if run.get("updates") == updates and "seconds" in run]
    if same:
        return statistics.fmean(same)
    flops = [run["flops_a_step"] for run in kept or others if "flops_a_step" in run]
    return BESIDES_S + updates * (statistics.median(flops) if flops else 6.2e9) / RATE


def run_all(
    jobs: int, seconds: Mapping[str, float], one: Callable[[str], Kept], keep: Callable[[str, Kept], None]
) -> list[str]:
    """Make runs, so many at a time, and keep each as soon as it is there; returns the messages of those that failed.

    Args:
        seconds: key of each run -> seconds that it is expected to take; the estimate for all is printed first.
        one: makes the run of a key.
    """
    left, lock, failures = dict(seconds), threading.Lock(), list[str]()
    if seconds:
        say(
            f"{len(seconds)} runs, {jobs} at a time: about {duration(total_s(left, jobs))}, without teachers and shards"
        )

    def make(key: str) -> None:
        started = time.monotonic()
        try:
            keep(key, one(key))
            how = ""
        except Failed as failure:
            failures.append(f"{key}: {failure}")
            how = ", failed"
        with lock:
            del left[key]
            place, rest = len(seconds) - len(left), duration(total_s(left, jobs))
            say(f"[{place}/{len(seconds)}] {key}: {duration(time.monotonic() - started)}{how}; about {rest} to go")

    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(make, seconds):
            pass
    return failures


def total_s(seconds: Mapping[str, float], jobs: int) -> float:
    """Seconds until all runs are made, `jobs` at a time."""
    return max(sum(seconds.values()) / jobs, max(seconds.values(), default=0.0))


def duration(seconds: float) -> str:
    """Seconds in words."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def put_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers `<!-- NAME -->` and `<!-- /NAME -->` of a page.

    Raises:
        SystemExit: the page lacks a marker.
    """
    first, last = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    before, found, tail = page.read_text(encoding="utf-8").partition(first)
    _, also, after = tail.partition(last)
    if not (found and also):
        raise SystemExit(f"{page} lacks the markers <!-- {name} --> and <!-- /{name} -->")
    page.write_text(f"{before}{first}{text}{last}{after}", encoding="utf-8")
