"""Samples of the compared runs for the page: one row of each from the same noise, and their whole grids."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladd_dist.comparison.result import Comparison, Row
from ladd_dist.comparison.runs import Run
from ladd_dist.comparison.variants import Variant, differing
from ladd_dist.reports.grids import GROUND, grid_row, grid_rows
from ladd_dist.reports.html import data_uri
from ladd_dist.reports.table import entry_title

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_GRIDS = 12
"""Variants whose samples the page holds, best first."""
MAX_GRID_BYTES = 1_500_000


class Picture(NamedTuple):
    """Samples inside the page: a variant's or the teacher's name, which run and when, and the PNG."""

    label: str
    note: str
    uri: str


class Pictures(NamedTuple):
    """Rows from the same noise below each other, the teacher's first, and the grids they are from."""

    rows: list[Picture]
    grids: list[Picture]
    same_noise: bool
    """Whether all runs sample the same held-out noises and classes."""


class Chosen(NamedTuple):
    """The run that stands for a variant, and its last grid."""

    variant: Variant
    run: Run
    path: Path

    @property
    def is_finished(self) -> bool:
        return self.path.stem == "final"


def pictures(result: Comparison) -> Pictures:
    """The samples of each of the best variants, of a seed that all share where there is one.

    A run that is not finished has a grid from its training alone, whose noise is not the held-out one.
    """
    chosen = _chosen(result.rows)
    own: list[tuple[str, str, Image]] = []
    teachers: dict[tuple[object, ...], tuple[str, str, Image]] = {}
    for item in chosen:
        if not item.is_finished or (strip := grid_row(item.path, result.sampler)) is None:
            continue
        own.append((item.variant.label, _note(item), strip))
        many = next((row for row in grid_rows(item.path) if row.startswith("teacher@")), "")
        if (strip := grid_row(item.path, many)) is not None:
            teachers.setdefault(_teacher(item.variant), (entry_title(many), item.variant.label, strip))
    theirs = [(title, f"of {label}" if len(teachers) > 1 else "", strip) for title, label, strip in teachers.values()]
    return Pictures(
        _aligned([*theirs, *own]) if own else [],
        [
            Picture(item.variant.label, _note(item), data_uri(item.path))
            for item in chosen
            if item.path.stat().st_size <= MAX_GRID_BYTES
        ],
        not any(_decides_noise(path) for path in differing([row.variant.fields for row in result.rows])),
    )


def _teacher(variant: Variant) -> tuple[object, ...]:
    """The fields on which the teacher's samples depend; equal for two variants that share them."""
    parts = ("dataset", "network", "teacher", "codec", "shards")
    fields = sorted((path, value) for path, value in variant.fields.items() if path.split(".")[0] in parts)
    return (*fields, variant.fields.get("evaluate.seed"))


def _decides_noise(path: str) -> bool:
    return path.split(".")[0] in ("dataset", "codec") or path == "evaluate.seed"


def _chosen(rows: Sequence[Row]) -> list[Chosen]:
    """A run with a grid for each of the best variants, a finished one where there is any."""
    found = []
    for row in rows:
        runs = [Chosen(row.variant, run, path) for run in row.variant.runs if (path := _grid(run.folder))]
        if runs:
            found.append([item for item in runs if item.is_finished] or runs)
    seeds = [{item.run.seed for item in runs} for runs in found[:MAX_GRIDS]]
    common = min(set.intersection(*seeds), default=None) if seeds else None
    return [next((item for item in runs if item.run.seed == common), runs[0]) for runs in found[:MAX_GRIDS]]


def _grid(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    final = folder / "samples" / "final.png"
    return final if final.exists() else max(folder.glob("samples/step-[0-9]*.png"), key=_step, default=None)


def _step(path: Path) -> int:
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def _note(item: Chosen) -> str:
    when = "finished" if item.is_finished else f"after {_step(item.path)} steps"
    return f"seed {item.run.seed}, {when}"


def _aligned(strips: Sequence[tuple[str, str, Image]]) -> list[Picture]:
    """The strips as pictures of one width: what is drawn ends at the right, labels of any length are left of it."""
    from PIL import Image

    width = max(strip.width for _, _, strip in strips)
    made = []
    for label, note, strip in strips:
        canvas = Image.new("RGB", (width, strip.height), GROUND)
        canvas.paste(strip, (width - strip.width, 0))
        buffer = io.BytesIO()
        canvas.save(buffer, format="PNG")
        made.append(Picture(label, note, data_uri(buffer.getvalue())))
    return made
