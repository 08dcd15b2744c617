"""Names of distances that nobody mixes up: to real first, to the teacher beside it, and old files stay readable."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.comparison.runs import from_folder, from_tracked
from ladd_dist.core.figure_names import named_now
from ladd_dist.core.rng import generator
from ladd_dist.core.run_forms import read_classes, read_evaluation
from ladd_dist.datasets.opening import open_images
from ladd_dist.engine.loop import StopFlag
from ladd_dist.evaluation.assess import _with_real
from ladd_dist.evaluation.measurement import Measured, Measurement
from ladd_dist.evaluation.real_images import RealImages, too_few
from ladd_dist.metrics import References, Samples, here
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.recipe import load_recipe
from ladd_dist.reports.closing import closing_line
from ladd_dist.reports.details import MEANINGS
from ladd_dist.reports.evaluation_table import table_of
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.page import write_report
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.table import table
from ladd_dist.reports.tiles import bar_charts, tiles
from ladd_dist.reports.verdict import judge
from ladd_dist.trackers.wandb_read import RunData
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

RECIPE = Path(__file__).parents[2] / "recipes" / "exp4_specnorm.py"
OLD = {
    "student@4": {"fd": 2.66, "fd_low": 2.5, "fd_high": 2.8, "fd_teacher": 0.2, "kid": 0.1},
    "untrained@4": {"fd": 1.23, "fd_teacher": 3.2},
    "teacher@50": {"fd": 2.63, "fd_teacher": 0.15},
    "teacher@4:good": {"fd": 4.0, "fd_teacher": 1.1},
    "floor@50": {"fd": 0.15, "fd_teacher": 0.15},
}
"""The figures of a run of an earlier version, whose teacher was sampled with guidance 4."""
FLOOR = {"floor@real": {"fd_real": 0.05, "fd_teacher": 2.6}}
CONFIG = {"format": 1, "scale": "laptop", "recipe": {"student_steps": 4, "seed": 0, "name": "old"}}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a run of an earlier version."""
    by_seed = {"11": {"fd": 2.6, "fd_teacher": 0.2}}
    (tmp_path / "eval.json").write_text(json.dumps({**OLD, "student@4": {**OLD["student@4"], "per_seed": by_seed}}))
    classes = {"left_out": {"fd": "too few"}, "entries": {"student@4": {"0": {"fd": 1.5, "fd_low": 1.0}}}}
    (tmp_path / "eval_classes.json").write_text(json.dumps(classes))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def now() -> dict[str, dict[str, float]]:
    """The same figures by their present names, with the floor of real."""
    found = {entry: named_now(own) for entry, own in OLD.items()}
    del found["floor@50"]["fd_real"]
    return {**found, **FLOOR}


def test_an_evaluation_of_an_older_version_has_the_present_names(old: Path) -> None:
    found = read_evaluation(old / "eval.json")
    student: dict[str, Any] = dict(found["student@4"])
    assert student.pop("per_seed") == {"11": {"fd_real": 2.6, "fd_teacher": 0.2}}
    assert student == {"fd_real": 2.66, "fd_real_low": 2.5, "fd_real_high": 2.8, "fd_teacher": 0.2, "kid": 0.1}
    assert found["floor@50"] == {"fd_teacher": 0.15}  # its `fd` was no distance to real pictures
    classes = read_classes(old / "eval_classes.json")
    assert classes["entries"]["student@4"]["0"] == {"fd_real": 1.5, "fd_real_low": 1.0}
    assert classes["left_out"] == {"fd_real": "too few"}


def test_folders_and_trackers_of_older_versions_give_the_present_names(old: Path) -> None:
    summary = {f"eval/{entry}/{name}": value for entry, own in OLD.items() for name, value in own.items()}
    tracked = RunData("old", "", CONFIG, summary, [], "wandb")
    assert from_folder(old).figures["student@4"]["fd_real"] == 2.66
    assert from_tracked(tracked).figures["untrained@4"] == {"fd_real": 1.23, "fd_teacher": 3.2}


def test_a_present_name_is_not_replaced_by_a_former_one() -> None:
    assert named_now({"fd": 1.0, "fd_real": 2.0, "fd_low": 0.5}) == {"fd_real": 2.0, "fd_real_low": 0.5}


def test_the_verdict_says_that_the_untrained_student_is_nearer_to_real_pictures() -> None:
    config = ShownConfig(recipe=JsonObject({"student_steps": 4}))
    verdict = judge(now(), config, [])
    told = " | ".join((verdict.headline, *verdict.reasons))
    assert "farther from real pictures than its untrained self in as many steps: fd_real 2.66 of student@4 against 1.23 of untrained@4" in told  # fmt: skip  # noqa: E501
    assert "the teacher itself is farther from real pictures than the untrained student: fd_real 2.63" in told
    assert "ladd guidance RECIPE" in told and verdict.level == "warning"
    assert "no farther from real pictures than the teacher in as few steps" in told


def test_a_student_that_training_brought_nearer_is_not_accused() -> None:
    figures = now() | {"student@4": {"fd_real": 0.6, "fd_teacher": 0.2}, "teacher@50": {"fd_real": 0.5}}
    verdict = judge(figures, ShownConfig(recipe=JsonObject({"student_steps": 4})), [])
    told = (verdict.headline, *verdict.reasons)
    assert not any("farther from real" in text and "no farther" not in text for text in told)
    assert "ladd guidance" not in " ".join(told)


def test_the_farther_few_step_teacher_is_not_blamed_and_a_nearer_one_is_named() -> None:
    figures = now() | {"teacher@4:good": {"fd_real": 1.0, "fd_teacher": 1.1}}
    verdict = judge(figures, ShownConfig(recipe=JsonObject({"student_steps": 4})), [])
    told = (verdict.headline, *verdict.reasons)
    assert any(
        "farther from real pictures than the teacher in as few steps" in text and "1 of" in text for text in told
    )


def test_the_closing_line_has_both_distances_real_first(old: Path) -> None:
    (old / "eval.json").write_text(json.dumps(OLD | FLOOR))
    line = closing_line(old)
    assert "fd_real of student@4 2.66 (floor 0.0500, untrained@4 1.23, teacher@50 2.63, teacher@4:good 4.00)" in line
    assert "fd_teacher of student@4 0.200 (floor 0.150, teacher@4:good 1.10)" in line
    assert line.index("fd_real of") < line.index("fd_teacher of")
    assert "; student@4 is farther from real pictures than untrained@4; so is teacher@50 than untrained@4 (try" in line
    (old / "eval.json").write_text(json.dumps(OLD | FLOOR | {"student@4": {"fd_real": 0.6}}))
    assert "student@4 is farther" not in closing_line(old)
    assert "; teacher@50 is farther from real than untrained@4 (try `ladd guidance RECIPE`)" in closing_line(old)


def test_table_tiles_and_bars_show_the_distance_to_real_first_with_its_floor() -> None:
    figures, config = now(), ShownConfig(recipe=JsonObject({"student_steps": 4}))
    columns, rows = table(figures, config)
    keys = [column.key for column in columns]
    assert keys.index("fd_real") + 1 == keys.index("fd_teacher")
    cells = {row.key: dict(zip(keys, row.cells, strict=True)) for row in rows}
    assert cells["floor@real"]["fd_real"].remark == "floor" and cells["teacher@50"]["fd_teacher"].remark == "floor"
    assert cells["teacher@50"]["fd_real"].remark == "" == cells["floor@real"]["fd_teacher"].remark
    assert "floor@50" not in cells
    shown = [tile for tile in tiles(figures, config, columns, rows) if "distance" in tile.title]
    assert [tile.title for tile in shown] == ["distance to real pictures", "distance to the teacher"]
    assert shown[0].text == "2.66" and shown[0].note.startswith("floor 0.0500; before training 1.23")
    assert bar_charts(figures, config, rows)[0].label == "Distance to real pictures"


def test_the_terminals_table_begins_with_the_distance_to_real() -> None:
    found = {entry: {"num_samples": 64.0, "accuracy": 0.9, **own} for entry, own in now().items()}
    names = list(table_of(found).columns[0].cells)
    assert names[:2] == ["fd_real", "fd_teacher"]


def test_the_terminals_table_gives_the_turns_of_a_speed_and_half_an_interval_of_a_figure() -> None:
    own = {"times_faster": 26.5, "times_faster_low": 4.0, "times_faster_high": 82.0}
    own |= {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    cells = [cell for column in table_of({"student@4": own}).columns for cell in column.cells]
    assert "26.5 (4.00 to 82.0)" in cells and "0.500 ±0.1" in cells


def test_the_tile_of_speed_has_the_ratio_of_one_turn() -> None:
    timed = {"s_per_image": 0.002, "timed_turns": 5.0, "times_faster": 26.0, "times_faster_low": 25.5}
    figures = now()
    figures["student@4"] |= {**timed, "times_faster_high": 28.1}
    figures["teacher@50"] |= {"s_per_image": 0.01, "timed_turns": 5.0, "times_faster": 1.0}
    config = ShownConfig(recipe=JsonObject({"student_steps": 4}))
    (tile,) = (tile for tile in tiles(figures, config, *table(figures, config)) if tile.title == "faster")
    assert tile.text == "26×" and "(26 to 28)" in tile.note


def test_precision_and_recall_against_real_images_have_names_of_their_own() -> None:
    samples = Samples(torch.randn(40, 3, 16, 16, generator=generator("test")).clamp(-1, 1), torch.zeros(40).long())
    metric = Manifold(features="pixels", against="real")
    found = metric.build(references=References(real=samples, teacher=samples))(samples)
    assert {name for name in found if not name.endswith(("_low", "_high"))} == set(metric.of_real())
    assert "recall_real_low" in found and set(metric.of_real()) <= set(MEANINGS)
    assert set(Manifold(features="pixels").build(references=References(samples, samples))(samples)) == {
        name.replace("_real", "") for name in found
    }


def test_every_distance_says_in_its_title_to_what() -> None:
    ambiguous = ("fd", "fid", "kid", "inception_kid", "clip_", "precision", "recall", "density", "coverage")
    named = {name: title.removesuffix(", CLIP") for name, (title, _) in MEANINGS.items() if name.startswith(ambiguous)}
    to = (" real", " teacher", " held-out new pictures", " own old samples")
    assert len(named) == 22 and all(title.endswith(to) for title in named.values()), named


def test_other_real_images_are_not_among_the_references(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE, "smoke")
    real = RealImages(Run(recipe, Workspace(tmp_path, tmp_path, torch.device("cpu"))))
    references = real.references(256)
    flat = references.images.flatten(1)
    rows = torch.randperm(len(real), generator=generator("references"))[:256]
    assert torch.equal(references.images, open_images(recipe.dataset, "train").batch(rows)[0])  # as they always were
    found = []
    for seed in (1, 2):
        others = real.others(64, num_references=256, seed=seed)
        assert others is not None and len(others) == 64
        assert torch.cdist(others.images.flatten(1), flat).min() > 0
        found.append(others.images)
    assert not torch.equal(*found)
    assert real.others(len(real), num_references=256, seed=1) is None
    assert "evaluate.num_references" in too_few(300, 64, 256)


def test_too_few_other_images_leave_the_floor_out_with_a_reason(old: Path) -> None:
    recipe = load_recipe(RECIPE, "smoke")
    recipe = dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, num_references=10**6))
    run = Run(recipe, Workspace(old, old, torch.device("cpu")))
    with StopFlag().listen() as stop:
        nothing = Samples(torch.empty(0), torch.empty(0))
        measure = Measurement((), References(nothing, nothing))
        found = _with_real(Measured({}, {}, {}), measure, RealImages(run), run, here, stop)
    reason = found.left_out["floor@real"]
    assert "floor@real" not in found.figures and "besides the 1000000 references" in reason
    (old / "eval_classes.json").write_text(json.dumps({"left_out": found.left_out, "entries": {}}))
    assert f"No floor of the distance to real pictures: {reason}" in write_report(old).read_text()
    (old / "eval_classes.json").write_text(json.dumps({"left_out": {}, "entries": {}}))
    assert "No floor" not in write_report(old).read_text()
