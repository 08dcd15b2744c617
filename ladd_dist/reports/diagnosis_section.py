"""The section of a run's page that shows its diagnosis, from files of the run's folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import RunDir, read_json
from ladd_dist.reports.diagnosis_text import (
    COLUMNS,
    MEANINGS,
    REMEMBERS,
    Optimum,
    Suggestion,
    headline,
    level_rows,
    sample_rows,
)
from ladd_dist.reports.heatmap import HeatMap, heat_maps, ramp
from ladd_dist.reports.html import data_uri
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.run_files import Figures, Metrics


class PredictionView(NamedTuple):
    """The prediction of what the distance alone would do, as tables and a picture."""

    headline: str
    num_pairs: int
    columns: tuple[str, ...]
    levels: list[tuple[str, ...]]
    header: tuple[str, ...]
    samples: list[tuple[str, ...]]
    meanings: str
    advice: list[Suggestion]
    picture: str | None


class StripsView(NamedTuple):
    """The picture of when samples are decided, and a row of cells for each sampler."""

    picture: str
    rows: list[list[str]]


class AttentionView(NamedTuple):
    """The picture of what the heads look at, a row of cells for each head and level, and the area of the ink."""

    picture: str
    rows: list[list[str]]
    area: str | None


class Section(NamedTuple):
    """The values of `diagnosis_section.html`; a view whose files are missing or damaged is None."""

    prediction: PredictionView | None
    strips: StripsView | None
    attention: AttentionView | None
    heat: list[HeatMap]
    ramp: str


def section(run: RunDir, metrics: Metrics, evaluation: Figures) -> Section:
    """Read what `ladd diagnose` and the stage `report` left in a run's folder."""
    return Section(_prediction(run, evaluation), _strips(run), _attention(run), heat_maps(metrics), ramp())


def _read(path: Path, *needed: str) -> JsonObject | None:
    try:
        found: object = read_json(path)
    except UserError:
        return None
    return JsonObject(found) if isinstance(found, dict) and all(key in found for key in needed) else None


def _uri(path: Path) -> str | None:
    return data_uri(path) if path.exists() else None


def _prediction(run: RunDir, evaluation: Figures) -> PredictionView | None:
    data = _read(run.path / "diagnose.json", "levels", "samples", "advice", "deterministic")
    if data is None:
        return None
    optimum = Optimum.of(data)
    header, rows = sample_rows(optimum, evaluation)
    return PredictionView(
        headline=headline(optimum),
        num_pairs=optimum.num_pairs,
        columns=COLUMNS,
        levels=level_rows(optimum),
        header=header,
        samples=rows,
        meanings=MEANINGS + (f" {REMEMBERS}" if optimum.deterministic else ""),
        advice=optimum.advice,
        picture=_uri(run.path / "diagnose.png"),
    )


def _strips(run: RunDir) -> StripsView | None:
    found = _read(run.samples / "strips.json", "samplers")
    picture = _uri(run.samples / "strips.png")
    if found is None or picture is None:
        return None
    return StripsView(picture, [_strip_row(name, row) for name, row in found.part("samplers").parts().items()])


def _strip_row(name: str, row: JsonObject) -> list[str]:
    cells = [name]
    for key in ("class", "hue"):
        step, sigma = row.part(key).number("step"), row.part(key).number("sigma")
        cells.append("-" if step is None else f"step {step:g} of {len(row.numbers('sigmas'))}, level {sigma:.3g}")
    agrees = row.part("agrees")
    return cells + ["-" if (share := agrees.number(key)) is None else f"{share:.2f}" for key in ("class", "hue")]


def _attention(run: RunDir) -> AttentionView | None:
    found = _read(run.samples / "attention.json", "heads")
    picture = _uri(run.samples / "attention.png")
    if found is None or picture is None:
        return None
    heads = found.listed("heads")
    rows = []
    for head in heads:
        logits = [f"{head.number(key) or 0.0:.2f}" for key in ("logit_real", "logit_fake")]
        ink = head.number("on_ink")
        rows.append([head.text("tap"), f"{head.number('tau') or 0.0:g}", *logits, "-" if ink is None else f"{ink:.0%}"])
    area = heads[0].number("ink_area") if heads else None
    return AttentionView(picture, rows, None if area is None else f"{area:.0%}")
