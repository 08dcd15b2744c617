"""The commands as real processes, and what tests look at when they have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prepared import PREPARED

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / "recipes" / "exp4_specnorm.py"
TIMEOUT_S = 240.0
LAUNCH = (sys.executable, "-m", "ladd_dist.launch")


@dataclass(frozen=True)
class Done:
    """What a finished command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def run(self) -> Path:
        """The run folder: the last line printed."""
        return Path(self.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """The variables of a command: one thread, and lines that are not broken."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Running:
    """A command in the background, its output in files so that a test can wait for words in it."""

    def __init__(self, command: list[str], cwd: Path, limit: Callable[[], None] | None) -> None:
        self.out, self.err = cwd / "stdout.txt", cwd / "stderr.txt"

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell leaves it ignored
            if limit is not None:
                limit()

        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(),
                preexec_fn=prepare,
            )

    def wait(self) -> Done:
        """Wait for the end."""
        try:
            code = self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
        return Done(code, self.out.read_text(encoding="utf-8"), self.err.read_text(encoding="utf-8"))

    def wait_until(self, seen: Callable[[], bool]) -> None:
        """Wait for something that the command does; fails when it ends before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not seen():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(f"ended too early: {self.out.read_text()} {self.err.read_text()}")
            time.sleep(0.002)

    def send(self, number: signal.Signals) -> Done:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait()


class Ladd:
    """Runs `launch` at smoke scale in a folder of its own, with a cache that may be shared."""

    def __init__(self, cwd: Path, cache: Path) -> None:
        self.cwd, self.cache, self.runs = cwd, cache, cwd / "runs"

    def words(self, *args: object) -> list[str]:
        """The command line of `launch`."""
        return [str(word) for word in (RECIPE, "--scale", "smoke", "--out", self.runs, "--cache", self.cache, *args)]

    def start(self, *args: object, limit: Callable[[], None] | None = None) -> Running:
        """Start it in the background; `limit` runs in the child before the command."""
        return Running([*LAUNCH, *self.words(*args)], self.cwd, limit)

    def __call__(self, *args: object, code: int = 0, limit: Callable[[], None] | None = None) -> Done:
        """Run it to its end and expect an exit code; never a traceback."""
        done = self.to_its_end(*args) if limit is None else self.start(*args, limit=limit).wait()
        assert done.code == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def to_its_end(self, *args: object) -> Done:
        """Run it where nothing disturbs it: its imports are done already."""
        out, err = self.cwd / "stdout.txt", self.cwd / "stderr.txt"
        words = (LAUNCH[-1], *self.words(*args))
        [code] = PREPARED.run(words, cwd=self.cwd, out=out, err=err, environments=[environment()])
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def run_command(*words: object, cwd: Path) -> Done:
    """Run any command to its end."""
    return Running([str(word) for word in words], cwd, None).wait()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, float]]:
    """Whole rows of a metrics.jsonl that may be growing; none when it is not there yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def without_rates(path: Path) -> list[dict[str, float]]:
    """Rows without what depends on the clock."""
    return [{name: value for name, value in row.items() if not name.startswith("rate/")} for row in rows(path)]


def half_written(*folders: Path) -> list[Path]:
    """Temporary files and folders that something left."""
    return [path for folder in folders for path in folder.rglob(".tmp-*")]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file below."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def error_of(done: Done) -> str:
    """The one message of a failed command."""
    assert done.stderr.count("error:") + done.stderr.count("stopped:") == 1, done.stderr
    return done.stderr[max(done.stderr.rfind("error:"), done.stderr.rfind("stopped:")) :].strip()
