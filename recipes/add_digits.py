"""Adversarial Diffusion Distillation (Sauer et al. 2023, arXiv 2311.17042), with what this project has in its places.

The heads look at samples in pixels, without noise, through a frozen feature network (there DINOv2, here the shipped
digit-and-colour network), and know the class. The student's sample is pulled to what the teacher makes of it: noised
again with noise of its own and denoised in one call, weighted by alpha_t. No pairs are needed: the noise is fresh. The
same steps, batch, network and learning rates as our best LADD recipe, `exp7_stored_smooth_l1`.
"""

from ladd_dist.critics.pixels import Pixels
from ladd_dist.losses.adversarial import Hinge
from ladd_dist.losses.distance import Mse
from ladd_dist.recipe import Reported
from ladd_dist.starts.couplings import Fresh
from ladd_dist.targets.pulls import TeacherDenoised
from plugins.heads.spectral_norm import SpectralNorm
from plugins.schedules.constant import Constant
from plugins.taps.named import Named
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="add_digits",
    note="ADD: heads on frozen features of pixels; the target is what the teacher makes of the student's sample.",
    start=Fresh(),
    critic=Pixels(),
    taps=Named(("conv0", "conv1", "conv2", "conv3")),
    head=SpectralNorm(width=64, conditioned=True),
    adversarial=Hinge(),
    target=TeacherDenoised(mean=0.0, std=1.5),
    distance=Mse(sigma_scale=0.5, sigma_power=0.5),
    distill_weight=Constant(value=1.0),
    reported=Reported(teacher_4=None, teacher_50=None, outcome="not run there"),
)
