"""The benchmark sweeps: LADD alone at one budget, and what `benchmarks.bench` reads off them."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import kept_of, report, shown, smallest_difference, values_of
from ladd_dist.datasets.fashion_mnist import FashionMnist
from ladd_dist.recipe.sweep import SweepRun, expand, load_sweep
from ladd_dist.starts.couplings import Fresh

REPO = Path(__file__).resolve().parents[2]
SWEEPS = ("bench_heads", "bench_games")


def runs_of(name: str, scale: str = "laptop") -> list[SweepRun]:
    runs, notes = expand(load_sweep(REPO / "recipes" / f"{name}.py"), scale)  # type: ignore[arg-type]
    assert not notes
    return runs


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_has_nine_variants_in_three_seeds_of_ladd_alone_on_one_teacher(name: str, scale: str) -> None:
    runs = runs_of(name, scale)
    assert len(runs) == 27 and len({run.axes for run in runs}) == 9 and {run.recipe.seed for run in runs} == {0, 1, 2}
    assert len({run.recipe.shards_signature() for run in runs}) == 1
    for run in runs:
        recipe = run.recipe
        assert isinstance(recipe.dataset, FashionMnist) and recipe.dataset.size == 32
        assert recipe.start == Fresh() and not recipe.start.needs_pairs
        assert [recipe.distill_weight(step) for step in (0, recipe.train.steps)] == [0.0, 0.0]
        assert recipe.adv_weight(0) > 0 and recipe.shards.guidance == 1.5


@pytest.mark.parametrize("name", SWEEPS)
def test_on_a_gpu_they_are_the_same_runs_with_recorded_steps(name: str) -> None:
    runs, notes = expand(load_sweep(REPO / "benchmarks" / f"{name}_gpu.py"), "laptop")
    signatures = [run.recipe.evaluate_signature() for run in runs]
    assert not notes and signatures == [run.recipe.evaluate_signature() for run in runs_of(name)]
    assert all(run.recipe.train.compute.graph and run.recipe.teacher.compute.graph for run in runs)


def test_both_sweeps_share_a_teacher_and_have_a_run_in_common() -> None:
    heads, games = ({run.recipe.distill_signature() for run in runs_of(name)} for name in SWEEPS)
    assert len(heads & games) == 3  # the base, in three seeds: done once
    assert len({run.recipe.teacher_signature() for name in SWEEPS for run in runs_of(name)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_every_variant_has_the_same_budget_of_flops(name: str) -> None:
    from ladd_dist.stages.dry_run import _cost

    totals = {
        run.label: _cost(run.recipe).flops["step"] * run.recipe.train.steps
        for run in runs_of(name)
        if run.recipe.seed == 0
    }
    middle = (max(totals.values()) + min(totals.values())) / 2
    assert all(abs(total / middle - 1) < 0.015 for total in totals.values()), totals


# --- what the sweeps say ---


def compared(
    value: Any, heads: tuple[str, ...] = ("a", "b", "c"), taps: tuple[str, ...] = ("x", "y"), seeds: int = 3
) -> dict[str, Any]:
    """What `ladd compare --json` prints, as far as it is read, with `value(head, taps, seed)`."""
    return {
        "metric": "fd_real",
        "sampler": "student@4",
        "better": "lower",
        "differing": ["taps", "head", "head.width"],
        "references": [
            {"entry": "teacher@50", "figures": {"fd_real": 0.5, "accuracy": 1.0}},
            {"entry": "floor@50", "figures": {"accuracy": 1.0}},
        ],
        "variants": [
            {
                "fields": {"head": head, "taps": layout, "head.width": 8},
                "difference": None if head == "a" else {"distinguishable": head == "c", "mean": 0.1},
                "runs": [{"seed": seed, "value": value(head, layout, seed)} for seed in range(seeds)],
            }
            for head, layout in itertools.product(heads, taps)
        ],
    }


def test_a_head_is_told_apart_over_layouts_and_seeds_and_an_equal_one_is_not() -> None:
    noise = random.Random(0)
    scatter = {key: noise.gauss(0, 0.5) for key in itertools.product("xy", range(3))}

    def value(head: str, layout: str, seed: int) -> float:
        """Layouts and seeds scatter widely, but all heads alike: pairs take that out."""
        return 2.0 + scatter[layout, seed] + (0.4 if head == "c" else 0.0) + noise.gauss(0, 0.02)

    text = report(compared(value))
    rows = {tuple(cell.strip() for cell in line.split("|")[1:4]): line for line in text.splitlines()}
    assert "**a**" in rows["head", "a", "c"] and "**b**" in rows["head", "b", "c"] and "| 6 |" in rows["head", "a", "c"]
    assert "not distinguishable" in rows["head", "a", "b"] and "not distinguishable" in rows["taps", "x", "y"]
    assert "all 4 (Holm)" in text and "For comparison: teacher@50 0.500." in text
    verdicts = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in text.splitlines()[2:8]}
    assert verdicts == {"a": "", "b": "not distinguishable", "c": "**worse**"}


def test_the_best_variant_is_first_whichever_way_the_figure_points() -> None:
    found = compared(lambda head, layout, seed: {"a": 1.0, "b": 2.0, "c": 3.0}[head] + 0.1 * seed, taps=("x",))
    assert report(found).index("| a | x |") < report(found).index("| c | x |")
    found["better"] = "higher"
    assert report(found).index("| c | x |") < report(found).index("| a | x |")


def test_runs_that_are_not_done_are_left_out_and_the_seeds_of_the_rest_matched() -> None:
    found = compared(lambda head, layout, seed: None if (head, seed) == ("a", 1) else float(seed), seeds=3)
    assert values_of(found, ["head", "taps"])["a", "x"] == {0: 0.0, 2: 2.0}
    (line,) = [line for line in report(found).splitlines() if line.startswith("| head | a | b |")]
    assert "| 4 | +0.000 ± 0.000" in line


def test_what_is_kept_gives_the_same_tables_and_says_what_made_the_runs(tmp_path: Path) -> None:
    found = compared(lambda head, layout, seed: {"a": 1.0, "b": 2.0, "c": 3.0}[head] + 0.1 * seed)
    for number, variant in enumerate(found["variants"]):
        variant["figures"] = {"student@4": {"recall": {"mean": 0.5}}}
        for run in variant["runs"]:
            folder = tmp_path / f"{number}-{run['seed']}"
            folder.mkdir()
            made = {"environment": {"commit": "abc", "device": "cpu"}}
            (folder / "config.json").write_text(json.dumps(made))
            run |= {"signature": folder.name, "source": str(folder), "name": "bench"}
    kept = json.loads(json.dumps(kept_of(found)))
    told = "Device `cpu`, commit `abc`.\n"
    assert told in report(kept) and report(kept).replace(told, "") == report(found)
    assert "recall" not in json.dumps(kept) and kept_of(kept) == kept
    dirty = {"environment": {"commit": "abc-dirty", "device": "cpu"}}
    (tmp_path / "0-0" / "config.json").write_text(json.dumps(dirty))
    with pytest.raises(SystemExit, match="commit the code"):
        kept_of(found)
    (tmp_path / "0-0" / "config.json").unlink()
    with pytest.raises(SystemExit, match="is gone"):
        kept_of(found)


def test_phases_of_levels_are_named_by_their_probabilities() -> None:
    phases = [{"start_step": 0, "probabilities": [0.25, 0.75]}, {"start_step": 75, "probabilities": [0.5, 0.5]}]
    assert shown(phases) == shown([json.dumps(phase) for phase in phases]) == "0.25 0.75, then 0.5 0.5 from 75"
    assert shown([]) == "each as often"


def test_the_smallest_difference_that_shows_is_found_that_often() -> None:
    """By simulation, and in the limit of many pairs the normal quantiles."""
    import numpy as np
    from scipy.stats import norm, ttest_1samp

    expected = norm.ppf(0.975) + norm.ppf(0.8)
    assert smallest_difference(2.0, 4_000, 0.05) == pytest.approx(2.0 * expected / math.sqrt(4_000), rel=1e-3)
    least = smallest_difference(1.5, 5, 0.05 / 6)
    drawn = np.random.default_rng(0).normal(least, 1.5, (20_000, 5))
    assert (ttest_1samp(drawn, 0, axis=1).pvalue < 0.05 / 6).mean() == pytest.approx(0.8, abs=0.01)
    assert smallest_difference(1.0, 3, 0.05 / 36) > 5 * smallest_difference(1.0, 3, 0.05)
