"""The page of one run: reads the files of the run folder only, writes report.html and report.md.

The page stands alone: no address outside the file, so that it opens from disk and can be sent by mail.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ladd_dist.core.errors import UserError
from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.rundir import RunDir, read_json, write_bytes
from ladd_dist.reports import charts
from ladd_dist.reports.details import DETAILS, by_class, details
from ladd_dist.reports.diagnosis_section import section
from ladd_dist.reports.grids import grid_rows
from ladd_dist.reports.table import Column, Row, bars, num_samples, reported, table, tiles, title
from ladd_dist.reports.verdict import Verdict, judge, number

MAX_TRAINING_GRIDS = 4
LEVEL_WORDS = {"healthy": "Healthy", "warning": "Look closer", "collapsed": "Collapsed"}


def write_report(run: Path) -> Path:
    """Write RUN/report.html and RUN/report.md and return the former.

    Args:
        run: the run folder, with config.json and eval.json; metrics.jsonl, samples/ and timings.json may be missing.

    Raises:
        UserError: a needed file is missing or damaged; the message names it and the stage that makes it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    paths = RunDir(run)
    config = _read_object(paths.config, "run the same command again")
    evaluation = _read_evaluation(paths.eval)
    metrics, num_broken = read_rows(paths.metrics)
    verdict = judge(evaluation, config, metrics)
    columns, rows = table(evaluation, config, DETAILS)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html").render(
        title=title(evaluation),
        config=config,
        recipe=config.get("recipe", {}),
        verdict=verdict,
        level_word=LEVEL_WORDS[verdict.level],
        guard=_read_optional(run / "guard.json"),
        tiles=tiles(evaluation, config, columns, rows),
        columns=columns,
        rows=rows,
        bars=bars(evaluation, rows),
        details=details(evaluation, config),
        by_class=by_class(_read_optional(paths.eval_classes), evaluation, config),
        samples=num_samples(evaluation),
        reported=reported(evaluation, config),
        charts=[chart._replace(svg=Markup(chart.svg)) for chart in charts.curves(metrics)],
        num_broken=num_broken,
        diagnosis=section(paths, metrics, evaluation),
        final=_picture(paths.samples / "final.png"),
        training=_training_grids(paths.samples),
        facts=_facts(config, _read_optional(paths.timings)),
        recipe_json=json.dumps(config.get("recipe", {}), indent=2, ensure_ascii=False),
        command=_command(config),
    )
    markdown = _markdown(title(evaluation), config, verdict, columns, rows)
    write_bytes(run / "report.md", markdown.encode())
    write_bytes(paths.report, html.encode())
    return paths.report


# --- reading ---


def _read_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        data = read_json(path)
    except ValueError as error:
        raise UserError(f"{error}; {remedy}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not an object; {remedy}")
    return data


def _read_evaluation(path: Path) -> dict[str, dict[str, Any]]:
    remedy = "make it again with `--stages evaluate`"
    data = _read_object(path, remedy)
    if not data or not all(isinstance(figures, dict) for figures in data.values()):
        raise UserError(f"{path} has no figures of the form {{'student@4': {{'fd': ...}}, ...}}; {remedy}")
    return data


def _read_optional(path: Path) -> dict[str, Any]:
    return _read_object(path, "delete it or run the same command again") if path.exists() else {}


# --- parts of the page ---


class Picture(NamedTuple):
    """A PNG inside the page."""

    step: int
    uri: str
    rows: tuple[str, ...]


def _picture(path: Path, step: int = 0) -> Picture | None:
    if not path.exists():
        return None
    rows = grid_rows(path)
    return Picture(step, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", rows)


def _training_grids(folder: Path) -> list[Picture]:
    """The first grid, the last, and some evenly between."""
    found = sorted(
        (int(match[1]), path) for path in folder.glob("step-*.png") if (match := re.match(r"step-(\d+)$", path.stem))
    )
    if len(found) > MAX_TRAINING_GRIDS:
        last = len(found) - 1
        found = [found[round(index * last / (MAX_TRAINING_GRIDS - 1))] for index in range(MAX_TRAINING_GRIDS)]
    return [picture for step, path in found if (picture := _picture(path, step))]


def _facts(config: Mapping[str, Any], timings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What ran and where, as (name, value)."""
    recipe, environment = config.get("recipe") or {}, config.get("environment") or {}
    parameters, flops = config.get("params") or {}, config.get("flops") or {}
    names = {
        "student_forward": "student forward",
        "teacher_to_last_tap": "teacher to last tap",
        "step": "training step",
    }
    facts: list[tuple[str, Any]] = [
        ("Recipe", config.get("recipe_path")),
        ("Scale", config.get("scale")),
        ("Signature", config.get("signature")),
        ("Seed", recipe.get("seed")),
        ("Training steps", (recipe.get("train") or {}).get("steps")),
        ("Parameters", ", ".join(f"{key} {si(n)}" for key in parameters if (n := number(parameters, key)) is not None)),
        ("Taps", ", ".join(str(tap) for tap in config.get("taps") or ())),
        (
            "Work",
            ", ".join(f"{names.get(key, key)} {si(n)}FLOP" for key in flops if (n := number(flops, key)) is not None),
        ),
        ("Time", ", ".join(f"{key} {duration(n)}" for key in timings if (n := number(timings, key)) is not None)),
        ("ladd_dist", config.get("version")),
        ("Plug-ins", ", ".join(str(name) for name in config.get("plugins") or ())),
        *((str(key).capitalize(), value) for key, value in environment.items()),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def si(value: float) -> str:
    """1234567 -> "1.23 M"."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _command(config: Mapping[str, Any]) -> str:
    """The command which makes the run again; fields given on the command line stand in the recipe below."""
    if isinstance(config.get("command"), str):
        return str(config["command"])
    words = ["python", "-m", "ladd_dist.launch", str(config.get("recipe_path", "RECIPE"))]
    if config.get("scale"):
        words += ["--scale", str(config["scale"])]
    seed, plugins = (config.get("recipe") or {}).get("seed"), list(config.get("plugins") or ())
    words += ["--seed", str(seed)] if seed else []
    words += ["--plugins", *map(str, plugins)] if plugins not in ([], ["plugins"]) else []
    return shlex.join(words)


def _markdown(heading: str, config: Mapping[str, Any], verdict: Verdict, columns: list[Column], rows: list[Row]) -> str:
    """The table and the verdict for a terminal or a merge request."""

    def escape(text: Any) -> str:
        return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", " ".join(str(text).split()))

    recipe = config.get("recipe") or {}
    arrows = {"lower": " (lower is better)", "higher": " (higher is better)"}
    lines = [
        f"# {heading}",
        "",
        f"Recipe {escape(recipe.get('name', 'unnamed'))}. {escape(recipe.get('note', ''))}".strip(),
    ]
    lines += ["", f"**{LEVEL_WORDS[verdict.level]}: {escape(verdict.headline)}**", ""]
    lines += [*(f"- {escape(reason)}" for reason in verdict.reasons), ""]
    titles = [escape(column.title) + arrows.get(column.better, "") for column in columns]
    lines += [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = [
            cell.text + (f" ({cell.remark})" if cell.value is not None and cell.remark else "") for cell in row.cells
        ]
        lines.append(f"| {escape(row.title)} | {' | '.join(cells)} |")
    lines += ["", f"Made by `{_command(config)}`; signature {escape(config.get('signature', '?'))}.", ""]
    return "\n".join(lines)
