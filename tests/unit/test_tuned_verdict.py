"""The verdict on a tuning: are the new pictures shown, are the old ones kept, are samples copies, what was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladd_dist.core.early_stop_file import EarlyStopFile
from ladd_dist.reports.closing import closing_line
from ladd_dist.reports.grids import write_grid
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.page import write_report
from ladd_dist.reports.run_files import RunFiles, ShownConfig
from ladd_dist.reports.tuned_verdict import verdict_on
from ladd_dist.reports.tunings import columns_in_words, is_tuning
from ladd_dist.reports.verdict import Verdict, judge

RECIPE = {
    "name": "tune", "student_steps": 4, "dataset": {"plugin": "with_old"},
    "student": {"plugin": "lora", "init": "runs/student"},
}  # fmt: skip
STUDENT = {"kid_held_out": 0.05, "kid_old": 0.0077, "nearest_train_share": 1.4, "kid": 0.04}
BEFORE = {"kid_held_out": 0.96, "kid_old": 0.0075, "nearest_train_share": 4.0, "kid": 0.95}
TEACHER = {"kid_held_out": 0.93, "kid": 0.92, "accuracy": 0.1}
KEPT: EarlyStopFile = {
    "format": 1, "figure": "kid", "kept": 300, "last": 700,
    "measured": [(100, 0.3), (300, 0.1), (700, 0.2)],
}  # fmt: skip


def evaluation(**changes: float | None) -> dict[str, dict[str, float]]:
    """The figures of a good tuning with some of the student's replaced, or left out where they are None."""
    student = {key: value for key, value in (STUDENT | changes).items() if value is not None}
    return {"student@4": student, "untrained@4": dict(BEFORE), "teacher@50": dict(TEACHER)}


def judged(
    figures: dict[str, dict[str, float]], *, kept: EarlyStopFile | None = KEPT, scale: str = "", **more: Any
) -> Verdict:
    files = RunFiles(ShownConfig(recipe=JsonObject(RECIPE), scale=scale), figures, {}, {}, None, early_stop=kept)
    metrics = more.pop("metrics", [])
    return verdict_on(files._replace(**more), metrics)


def told(verdict: Verdict) -> str:
    return "\n".join((verdict.headline, *verdict.reasons, *verdict.others))


def test_a_good_tuning_is_judged_by_its_pictures_and_never_by_its_teacher() -> None:
    verdict = judged(evaluation())
    assert verdict.level == "healthy"
    assert verdict.headline == "nearer to the new pictures than before; the old ones are kept; no copies"
    new, old, copies, kept = verdict.reasons
    assert "kid_held_out 0.0500 of student@4 against 0.960 of untrained@4" in new and "teacher@50, which has not" in new
    assert "kid_old 0.00770 of student@4 against 0.00750 of untrained@4, which is the floor" in old
    assert "is 1.40 (0 is a copy" in copies and "above 1 the samples lie farther" in copies
    assert kept == "early stop: step 300 of 700 is kept: there kid to held-out pictures is least"
    assert not any(word in told(verdict) for word in ("guidance", "digit", "of the teacher's", "gained over"))


@pytest.mark.parametrize(
    ("kid_old", "forgot"), [(0.0075, False), (0.04, False), (0.31, True), (1.1, True)]
)  # .04 is 3 % of the way to the new pictures
def test_forgetting_is_said_with_its_size_and_what_holds_more(kid_old: float, forgot: bool) -> None:
    verdict = judged(evaluation(kid_old=kid_old))
    assert (verdict.level == "warning") == forgot == ("it forgot old ones" in verdict.headline)
    assert ("--old-weight or --old-share" in told(verdict)) == forgot
    assert kid_old != 0.31 or "it rose by 32% of the distance between untrained@4 and the new pictures" in told(verdict)


def test_a_difference_within_the_intervals_is_no_forgetting_and_no_gain() -> None:
    figures = evaluation(kid_old=0.2, kid_old_low=0.005, kid_held_out_high=1.0)
    verdict = judged(figures)
    assert "makes the old ones as before" in told(verdict)
    assert verdict.headline == "not clearly nearer to the new pictures than before" and "--updates" in told(verdict)


def test_a_student_that_went_away_from_the_new_pictures_is_told_so_with_the_game_as_a_hint() -> None:
    metrics = [{"step": step, "accuracy": 0.99, "weight/adversarial": 1.0} for step in (1, 2, 3, 4)]
    verdict = judged(evaluation(kid_held_out=1.5), metrics=metrics)
    assert (
        verdict.level == "warning" and "the heads have won" in told(verdict) and "--train.lr-student" in told(verdict)
    )
    assert "the heads" not in told(judged(evaluation(), metrics=metrics)), "a good student is no reason to blame them"


def test_samples_near_the_training_pictures_are_called_copies() -> None:
    verdict = judged(evaluation(nearest_train_share=0.3))
    assert verdict.level == "warning" and verdict.headline == "it repeats training pictures"


def test_what_was_not_measured_is_said_with_its_reason() -> None:
    verdict = judged(evaluation(kid_old=None), left_out={"kid_old": "nothing asked for it"})
    assert verdict.level == "healthy" and "of the old conditions: nothing asked for it" in told(verdict)
    older = judged(evaluation(kid_old=None, kid_held_out=None))
    assert "eval.json has no kid_old" in told(older)
    assert "nearer to new pictures (those of the training) than before: kid 0.0400 of student@4" in told(older)
    assert judged({"teacher@50": dict(TEACHER)}).headline == "not judged: eval.json has no student figures"


def test_the_kept_step_is_told_and_a_student_that_still_improved_may_go_on() -> None:
    assert "more --updates" not in told(judged(evaluation()))
    assert "still coming nearer: try more --updates" in told(judged(evaluation(), kept={**KEPT, "kept": 700}))
    assert "no early stop: the student is that of the last update" in told(judged(evaluation(), kept=None))


def test_a_diverged_tuning_is_collapsed_and_smoke_is_no_judgement() -> None:
    verdict = judged(evaluation(), metrics=[{"step": 7, "loss/heads": None}])
    assert (
        verdict.level == "collapsed" and verdict.headline == "training diverged: loss/heads is not a number at step 7"
    )
    assert judged(evaluation(), scale="smoke").headline.startswith("scale smoke trains for seconds")


def test_other_numbers_of_steps_are_told_and_decide_nothing() -> None:
    figures = evaluation() | {"student@1": STUDENT | {"kid_old": 2.0}}
    verdict = judged(figures)
    assert verdict.level == "healthy"
    assert verdict.others == ("one step: kid_held_out 0.0500, kid_old 2.00, nearest_train_share 1.40",)


@pytest.mark.parametrize("changes", [{"dataset": {"plugin": "folder"}}, {"student": {"plugin": "lora", "init": ""}}])
def test_a_run_that_is_no_tuning_is_judged_as_ever(changes: dict[str, Any]) -> None:
    recipe = JsonObject(RECIPE | changes)
    assert is_tuning(JsonObject(RECIPE)) and not is_tuning(recipe)
    files = RunFiles(ShownConfig(recipe=recipe), evaluation(), {}, {}, None)
    assert verdict_on(files, []) == judge(files.evaluation, files.config, [])


def test_the_page_and_the_closing_line_say_what_a_tuning_did(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "recipe": RECIPE, "scale": "laptop"}))
    (tmp_path / "eval.json").write_text(json.dumps(evaluation()))
    classes = {"left_out": {}, "shown": {"new": ["0 fox (before: 3)"] * 2, "old": ["4", "1 cat (before: 0)"]}}
    (tmp_path / "eval_classes.json").write_text(json.dumps(classes))
    (tmp_path / "early_stop.json").write_text(json.dumps(KEPT))
    logged = [{"step": step, "held_out/kid": 0.3, "held_out/nearest_train_share": 2.0} for step in (100, 300, 700)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for words in (
        "Distance to held-out new pictures", "distance to its own old samples", "before training 0.960",
        "Nearness to the training pictures", "Step 300 is kept.",
    ):  # fmt: skip
        assert words in page, words
    assert "fox" not in page, "no grid, no text about its columns"
    assert "Distance to the teacher" not in page and "ladd guidance" not in page
    line = closing_line(tmp_path)
    assert "kid_held_out of student@4 0.0500 (untrained@4 0.960, teacher@50 0.930)" in line
    assert "kid_old of student@4 0.00770 (untrained@4 0.00750); page:" in line and "guidance" not in line


@pytest.mark.parametrize("shown", [{}, {"new": []}, {"old": ["1"]}, {"other": ["<b>"]}])
def test_a_tuning_without_labels_of_its_columns_still_has_a_page(tmp_path: Path, shown: dict[str, list[str]]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "recipe": RECIPE}))
    (tmp_path / "eval.json").write_text(json.dumps(evaluation()))
    (tmp_path / "eval_classes.json").write_text(json.dumps({"shown": shown}))
    write_grid(tmp_path / "samples" / "final.png", [("untrained@4, old", np.zeros((2, 3, 8, 8)))])
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "before and after should look alike" in page and "Columns from the left" not in page


def test_columns_are_told_once_where_all_ask_for_the_same() -> None:
    assert columns_in_words(["0 (before: 3)"] * 3) == "0 (before: 3) in every column"
    assert columns_in_words(["4", "1"]) == "4; 1" and columns_in_words(["4"]) == "4"
