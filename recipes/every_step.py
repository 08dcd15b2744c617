"""Adversarial loss on every one of the student's steps, as in Kandinsky 3.1.

The student runs from its highest level to its lowest by its own rule, and both losses apply at each of the four steps:
four times the rows in each update. The batch is a quarter of the other recipes', so a step trains on as many rows and
costs little more. At laptop scale the half-life of the average, which counts samples of the batch, is a quarter too.
Everything else is `exp7_stored_smooth_l1`'s.
"""

from dataclasses import replace

from ladd_dist.recipe import Ema
from ladd_dist.rollouts.policies import EveryStep
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = (
    EXP7.replace(
        name="every_step",
        note="Both losses on every one of the student's four steps, from noise to sample, on a quarter of the batch.",
        rollout=EveryStep(),
    )
    .at("smoke", train=replace(EXP7.smoke.train, batch_size=4))
    .at("laptop", train=replace(EXP7.laptop.train, batch_size=16, ema=Ema(half_life=1_100, ramp=0.0)))
    .at("paper", train=replace(EXP7.paper.train, batch_size=16))
)
