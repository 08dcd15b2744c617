"""Kandinsky 3.1's method at our scales: the frozen down half is the discriminator, the adversarial loss all there is.

As in `recipes/kandinsky31.py` (Arkhipkin et al. 2023, arXiv 2312.03511): a head on each down block of the teacher,
whose middle and up half is never computed for the heads; the adversarial loss on every one of the student's four steps,
on its own run from noise; no distance. The heads have R1, and the learning rates are those that kept LADD's colours at
laptop scale without a distance; neither is in the paper. Not tuned.
"""

from dataclasses import replace

from ladd_dist.recipe import Ema, Reported
from ladd_dist.regularisers.penalties import R1
from ladd_dist.sigmas.laws import LogNormal
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.taps.downs import Downs
from ladd_dist.zoo.recipes.every_step import RECIPE as EVERY_STEP

RATES = {"lr_student": 1e-4, "lr_heads": 1e-3, "betas_student": (0.0, 0.99), "betas_heads": (0.0, 0.99)}

RECIPE = (
    EVERY_STEP.replace(
        name="kandinsky_digits",
        note="Kandinsky 3.1's method: heads on the frozen down half, adversarial loss on every step, no distance.",
        taps=Downs(),
        regulariser=R1(gamma=0.1),
        renoise_sigma=LogNormal(mean=-0.5, std=1.2),
        adv_weight=Constant(value=1.0),
        distill_weight=Constant(value=0.0),
        reported=Reported(outcome="not run there"),
    )
    .at("smoke", train=replace(EVERY_STEP.smoke.train, **RATES))
    .at(
        "laptop",
        train=replace(EVERY_STEP.laptop.train, steps=2_000, ema=Ema(half_life=4_000, ramp=0.0), **RATES),
    )
)
