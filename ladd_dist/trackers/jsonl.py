"""`metrics.jsonl`: one JSON object a logged step, always on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.plugin import register
from ladd_dist.core.rundir import write_bytes
from ladd_dist.trackers import RunLog, Tracker


@register("jsonl")
@dataclass(frozen=True)
class Jsonl(Tracker):
    """RUN/metrics.jsonl alone, which every run writes whatever its tracker; flushed at each logged step."""

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        return JsonlLog(folder / "metrics.jsonl", resume_step)


class JsonlLog(RunLog):
    """The open metrics.jsonl, without entries after `resume_step` and without a half-written last line."""

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [row for row in read_rows(path)[0] if row["step"] <= resume_step]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()

    def close(self, *, interrupted: bool = False) -> None:
        self._file.close()
