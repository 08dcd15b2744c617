"""LADD alone that works at laptop scale: no pairs, no distance, no stored noise; what it took beside `ladd_paper`.

Two things decide. The heads know the level that the student started from (`train.heads_see_level`): they compare
real pictures with samples that the student makes in one call from four levels, and heads that cannot tell these apart
play against the mixture, which leaves one step dull and four steps too vivid. And the real samples are pictures of the
dataset (`shards.samples="dataset"`), not the teacher's, whose own distance to real pictures a student would inherit.
The rest: every level as often, max-pooling heads without spectral norm, held by R1, bce, a comparison at lower noise
levels, a student that learns ten times more slowly than its heads, and thousands of updates. docs/results.md has what
each of them gives.
"""

from dataclasses import replace

from ladd_dist.losses.adversarial import Bce
from ladd_dist.recipe import Ema
from ladd_dist.regularisers.penalties import R1
from ladd_dist.sigmas.laws import FixedSet, LogNormal
from ladd_dist.zoo.plugins.heads.max_pool import MaxPool
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SMOKE
from ladd_dist.zoo.recipes.ladd_paper import RECIPE as LADD_PAPER

LEARNING = {
    "lr_student": 1e-4,
    "lr_heads": 1e-3,
    "lr_final": 0.05,
    "betas_student": (0.0, 0.99),
    "betas_heads": (0.0, 0.99),
    "heads_see_level": True,
    "mismatched": 0.1,
}

RECIPE = (
    LADD_PAPER.replace(
        name="ladd",
        note="LADD alone, with real pictures as real and heads that see the student's level.",
        student_sigma=FixedSet(),
        adversarial=Bce(),
        head=MaxPool(width=64, conditioned=True),
        regulariser=R1(gamma=0.1, every=4),
        renoise_sigma=LogNormal(mean=-0.5, std=1.2),
    )
    .at("smoke", shards=replace(SMOKE.shards, samples="dataset"), train=replace(SMOKE.train, **LEARNING))
    .at(
        "laptop",
        shards=replace(LAPTOP.shards, samples="dataset", num_samples=20_000),
        train=replace(
            LAPTOP.train,
            **LEARNING,
            steps=4_000,
            ema=Ema(half_life=16_000, ramp=0.0),
            dump_every=1_000,
            evaluate_every=500,
            checkpoint_every=500,
        ),
    )
    .at("paper", shards=replace(PAPER.shards, samples="dataset"), train=replace(PAPER.train, **LEARNING))
)
