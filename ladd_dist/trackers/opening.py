"""The logs of a run: `metrics.jsonl`, which resuming and reports read, and beside it the recipe's tracker.

A tracker never stops a run: its first failure is one warning, after which it is left alone and training goes on.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ladd_dist.core.signals import end_of
from ladd_dist.trackers import RunLog, Tracker
from ladd_dist.trackers.jsonl import Jsonl


@contextlib.contextmanager
def run_log(tracker: Tracker, *, folder: Path, config: dict[str, Any], resume_step: int) -> Iterator[RunLog]:
    """Open `metrics.jsonl` and the tracker as one log, and close it at the end; a training that fails is an alert."""
    figures = Jsonl().build(folder=folder, config=config, resume_step=resume_step)
    # After it: a tracker that lacks rows (killed, server down) takes them from metrics.jsonl.
    more = guarded(tracker, folder=folder, config=config, resume_step=resume_step)
    with _closed(Both(figures, more)) as log:
        yield log


@contextlib.contextmanager
def tracker_alone(tracker: Tracker, *, folder: Path, config: dict[str, Any], resume_step: int) -> Iterator[RunLog]:
    """Open the tracker of a run whose training is done, without touching `metrics.jsonl`."""
    with _closed(guarded(tracker, folder=folder, config=config, resume_step=resume_step)) as log:
        yield log


@contextlib.contextmanager
def _closed(log: RunLog) -> Iterator[RunLog]:
    try:
        yield log
    except BaseException as error:
        if isinstance(end_of(error), Exception):
            log.alert(f"{type(error).__name__} in a run", str(error))
        log.close(interrupted=True)
        raise
    log.close()


def guarded(tracker: Tracker, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
    """Open the tracker's log so that it cannot fail; where it cannot be opened, the log does nothing."""
    if isinstance(tracker, Jsonl):
        return RunLog()
    try:
        log = tracker.build(folder=folder, config=config, resume_step=resume_step)
        return Guarded(tracker.name, folder, log)
    except Exception as error:
        warn(tracker.name, folder, error)
        return RunLog()


_told: set[tuple[str, Path]] = set()
"""Trackers and runs that have had their warning: a run opens its tracker for training and again for evaluation."""


def warn(name: str, folder: Path, error: BaseException, advice: str = "") -> None:
    """Print the one warning about a tracker that failed in a run."""
    if (name, folder.absolute()) in _told:
        return
    _told.add((name, folder.absolute()))
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    line = f"warning: tracker {name}: {what}; training goes on, metrics.jsonl has every figure"
    print(f"{line}; {advice}" if advice else line, file=sys.stderr, flush=True)


class Guarded(RunLog):
    """A log around another one, which it leaves alone after its first failure."""

    def __init__(self, name: str, folder: Path, log: RunLog) -> None:
        self.name, self.folder, self.inner = name, folder, log
        self.failed = False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._do(lambda: self.inner.log(step, metrics))

    def picture(self, step: int, name: str, path: Path) -> None:
        self._do(lambda: self.inner.picture(step, name, path))

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        self._do(lambda: self.inner.summary(figures, pictures))

    def features(self, names: Mapping[str, str]) -> None:
        self._do(lambda: self.inner.features(names))

    def alert(self, title: str, text: str) -> None:
        self._do(lambda: self.inner.alert(title, text))

    def close(self, *, interrupted: bool = False) -> None:
        if self.failed:  # told already; what it still holds may yet reach the disk
            with contextlib.suppress(Exception):
                self.inner.close(interrupted=True)
        self._do(lambda: self.inner.close(interrupted=interrupted))

    def _do(self, call: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            call()
        except Exception as error:
            self.failed = True
            warn(self.name, self.folder, error, self.inner.advice())


class Both(RunLog):
    """`metrics.jsonl` and a tracker as one log; failures of the former count, because resuming reads it."""

    def __init__(self, first: RunLog, second: RunLog) -> None:
        self.logs = (first, second)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for log in self.logs:
            log.log(step, metrics)

    def picture(self, step: int, name: str, path: Path) -> None:
        for log in self.logs:
            log.picture(step, name, path)

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        for log in self.logs:
            log.summary(figures, pictures)

    def features(self, names: Mapping[str, str]) -> None:
        for log in self.logs:
            log.features(names)

    def alert(self, title: str, text: str) -> None:
        for log in self.logs:
            log.alert(title, text)

    def close(self, *, interrupted: bool = False) -> None:
        for log in self.logs:
            log.close(interrupted=interrupted)
