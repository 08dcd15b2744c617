"""Sweeps become runs: grid, points and draws, labels, and messages for what cannot be."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import Recipe
from ladd_dist.recipe.sweep import (
    Axis,
    Grid,
    Points,
    Random,
    Range,
    Sweep,
    SweepRun,
    expand,
    load_sweep,
    sweep_signature,
)
from plugins.heads.max_pool import MaxPool
from plugins.heads.spectral_norm import SpectralNorm
from recipes._base import BASE

REPO = Path(__file__).resolve().parents[2]


def runs_of(*axes: Axis, **changes: Any) -> list[SweepRun]:
    return expand(Sweep("test", BASE, axes, **changes), "smoke")[0]


def refused(message: str, *axes: Axis, **changes: Any) -> None:
    with pytest.raises(RecipeError, match=message):
        runs_of(*axes, **changes)


def test_a_grid_has_every_combination_with_every_seed() -> None:
    head = Axis("head", (SpectralNorm(width=8), "max_pool"))
    runs = runs_of(head, Axis("train.lr_heads", (1e-4, 5e-4)), seeds=(0, 1))
    assert [run.label for run in runs][:3] == [
        "head=spectral_norm train.lr_heads=0.0001 seed=0",
        "head=spectral_norm train.lr_heads=0.0001 seed=1",
        "head=spectral_norm train.lr_heads=0.0005 seed=0",
    ]
    assert len({run.recipe.distill_signature() for run in runs}) == 8
    assert runs[-1].recipe.head == MaxPool()
    assert runs[-1].recipe.train.lr_heads == 5e-4


def test_fields_inside_a_plug_in_and_whole_stages_can_be_axes() -> None:
    runs = runs_of(Axis("head.width", (8, 16)), Axis("train", (BASE.smoke.train,)))
    assert [run.recipe.head.width for run in runs] == [8, 16]  # type: ignore[attr-defined]


def test_whole_recipes_can_be_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    axis = Axis("recipe", ("recipes/exp1_smallconv.py", "recipes/exp3_maxpool.py"))
    runs, _ = expand(Sweep("recipes", None, (axis, Axis("train.lr_heads", (1e-4,)))), "smoke")
    assert [run.recipe.name for run in runs] == ["exp1_smallconv", "exp3_maxpool"]
    assert runs[0].label == "recipe=exp1_smallconv train.lr_heads=0.0001 seed=0"


def test_a_list_of_points_is_run_as_it_stands() -> None:
    points = Points(({"head": "max_pool"}, {"head": SpectralNorm(width=8), "student_steps": 2}))
    runs = runs_of(mode=points)
    assert [run.label for run in runs] == ["head=max_pool seed=0", "head=spectral_norm student_steps=2 seed=0"]


def test_draws_keep_to_their_budget_and_are_the_same_for_the_same_seed() -> None:
    axes = (Axis("head", ("spectral_norm", "max_pool")), Axis("train.lr_heads", Range(1e-5, 1e-3, log=True)))
    first, again = (runs_of(*axes, mode=Random(budget=5, seed=3)) for _ in range(2))
    assert [run.label for run in first] == [run.label for run in again]
    assert len(first) == 5
    assert all(1e-5 <= run.recipe.train.lr_heads <= 1e-3 for run in first)
    assert [run.label for run in runs_of(*axes, mode=Random(budget=5, seed=4))] != [run.label for run in first]


def test_a_budget_above_what_there_is_gives_all_there_is() -> None:
    runs = runs_of(Axis("head", ("spectral_norm", "max_pool")), mode=Random(budget=50))
    assert len(runs) == 2


def test_one_recipe_with_several_seeds_is_a_sweep() -> None:
    assert [run.label for run in runs_of(seeds=(0, 1, 2))] == ["seed=0", "seed=1", "seed=2"]


def test_plug_ins_of_one_name_are_told_apart_by_their_settings() -> None:
    labels = [dict(run.axes)["head"] for run in runs_of(Axis("head", (SpectralNorm(width=8), SpectralNorm(width=16))))]
    assert len(set(labels)) == 2
    assert all("width=" in label for label in labels)


def test_equal_runs_are_run_once_and_it_is_said() -> None:
    runs, notes = expand(Sweep("test", BASE, (Axis("train.log_every", (1, 2)),)), "smoke")
    assert len(runs) == 1
    assert notes == [
        f"'train.log_every=2 seed=0' is the same run as 'train.log_every=1 seed=0' (signature "
        f"{runs[0].recipe.distill_signature()}): it is run once"
    ]


def test_runs_that_only_their_measurement_tells_apart_are_refused() -> None:
    refused("they would share a folder", Axis("evaluate.num_samples", (32, 64)))


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (Axis("heads", ("max_pool",)), "no field 'heads'; fields of Recipe: dataset, .*, head, "),
        (Axis("train.lr", (1e-4,)), "axis 'train.lr': no field 'lr'; fields of DistillStage: steps, .*lr_heads"),
        (Axis("head.size", (8,)), "no field 'size'; fields of spectral_norm: "),
        (Axis("head", ("max_pol",)), "axis 'head': unknown head 'max_pol'; valid: "),
        (Axis("head", (BASE.smoke.taps,)), "axis 'head': expected a head plug-in, got DownsMiddle"),
        (Axis("train.steps", ("ten",)), "axis 'train.steps': expected int, got str 'ten'"),
        (Axis("train.steps", (0,)), "axis 'train.steps': must be at least 1 and at most 1000000000, got 0"),
        (Axis("head", ()), "axis 'head': an empty sweep"),
        (Axis("head", ("max_pool", "max_pool")), "axis 'head': the value 'max_pool' is there twice"),
        (Axis("train.lr_heads", Range(0.1, 0.2)), "a Range needs mode=Random"),
        (Axis("recipe", ("recipes/none.py",)), "recipes/none.py does not exist"),
    ],
)
def test_an_axis_that_cannot_be_is_one_message(axis: Axis, message: str) -> None:
    refused(message, axis)


def test_an_empty_or_contradictory_sweep_is_one_message() -> None:
    refused("an empty sweep; give at least one seed", seeds=())
    refused("a seed stands there twice", seeds=(1, 1))
    refused("Points needs at least one point", mode=Points(()))
    refused("either axes, or mode=Points", Axis("head", ("max_pool",)), mode=Points(({"head": "max_pool"},)))
    refused("'head' is there twice", Axis("head", ("max_pool",)), Axis("head", ("spectral_norm",)))
    refused("Random draws from axes", mode=Random(budget=3))
    with pytest.raises(RecipeError, match=re.escape("Random.budget: must be at least 1")):
        Random(budget=0)
    with pytest.raises(RecipeError, match="expected a Scales or Recipe"):
        expand(Sweep("test", None), "smoke")
    with pytest.raises(RecipeError, match="names a folder"):
        expand(Sweep("a/b", BASE), "smoke")


def test_the_order_of_runs_does_not_change_the_signature_and_a_seed_more_does() -> None:
    one, other = Axis("head", ("max_pool", "spectral_norm")), Axis("head", ("spectral_norm", "max_pool"))
    assert sweep_signature(runs_of(one)) == sweep_signature(runs_of(other))
    assert sweep_signature(runs_of(one)) != sweep_signature(runs_of(one, seeds=(0, 1)))


def test_the_shipped_sweep_is_heads_by_taps_by_schedules_by_seeds() -> None:
    sweep = load_sweep(REPO / "recipes" / "sweep_heads.py")
    for scale in ("smoke", "laptop", "paper"):
        runs, notes = expand(sweep, scale)  # type: ignore[arg-type]
        assert len(runs) == 16
        assert notes == []
        assert len({run.recipe.shards_signature() for run in runs}) == 1


def test_a_recipe_in_place_of_a_sweep_is_told_its_command() -> None:
    with pytest.raises(RecipeError, match="it is a single recipe: `ladd launch"):
        load_sweep(REPO / "recipes" / "exp4_specnorm.py")


def test_a_sweep_is_a_frozen_value() -> None:
    sweep = Sweep("test", BASE)
    assert dataclasses.replace(sweep, seeds=(1,)) != sweep
    assert sweep.mode == Grid()
    assert isinstance(BASE.smoke, Recipe)
