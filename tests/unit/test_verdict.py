"""The verdict names what a person would see in the pictures, with the figures that justify it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ladd_dist.core.door import fit
from ladd_dist.core.run_forms import RunConfig
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.verdict import Verdict
from ladd_dist.reports.verdict import judge as judge_run

TEACHER = {"fd_real": 11.7, "fd_teacher": 3.8, "hue_entropy": 2.5, "accuracy": 0.99, "colour_variance": 0.14}
GOOD = {"fd_real": 26.0, "fd_teacher": 17.5, "hue_entropy": 2.4, "accuracy": 0.98, "colour_variance": 0.13}
KARRAS = {"fd_real": 196.0, "fd_teacher": 185.0, "hue_entropy": 2.3, "accuracy": 0.7, "colour_variance": 0.11}
STUDENT_4 = {"fd_real": 14.2, "fd_teacher": 5.8, "hue_entropy": 2.475, "accuracy": 0.985, "colour_variance": 0.1288}
STUDENT_1 = {"fd_real": 21.3, "fd_teacher": 12.5, "hue_entropy": 2.4, "accuracy": 0.98, "colour_variance": 0.1064}


def judge(evaluation: dict[str, Any], config: dict[str, Any], metrics: list[dict[str, Any]]) -> Verdict:
    """The verdict on a run with this config.json."""
    return judge_run(evaluation, ShownConfig.of(fit(config, RunConfig, "config.json")), metrics)


def figures(student_4: dict[str, Any] | None = None, student_1: dict[str, Any] | None = None) -> dict[str, Any]:
    """The prototype's good run with stored noise, with some figures of the student replaced."""
    return {
        "student@4": STUDENT_4 | (student_4 or {}),
        "student@1": STUDENT_1 | (student_1 or {}),
        "teacher@4:karras": dict(KARRAS),
        "teacher@4:good": dict(GOOD),
        "teacher@50": dict(TEACHER),
    }


def recipe(start: str = "stored", distill: float = 1.0, sigma_power: float = 0.0) -> dict[str, Any]:
    parts = {
        "start": {"plugin": start},
        "distill_weight": {"plugin": "constant", "value": distill},
        "adv_weight": {"plugin": "linear_warmup", "value": 0.1, "steps": 60},
        "distance": {"plugin": "mse", "sigma_power": sigma_power},
        "student_steps": 4,
    }
    return {"scale": "laptop", "recipe": parts}


def heads(*accuracies: float, weight: float = 0.1) -> list[dict[str, float]]:
    pairs = enumerate(accuracies, start=1)
    return [{"step": 10.0 * i, "accuracy": a, "weight/adversarial": weight, "loss/distill": 0.1} for i, a in pairs]


def test_stored_noise_like_the_prototypes_is_healthy() -> None:
    verdict = judge(figures(), recipe(), heads(0.6, 0.7, 0.75, 0.8))
    assert verdict.level == "healthy"
    assert verdict.headline.startswith("no collapse: hue entropy 0.99 of the teacher's")
    assert any("5.8 of student@4 against 17.5 of teacher@4:good" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("few_step_distance", [38.0, 83.0])
def test_fresh_noise_like_the_prototypes_is_named_regression_to_the_class_mean(few_step_distance: float) -> None:
    few = {"fd_teacher": few_step_distance, "colour_variance": 0.06}
    verdict = judge(figures(few), recipe("fresh"), [])
    assert verdict.level == "collapsed"
    assert verdict.headline == (
        "regression to the class mean: student@4 colour variance 0.43 of the teacher's; "
        "distance weight is 1.0 at every level with fresh noise"
    )
    assert any("nothing gained over the teacher" in reason for reason in verdict.reasons)


def test_the_recipe_is_not_blamed_for_what_it_does_not_explain() -> None:
    verdict = judge(figures({"colour_variance": 0.02}, {"colour_variance": 0.02}), recipe("stored"), [])
    assert verdict.level == "collapsed"
    assert "fresh noise" not in " ".join((verdict.headline, *verdict.reasons, *verdict.others))


def test_a_distance_that_fades_with_noise_is_named_as_such() -> None:
    verdict = judge(figures({"colour_variance": 0.02}), recipe("fresh", sigma_power=1.0), [])
    assert "sigma_power 1" in verdict.headline
    assert "every level" not in verdict.headline


def test_fresh_noise_without_distance_blames_the_missing_anchor() -> None:
    verdict = judge(figures(student_4={"hue_entropy": 0.5}), recipe("fresh", distill=0.0), [])
    assert verdict.level == "collapsed"
    assert "fresh noise and no distance" in verdict.headline


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"hue_entropy": 1.9}, "collapsed", "one-colour collapse: student@4 hue entropy 0.76 of the teacher's"),
        ({"hue_entropy": 2.25}, "warning", "hues are missing"),
        ({"accuracy": 0.7}, "collapsed", "class collapse: student@4 class accuracy 0.71"),
        ({"accuracy": 0.9}, "warning", "classes are mixed up"),
        ({"colour_variance": 0.06}, "collapsed", "regression to the class mean: student@4 colour variance 0.43"),
        ({"colour_variance": 0.11}, "warning", "colours are duller"),
        ({"fd_teacher": 20.0}, "warning", "nothing gained over the teacher itself"),
        ({"fd_real": None}, "collapsed", "not numbers: student@4 fd"),
        ({"fd_teacher": float("nan")}, "collapsed", "not numbers: student@4 fd_teacher"),
    ],
)
def test_one_fault_at_four_steps_sets_level_and_headline(change: dict[str, Any], level: str, words: str) -> None:
    verdict = judge(figures(student_4=change), recipe(), [])
    assert (verdict.level, words in verdict.headline) == (level, True), verdict


@pytest.mark.parametrize(
    "change", [{"colour_variance": 0.001}, {"hue_entropy": 0.1}, {"accuracy": 0.1}, {"fd_real": None}]
)
def test_a_fault_at_one_step_is_a_line_below_the_verdict_on_a_run_of_four(change: dict[str, Any]) -> None:
    good, verdict = judge(figures(), recipe("fresh"), []), judge(figures(student_1=change), recipe("fresh"), [])
    assert (verdict.level, verdict.headline, verdict.reasons) == (good.level, good.headline, good.reasons)
    assert verdict.level == "healthy"
    line = verdict.others[0]
    assert line.startswith("one step: ")
    assert "student@1" in line
    assert ("not numbers: student@1 fd" in line) == ("fd_real" in change)
    assert any("with fresh noise" in other for other in verdict.others) == bool(
        {"colour_variance", "hue_entropy"} & {*change}
    )


def test_a_fault_at_four_steps_is_a_line_below_the_verdict_on_a_run_of_one() -> None:
    config = recipe()
    config["recipe"]["student_steps"] = 1
    verdict = judge(figures(student_4={"colour_variance": 0.001}), config, [])
    assert "collapsed" not in verdict.level and "regression" not in verdict.headline
    assert verdict.others[0].startswith("4 steps: regression to the class mean: student@4 colour variance 0.01")


def test_class_means_are_a_collapse_also_where_the_class_decides_the_colour() -> None:
    """Colours of different classes differ as much as the teacher's; those of one class no longer do."""
    evaluation = figures({"pairwise_distance": 1.0})
    evaluation["teacher@50"]["pairwise_distance"] = 2.0
    verdict = judge(evaluation, recipe(), heads(0.6, 0.7, 0.75, 0.8))
    assert verdict.level == "collapsed"
    assert "regression to the class mean: student@4 distance within a class 0.50" in verdict.headline
    evaluation["student@4"]["pairwise_distance"] = 1.95
    assert judge(evaluation, recipe(), heads(0.6, 0.7, 0.75, 0.8)).level == "healthy"


def test_heads_that_win_in_the_last_quarter_are_a_warning() -> None:
    verdict = judge(figures(), recipe(), heads(0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.98, 0.98))
    assert verdict.level == "warning"
    assert "heads have won" in verdict.headline


@pytest.mark.parametrize(
    ("config", "gap", "won"),
    [({}, 14.0, False), ({}, 16.0, True), ({"large_gap": 0.9}, 0.95, True), ({"large_gap": None}, 900.0, False)],
)
def test_how_large_a_gap_is_stands_in_the_config_of_the_run(config: dict[str, Any], gap: float, won: bool) -> None:
    """A file of an older version says nothing of it: 15, as it is of most games."""
    rows = [row | {"logit_gap": gap * (1 + 3 * (i == 0))} for i, row in enumerate(heads(*[0.7] * 8))]
    verdict = judge(figures(), recipe() | config, rows)
    assert ("heads have won" in verdict.headline) == won
    assert verdict.level == ("warning" if won else "healthy")


def test_heads_at_chance_are_a_fault_beside_a_bad_student_and_the_aim_beside_a_good_one() -> None:
    curves = heads(0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.51, 0.51)
    good, bad = judge(figures(), recipe(), curves), judge(figures(student_4={"colour_variance": 0.1}), recipe(), curves)
    assert good.level == "healthy"
    assert "cannot tell" in " ".join(good.reasons)
    assert bad.level == "warning"
    assert "heads have lost" in " ".join((bad.headline, *bad.reasons))


def test_heads_that_won_early_and_came_back_are_fine() -> None:
    assert judge(figures(), recipe(), heads(0.99, 0.99, 0.99, 0.75)).level == "healthy"


def test_heads_without_weight_are_not_judged() -> None:
    assert judge(figures(), recipe(), heads(1.0, 1.0, 1.0, 1.0, weight=0.0)).level == "healthy"


def test_a_loss_that_is_no_number_is_divergence() -> None:
    verdict = judge(figures(), recipe(), [{"step": 10, "loss/distill": 0.1}, {"step": 20, "loss/distill": None}])
    assert verdict.level == "collapsed"
    assert "loss/distill is not a number at step 20" in verdict.headline


def test_shares_are_of_the_teacher_so_that_a_weak_teacher_is_named_and_not_called_the_students_collapse() -> None:
    evaluation = figures(student_4={"accuracy": 0.5}, student_1={"accuracy": 0.5})
    evaluation["teacher@50"]["accuracy"] = 0.5
    verdict = judge(evaluation, recipe(), [])
    assert verdict.level == "warning"
    assert "the teacher itself is weak" in verdict.headline


@pytest.mark.parametrize("change", [{}, {"hue_entropy": 0.0, "colour_variance": 0.0}])
def test_smoke_scale_is_called_neither_healthy_nor_collapsed(change: dict[str, float]) -> None:
    verdict = judge(figures(student_4=change), recipe("fresh") | {"scale": "smoke"}, [])
    assert verdict.level == "warning"
    assert verdict.headline == "scale smoke trains for seconds: it tests the machinery, not the method"
    assert not any(reason.startswith("Why") for reason in verdict.reasons)


def test_of_smoke_scale_the_scale_is_said_before_its_weak_teacher() -> None:
    evaluation = figures()
    evaluation["teacher@50"]["accuracy"] = 0.12
    verdict = judge(evaluation, recipe() | {"scale": "smoke"}, [])
    assert verdict.headline.startswith("scale smoke")
    assert any("the teacher itself is weak" in reason for reason in verdict.reasons)


def test_divergence_is_a_collapse_at_every_scale() -> None:
    verdict = judge(figures(), recipe() | {"scale": "smoke"}, [{"step": 1, "loss/heads": float("inf")}])
    assert verdict.level == "collapsed"


def without(*keys: str, entries: tuple[str, ...] = ()) -> dict[str, Any]:
    """The good run without some figures, in these entries or in all."""
    return {
        entry: {key: value for key, value in own.items() if key not in keys or (entries and entry not in entries)}
        for entry, own in figures().items()
    }


def test_a_figure_that_the_student_lacks_and_the_teacher_has_keeps_a_run_from_being_called_healthy() -> None:
    verdict = judge(without("hue_entropy", entries=("student@4",)), recipe(), [])
    assert verdict.level == "warning"
    assert "hue entropy at 4 steps was not measured" in verdict.headline


def test_what_the_run_does_not_measure_is_not_spoken_of() -> None:
    verdict = judge(without("hue_entropy", "accuracy"), recipe(), [])
    assert verdict.level == "healthy" and "colour variance" in verdict.headline
    told = " ".join((verdict.headline, *verdict.reasons, *verdict.others))
    assert "hue" not in told and "class" not in told and "not measured" not in told


def test_a_run_that_measures_no_variety_is_not_called_healthy() -> None:
    verdict = judge(without("hue_entropy", "accuracy", "colour_variance", "fd_real", "fd_teacher"), recipe(), [])
    assert verdict.level == "warning"
    assert verdict.headline.startswith("variety was not judged")
    assert (verdict.reasons, verdict.others) == ((), ())


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_without_one_side_nothing_is_judged(who: str) -> None:
    evaluation = {key: value for key, value in figures().items() if not key.startswith(who)}
    assert judge(evaluation, recipe(), []).headline == f"not judged: eval.json has no {who} figures"


def test_the_student_is_judged_at_the_steps_it_was_trained_for() -> None:
    evaluation = figures(student_4={"hue_entropy": 0.1}) | {"student@2": dict(STUDENT_4)}
    config = recipe()
    config["recipe"]["student_steps"] = 2
    verdict = judge(evaluation, config, [])
    assert "2 steps" in " ".join((verdict.headline, *verdict.reasons))
    assert "one-colour" not in verdict.headline


def test_judging_changes_nothing() -> None:
    arguments = (figures(), recipe("fresh"), heads(0.7, 0.8))
    before = copy.deepcopy(arguments)
    judge(*arguments)
    assert arguments == before


@pytest.mark.parametrize(("steps", "entries"), [(1, ("student@1",)), (2, ("student@2", "student@1"))])
def test_a_student_of_fewer_steps_is_judged_at_its_own_number(steps: int, entries: tuple[str, ...]) -> None:
    known = figures()
    evaluation = {"teacher@50": known["teacher@50"], "teacher@4:good": known["teacher@4:good"]}
    config = recipe()
    config["recipe"]["student_steps"] = steps
    good = judge(evaluation | dict.fromkeys(entries, STUDENT_4), config, [])
    at = "one step" if steps == 1 else "2 steps"
    assert good.level == "healthy" and good.headline.endswith(f"of the teacher's at {at}")
    bad = judge(evaluation | dict.fromkeys(entries, STUDENT_4 | {"colour_variance": 0.01}), config, [])
    assert bad.level == "collapsed" and f"student@{steps} colour variance 0.07" in bad.headline
