"""The tables of docs/results.md: made from current runs alone, and winners only where Holm's correction leaves one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks._bars_table import bars_table
from benchmarks._result_cells import Row
from benchmarks._result_tables import Tables, best, pairs_table, report
from benchmarks._runs import Failed, Store, expected_s, put_between, run_all, total_s
from benchmarks.variants import BASE, HEADLINE, LEAVE_ONE_OUT, MOST_ROWS, PAIRS, ROWS, SHORT, VARIANTS
from ladd_dist.recipe import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def rows(*distances: float) -> Row:
    """Seeds of one row, with the same distance in one and four steps; two steps were not measured."""
    return Row([{f"student@{n}": {"fd_real": value} for n in (4, 1)} for value in distances], 1.5, adds_noise=False)


def whole(distance: float, teacher: float = 0.5) -> dict[str, Any]:
    """A run with all that the tables show."""
    figures = {"fd_teacher": 0.2, "colour_variance": 0.1, "saturation": 0.4, "accuracy": 1.0}
    entries = {"teacher@50": teacher, "teacher@4:good": 1.3, "untrained@4": 1.2}
    entries |= {f"student@{n}": distance for n in (4, 2, 1)}
    return {"flops_a_step": 6e9, **{name: {**figures, "fd_real": value} for name, value in entries.items()}}


def all_tables(rows: Mapping[str, Row], headline: Mapping[str, Row], lacks: Mapping[str, str]) -> Tables:
    left_out = {name: f"{SHORT}, {name}" for name in LEAVE_ONE_OUT}
    return Tables(rows, headline, left_out, None, lacks, [], 3, 3)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(PAGE.parents[1])
    return results.row_recipe("exp6", "smoke")


def test_the_first_table_has_at_most_so_many_rows_and_every_name_that_is_used_is_one() -> None:
    assert len(VARIANTS) <= MOST_ROWS
    assert {name for pair in PAIRS for name in pair} | set(HEADLINE) | {BASE} <= set(VARIANTS)
    assert len(ROWS) == len(VARIANTS) + 1 + len(LEAVE_ONE_OUT)


@pytest.mark.slow
def test_the_page_has_the_tables_that_the_current_runs_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PAGE.parents[1])
    own = PAGE.read_text(encoding="utf-8").partition("<!-- results -->\n")[2].partition("\n<!-- /results -->")[0]
    assert own == report(results.tables(Store(results.STORE).read(), results.Options()))


def test_a_difference_that_stands_alone_is_no_winner_among_many() -> None:
    """-1 +- .25 has p = .003: enough for one difference, not for the smallest of many."""
    first, second = rows(1.0, 1.1, 0.9), rows(2.0, 2.2, 1.8)
    alone = pairs_table({"exp7": first, "exp6": second}, PAIRS).splitlines()
    assert alone[-1] == "| exp7 | exp6 | -1.000 ± 0.248: **exp7** |  | -1.000 ± 0.248: **exp7** |"
    others = {name: rows(1.1, 1.0, 0.95) for pair in PAIRS for name in pair}
    crowded = pairs_table({**others, "exp7": first, "exp6": second}, PAIRS)
    told = "-1.000 ± 0.248: not distinguishable"
    assert f"| exp7 | exp6 | {told} |  | {told} |" in crowded.splitlines()
    assert f"among all {2 * len(PAIRS)} of them" in crowded


def test_the_best_is_a_winner_only_if_all_others_are_farther_after_correction() -> None:
    found = {"exp7": rows(1.0, 1.1, 0.9), "exp6": rows(2.0, 2.1, 1.9)}
    assert (
        best(found, 4) == "In 4 steps **exp7** is nearest to real images, 1.000 ± 0.248: every other of 1 is farther."
    )
    found["exp5"] = rows(1.0, 1.1, 1.0)
    assert best(found, 4).endswith("has exp7, 1.000 ± 0.248, and 1 of 2 others cannot be told from it: exp5.")
    assert best(found, 2) == ""


def test_the_report_says_over_what_each_interval_is_and_divides_by_each_teacher() -> None:
    seeds = Row([whole(0.6), whole(0.7), whole(0.8)], 1.5, adds_noise=True)
    teachers = Row([whole(0.5, 0.5), whole(0.8, 0.8), whole(1.1, 1.1)], 1.5, adds_noise=True)
    text = report(all_tables({BASE: seeds, SHORT: seeds, f"{SHORT}, without R1": seeds}, {BASE: teachers}, {}))
    _, of_teachers, left_out = text.split(" over 3 ", 3)[1:]
    assert "over 3 seeds of the distillation, all with **one** teacher" in text
    assert of_teachers.startswith("**teachers**") and left_out.startswith("seeds of the distillation with one teacher")
    (line,) = [line for line in of_teachers.splitlines() if line.startswith(f"| {BASE} † |")]
    assert line.startswith(f"| {BASE} † | 0.800 ± 0.745 | 0.800 ± 0.745 |")
    assert line.endswith("| 1.000 ± 0.000 | 1.000 ± 0.000 |")
    assert f"| {BASE} † | 0.700" in left_out and f"| without R1 | {SHORT} |" in left_out


def test_the_report_counts_the_runs_of_each_device_where_a_gpu_made_any() -> None:
    cpu, gpu = whole(0.5), {**whole(0.5), "device": "NVIDIA H100"}
    shown = {name: Row([cpu, dict(run), dict(run)], 1.5, adds_noise=False) for name, run in {"exp7": gpu}.items()}
    assert "Of 3 runs, these are the devices: 2 on NVIDIA H100, 1 on a CPU" in report(all_tables(shown, {}, {}))
    assert "devices" not in report(all_tables({"exp7": Row([cpu] * 3, 1.5, adds_noise=False)}, {}, {}))


def test_the_teacher_of_a_row_with_another_one_is_shown_beside_it() -> None:
    own, other = Row([whole(0.6)], 1.5, adds_noise=False), Row([whole(0.6, 0.9)], 1.5, adds_noise=True)
    text = report(all_tables({"exp7": own, "latent_digits": other}, {}, {}))
    assert "| teacher@50 of latent_digits | 0.900 |" in text and "teacher@50 of exp7" not in text
    assert text.count("| untrained@4 |") == text.count("| untrained@4 † |") == 1


def test_the_bars_are_judged_seed_by_seed_as_shares_of_the_teacher() -> None:
    """At .54 and .71 of a teacher's .5 the bars of 1.1 and 1.4 stand on either side; 1.0 is above both."""
    runs = [{**whole(distance), "alarms": []} for distance in (0.54, 0.56, 1.0)]
    runs[1]["student@4"]["accuracy"] = 0.96
    runs[2]["student@1"]["colour_variance"] = 0.111
    runs[2]["alarms"] = ["suspect", "collapsed"]
    lines = bars_table(Row(runs, 1.5, adds_noise=False)).splitlines()
    bar, *seeds = lines[4:8]
    assert (
        bar
        == "| bar | <= 1.1 | <= 1.4 | >= 0.97 | >= 0.97 | 0.9 to 1.1 | 0.9 to 1.1 | 0.9 to 1.1 | 0.9 to 1.1 | silent |"
    )
    assert seeds[0].startswith("| 0 | 1.080 | 1.080 | 1.000 |") and seeds[0].endswith("| silent |")
    assert seeds[1].startswith("| 1 | **1.120** | 1.120 | **0.960** | 1.000 |")
    assert "| 1.000 | **1.110** |" in seeds[2] and seeds[2].endswith("| suspect, collapsed |")


def test_nearer_to_real_images_is_said_only_where_holm_leaves_it() -> None:
    """Five seeds about .5 against 1.2 and 1.3 are certain; five about 1.25 are not."""

    def told(*distances: float) -> str:
        return bars_table(
            Row([{**whole(value), "alarms": []} for value in distances], 1.5, adds_noise=False)
        ).splitlines()[-1]

    assert told(0.5, 0.52, 0.48, 0.5, 0.55).count("(nearer)") == 4
    assert told(1.2, 1.4, 1.1, 1.3, 1.25).count("(not distinguishable)") == 4


def test_a_run_is_stale_when_recipe_evaluation_or_commit_are_not_those_of_now(recipe: Recipe) -> None:
    kept = {"signature": recipe.distill_signature(), "evaluation": recipe.evaluate_signature(), "commit": "0123456789"}
    assert results.why_stale(kept, recipe) == ""
    assert results.why_stale({}, recipe) == "not measured"
    assert results.why_stale({**kept, "signature": "0"}, recipe) == "the recipe has changed"
    earlier = {name: value for name, value in kept.items() if name != "evaluation"}
    assert results.why_stale(earlier, recipe) == "the evaluation has changed"
    dirty = {**kept, "commit": "0123456789-dirty"}
    assert results.why_stale(dirty, recipe) == "its code was not committed"
    assert results.why_stale(dirty, recipe, dirty=True) == ""


def test_stale_runs_are_reported_and_not_shown(recipe: Recipe) -> None:
    options = dataclasses.replace(results.Options(), scale="smoke", seeds=(0, 1), only=("exp6",), teachers=(0,))
    kept = {}
    for run in results.wanted_runs(options):
        own = results.recipe_of(run, "smoke")
        facts = {"signature": own.distill_signature(), "evaluation": own.evaluate_signature(), "commit": "0"}
        kept[run.key] = {**facts, **whole(0.6)}
    assert "| exp6 | 0.600 ± 0.000 |" in report(results.tables(kept, options))
    kept["exp6 / seed 1"]["signature"] = "0"
    text = report(results.tables({**kept, "lsgan / seed 0": {}}, options))
    assert text == "Not shown: 1 runs (1 the recipe has changed) of exp6. 1 kept runs belong to no row."


def test_every_teacher_has_its_own_signature_and_a_distillation_with_its_own_seed(recipe: Recipe) -> None:
    options = dataclasses.replace(results.Options(), scale="smoke", only=("exp6",))
    runs = results.wanted_runs(options)
    assert [(run.teacher, run.seed) for run in runs] == [(0, 0), (0, 1), (0, 2), (1, 1), (2, 2)]
    own = {run: results.recipe_of(run, "smoke") for run in runs}
    assert len({found.teacher_signature() for found in own.values()}) == 3
    assert len({found.distill_signature() for found in own.values()}) == len({run.key for run in runs}) == 5


def test_the_estimate_takes_the_rows_own_seconds_else_its_flops_else_those_of_all() -> None:
    other = [{"flops_a_step": 1e9}, {"flops_a_step": 2e9}, {"flops_a_step": 9e9}]
    assert expected_s([{"updates": 300, "seconds": 40.0}, {"updates": 300, "seconds": 50.0}], other, 300) == 45.0
    assert expected_s([{"updates": 300, "seconds": 40.0, "flops_a_step": 1e10}], other, 1000) == 30.0 + 1000 * 0.1
    assert expected_s([], other, 1000) == 30.0 + 1000 * 0.02
    on_gpu = {"updates": 300, "seconds": 4.0, "device": "NVIDIA H100"}
    assert expected_s([on_gpu, {"updates": 300, "seconds": 40.0, "device": "cpu"}], other, 300) == 40.0
    assert total_s({"a": 10.0, "b": 2.0}, 2) == 10.0 and total_s({"a": 4.0, "b": 3.0, "c": 3.0}, 2) == 5.0


def test_a_run_that_fails_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "a.json")

    def one(key: str) -> dict[str, Any]:
        if key == "b":
            raise Failed("diverged")
        return {"made": key}

    assert run_all(1, {"a": 60.0, "b": 60.0, "c": 60.0}, one, store.keep) == ["b: diverged"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": {"made": "a"}, "c": {"made": "c"}}
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "3 runs, 1 at a time: about 3 min, without teachers and shards"
    assert lines[2] == "[2/3] b: 0 s, failed; about 60 s to go"


def test_text_goes_between_the_markers_of_a_page_that_has_them(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("one\n<!-- a -->\nold\n<!-- /a -->\ntwo\n", encoding="utf-8")
    put_between(page, "a", "new")
    assert page.read_text(encoding="utf-8") == "one\n<!-- a -->\nnew\n<!-- /a -->\ntwo\n"
    with pytest.raises(SystemExit, match="lacks the markers"):
        put_between(page, "b", "new")
