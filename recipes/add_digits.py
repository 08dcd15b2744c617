"""Adversarial Diffusion Distillation (Sauer et al. 2023, arXiv 2311.17042), with this project's parts.

The heads see samples in pixels, without noise, through a frozen feature network (there DINOv2, here the shipped
digit-and-colour network), and know the class. The distance pulls the student's sample to the teacher's version of it:
re-noised with new noise and denoised in one call, weighted by alpha_t. The noise is fresh, so no pairs are needed.
Steps, batch and network are those of the LADD recipe `exp7_stored_smooth_l1`.

Nothing here ties a sample to its input. The distance seeks modes: without the heads one colour per class is left. Only
the heads oppose that, and they must keep up with the student, which learns to fool features of pixels within a few
steps: with exp7's rates they stay at chance and the colours vanish. The heads therefore learn seven times as fast as
the student, with two updates for its one, and R1 (Mescheder et al. 2018, arXiv 1801.04406; in ADD as well) keeps them
smooth. The distance uses low levels, where the teacher's version of a sample still is that sample.
"""

from dataclasses import replace

from ladd_dist.critics.pixels import Pixels
from ladd_dist.losses.distance import Mse
from ladd_dist.recipe import Reported
from ladd_dist.regularisers.penalties import R1
from ladd_dist.starts.couplings import Fresh
from ladd_dist.targets.pulls import TeacherDenoised
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.schedules.linear_warmup import LinearWarmup
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SMOKE
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = (
    EXP7.replace(
        name="add_digits",
        note="ADD: heads on frozen features of pixels; the target is what the teacher makes of the student's sample.",
        start=Fresh(),
        critic=Pixels(),
        taps=Named(("conv0", "conv1", "conv2", "conv3")),
        head=SpectralNorm(width=64, conditioned=True),
        regulariser=R1(gamma=0.1),
        target=TeacherDenoised(mean=-1.5, std=1.0),
        distance=Mse(sigma_scale=0.5, sigma_power=0.5),
        distill_weight=Constant(value=0.1),
        reported=Reported(outcome="not run there"),
    )
    .at("smoke", adv_weight=LinearWarmup(value=0.1, steps=4), train=replace(SMOKE.train, head_updates=2))
    .at(
        "laptop",
        adv_weight=LinearWarmup(value=0.1, steps=60),
        train=replace(LAPTOP.train, lr_student=3e-4, lr_heads=2e-3, head_updates=2),
    )
    # Not run at this scale.
    .at("paper", adv_weight=LinearWarmup(value=0.1, steps=2_000), train=replace(PAPER.train, head_updates=2))
)
