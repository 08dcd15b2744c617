"""Compare by the distance to real pictures: what training lost, what the intervals cover, and old names."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist import compare
from ladd_dist.comparison.output import to_json
from ladd_dist.comparison.page import data, write_page
from ladd_dist.comparison.result import Comparison
from ladd_dist.comparison.statistics import pool
from ladd_dist.comparison.terminal import caption, columns, table
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import load_recipe
from ladd_dist.reports.grids import write_grid

REPO = Path(__file__).parents[2]
RECIPE = to_data(load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke"))
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run folder: the student's distance to real pictures, and what else the figures are."""

    def run(real: float, seed: int = 0, *, teacher: int = 0, width: int = 64, **more: dict[str, float]) -> None:
        recipe: Any = copy.deepcopy(RECIPE)
        recipe["seed"], recipe["teacher"]["seed"], recipe["head"]["width"] = seed, teacher, width
        folder = tmp_path / "runs" / f"run-{len(list(tmp_path.glob('runs/*'))):010d}"
        folder.mkdir(parents=True)
        config = {"format": 1, "version": "0.1.0", "scale": "smoke", "signature": folder.name[4:], "recipe": recipe}
        (folder / "config.json").write_text(json.dumps(config))
        figures = {
            "student@4": {"fd_real": real, "fd_teacher": 0.2 * real, "accuracy": 0.9},
            "untrained@4": {"fd_real": 1.2, "fd_teacher": 3.0},
            "teacher@50": {"fd_real": 0.5, "fd_teacher": 0.15},
            "teacher@4:good": {"fd_real": 1.3, "fd_teacher": 1.0},
        }
        named = {name.replace("_at_", "@"): own for name, own in more.items()}
        (folder / "eval.json").write_text(json.dumps(figures | named))

    return run


def told(folder: Path, **options: Any) -> Comparison:
    return compare.compare_sources(compare.Options(source=(str(folder / "runs"),), **options))


def cells(result: Comparison, heading: str) -> list[str]:
    (column,) = (column for column in table(result).columns if column.header == heading)
    return [str(cell) for cell in column.cells]


def test_the_distance_to_real_decides_and_that_to_the_teacher_stands_beside_it(write: Write, tmp_path: Path) -> None:
    for seed in range(3):
        write(0.7 + 0.01 * seed, seed)
    result = told(tmp_path)
    assert result.metric == "fd_real"
    assert columns(result)[:2] == [("student@4", "fd_real"), ("student@4", "fd_teacher")]
    assert [heading.get("small") for heading in data(result)["head"]].index("fd_real, student@4") == 2
    by_teacher = told(tmp_path, metric="fd_teacher")
    assert columns(by_teacher)[:2] == [("student@4", "fd_teacher"), ("student@4", "fd_real")]


def test_the_former_name_of_the_metric_and_of_the_figures_is_understood(write: Write, tmp_path: Path) -> None:
    write(0.7)
    path = tmp_path / "runs" / "run-0000000000" / "eval.json"
    path.write_text(path.read_text().replace('"fd_real"', '"fd"'))
    result = told(tmp_path, metric="fd")
    assert result.metric == "fd_real" and result.rows[0].figures["student@4"]["fd_real"].mean == 0.7
    assert told(tmp_path).metric == "fd_real"


def test_without_a_distance_to_real_that_to_the_teacher_decides(write: Write, tmp_path: Path) -> None:
    write(0.7, student_at_4={"fd_teacher": 0.2})
    assert told(tmp_path).metric == "fd_teacher"


def test_a_variant_that_lost_to_its_untrained_self_says_so(write: Write, tmp_path: Path) -> None:
    for seed in range(2):
        write(0.7, seed)
        write(2.6 + 0.1 * seed, seed, width=32)
    result = told(tmp_path)
    better, worse = result.rows
    assert better.farther == ()
    assert [(item.entry, item.theirs) for item in worse.farther] == [("untrained@4", 1.2), ("teacher@4:good", 1.3)]
    assert cells(result, "from real")[:2] == [
        "",
        "farther than untrained@4 (2.65 to 1.2); farther than teacher@4:good (2.65 to 1.3)",
    ]
    found = to_json(result)["variants"][1]["farther_from_real"]
    assert found[0] == {"entry": "untrained@4", "metric": "fd_real", "own": pytest.approx(2.65), "theirs": 1.2}
    write_page(tmp_path / "page.html", result)
    assert "farther than untrained@4" in (tmp_path / "page.html").read_text()
    assert compare.main([str(tmp_path / "runs"), "--csv", str(tmp_path / "table.csv")]) == 0
    lines = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [line["nearer_to_real"] for line in lines[:2]] == ["", "untrained@4 teacher@4:good"]


def test_by_whatever_metric_a_loss_to_the_untrained_student_is_said(write: Write, tmp_path: Path) -> None:
    write(2.6)
    assert told(tmp_path, metric="accuracy").rows[0].farther[0].entry == "untrained@4"


def test_no_column_of_losses_without_any(write: Write, tmp_path: Path) -> None:
    write(0.7)
    result = told(tmp_path)
    assert "from real" not in [column.header for column in table(result).columns]
    assert not any("guidance" in note for note in result.notes)


def test_a_teacher_that_is_farther_than_the_untrained_student_is_named(write: Write, tmp_path: Path) -> None:
    write(0.7)
    write(2.6, width=32, teacher_at_50={"fd_real": 2.63, "fd_teacher": 0.15})
    (note,) = (note for note in told(tmp_path).notes if "guidance" in note)
    assert "fd_real 2.63 of teacher@50 against 1.2 of untrained@4 (head.width=32)" in note
    assert "`ladd guidance RECIPE`" in note


def test_seeds_on_one_teacher_say_what_their_interval_does_not_cover(write: Write, tmp_path: Path) -> None:
    for seed in range(3):
        write(0.7 + 0.01 * seed, seed)
    result = told(tmp_path)
    sentence = "3 seeds of the distillation on one teacher: the interval does not cover other teachers."
    assert sentence in caption(result)
    assert to_json(result)["scope"] == sentence and to_json(result)["over"] == "seeds"
    write_page(tmp_path / "page.html", result)
    assert sentence in (tmp_path / "page.html").read_text()


def test_with_several_teachers_the_interval_is_over_teachers(write: Write, tmp_path: Path) -> None:
    """Seeds of one teacher agree to .01, teachers differ by .2: nine runs are no nine draws."""
    means = [0.5, 0.7, 0.9]
    for teacher, mean in enumerate(means):
        for seed in range(3):
            write(mean + 0.01 * (seed - 1), seed, teacher=teacher)
    result = told(tmp_path)
    (row,) = result.rows
    found = row.figures["student@4"]["fd_real"]
    assert found == pytest.approx(pool(means)) and found.n == 3
    assert "3 teachers, 9 runs: the interval is over teachers" in caption(result)
    assert to_json(result)["over"] == "teachers"
    assert cells(result, "seeds")[0] == "9 on 3 teachers"


def test_over_teachers_variants_are_paired_by_teacher(write: Write, tmp_path: Path) -> None:
    for teacher, mean in enumerate([0.5, 0.7, 0.9]):
        for seed in range(2):
            write(mean + 0.01 * seed, seed, teacher=teacher)
            write(mean + 0.05 + 0.01 * seed + 0.001 * teacher, seed, teacher=teacher, width=32)
    result = told(tmp_path)
    called = result.rows[1].called
    assert called is not None and (called.difference.method, called.difference.pairs) == ("paired", 3)
    assert result.winner == "head.width=64"


def test_the_teachers_rows_are_means_over_teachers(write: Write, tmp_path: Path) -> None:
    for teacher, real in enumerate([0.4, 0.6]):
        write(0.7, 0, teacher=teacher, teacher_at_50={"fd_real": real})
    (found,) = (item.figures["fd_real"] for item, _ in told(tmp_path).references if item.entry == "teacher@50")
    assert found == pytest.approx(0.5)


def test_variants_on_other_teachers_are_no_fair_comparison(write: Write, tmp_path: Path) -> None:
    write(0.7, teacher=0)
    write(0.8, teacher=1, width=32)
    with pytest.raises(ValueError, match=r"different teachers, of these seeds.*head.width=32: 1"):
        told(tmp_path, metric="fd_teacher")
    assert any("different teachers, of these seeds" in note for note in told(tmp_path).notes)


def test_the_same_seed_on_two_teachers_is_no_repetition(write: Write, tmp_path: Path) -> None:
    write(0.7, 0, teacher=0)
    write(0.8, 0, teacher=1)
    (row,) = told(tmp_path).rows
    assert row.variant.teacher_seeds == (0, 1) and len(row.variant.runs) == 2


def test_a_teacher_whose_times_alone_differ_has_one_row(write: Write, tmp_path: Path) -> None:
    for seed in range(2):
        clock = {"s_per_image": 0.01 * (1 + seed), "times_faster": 1.0, "times_faster_low": 0.9 - 0.1 * seed}
        write(0.7, seed, teacher_at_50={"fd_real": 0.5, **clock})
    assert [item.entry for item, _ in told(tmp_path).references].count("teacher@50") == 1


def test_tunings_are_decided_by_held_out_pictures_and_nobody_expects_the_teachers(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = copy.deepcopy(RECIPE)
    tuning["dataset"], tuning["student"]["init"] = {"plugin": "with_old"}, "runs/student"
    monkeypatch.setitem(globals(), "RECIPE", tuning)
    entries = {
        "untrained_at_4": {"fd_real": 1.2, "kid_held_out": 0.9, "kid_old": 0.01},
        "teacher_at_50": {"fd_real": 5.0, "kid_held_out": 0.95},
        "teacher_at_4:good": {"fd_real": 0.1, "kid_held_out": 0.05},
    }
    for seed in range(3):
        student = {"fd_real": 0.7 + 0.01 * seed, "kid_held_out": 0.1 + 0.01 * seed, "kid_old": 0.02}
        write(0.0, seed, student_at_4=student, **entries)
    result = told(tmp_path)
    assert result.metric == "kid_held_out"
    assert columns(result)[:3] == [("student@4", name) for name in ("kid_held_out", "kid_old", "fd_real")]
    assert result.notes == () and result.rows[0].farther == (), "the teacher has not seen the new pictures"
    assert told(tmp_path, metric="kid_old").better == "lower"
    assert result.rows[0].num_known == 0, "no share of the teacher's colours says that a tuning collapsed"
    assert page_of(tmp_path, result).count("which the teacher has not seen, and need not repeat it") == 1
    monkeypatch.undo()
    write(0.7, 9)
    assert told(tmp_path, mixed=True).metric == "fd_real", "not every run has the other"


def page_of(folder: Path, result: Comparison) -> str:
    """The page, with a grid in every run's folder."""
    for run in (folder / "runs").iterdir():
        rows = [(name, torch.zeros(2, 3, 8, 8)) for name in ("teacher@50", "student@4")]
        write_grid(run / "samples" / "final.png", rows)
    return write_page(folder / "compare.html", result).read_text(encoding="utf-8")
