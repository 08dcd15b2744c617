"""Experiment 1 of the report: small-conv heads on five early taps, 10k samples, fresh noise. There: one colour."""

from dataclasses import replace

from ladd_dist.recipe import Reported
from ladd_dist.zoo.plugins.heads.small_conv import SmallConv
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.taps.early import Early
from ladd_dist.zoo.recipes._base import BASE, LAPTOP, PAPER

RECIPE = (
    BASE.replace(
        name="exp1_smallconv",
        note="Small-conv heads on the early part of the forward pass; a fifth of the data; no warm-up; fresh noise.",
        taps=Early(),
        head=SmallConv(width=64),
        adv_weight=Constant(value=0.1),
        reported=Reported(teacher_4=25.29, teacher_50=3.66, outcome="collapse to one colour"),
    )
    .at("laptop", shards=replace(LAPTOP.shards, num_samples=1_000))
    .at("paper", shards=replace(PAPER.shards, num_samples=10_000), head=SmallConv(width=656, pool=2))
)
