"""Our commands in a folder of their own, and what the tests of clusters look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prepared import PREPARED

REPO = Path(__file__).resolve().parents[2]

SWEEP = """
import dataclasses, os, time
from ladd_dist.core.plugin import register
from ladd_dist.schedules import Schedule
from ladd_dist.recipe import Axis, Grid, Points, Random, Range, Sweep
from recipes._base import BASE
from tests.distributed.distill_worker import SmoothHead


@register("paced")
@dataclasses.dataclass(frozen=True)
class Paced(Schedule):
    \"\"\"Always 1, after PACE_S seconds: a run that is long enough to be disturbed, and computes little.\"\"\"

    def __call__(self, step: int) -> float:
        time.sleep(float(os.environ.get("PACE_S", "0")))
        return 1.0


@register("smooth")
@dataclasses.dataclass(frozen=True)
class Smooth(SmoothHead):
    \"\"\"A head without a kink, for comparisons to the last digits.\"\"\"


SMOKE = dataclasses.replace(
    BASE.smoke,
    name="small",
    teacher=dataclasses.replace(BASE.smoke.teacher, steps=10),
    distill_weight=Paced(),
    train=dataclasses.replace(BASE.smoke.train, steps={steps}, log_every=1, checkpoint_every={every}, dump_every=1000),
)
SWEEP = Sweep("small", SMOKE, {rest})
RECIPE = SMOKE
"""
PROFILE = """
from ladd_dist.cluster import Cluster
CLUSTER = Cluster({fields})
"""
ENVIRONMENT = 'environment=(("GLOO_SOCKET_IFNAME", "lo"), ("OMP_NUM_THREADS", "1"))'
STAGES = ("--stages", "teacher,shards,distill")


def paced(seconds: float) -> str:
    """The field of a profile whose runs take that long a step, and more."""
    return f'{ENVIRONMENT[:-1]}, ("PACE_S", "{seconds}"))'


@dataclass
class Bench:
    """Commands in a folder of their own, with what they need to reach the cluster."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    shared: Path | None = None
    """A cache that others use too; by default it is in the folder."""

    @property
    def cache(self) -> Path:
        """The folder of teachers and shards."""
        return self.shared or self.folder / "cache"

    def beside(self, name: str) -> Bench:
        """Another one, with runs of its own and the same cache."""
        folder = self.folder / name
        folder.mkdir()
        return Bench(folder, self.variables, self.cache)

    def sweep_file(self, rest: str, *, steps: int = 6, every: int = 5) -> Path:
        """A sweep of small runs; `rest` is what follows name and base."""
        path = self.folder / "small.py"
        path.write_text(SWEEP.format(steps=steps, every=every, rest=rest), encoding="utf-8")
        return path

    def profile(self, fields: str) -> Path:
        """A cluster's profile."""
        path = self.folder / "profile.py"
        path.write_text(PROFILE.format(fields=fields), encoding="utf-8")
        return path

    def __call__(
        self, command: str, *words: object, code: int = 0, places: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one of our commands to its end and expect an exit code; never a traceback.

        Args:
            places: say with --out and --cache where everything lies.
        """
        out = ["--out", self.folder / "runs", "--cache", self.cache] if places else []
        line = [str(word) for word in (sys.executable, "-m", f"ladd_dist.{command}", *words, *out)]
        environment = {**os.environ, **self.variables, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        with tempfile.TemporaryDirectory() as folder:
            out_file, err_file = Path(folder, "out"), Path(folder, "err")
            [ended] = PREPARED.run(line[2:], cwd=REPO, out=out_file, err=err_file, environments=[environment])
            done = subprocess.CompletedProcess(line, ended, out_file.read_text(), err_file.read_text())
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def send(self, *words: object, command: str = "sweep", code: int = 0) -> dict[str, Any]:
        """Submit; returns what --json prints."""
        done = self(command, *words, "--scale", "smoke", "--json", code=code)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def slurm(self, *words: object) -> str:
        """One of SLURM's own commands."""
        environment = {**os.environ, **self.variables}
        line = [str(word) for word in words]
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout

    def job(self, id: str) -> dict[str, str]:
        """What SLURM knows of a job, by its own names."""
        words = self.slurm("scontrol", "-o", "show", "job", id).split()
        return dict(word.partition("=")[::2] for word in words)

    def wait(self, ids: list[str], seconds: float = 240.0) -> dict[str, str]:
        """Until these jobs have ended; returns their states."""
        deadline = time.monotonic() + seconds
        while True:
            states = {id: self.job(id)["JobState"] for id in ids}
            if not {"PENDING", "RUNNING", "COMPLETING", "REQUEUED"} & set(states.values()):
                return states
            assert time.monotonic() < deadline, (states, self.slurm("squeue"), self.errors())
            time.sleep(0.5)

    def restarts(self, id: str) -> int:
        """How often a job was requeued."""
        return int(self.job(id)["Restarts"])

    def undisturbed(self, file: Path, *words: str) -> list[dict[str, float]]:
        """The trace of the same run by one process, here and at full speed."""
        other = self.beside(f"undisturbed-{'-'.join(words)}".rstrip("-"))
        done = other("launch", file, *STAGES, "--scale", "smoke", "--json", *words)
        return other.rows(Path(json.loads(done.stdout)["run"]))

    def errors(self) -> str:
        """The end of what the jobs wrote to stderr."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}"
            for path in sorted((self.folder / "runs" / "sweeps").glob("*/logs/*.err"))
        )

    def rows(self, run: Path) -> list[dict[str, float]]:
        """Whole rows of metrics.jsonl, without what depends on the clock."""
        path = run / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("\n")]
        return [{key: value for key, value in row.items() if not key.startswith(("rate/", "time"))} for row in rows]

    def wait_until(self, seen: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait for something that a job does."""
        deadline = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < deadline, (self.slurm("squeue") if self.variables else "", self.errors())
            time.sleep(0.05)
