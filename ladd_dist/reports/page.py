"""The page of one run: report.html and report.md, from files of the run's folder alone.

The page names no address outside itself, so it opens from disk and can be sent by mail.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.early_stop_file import kept_in_words
from ladd_dist.core.method import in_words, method_of
from ladd_dist.core.metrics_log import MOST_ROWS, read_rows
from ladd_dist.core.printable import printable
from ladd_dist.core.rundir import RunDir, write_bytes
from ladd_dist.core.units import si
from ladd_dist.reports import charts
from ladd_dist.reports.details import DETAILS, MEANINGS, by_class, details
from ladd_dist.reports.diagnosis_section import section
from ladd_dist.reports.distances import FLOOR
from ladd_dist.reports.grids import grid_rows
from ladd_dist.reports.html import data_uri, render
from ladd_dist.reports.json_object import Values, number
from ladd_dist.reports.run_files import Metrics, RunFiles, ShownConfig, read_run
from ladd_dist.reports.table import (
    QUALITY,
    Column,
    Row,
    entry_meaning,
    num_samples,
    reported,
    table,
    title,
)
from ladd_dist.reports.tiles import bar_charts, tiles
from ladd_dist.reports.tuned_verdict import verdict_on
from ladd_dist.reports.tunings import KID_HELD_OUT, KID_OLD, OLD_ROW, columns_in_words, is_tuning
from ladd_dist.reports.verdict import Verdict

MAX_TRAINING_GRIDS = 4
LEVEL_WORDS = {"healthy": "Healthy", "warning": "Look closer", "collapsed": "Collapsed"}
OTHERS = "At other numbers of steps, which do not decide"
TEMPLATE = Path(__file__).parent / "report.html"


def write_report(run: Path) -> Path:
    """Write RUN/report.html and RUN/report.md and return the former.

    Args:
        run: the run folder, with config.json and eval.json; metrics.jsonl, samples/ and timings.json may be missing.

    Raises:
        UserError: a needed file is missing or damaged; the message names it and the stage that makes it.
    """
    paths, files = RunDir(run), read_run(run)
    metrics, num_broken = read_rows(paths.metrics, MOST_ROWS)
    verdict = verdict_on(files, metrics)
    columns, rows = _table(files)
    values = {
        **_figures(files, columns, rows),
        **_pictures(paths, files, metrics),
        "verdict": verdict,
        "level_word": LEVEL_WORDS[verdict.level],
        "others_title": OTHERS,
        "num_broken": num_broken,
    }
    html = render(TEMPLATE, values)
    markdown = _markdown(title(files.evaluation, files.config), files.config, verdict, columns, rows)
    write_bytes(run / "report.md", printable(markdown).encode())
    write_bytes(paths.report, html.encode())
    return paths.report


def _table(files: RunFiles) -> tuple[list[Column], list[Row]]:
    """The first table; figures that are otherwise folded stand in it where the run has no others of its samples."""
    measured = {key for figures in files.evaluation.values() for key in figures}
    has_usual = not measured.isdisjoint(QUALITY)
    columns, rows = table(files.evaluation, files.config, DETAILS if has_usual else ())
    names = {key: Column(key, *MEANINGS[key]) for key in DETAILS}
    columns = [names.get(column.key, column) for column in columns]
    return [column._replace(features=files.features.get(column.key, "")) for column in columns], rows


def _figures(files: RunFiles, columns: list[Column], rows: list[Row]) -> dict[str, object]:
    """Values of the template: tables and text."""
    config, evaluation = files.config, files.evaluation
    method = method_of(config.recipe.fields)
    return {
        "title": title(evaluation, config),
        "config": config,
        "recipe": config.recipe,
        "method": in_words(method),
        "old_row": OLD_ROW,
        "tunes": is_tuning(config.recipe),
        "repeats": "distance" in method or not method,  # without a distance nothing holds a student to each picture
        "of_dataset": config.recipe.part("shards").text("samples") == "dataset",
        "guard": files.guard,
        "tiles": tiles(evaluation, config, columns, rows),
        "columns": columns,
        "rows": rows,
        "explained": [(row.title, meaning) for row in rows if (meaning := entry_meaning(row.key))],
        "has_distance": any(column.key in ("fd_real", "fd_teacher") for column in columns),
        "networks": files.networks,
        "bar_charts": bar_charts(evaluation, config, rows),
        "details": details(evaluation, config, files.features),
        "by_class": by_class(files.classes, evaluation, config),
        "samples": num_samples(evaluation),
        "unfit": files.unfit,
        "no_floor": files.left_out.get(FLOOR, ""),
        "not_measured": {key: files.left_out[key] for key in (KID_HELD_OUT, KID_OLD) if key in files.left_out},
        "shown": {which: columns_in_words(files.shown.get(which, ())) for which in ("new", "old")},
        "reported": reported(evaluation, config),
        "facts": _facts(config, files.timings, kept_in_words(files.early_stop) if files.early_stop else ""),
        "recipe_json": json.dumps(config.recipe.fields, indent=2, ensure_ascii=False),
        "command": _command(config),
    }


def _pictures(paths: RunDir, files: RunFiles, metrics: Metrics) -> dict[str, object]:
    """Values of the template: charts and pictures."""
    return {
        "charts": charts.curves(
            metrics,
            files.config.large_gap,
            kept=files.early_stop["kept"] if files.early_stop else None,
            tunes=is_tuning(files.config.recipe),
        ),
        "diagnosis": section(paths, metrics, files.evaluation),
        "final": _picture(paths.samples / "final.png"),
        "training": _training_grids(paths.samples),
    }


class Picture(NamedTuple):
    """A PNG inside the page, the training step it was made at, and the labels of its rows."""

    step: int
    uri: str
    rows: tuple[str, ...]


def _picture(path: Path, step: int = 0) -> Picture | None:
    if not path.exists():
        return None
    rows = grid_rows(path)  # first: it says of a damaged file that it is one
    return Picture(step, data_uri(path), rows)


def _training_grids(folder: Path) -> list[Picture]:
    """The first grid of a training, the last, and some evenly between them."""
    found = sorted(
        (int(match[1]), path) for path in folder.glob("step-*.png") if (match := re.match(r"step-(\d+)$", path.stem))
    )
    if len(found) > MAX_TRAINING_GRIDS:
        last = len(found) - 1
        found = [found[round(index * last / (MAX_TRAINING_GRIDS - 1))] for index in range(MAX_TRAINING_GRIDS)]
    return [picture for step, path in found if (picture := _picture(path, step))]


def _facts(config: ShownConfig, timings: Values, early_stop: str = "") -> list[tuple[str, str]]:
    """Pairs (name, value) that say what ran and where."""
    names = {
        "student_forward": "student forward",
        "teacher_to_last_tap": "teacher to last tap",
        "step": "training step",
    }
    work = {names.get(key, key): value for key, value in config.flops.items()}
    facts = [
        ("Recipe", config.recipe_path),
        ("Scale", config.scale),
        ("Signature", config.signature),
        *_start(config),
        ("Seed", config.recipe.text("seed")),
        ("Training steps", config.recipe.part("train").text("steps")),
        ("Early stop", early_stop),
        *((f"Data: {key}", value) for key, value in config.data.items()),
        ("Parameters", ", ".join(f"{key} {si(n)}" for key, n in _finite(config.params).items())),
        ("Taps", ", ".join(config.taps)),
        ("Work", ", ".join(f"{key} {si(n, 'FLOP')}" for key, n in _finite(work).items())),
        ("Time", ", ".join(f"{key} {duration(n)}" for key, n in _finite(timings).items())),
        ("ladd_dist", config.version),
        ("Plug-ins", ", ".join(config.plugins)),
        *((key.capitalize(), value) for key, value in config.environment.items()),
    ]
    return [(name, value) for name, value in facts if value]


def _start(config: ShownConfig) -> list[tuple[str, str]]:
    """What the student started from and who teaches it, where these are two."""
    student, network = config.recipe.part("student"), config.recipe.part("network")
    if not (init := student.text("init")):
        return []
    start = f"{init} (content {digest})" if (digest := student.text("digest")) else init
    teacher = network.text("source") or network.text("weights") or "trained by this recipe"
    return [("Teacher", teacher), ("Student starts from", start)]


def _finite(values: Values) -> dict[str, float]:
    return {key: value for key in values if (value := number(values, key)) is not None}


def duration(seconds: float) -> str:
    """Seconds as text: 75.2 gives "1 min 15 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _command(config: ShownConfig) -> str:
    """The command which makes the run again; fields given on the command line stand in the recipe below."""
    if config.command:
        return config.command
    words = ["python", "-m", "ladd_dist.launch", config.recipe_path or "RECIPE"]
    words += ["--scale", config.scale] if config.scale else []
    seed = config.recipe.text("seed", "0")
    words += ["--seed", seed] if seed != "0" else []
    words += ["--plugins", *config.plugins] if config.plugins not in ((), ("plugins",)) else []
    return shlex.join(words)


def _markdown(heading: str, config: ShownConfig, verdict: Verdict, columns: list[Column], rows: list[Row]) -> str:
    """The table and the verdict as Markdown, for a terminal or a merge request."""

    def escape(text: str) -> str:
        return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", " ".join(text.split()))

    arrows = {"lower": " (lower is better)", "higher": " (higher is better)"}
    lines = [
        f"# {heading}",
        "",
        f"Recipe {escape(config.recipe.text('name', 'unnamed'))}. {escape(config.recipe.text('note'))}".strip(),
    ]
    lines += ["", f"**{LEVEL_WORDS[verdict.level]}: {escape(verdict.headline)}**", ""]
    lines += [*(f"- {escape(reason)}" for reason in verdict.reasons), ""]
    if verdict.others:
        lines += [f"{OTHERS}:", "", *(f"- {escape(other)}" for other in verdict.others), ""]
    named = [f"{column.title} [{column.features}]" if column.features else column.title for column in columns]
    titles = [escape(name) + arrows.get(column.better, "") for name, column in zip(named, columns, strict=True)]
    lines += [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = [
            cell.text + (f" ({cell.remark})" if cell.value is not None and cell.remark else "") for cell in row.cells
        ]
        lines.append(f"| {escape(row.title)} | {' | '.join(cells)} |")
    lines += ["", *(f"{row.title}: {escape(meaning)}" for row in rows if (meaning := entry_meaning(row.key)))]
    lines += ["", f"Made by `{_command(config)}`; signature {escape(config.signature or '?')}.", ""]
    return "\n".join(lines)
