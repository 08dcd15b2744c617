"""The recipe's step has every part of the recipe in its place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import torch

from ladd_dist.builders.step import Frozen, build_critic, build_step
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.critics.pixels import Pixels
from ladd_dist.engine.discriminator import LevelCode
from ladd_dist.parallel import Trainable
from ladd_dist.recipe import load_recipe
from ladd_dist.sigmas.laws import FixedSet, LogNormal
from plugins.schedules import Constant
from plugins.taps.named import Named

RECIPE = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "exp4_specnorm.py", "smoke")


def test_every_part_of_the_recipe_is_in_its_place() -> None:
    """Parts of one type beside each other - two laws of levels, two weights, two networks - are not exchanged."""
    recipe = dataclasses.replace(
        RECIPE,
        student_sigma=FixedSet(),
        renoise_sigma=LogNormal(mean=-3.0),
        adv_weight=Constant(value=0.25),
        distill_weight=Constant(value=0.75),
        train=dataclasses.replace(
            RECIPE.train, mode="alternate", head_updates=3, mismatched=0.25, heads_see_level=True
        ),
        teacher=dataclasses.replace(RECIPE.teacher, seed=2),
        shards=dataclasses.replace(RECIPE.shards, seed=3),
        evaluate=dataclasses.replace(RECIPE.evaluate, seed=4),
        critic=Pixels(),
        taps=Named(names=("conv0", "conv2")),
        student_steps=2,
        seed=7,
    )
    teacher = fresh_network(recipe)
    critic = build_critic(recipe, teacher)
    student, heads = (cast(Trainable, object()) for _ in range(2))
    before = fresh_network(recipe)
    step = build_step(recipe, student, heads, Frozen(critic, teacher, before))
    assert step.student is student and step.heads is heads
    assert step.critic.network is critic and step.critic.taps == ("conv0", "conv2") and not step.critic.renoises
    for field in ("adversarial", "target", "distance", "regulariser", "adv_weight", "distill_weight"):
        assert getattr(step, field) is getattr(recipe, field), field
    assert (step.mode, step.head_updates, step.heads_update.mismatched) == ("alternate", 3, 0.25)
    assert step.critic.level_code == LevelCode(min(recipe.student_levels()), max(recipe.student_levels()))
    draws = step.micro_batches
    for field in ("start", "rollout", "student_sigma", "renoise_sigma", "seed"):
        assert getattr(draws, field) == getattr(recipe, field), field
    x, sigma, cond = torch.ones(2, *recipe.latent().shape), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    assert draws.before is not None and torch.equal(draws.before(x, sigma, cond), before(x, sigma, cond).denoised)
    assert draws.levels == recipe.levels(2) != recipe.levels(4)
