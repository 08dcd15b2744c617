"""What a launch says last of a finished run: its verdict, the distance that decides, and where its page is."""

from __future__ import annotations

from pathlib import Path

from ladd_dist.core.metrics_log import MOST_ROWS, read_rows
from ladd_dist.core.rundir import RunDir
from ladd_dist.reports.json_object import number
from ladd_dist.reports.page import LEVEL_WORDS
from ladd_dist.reports.run_files import Figures, ShownConfig, read_run
from ladd_dist.reports.table import figure
from ladd_dist.reports.verdict import best_teacher, by_steps, few_step_teacher, few_student, judge


def closing_line(run: Path) -> str:
    """One line about a run with figures and a page; the distance is left out where it was not measured.

    Raises:
        UserError: config.json or eval.json is missing or damaged.
    """
    paths, files = RunDir(run), read_run(run)
    verdict = judge(files.evaluation, files.config, read_rows(paths.metrics, MOST_ROWS)[0])
    parts = [f"{LEVEL_WORDS[verdict.level]}: {verdict.headline}", *_distance(files.evaluation, files.config)]
    return f"{'; '.join(parts)}; page: {paths.report}"


def _distance(evaluation: Figures, config: ShownConfig) -> list[str]:
    """The student's distance to the teacher's many-step samples, beside what makes it large or small."""
    if not by_steps(evaluation, "student"):
        return []
    few, teacher = few_student(evaluation, config), best_teacher(evaluation)
    mine = number(evaluation[few], "fd_teacher")
    if mine is None:
        return []
    rival = few_step_teacher(evaluation, few)
    others = [
        f"{name} {figure(value)}"
        for name, entry in (("floor", teacher), (rival, rival))
        if entry is not None and (value := number(evaluation[entry], "fd_teacher")) is not None
    ]
    beside = f" ({', '.join(others)})" if others else ""
    return [f"fd_teacher of {few} {figure(mine)}{beside}"]
