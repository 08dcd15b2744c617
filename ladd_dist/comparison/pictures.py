"""Samples of the compared runs for the page: one row of each from the same noise, and their whole grids."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ladd_dist.comparison.result import Comparison, Row
from ladd_dist.comparison.runs import Run
from ladd_dist.comparison.variants import differing
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


def pictures(result: Comparison) -> Pictures:
    """The samples of each of the best variants, of a seed that all share where there is one."""
    chosen = _chosen(result.rows)
    strips: list[tuple[str, str, Image]] = []
    teachers: dict[bytes, tuple[str, Image]] = {}
    for label, run, path in chosen:
        many = next((row for row in grid_rows(path) if row.startswith("teacher")), None)
        if many and (strip := grid_row(path, many)):
            teachers.setdefault(strip.tobytes(), (many, strip))
        own = grid_row(path, result.sampler if path.stem == "final" else "student")
        if own:
            strips.append((label, _note(run, path), own))
    of_teacher = [(_teacher(entry), "", strip) for entry, strip in teachers.values()]
    alike = differing([row.variant.fields for row in result.rows])
    return Pictures(
        _aligned([*of_teacher, *strips]) if strips else [],
        [
            Picture(label, _note(run, path), data_uri(path))
            for label, run, path in chosen
            if path.stat().st_size <= MAX_GRID_BYTES
        ],
        not any(path.split(".")[0] == "dataset" or path == "evaluate.seed" for path in alike),
    )


def _chosen(rows: Sequence[Row]) -> list[tuple[str, Run, Path]]:
    """A run with a grid for each of the best variants."""
    shown = [row for row in rows if any(_grid(run.folder) for run in row.variant.runs)][:MAX_GRIDS]
    seeds = [{run.seed for run in row.variant.runs if _grid(run.folder)} for row in shown]
    common = min(set.intersection(*seeds), default=None) if seeds else None
    found = []
    for row in shown:
        runs = [(run, path) for run in row.variant.runs if (path := _grid(run.folder))]
        run, path = next((item for item in runs if item[0].seed == common), runs[0])
        found.append((row.variant.label, run, path))
    return found


def _grid(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    final = folder / "samples" / "final.png"
    return final if final.exists() else max(folder.glob("samples/step-*.png"), default=None)


def _note(run: Run, path: Path) -> str:
    when = "finished" if path.stem == "final" else f"after {int(path.stem.partition('-')[2])} steps"
    return f"seed {run.seed}, {when}"


def _teacher(entry: str) -> str:
    return entry_title(entry) if "@" in entry else "Teacher"


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
