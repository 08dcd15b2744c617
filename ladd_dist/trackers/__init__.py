"""Kind `tracker`: where the figures of a run go while it trains, besides `metrics.jsonl`, which every run writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladd_dist.core.plugin import Plugin


class RunLog:
    """An open log of one run. Every method of this base does nothing: override those that your log has a place for."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record the metrics of one step (names `group/name`)."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """Record a picture that lies at `path`."""

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        """Record what the finished run came to: figures (`eval/SAMPLER/NAME`) and pictures."""

    def features(self, names: Mapping[str, str]) -> None:
        """Record the name of the features that each figure of the summary was measured in, by the figure's NAME."""

    def alert(self, title: str, text: str) -> None:
        """Tell whoever watches the run that something is wrong."""

    def close(self, *, interrupted: bool = False) -> None:
        """Close the log, in which everything is recorded now; `interrupted`: the run will go on later."""

    def advice(self) -> str:
        """A sentence to print beside a failure: where the data are, and how to bring them over later."""
        return ""


class Tracker(Plugin):
    """Plug-in that opens a log for a run."""

    kind = "tracker"

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        """Open the log of the run in `folder`.

        Args:
            config: what the run's config.json says (`recipe`, `signature`, ...), and `seed`, `sweep`, `axes`.
            resume_step: entries after this step were left by a run that was killed, and come again.
        """
        raise NotImplementedError
