"""PixArt-alpha at 512 pixels in four calls: an epsilon transformer whose linear schedule ends at sigma 157.

Taps are four of its 28 blocks, the last of them the twentieth: the discriminator never computes the rest.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.samplers.karras import Euler
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, PIXART_CONFIG

PIXART = "PixArt-alpha/PixArt-XL-2-512x512"

RECIPE = replace(
    CHECKPOINT,
    name="pixart",
    note="PixArt-alpha 512: stored noise, hinge on every fifth block up to the twentieth.",
    network=Diffusers(source=PIXART, config=PIXART_CONFIG),
    codec=Vae(source=PIXART, config=PIXART_CONFIG),
    shards=replace(CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.011, sigma_max=157.0), guidance=4.5),
    levels=Good(four=(157.0, 17.2, 3.42, 0.95), two=(157.0, 3.42), one=(157.0,)),
    taps=Named(names=("block04", "block09", "block14", "block19")),
)
