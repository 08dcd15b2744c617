"""Stable Diffusion 3 medium at 1024 pixels in four calls: rectified flow, whose time t is sigma / (1 + sigma).

The levels are the times 1, 3/4, 1/2 and 1/4 of LADD, which was made for this model. t = 1 has no finite sigma; t = .995
stands for it.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.samplers.karras import Euler
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, SD3_CONFIG

SD3 = "stabilityai/stable-diffusion-3-medium-diffusers"

RECIPE = replace(
    CHECKPOINT,
    name="sd3",
    note="Stable Diffusion 3 medium: stored noise, hinge on four of its 24 blocks.",
    dataset=replace(CHECKPOINT.dataset, size=1024),
    network=Diffusers(source=SD3, config=SD3_CONFIG),
    codec=Vae(source=SD3, config=SD3_CONFIG),
    shards=replace(
        CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.01, sigma_max=200.0), guidance=5.0, batch_size=8
    ),
    levels=Good(four=(200.0, 3.0, 1.0, 0.3333), two=(200.0, 1.0), one=(200.0,)),
    taps=Named(names=("block05", "block09", "block13", "block17")),
)
