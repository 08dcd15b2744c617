"""Kind `tracker`: where the figures of a run go while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ladd_dist.core.plugin import Plugin


class RunLog(Protocol):
    """An open log of one run."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record the metrics of one step (names `group/name`)."""
        ...

    def image(self, step: int, name: str, path: Path) -> None:
        """Record a picture that lies at `path`."""
        ...

    def close(self) -> None: ...


class Tracker(Plugin):
    """Opens a log for a run."""

    kind = "tracker"

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        """Open the log in `folder`; entries after `resume_step` (left by a run that was killed) are dropped."""
        raise NotImplementedError
