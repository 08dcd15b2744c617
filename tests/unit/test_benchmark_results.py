"""The tables of docs/results.md: made from what is stored, and winners only where Holm's correction leaves one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.results import Runs, adds_noise, best, key, pairs_table, read_store, report
from benchmarks.variants import PAIRS, VARIANTS

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.fixture(scope="module")
def figures() -> dict[str, Runs]:
    stored = read_store()
    return {name: [stored[key(name, seed)] for seed in (0, 1, 2)] for name in VARIANTS}


def runs(*distances: float) -> Runs:
    """Seeds of one row, with the same distance in one and four steps; two steps were not measured."""
    return [{f"student@{steps}": {"fd_teacher": value} for steps in (4, 1)} for value in distances]


def test_the_page_has_the_tables_that_the_stored_figures_give(figures: dict[str, Runs]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    own = text.partition("<!-- results -->\n")[2].partition("\n<!-- /results -->")[0]
    assert own == report(figures, 3)


def test_a_difference_that_stands_alone_is_no_winner_among_many() -> None:
    """-1 +- .25 has p = .003: enough for one difference, not for the smallest of many."""
    first, second = runs(1.0, 1.1, 0.9), runs(2.0, 2.2, 1.8)
    alone = pairs_table({"exp7": first, "exp6": second})
    assert alone[-1] == "| exp7 | exp6 | -1.000 ± 0.248: **exp7** |  | -1.000 ± 0.248: **exp7** |"
    close = runs(1.1, 1.0, 0.95)
    others = {name: close for pair in PAIRS for name in pair}
    crowded = pairs_table({**others, "exp7": first, "exp6": second})
    (row,) = [line for line in crowded if line.startswith("| exp7 | exp6 |")]
    assert row == "| exp7 | exp6 | -1.000 ± 0.248: not distinguishable |  | -1.000 ± 0.248: not distinguishable |"
    assert f"among all {2 * len(PAIRS)} of them" in crowded[0]


def test_the_best_is_a_winner_only_if_all_others_are_worse_after_correction() -> None:
    rows: dict[str, Any] = {"exp7": runs(1.0, 1.1, 0.9), "exp6": runs(2.0, 2.1, 1.9)}
    assert best(rows, 4) == "In 4 steps **exp7** wins, 1.000 ± 0.248: every other of 1 is worse."
    rows["exp5"] = runs(1.0, 1.1, 1.0)
    assert best(rows, 4).endswith("exp7, 1.000 ± 0.248, and 1 of 2 others cannot be told from it: exp5.")
    assert best(rows, 2) == ""


def test_rows_that_are_sampled_with_new_noise_are_marked(figures: dict[str, Runs]) -> None:
    assert [adds_noise(name) for name in ("exp5", "exp7", "add_digits", "ot_coupling")] == [True, False, True, False]
    assert "| exp5_fading_distance † |" in report(figures, 3)
