"""The page's tables of all figures with intervals and floor, and of the student class by class."""

from __future__ import annotations

import json
from pathlib import Path

from ladd_dist.reports.details import DETAILS, by_class, details
from ladd_dist.reports.page import write_report
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.table import table
from ladd_dist.reports.tiles import bars


def entry(fd: float, **more: float) -> dict[str, float]:
    return {
        "fd_real": fd,
        "fd_real_low": fd - 1,
        "fd_real_high": fd + 1,
        "fd_teacher": fd / 2,
        "num_samples": 10.0,
        "seed": 3.0,
        **more,
    }


EVALUATION = {
    "student@4": entry(12.0, recall=0.75, recall_low=0.7, recall_high=0.8, own_metric=5.0),
    "student@1": entry(40.0),
    "untrained@4": entry(90.0),
    "teacher@4:good": entry(20.0),
    "teacher@50": entry(8.0, recall=0.95),
    "floor@50": entry(0.5),
}
CLASSES = {
    "left_out": {},
    "entries": {
        "student@4": {"0": {"accuracy": 1.0}, "1": {"accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75}}
    },
}


def test_each_figure_has_a_row_with_students_teachers_and_the_floor_last() -> None:
    found = details(EVALUATION, ShownConfig())
    assert found is not None
    assert found.headings[:2] == ["Student, 4 steps", "Student, 1 step"] and found.headings[-1] == "Floor, 50 steps"
    assert len(found.headings) == 5
    rows = {row.key: row for row in found.rows}
    assert rows["fd_real"].cells[0] == ("12.0", "11.0 to 13.0") and rows["fd_real"].cells[-1].text == "0.500"
    assert rows["recall"].cells[1] == ("–", "")
    assert rows["own_metric"].title == "own metric"  # of a metric that nobody here knows
    assert not {"seed", "num_samples", "fd_real_low"} & set(rows)


def test_a_run_made_before_there_were_intervals_has_no_such_table() -> None:
    assert details({"student@4": {"fd_real": 1.0}, "teacher@50": {"fd_real": 0.5}}, ShownConfig()) is None


def test_the_first_table_has_neither_intervals_nor_floors_nor_what_stands_below() -> None:
    columns, rows = table(EVALUATION, ShownConfig(), DETAILS)
    assert {column.key for column in columns} >= {"fd_real", "own_metric"}
    assert not {"fd_real_low", "fd_real_high", "recall", "seed"} & {column.key for column in columns}
    assert "floor@50" not in {row.key for row in rows}
    assert {bar.row.key for bar in bars(EVALUATION, rows, "fd_teacher")} == set(EVALUATION) - {"floor@50"}


def test_the_student_is_shown_class_by_class() -> None:
    found = by_class(CLASSES["entries"], EVALUATION, ShownConfig())
    assert found is not None and found.headings == ["Class accuracy"]
    assert [row.title for row in found.rows] == ["Class 0", "Class 1"]
    assert found.rows[1].cells[0].interval == "0.250 to 0.750"
    assert by_class({}, EVALUATION, ShownConfig()) is None


def test_the_page_has_both_tables(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"name": "it"}}))
    (tmp_path / "eval.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "eval_classes.json").write_text(json.dumps(CLASSES))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "11.0 to 13.0" in page and "Class 1" in page and "Floor, 50 steps" in page
