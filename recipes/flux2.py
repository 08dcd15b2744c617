"""FLUX.2 klein base 4B at 1024 pixels in four calls: the undistilled model, which still needs guidance.

klein 4B and 9B are distilled to four calls already. A latent pixel has 128 channels and stands for 16 x 16 pixels. The
levels are the times 1, 3/4, 1/2 and 1/4 of a rectified flow, with t = .995 for 1, as in `sd3`. For dev, which takes its
guidance as an input: `--network.source black-forest-labs/FLUX.2-dev`, the same for `codec`, `--network.config ''`,
`--codec.config ''`, `--network.embedded-guidance 4` and `--shards.guidance 1`.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.fsdp import Fsdp
from ladd_dist.samplers.karras import Euler
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, FLUX2_CONFIG

FLUX2 = "black-forest-labs/FLUX.2-klein-base-4B"

RECIPE = replace(
    CHECKPOINT,
    name="flux2",
    note="FLUX.2 klein base 4B: stored noise, hinge on four of its 25 blocks.",
    dataset=replace(CHECKPOINT.dataset, size=1024),
    network=Diffusers(source=FLUX2, config=FLUX2_CONFIG),
    codec=Vae(source=FLUX2, config=FLUX2_CONFIG),
    shards=replace(
        CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.01, sigma_max=200.0), guidance=4.0, batch_size=8
    ),
    levels=Good(four=(200.0, 3.0, 1.0, 0.3333), two=(200.0, 1.0), one=(200.0,)),
    taps=Named(names=("double04", "single04", "single09", "single13")),
    train=replace(CHECKPOINT.train, batch_size=32),
    parallel=Fsdp(),
)
