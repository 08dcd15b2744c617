"""Tracker that writes TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladd_dist.core.figure_names import FEATURES_OF
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count
from ladd_dist.trackers import RunLog, Tracker


@register("tensorboard")
@dataclass(frozen=True)
class Tensorboard(Tracker):
    """Event files in RUN/tensorboard, for `tensorboard --logdir runs`; needs the package tensorboard."""

    flush_s: Count = 10
    """Seconds after which figures are on the disk."""

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        return TensorboardLog(folder / "tensorboard", resume_step, self.flush_s)


class TensorboardLog(RunLog):
    """An open event file. A resumed run tells TensorBoard to forget the steps that come again."""

    def __init__(self, folder: Path, resume_step: int, flush_s: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        purge = resume_step + 1 if resume_step else None
        self.writer: Any = SummaryWriter(str(folder), purge_step=purge, flush_secs=flush_s)
        self.step = resume_step

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.step = step
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self.writer.add_image(name, np.array(image.convert("RGB")), step, dataformats="HWC")

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, self.step)
        for name, path in pictures.items():
            self.picture(self.step, name, path)

    def features(self, names: Mapping[str, str]) -> None:
        for figure, name in names.items():
            self.writer.add_text(f"{FEATURES_OF}{figure}", name, self.step)

    def alert(self, title: str, text: str) -> None:
        self.writer.add_text("alert", f"**{title}** {text}", self.step)

    def close(self, *, interrupted: bool = False) -> None:
        self.writer.close()
