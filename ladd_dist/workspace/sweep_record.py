"""`sweep.json`: which runs a sweep has, and which jobs were submitted for them. Written whole after each submission."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import read_json, write_json

FORMAT = 1
FOLDER = "sweeps"
"""Under OUT."""
DAMAGED = "; end the jobs that it names, and move it away; what the runs have done is kept"


@dataclass(frozen=True)
class JobEntry:
    """One job. `of` is the run's folder relative to OUT, or the name of a folder of the cache."""

    id: str
    kind: str
    """teacher, shards or run."""
    of: str
    submitted: str
    """ISO time, UTC."""
    cluster: str
    """slurm, local or debug."""


@dataclass
class Record:
    """The content of a sweep.json."""

    name: str
    signature: str
    recipe_path: str
    scale: str
    axes: dict[str, list[str]]
    seeds: list[int]
    runs: list[dict[str, Any]]
    """`label`, `axes`, `seed`, `run` (folder relative to OUT), `signature`, and the shared `teacher`, `shards`."""
    on: str = ""
    """The cluster's profile."""
    cache: str = ""
    jobs: list[JobEntry] = field(default_factory=list)
    """The newest last."""

    def add(self, id: str, kind: str, of: str, cluster: str) -> None:
        """Enter a job that was just submitted."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.jobs.append(JobEntry(id, kind, of, now, cluster))

    def write(self, folder: Path) -> None:
        """Write it to `folder`, whole or not at all."""
        write_json(folder / "sweep.json", {"format": FORMAT, **asdict(self)})


def read_record(folder: Path) -> Record:
    """The record of a sweep's folder.

    Raises:
        UserError: it is missing, damaged, or of another version.
    """
    path = folder / "sweep.json"
    try:
        data = read_json(path)
    except ValueError as error:  # its own advice, to delete the file, would forget jobs that run
        cause = f"is not valid JSON ({error.__cause__})" if path.exists() else "is missing"
        raise UserError(f"{path} {cause}{DAMAGED if path.exists() else ''}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else data
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT}: use the version that wrote it")
    known = {name: data[name] for name in Record.__dataclass_fields__ if name in data}
    try:
        return Record(**{**known, "jobs": [JobEntry(**job) for job in known.get("jobs", [])]})
    except TypeError as error:
        raise UserError(f"{path} is damaged ({error}){DAMAGED}") from error


def jobs_of(out: Path) -> dict[str, list[JobEntry]]:
    """Every job of every sweep under `out`, by what it is of; the newest last."""
    entries: dict[str, list[JobEntry]] = {}
    for path in sorted((out / FOLDER).glob("*/sweep.json")):
        for job in read_record(path.parent).jobs:
            entries.setdefault(job.of, []).append(job)
    return {of: sorted(jobs, key=lambda job: job.submitted) for of, jobs in entries.items()}
