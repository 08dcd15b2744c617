"""What a launch says last of a finished run: its verdict, its distances, and where its page is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ladd_dist.core.metrics_log import MOST_ROWS, read_rows
from ladd_dist.core.rundir import RunDir
from ladd_dist.reports.distances import FLOOR, nearer_to_real, to_real, to_teacher, untrained_of
from ladd_dist.reports.json_object import number
from ladd_dist.reports.page import LEVEL_WORDS
from ladd_dist.reports.run_files import Figures, ShownConfig, read_run
from ladd_dist.reports.table import figure
from ladd_dist.reports.tuned_verdict import new_distance, verdict_on
from ladd_dist.reports.tunings import KID_OLD, is_tuning
from ladd_dist.reports.verdict import best_teacher, by_steps, few_step_teacher, few_student

Beside = Sequence[tuple[str | None, str | None]]
"""Pairs (name, entry) of what stands beside a figure."""


def closing_line(run: Path) -> str:
    """One line about a run with figures and a page; a distance is left out where it was not measured.

    Raises:
        UserError: config.json or eval.json is missing or damaged.
    """
    paths, files = RunDir(run), read_run(run)
    verdict = verdict_on(files, read_rows(paths.metrics, MOST_ROWS)[0])
    parts = [f"{LEVEL_WORDS[verdict.level]}: {verdict.headline}"]
    if is_tuning(files.config.recipe):
        parts += _of_tuning(files.evaluation, files.config)
        return f"{'; '.join(parts)}; page: {paths.report}"
    if not verdict.headline.startswith("farther from real"):
        parts += _farther(files.evaluation, files.config)
    parts += _distances(files.evaluation, files.config)
    return f"{'; '.join(parts)}; page: {paths.report}"


def _farther(evaluation: Figures, config: ShownConfig) -> list[str]:
    """What is nearer to real pictures than the student, and whether the teacher itself is far from them."""
    teacher = best_teacher(evaluation)
    if teacher is None or not by_steps(evaluation, "student"):
        return []
    few = few_student(evaluation, config)
    before = untrained_of(evaluation, few)
    others = [entry for entry in (before, few_step_teacher(evaluation, few)) if entry]
    nearer = [entry for entry in others if nearer_to_real(evaluation, few, entry)]
    found = [f"{few} is farther from real pictures than {' and '.join(nearer)}"] if nearer else []
    if before and nearer_to_real(evaluation, teacher, before):
        found.append(f"so is {teacher} than {before}" if nearer else f"{teacher} is farther from real than {before}")
        found[-1] += " (try `ladd guidance RECIPE`)"
    return found


def _distances(evaluation: Figures, config: ShownConfig) -> list[str]:
    """The student's distance to real pictures, then that to the teacher's samples, beside what makes them large."""
    teacher = best_teacher(evaluation)
    if not by_steps(evaluation, "student"):
        return []
    few = few_student(evaluation, config)
    rival, before = few_step_teacher(evaluation, few), untrained_of(evaluation, few)
    wanted = (
        (to_real(evaluation[few]), (("floor", FLOOR), (before, before), (teacher, teacher), (rival, rival))),
        (to_teacher(evaluation[few]), (("floor", teacher), (rival, rival))),
    )
    return [text for key, beside in wanted if key and (text := _beside(evaluation, few, key, beside))]


def _of_tuning(evaluation: Figures, config: ShownConfig) -> list[str]:
    """The distance to new pictures, then that to old samples, beside those of the student before."""
    if not by_steps(evaluation, "student"):
        return []
    few = few_student(evaluation, config)
    before, teacher = untrained_of(evaluation, few), best_teacher(evaluation)
    wanted = (
        (new_distance(evaluation[few]), ((before, before), (teacher, teacher))),
        (KID_OLD, ((before, before),)),
    )
    return [text for key, beside in wanted if key and (text := _beside(evaluation, few, key, beside))]


def _beside(evaluation: Figures, few: str, key: str, beside: Beside) -> str:
    """A figure of the student and of the entries beside it; empty where the student has none."""
    mine = number(evaluation[few], key)
    if mine is None:
        return ""
    others = [
        f"{name} {figure(value)}"
        for name, entry in beside
        if entry is not None and entry in evaluation and (value := number(evaluation[entry], key)) is not None
    ]
    return f"{key} of {few} {figure(mine)}" + (f" ({', '.join(others)})" if others else "")
