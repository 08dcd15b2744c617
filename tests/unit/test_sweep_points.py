"""A sweep runs what its labels say, whatever the order of its axes, and no run twice. So do several swaps."""

from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ladd_dist.core.plugin import register
from ladd_dist.core.serialize import RecipeError
from ladd_dist.heads import Head
from ladd_dist.recipe import Axis, Points, Random, Range, Recipe, Sweep
from ladd_dist.recipe.swap import apply_swaps, choose_parallel
from ladd_dist.recipe.sweep import SweepRun, expand
from ladd_dist.samplers.karras import Euler, Heun
from plugins.heads import MaxPool, SmallConv, SpectralNorm
from recipes._base import BASE

REPO = Path(__file__).resolve().parents[2]
RECIPE = BASE.smoke
WIDTH, HEAD = Axis("head.width", (16, 32)), Axis("head", ("max_pool", "small_conv"))


def expanded(*axes: Axis, **changes: Any) -> tuple[list[SweepRun], list[str]]:
    return expand(Sweep("test", RECIPE, axes, **changes), "smoke")


def require_the_four(runs: list[SweepRun]) -> None:
    """The four heads, each under its own label."""
    heads = {(dict(run.axes)["head"], dict(run.axes)["head.width"]): run.recipe.head for run in runs}
    assert heads == {
        ("max_pool", "16"): MaxPool(width=16),
        ("max_pool", "32"): MaxPool(width=32),
        ("small_conv", "16"): SmallConv(width=16),
        ("small_conv", "32"): SmallConv(width=32),
    }


@pytest.mark.parametrize("axes", [(WIDTH, HEAD), (HEAD, WIDTH)], ids=["inner axis first", "inner axis last"])
def test_a_grid_is_the_same_in_whatever_order_its_axes_stand(axes: tuple[Axis, ...]) -> None:
    runs, notes = expanded(*axes)
    assert len(runs) == 4 and notes == []
    require_the_four(runs)


def test_points_are_the_same_in_whatever_order_their_fields_stand() -> None:
    points = [
        {"head.width": width, "head": head} for width, head in itertools.product((16, 32), ("max_pool", "small_conv"))
    ]
    require_the_four(expanded(mode=Points(tuple(points)))[0])


def test_draws_are_the_same_in_whatever_order_the_axes_stand() -> None:
    require_the_four(expanded(WIDTH, HEAD, mode=Random(budget=4))[0])


def test_a_whole_stage_never_sets_back_a_plug_in_or_number_inside_it() -> None:
    deepest, inner = Axis("shards.sampler.steps", (20,)), Axis("shards.sampler", ("heun",))
    stage = Axis("shards", (dataclasses.replace(RECIPE.shards, guidance=2.0),))
    for axes in itertools.permutations((deepest, inner, stage)):
        (run,), _ = expanded(*axes)
        assert run.recipe.shards == dataclasses.replace(RECIPE.shards, guidance=2.0, sampler=Heun(steps=20))
        assert dict(run.axes)["shards.sampler.steps"] == "20"


def test_a_label_gives_the_settings_of_the_finished_plug_in() -> None:
    """The width of the listed heads is overwritten by its own axis, so that a label with it would be wrong."""
    heads = Axis("head", (SpectralNorm(width=8, blocks=1), SpectralNorm(width=8, blocks=2)))
    runs, _ = expanded(heads, Axis("head.width", (16,)))
    assert [run.recipe.head for run in runs] == [SpectralNorm(width=16, blocks=1), SpectralNorm(width=16, blocks=2)]
    labels = [dict(run.axes)["head"] for run in runs]
    assert ["blocks=1" in label for label in labels] == [True, False]
    assert not any("width" in label for label in labels)


def test_an_axis_that_the_sweep_itself_overwrites_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"axis 'seed': the seeds of a sweep are its own field, like seeds=\(0, 1\)"):
        expanded(Axis("seed", (1, 2)))
    with pytest.raises(RecipeError, match="axis 'seed'"):
        expanded(mode=Points(({"seed": 1},)))


def test_different_numbers_have_different_labels() -> None:
    """Six digits made one label of both, and a W&B agent ran the first for each."""
    runs, _ = expanded(Axis("train.lr_heads", (0.12345678, 0.12345679, 1e-4)))
    assert [run.label for run in runs] == [
        "train.lr_heads=0.12345678 seed=0",
        "train.lr_heads=0.12345679 seed=0",
        "train.lr_heads=0.0001 seed=0",
    ]


def test_recipe_files_of_one_name_have_different_labels(tmp_path: Path) -> None:
    files = []
    for folder, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / folder).mkdir()
        files.append(str(tmp_path / folder / "mine.py"))
        Path(files[-1]).write_text(
            f"import sys; sys.path.insert(0, {str(REPO)!r})\nimport dataclasses\nfrom recipes._base import BASE\n"
            f"RECIPE = BASE.replace(train=dataclasses.replace(BASE.smoke.train, lr_heads={lr}))\n"
        )
    runs, _ = expand(Sweep("test", None, (Axis("recipe", tuple(files)),)), "smoke")
    assert [dict(run.axes)["recipe"] for run in runs] == files


def test_a_number_out_of_range_names_the_axis() -> None:
    with pytest.raises(RecipeError, match=r"axis 'train.lr_final': must be at least 0 and at most 1, got -1.0"):
        expanded(Axis("train.lr_final", (-1.0,)))
    with pytest.raises(RecipeError, match=r"axis 'shards.sampler.sigma_min': .*sigma_max"):
        expanded(Axis("shards.sampler.sigma_min", (90.0,)))


# --- draws ---


@pytest.mark.parametrize("seed", [0, 11, 18])
def test_draws_find_every_point_of_a_space_as_large_as_the_budget(seed: int) -> None:
    """With seeds 11 and 18 a hundred draws in a row repeat earlier points before all thirty are found."""
    rates = tuple((number + 1) * 1e-4 for number in range(30))
    runs, notes = expanded(Axis("train.lr_heads", rates), mode=Random(budget=30, seed=seed))
    assert sorted(run.recipe.train.lr_heads for run in runs) == list(rates)
    assert notes == []


def test_draws_repeat_no_run_even_where_the_points_look_different() -> None:
    """`max_pool` and `MaxPool()` are one head, and `log_every` changes no run: there are 2 x 2 runs, not 3 x 2 x 3."""
    heads = Axis("head", ("max_pool", MaxPool(), "small_conv"))
    axes = (heads, Axis("student_steps", (2, 4)), Axis("train.log_every", (1, 2, 5)))
    for seed in range(3):
        runs, notes = expanded(*axes, mode=Random(budget=4, seed=seed))
        assert len({run.recipe.distill_signature() for run in runs}) == len(runs) == 4
        assert notes == []


def test_a_budget_above_the_number_of_runs_is_told_with_that_number() -> None:
    runs, notes = expanded(HEAD, Axis("train.log_every", (1, 2)), mode=Random(budget=9))
    assert len(runs) == 2
    assert notes == ["Random.budget: 9 runs, but the axes gave only 2 different ones: each is run once"]


def test_a_range_that_rounds_to_few_numbers_ends_with_a_note() -> None:
    runs, notes = expanded(Axis("train.lr_heads", Range(0.1, 0.102)), mode=Random(budget=9))
    assert sorted(run.recipe.train.lr_heads for run in runs) == [0.1, 0.101, 0.102]
    assert notes == ["Random.budget: 9 runs, but the axes gave only 3 different ones: each is run once"]


@pytest.mark.parametrize("between", [Range(0.9996, 0.9999), Range(1.2345, 1.2349, log=True), Range(-2.0, 3.0)])
def test_a_rounded_draw_stays_inside_its_range(between: Range) -> None:
    """Three digits of .9998 are 1, which a decay rate must not be."""
    source = random.Random(0)
    assert all(between.low <= between.draw(source) <= between.high for _ in range(100))


# --- swaps ---


def test_swaps_of_a_plug_in_and_of_one_inside_it_go_together_in_either_order(own_tables: None) -> None:
    @register("wrapping")
    @dataclass(frozen=True)
    class Wrapping(Head):
        """A head around another."""

        inner: Head = SpectralNorm()

        def build(self, *, channels: int, cond_dim: int) -> nn.Module:
            return self.inner.build(channels=channels, cond_dim=cond_dim)

    for order in itertools.permutations(("head=wrapping", "head.inner=max_pool")):
        assert apply_swaps(RECIPE, order).head == Wrapping(inner=MaxPool())
    assert apply_swaps(RECIPE, ("shards.sampler=heun", "start=stored")).shards.sampler == Heun()


def test_two_swaps_of_one_field_are_refused_unless_they_agree() -> None:
    with pytest.raises(RecipeError, match="--swap head: max_pool and small_conv at the same time; leave one out"):
        apply_swaps(RECIPE, ("head=max_pool", "start=stored", "head=small_conv"))
    assert apply_swaps(RECIPE, ("head=max_pool", "head=max_pool")).head == MaxPool()


def test_a_strategy_and_a_swap_of_another_one_are_refused() -> None:
    recipe: Recipe = apply_swaps(RECIPE, ("parallel=fsdp",))
    with pytest.raises(RecipeError, match="--parallel ddp and --swap parallel=fsdp at the same time"):
        choose_parallel(recipe, "ddp", ("parallel=fsdp",), 2)
    assert choose_parallel(recipe, "fsdp", ("parallel=fsdp",), 2).parallel == recipe.parallel
    assert isinstance(RECIPE.shards.sampler, Euler)
