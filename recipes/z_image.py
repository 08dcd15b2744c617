"""Z-Image at 1024 pixels in four calls: the model from which Z-Image-Turbo was distilled.

The levels are the times 1, 3/4, 1/2 and 1/4 of a rectified flow, with t = .995 for 1, as in `sd3`. Its pipeline counts
guidance from 0, so the 4 of its page is 5 here.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.fsdp import Fsdp
from ladd_dist.samplers.karras import Euler
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, Z_IMAGE_CONFIG

Z_IMAGE = "Tongyi-MAI/Z-Image"

RECIPE = replace(
    CHECKPOINT,
    name="z_image",
    note="Z-Image: stored noise, hinge on four of its 30 layers.",
    dataset=replace(CHECKPOINT.dataset, size=1024),
    network=Diffusers(source=Z_IMAGE, config=Z_IMAGE_CONFIG),
    codec=Vae(source=Z_IMAGE, config=Z_IMAGE_CONFIG),
    shards=replace(
        CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.01, sigma_max=200.0), guidance=5.0, batch_size=8
    ),
    levels=Good(four=(200.0, 3.0, 1.0, 0.3333), two=(200.0, 1.0), one=(200.0,)),
    taps=Named(names=("block05", "block11", "block16", "block21")),
    train=replace(CHECKPOINT.train, batch_size=32),
    parallel=Fsdp(),
)
