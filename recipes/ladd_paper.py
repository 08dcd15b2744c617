"""LADD as the paper describes it (Sauer et al. 2024, arXiv 2403.12015), at our scales.

Fresh noise; the hinge game; no distance, because the data are the teacher's own samples; heads conditioned on noise
level and class, at every block of the teacher; re-noising levels logit-normal with m = 1, s = 1, in our units
ln sigma ~ N(.307, 1); the student's levels in phases: only the two lower ones for the first 500 updates, then mostly
the highest. At laptop scale, with 300 updates in all, the phases change after 75. There the student learns more slowly
than its heads, which have two updates for its one and R1 (not in the paper), because nothing else stabilises it.
"""

from dataclasses import replace

from ladd_dist.losses.adversarial import Hinge
from ladd_dist.recipe import Reported
from ladd_dist.regularisers.penalties import R1
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts.couplings import Fresh
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.taps.downs_middle_ups import DownsMiddleUps
from ladd_dist.zoo.recipes._base import BASE, LAPTOP

LOW_FIRST, HIGH_MOSTLY = Phase(0, (0.0, 0.0, 0.5, 0.5)), (0.7, 0.1, 0.1, 0.1)

RECIPE = (
    BASE.replace(
        name="ladd_paper",
        note="The LADD paper's own: fresh noise, hinge, no distance, level phases, logit-normal comparison.",
        start=Fresh(),
        taps=DownsMiddleUps(),
        head=SpectralNorm(width=64, conditioned=True),
        adversarial=Hinge(),
        renoise_sigma=LogNormal(mean=0.307, std=1.0),
        adv_weight=Constant(value=1.0),
        distill_weight=Constant(value=0.0),
        reported=Reported(outcome="not run there"),
    )
    .at("smoke", student_sigma=FixedSet((LOW_FIRST, Phase(5, HIGH_MOSTLY))))
    .at(
        "laptop",
        student_sigma=FixedSet((LOW_FIRST, Phase(75, HIGH_MOSTLY))),
        train=replace(LAPTOP.train, lr_student=1e-4, lr_heads=2e-3, lr_final=0.05, head_updates=2),
        regulariser=R1(gamma=0.1),
    )
    .at("paper", student_sigma=FixedSet((LOW_FIRST, Phase(500, HIGH_MOSTLY))))
)
