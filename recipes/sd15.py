"""Stable Diffusion 1.5 in four calls: an epsilon model on a variance-preserving schedule, sigma from .03 to 14.6.

Taps are all down blocks and the middle: the discriminator never computes the up blocks.
"""

from dataclasses import replace

from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT

RECIPE = replace(
    CHECKPOINT, name="sd15", note="Stable Diffusion 1.5: stored noise, hinge on the down blocks and the middle."
)
