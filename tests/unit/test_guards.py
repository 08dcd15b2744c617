"""Guards: what is found in figures, what must last to be believed, what follows; and the recorded runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guard import (
    COLLAPSES,
    HEALTHY,
    TRACES,
    UNSEEN_COLLAPSES,
    UNSEEN_HEALTHY,
    WITHIN,
    checks_of,
    columns,
    replay,
    table,
)
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.guards import ACTIONS, NEUTRAL_ACTIONS, Action, Guard
from ladd_dist.guards.collapse import Collapse, NoGuard
from ladd_dist.guards.judge import GuardState, GuardVerdict, Judgement, judge, rolled_back
from ladd_dist.guards.judge import from_data as memory_from
from ladd_dist.recipe import Recipe, load_recipe

GOOD = {f"student@{n}/{key}": 0.9 for n in (1, 4) for key in ("colour_variance", "hue_entropy", "class_distance")}
HEADS = {"heads/accuracy_real": 0.7, "heads/accuracy_fake": 0.7, "heads/gap": 3.0, "weight/adversarial": 0.1}
FINE = {**GOOD, **HEADS}
MEAN = {**FINE, "student@1/colour_variance": 0.19, "student@1/class_distance": 0.1}
GUARD = Collapse(every=10, full_every=2, grace=0.1)
STEPS = 200


def run(guard: Guard, *checks: dict[str, float], state: GuardState | None = None, first: int = 10) -> list[Judgement]:
    """One check after another, each at the next due step; only the figures a check of its sort sees."""
    state, said = state or GuardState(), []
    for number, figures in enumerate(checks):
        step = first + 10 * number
        full = guard.is_full(step, STEPS)
        seen = {key: value for key, value in figures.items() if full or not key.startswith("student@4")}
        said.append(judge(guard, state, seen, step, STEPS))
        state = said[-1].state
    return said


def verdicts(*checks: dict[str, float], guard: Guard = GUARD) -> list[GuardVerdict]:
    return [item.verdict for item in run(guard, *checks) if item.verdict is not None]


def test_a_student_that_regresses_to_the_mean_is_named_with_the_step_since_which_it_does() -> None:
    (verdict,) = verdicts(FINE, FINE, MEAN, MEAN, MEAN, MEAN)
    assert (verdict.step, verdict.level, verdict.since, verdict.action) == (40, "collapsed", 30, "warn")
    assert verdict.headline == (
        "student@1 colour variance 0.19 of the teacher's since step 30: regression to the class mean"
    )
    assert any("the heads are right on 70% of real" in reason for reason in verdict.reasons)


def test_pictures_that_lost_their_colours_and_still_differ_were_not_averaged() -> None:
    (verdict,) = verdicts(FINE, FINE, *[{**MEAN, "student@1/class_distance": 0.8}] * 3)
    assert verdict.headline.endswith("since step 30: colours are lost")


def test_a_healthy_run_is_left_alone_and_so_is_one_bad_check() -> None:
    assert verdicts(*[FINE] * 20) == []
    assert verdicts(FINE, FINE, MEAN, FINE, FINE, MEAN, FINE) == []


def test_what_is_seen_in_the_first_tenth_counts_for_nothing_but_its_date() -> None:
    """The student begins as the teacher, which in one step gives class means."""
    guard = dataclasses.replace(GUARD, grace=0.2)
    (verdict,) = verdicts(MEAN, MEAN, MEAN, MEAN, MEAN, guard=guard)
    assert (verdict.step, verdict.since) == (50, 10)
    assert verdicts(MEAN, MEAN, MEAN, FINE, FINE, guard=guard) == []


def test_heads_at_chance_alone_are_no_fault() -> None:
    chance = {**FINE, "heads/accuracy_real": 0.5, "heads/accuracy_fake": 0.5, "heads/gap": 0.0}
    assert verdicts(*[chance] * 10) == []


@pytest.mark.parametrize(
    "won", [{"heads/accuracy_real": 0.99, "heads/accuracy_fake": 0.98}, {"heads/gap": 20.0}], ids=str
)
def test_heads_that_have_won_are_a_warning_unless_they_have_no_say(won: dict[str, float]) -> None:
    (verdict,) = verdicts(*[{**FINE, **won}] * 5, guard=dataclasses.replace(GUARD, action="stop"))
    assert (verdict.level, verdict.action) == ("warning", None)
    assert "the heads have won" in verdict.headline
    assert verdicts(*[{**FINE, **won, "weight/adversarial": 0.0}] * 5) == []


@pytest.mark.parametrize(
    ("large", "gap", "won"), [(0.9, 0.8, False), (0.9, 0.95, True), (float("inf"), 900.0, False), (7.5, 8.0, True)]
)
def test_how_large_a_gap_is_depends_on_the_game(large: float, gap: float, won: bool) -> None:
    checks = [{**FINE, "heads/gap": gap, "heads/large_gap": large}] * 5
    assert bool(verdicts(*checks)) == won
    twice = dataclasses.replace(GUARD, heads_won_gap=30.0)
    assert verdicts(*checks, guard=twice) == []


def test_figures_that_are_no_numbers_need_one_check_also_at_the_very_beginning() -> None:
    for broken in ({"not_finite": 1.0}, {"student@1/finite": 0.5}):
        (verdict,) = verdicts({**FINE, **broken})
        assert (verdict.step, verdict.level) == (10, "collapsed")
        assert "training diverged" in verdict.headline
    assert verdicts({**FINE, "student@1/colour_variance": float("nan")}, FINE) == []


def test_a_fault_at_more_steps_is_judged_by_full_checks_alone_and_lasts_between_them() -> None:
    few = {**FINE, "student@4/hue_entropy": 0.1}
    said = run(GUARD, FINE, FINE, *[few] * 6, *[FINE] * 4)
    news = [item.verdict for item in said if item.verdict is not None]
    assert [(item.step, item.level) for item in news] == [(60, "collapsed"), (100, "healthy")]
    assert news[0].since == 40 and "one-colour collapse" in news[0].headline
    assert [item.state.level for item in said[5:9]] == ["collapsed"] * 4  # also at 70 and 90, where nobody looked


def test_a_run_that_recovers_is_said_to_and_may_collapse_again() -> None:
    found = verdicts(FINE, FINE, MEAN, MEAN, MEAN, FINE, MEAN, MEAN)
    assert [(item.step, item.level) for item in found] == [(40, "collapsed"), (60, "healthy"), (80, "collapsed")]


def test_data_without_colour_are_judged_by_distances() -> None:
    grey = {key: value for key, value in FINE.items() if "colour" not in key and "hue" not in key}
    assert verdicts(*[grey] * 6) == []
    (verdict,) = verdicts(*[{**grey, "student@1/class_distance": 0.1}] * 6)
    assert verdict.headline.startswith("student@1 distance between samples of one class 0.10")


def test_one_head_that_has_all_gradients_is_a_warning() -> None:
    drowned = {**FINE, "grad_share/heads/a": 0.999, "grad_share/heads/b": 0.001}
    (verdict,) = verdicts(*[drowned] * 4)
    assert (verdict.level, "the head on a has 100%" in verdict.headline) == ("warning", True)
    assert verdicts(*[{**FINE, "grad_share/heads/a": 1.0}] * 4) == []  # there is no other


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_taken_when_the_collapse_is_sure(action: Action) -> None:
    said = run(dataclasses.replace(GUARD, action=action), FINE, FINE, *[MEAN] * 6)
    taken = [(10 + 10 * n, item.verdict.action) for n, item in enumerate(said) if item.verdict and item.verdict.action]
    assert taken[0] == (40, action)
    assert len(taken) == (3 if action == "lower_adv" else 1)  # at 40, and while it lasts at 60 and 80
    state = said[-1].state
    assert state.adv_factor == (0.125 if action == "lower_adv" else 1.0)
    assert (state.frozen, state.stopped) == (action == "freeze_heads", action == "stop")


def test_a_rollback_goes_to_the_last_full_check_that_found_nothing_with_half_the_weight_and_not_for_ever() -> None:
    guard = dataclasses.replace(GUARD, action="rollback", max_rollbacks=1)
    said = run(guard, FINE, FINE, FINE, FINE, FINE, MEAN, MEAN)
    assert said[-1].verdict is not None and said[-1].verdict.action == "rollback"
    assert said[-1].state.healthy == 40  # 50 was no full check
    back = rolled_back(said[3].state)
    assert (back.rollbacks, back.adv_factor, back.checked, back.healthy) == (1, 0.5, 40, 40)
    (again,) = [item.verdict for item in run(guard, MEAN, MEAN, state=back, first=50) if item.verdict]
    assert again.action == "stop"


def test_a_check_with_findings_is_nothing_to_go_back_to() -> None:
    assert run(GUARD, MEAN, MEAN, MEAN, MEAN)[-1].state.healthy is None


def test_going_on_from_a_memory_written_as_json_gives_the_same_verdicts() -> None:
    checks = [FINE, FINE, MEAN, MEAN, FINE, FINE, MEAN, MEAN]
    whole = run(GUARD, *checks)
    for cut in range(1, len(checks)):
        state = memory_from(json.loads(json.dumps(whole[cut - 1].state.to_data())))
        assert run(GUARD, *checks[cut:], state=state, first=10 + 10 * cut) == whole[cut:]


def test_nobody_watching_finds_nothing_and_is_never_due() -> None:
    assert not any(NoGuard().is_due(step, 100) for step in range(101))
    assert NoGuard().findings(MEAN) == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("action", "pray"), ("every", 0), ("patience", 0), ("samples", 1), ("grace", 1.5), ("max_rollbacks", -1)],
)
def test_a_setting_that_cannot_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Collapse(**{field: value})


# --- recipes ---


def recipe(guard: Guard) -> Recipe:
    base = load_recipe(Path("recipes/exp6_stored_noise.py"), "smoke")
    assert isinstance(base.guard, Collapse)
    return dataclasses.replace(base, guard=guard)


def test_a_guard_that_only_tells_is_in_no_signature_and_one_that_acts_is() -> None:
    plain = recipe(NoGuard()).distill_signature()
    for action in NEUTRAL_ACTIONS:
        assert recipe(Collapse(action=action, every=7, grace=0.0)).distill_signature() == plain
    acting = [Collapse(action=action) for action in ACTIONS if action not in NEUTRAL_ACTIONS]
    signatures = {recipe(guard).distill_signature() for guard in (*acting, Collapse(action="stop", every=7))}
    assert plain not in signatures and len(signatures) == len(acting) + 1
    assert recipe(acting[0]).shards_signature() == recipe(NoGuard()).shards_signature()


def test_a_recipe_written_before_there_were_guards_has_none() -> None:
    data = to_data(recipe(Collapse()))
    del data["guard"]
    assert from_data(Recipe, data).guard == NoGuard()


def test_runs_whose_guards_only_tell_are_one_variant() -> None:
    from ladd_dist.comparison.variants import essential

    told, silent, acts = (to_data(recipe(guard)) for guard in (Collapse(every=7), NoGuard(), Collapse(action="stop")))
    assert essential(told) == essential(silent) != essential(acts)


# --- recorded runs ---


def test_rows_come_back_from_columns() -> None:
    rows = [{"step": 5, "a": 0.5}, {"step": 10, "a": 0.25, "b": 1.0}, {"step": 15, "b": 2.0}]
    assert checks_of({"columns": columns(rows)}) == rows


RUNS: list[dict[str, Any]] = json.loads(TRACES.read_text())["runs"] if TRACES.exists() else []


def test_the_recorded_runs_are_five_seeds_of_each_sort() -> None:
    for name in (*COLLAPSES, *HEALTHY, *UNSEEN_COLLAPSES):
        assert sorted(item["seed"] for item in RUNS if item["name"] == name) == list(range(5)), name


def test_the_page_has_the_rates_of_the_recorded_runs_apart_for_those_that_set_no_threshold() -> None:
    text = table([replay(item) for item in RUNS])
    page = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    assert page.partition("<!-- guard -->\n")[2].partition("\n<!-- /guard -->")[0] == text
    assert "Recipes that were recorded afterwards: collapses found within 20% of the budget: 15 of 15;" in text
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| exp3")] == ["not seen"]


@pytest.mark.parametrize("recorded", RUNS, ids=lambda item: f"{item['name']}-{item['seed']}")
def test_collapses_are_found_within_a_fifth_of_the_budget_and_healthy_runs_never_flagged(
    recorded: dict[str, Any],
) -> None:
    outcome = replay(recorded)
    if recorded["name"] in (*HEALTHY, *UNSEEN_HEALTHY):
        assert outcome.found is None, outcome.headline
    elif recorded["name"] in (*COLLAPSES, *UNSEEN_COLLAPSES):
        assert outcome.found is not None and outcome.found <= WITHIN * recorded["steps"]
        assert "regression to the class mean" in outcome.headline
    else:  # provoked in the middle of a run that had been healthy
        values = outcome.variances
        onset = next(place for place, value in enumerate(values) if value < Collapse().one_step)
        assert min(values[: max(onset, 1)]) > Collapse().one_step and len(values) - onset == Collapse().patience
