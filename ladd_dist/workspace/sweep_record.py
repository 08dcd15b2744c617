"""`sweep.json`: which runs a sweep has, and which jobs were submitted for them. Written whole after each submission."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.door import decode, read_bytes
from ladd_dist.core.errors import UserError
from ladd_dist.core.names import inside
from ladd_dist.core.run_forms import require_format, require_paths
from ladd_dist.core.rundir import write_json

FORMAT = 1
FOLDER = "sweeps"
"""Under OUT."""
FILE = "sweep.json"
DAMAGED = "end the jobs that it names, and move it away; what the runs have done is kept"


@dataclass(frozen=True)
class JobEntry:
    """One job. `of` is the run's folder relative to OUT, or the name of a folder of the cache."""

    id: str
    kind: str
    """teacher, shards or run."""
    of: str
    submitted: str = ""
    """ISO time, UTC."""
    cluster: str = "slurm"
    """slurm, local or debug."""

    def __post_init__(self) -> None:
        """Refuse a folder that lies elsewhere: the record may come from somebody else.

        Raises:
            UserError: it leads out of OUT or of the cache.
        """
        inside(Path(), self.of, f"{FILE}: `of` of job {self.id}")
        require_paths(self.id, self.of)


@dataclass(frozen=True)
class RunEntry:
    """One run of a sweep."""

    run: str
    """Its folder, relative to OUT."""
    label: str = ""
    """The folder where the file does not say."""
    axes: dict[str, str] = field(default_factory=dict)
    """Axis to the label of the run's value."""
    seed: int | None = None
    signature: str | None = None
    teacher: str = ""
    """Name of the folder of the cache that its teacher lies in."""
    shards: str = ""

    def __post_init__(self) -> None:
        """Refuse a folder that lies elsewhere: the record may come from somebody else.

        Raises:
            UserError: it leads out of OUT or of the cache.
        """
        for name in ("run", "teacher", "shards"):
            if name == "run" or getattr(self, name):  # records of others need not have the shared ones
                inside(Path(), getattr(self, name), f"{FILE}: `{name}` of run {self.label!r}")
        require_paths(self.run, self.teacher, self.shards)
        if not self.label:
            object.__setattr__(self, "label", self.run)


@dataclass
class Record:
    """The content of a sweep.json."""

    name: str = ""
    signature: str = ""
    recipe_path: str = ""
    scale: str = ""
    axes: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    runs: list[RunEntry] = field(default_factory=list)
    on: str = ""
    """The cluster's profile that it was submitted with."""
    cache: str = ""
    """The folder that shared jobs fill; empty where a sweep from elsewhere does not say."""
    jobs: list[JobEntry] = field(default_factory=list)
    """The newest last."""

    def __post_init__(self) -> None:
        require_paths(self.on, self.cache)

    def add(self, id: str, kind: str, of: str, cluster: str) -> None:
        """Enter a job that was just submitted."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.jobs.append(JobEntry(id, kind, of, now, cluster))

    def write(self, folder: Path) -> None:
        """Write it to `folder`, whole or not at all."""
        write_json(folder / FILE, {"format": FORMAT, **asdict(self)})


def read_record(folder: Path) -> Record:
    """The record of a sweep's folder; what it lacks is empty.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{path} is missing; a sweep's folder is OUT/{FOLDER}/NAME-SIGNATURE")
    content = read_bytes(path)
    require_format(content, FORMAT, str(path), DAMAGED)
    return decode(content, Record, str(path), DAMAGED)


class Submitted(NamedTuple):
    """A job of some sweep."""

    job: JobEntry
    logs: Path
    """The folder of that sweep's logs, which tells the sweep's jobs from others with the same number."""


def logs_of(folder: Path) -> Path:
    """The folder of submitit's files and of the jobs' output, of the sweep in `folder`."""
    return folder / "logs"


def jobs_of(out: Path) -> dict[str, list[Submitted]]:
    """Every job of every sweep under `out`, by what it is of; the newest last."""
    found: dict[str, list[Submitted]] = {}
    for path in sorted((out / FOLDER).glob(f"*/{FILE}")):
        for job in read_record(path.parent).jobs:
            found.setdefault(job.of, []).append(Submitted(job, logs_of(path.parent)))
    return {of: sorted(jobs, key=lambda submitted: submitted.job.submitted) for of, jobs in found.items()}
