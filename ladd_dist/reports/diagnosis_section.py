"""What the page of a run shows of its diagnosis: reads the files of the run folder only."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladd_dist.core.rundir import RunDir, read_json
from ladd_dist.reports.diagnosis_text import COLUMNS, MEANINGS, REMEMBERS, headline, level_rows, sample_rows
from ladd_dist.reports.heatmap import RAMP, heat_maps
from ladd_dist.reports.verdict import Metrics, number


def section(run: RunDir, metrics: Metrics, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `diagnosis_section.html`; a view whose files are missing or of another format is None or empty."""
    from markupsafe import Markup

    return {
        "prediction": _prediction(run, evaluation),
        "strips": _strips(run),
        "attention": _attention(run),
        "heat": [panel._replace(svg=Markup(panel.svg)) for panel in heat_maps(metrics)],
        "ramp": ", ".join(f"rgb{colour}" for colour in RAMP),
    }


def _read(path: Path, *needed: str) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except ValueError:
        return None
    return found if isinstance(found, dict) and all(key in found for key in needed) else None


def _uri(path: Path) -> str | None:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else None


def _prediction(run: RunDir, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    figures = _read(run.path / "diagnose.json", "levels", "samples", "advice", "deterministic")
    if figures is None:
        return None
    header, rows = sample_rows(figures, evaluation)
    return {
        "headline": headline(figures),
        "num_pairs": figures["num_pairs"],
        "columns": COLUMNS,
        "levels": level_rows(figures),
        "header": header,
        "samples": rows,
        "meanings": MEANINGS + (f" {REMEMBERS}" if figures["deterministic"] else ""),
        "advice": figures["advice"],
        "picture": _uri(run.path / "diagnose.png"),
    }


def _strips(run: RunDir) -> dict[str, Any] | None:
    found = _read(run.samples / "strips.json", "samplers")
    picture = _uri(run.samples / "strips.png")
    if found is None or picture is None:
        return None
    return {"picture": picture, "rows": [_strip_row(name, row) for name, row in found["samplers"].items()]}


def _strip_row(name: str, row: Mapping[str, Any]) -> list[str]:
    cells = [name]
    for key in ("class", "hue"):
        decided = row.get(key) or {}
        step, sigma = number(decided, "step"), number(decided, "sigma")
        cells.append("-" if step is None else f"step {step:g} of {len(row['sigmas'])}, level {sigma:.3g}")
    cells += ["-" if (share := number(row["agrees"], key)) is None else f"{share:.2f}" for key in ("class", "hue")]
    return cells


def _attention(run: RunDir) -> dict[str, Any] | None:
    found = _read(run.samples / "attention.json", "heads")
    picture = _uri(run.samples / "attention.png")
    if found is None or picture is None:
        return None
    rows = []
    for head in found["heads"]:
        logits = [f"{number(head, key) or 0.0:.2f}" for key in ("logit_real", "logit_fake")]
        ink = number(head, "on_ink")
        rows.append([head["tap"], f"{head['tau']:g}", *logits, "-" if ink is None else f"{ink:.0%}"])
    area = number(found["heads"][0], "ink_area") if found["heads"] else None
    return {"picture": picture, "rows": rows, "area": None if area is None else f"{area:.0%}"}
