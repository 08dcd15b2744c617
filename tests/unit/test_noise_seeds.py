"""Several seeds of held-out noise: means, intervals that cover the seeds, and settings that keep them held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ladd_dist.core.serialize import RecipeError
from ladd_dist.evaluation.measurement import Measured
from ladd_dist.evaluation.noise_seeds import mean_figures, means_of, over_seeds
from ladd_dist.recipe import load_recipe, validate
from ladd_dist.recipe.recipe import Recipe
from recipes._base import SEEDS

REPO = Path(__file__).parents[2]


def test_a_figure_is_the_mean_over_seeds_with_students_interval() -> None:
    values = [0.157, 0.214, 0.301, 0.200, 0.222]
    found = mean_figures(
        [{"fd_real": value, "fd_real_low": value - 0.01, "fd_real_high": value + 0.01} for value in values]
    )
    assert found["fd_real"] == pytest.approx(sum(values) / 5)
    half = 2.776 * torch.tensor(values).std().item() / 5**0.5  # t with 4 degrees of freedom
    assert found["fd_real_low"] == pytest.approx(found["fd_real"] - half, rel=1e-3)
    assert found["fd_real_high"] == pytest.approx(found["fd_real"] + half, rel=1e-3)


def test_the_interval_covers_the_true_figure_whatever_the_samples_of_one_seed_share() -> None:
    """Samples of a seed share an error that the bootstrap over them cannot see: its intervals say +- .01 each."""
    source, hits = torch.Generator().manual_seed(0), 0
    for _ in range(1_000):
        values = (1.0 + 0.3 * torch.randn(5, generator=source)).tolist()
        found = mean_figures(
            [{"fd_real": value, "fd_real_low": value - 0.01, "fd_real_high": value + 0.01} for value in values]
        )
        hits += found["fd_real_low"] <= 1.0 <= found["fd_real_high"]
    assert 0.92 <= hits / 1_000 <= 0.98


def test_one_seeds_figures_keep_their_intervals_over_samples() -> None:
    figures = {"fd_real": 1.0, "fd_real_low": 0.9, "fd_real_high": 1.1}
    assert mean_figures([figures]) == figures


def test_figures_by_class_are_means_too_and_reasons_are_kept() -> None:
    one, two = ({"student@1": {"accuracy": value}} for value in (0.5, 0.7))
    sets = [
        Measured(one, {"student@1": {"3": {"accuracy": 0.2, "fd_real": 1.0}}}, {"kid": "few"}),
        Measured(two, {"student@1": {"3": {"accuracy": 0.4}}}, {}),
    ]
    found = over_seeds(sets)
    assert found.figures["student@1"]["accuracy"] == pytest.approx(0.6)
    assert set(found.classes["student@1"]["3"]) == {"accuracy", "accuracy_low", "accuracy_high"}  # one seed has no fd
    assert found.classes["student@1"]["3"]["accuracy"] == pytest.approx(0.3) and found.left_out == {"kid": "few"}


def test_readers_of_figures_get_the_means() -> None:
    found = {"student@4": {"fd_real": 1.0, "per_seed": {"11": {"fd_real": 0.9}, "12": {"fd_real": 1.1}}}}
    assert means_of(found) == {"student@4": {"fd_real": 1.0}}


# Settings


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "laptop")


def test_finished_students_are_measured_on_noise_that_nothing_was_tuned_on() -> None:
    for path in sorted((REPO / "recipes").glob("exp*.py")):
        for scale in ("laptop", "paper"):
            settings = load_recipe(path, scale).evaluate
            assert len(settings.noise_seeds()) == (1 if scale == "laptop" else 5), path.name
            assert settings.seed not in settings.noise_seeds()  # dumps, figures while training, `ladd diagnose`
            assert set(settings.noise_seeds()) <= set(SEEDS)  # all of which the benchmark's rows take
        assert len(load_recipe(path, "smoke").evaluate.noise_seeds()) == 1


def with_seeds(recipe: Recipe, **settings: object) -> Recipe:
    return validate(dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, **settings)))


def test_seeds_that_are_no_new_noise_are_refused(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="must differ from each other"):
        with_seeds(recipe, seeds=(5, 5))
    with pytest.raises(ValueError, match=r"must not hold `seed`, 1000003"):
        with_seeds(recipe, seeds=(5, 1_000_003))
    for settings in ({"seeds": (5, 0)}, {"seed": 0}):  # the shards' seed: the noise of the training
        with pytest.raises(RecipeError, match=r"seed 0 is that of the shards"):
            with_seeds(recipe, **settings)
    with_seeds(recipe, seeds=(5, 6))
