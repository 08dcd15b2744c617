"""Kandinsky 3.1 (Arkhipkin et al. 2023, arXiv 2312.03511): Kandinsky 3.0 distilled to four calls.

The discriminator is the frozen down-sampling half of the U-Net with a head on each of its blocks. The adversarial loss
applies at every one of the student's steps, on its own run from noise; there is no distance. The levels are those of
the published four-call model: the times 979, 729, 479 and 229 of a cosine schedule. Kandinsky's pipeline counts
guidance from 0, so its default of 3 is 4 here. ZeRO-2 shards gradients and optimizer states over the ranks, because
replicas of 3.1 billion weights do not fit into 80 GB.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.zero import Zero2
from ladd_dist.rollouts.policies import EveryStep
from ladd_dist.samplers.karras import Euler
from ladd_dist.sigmas.laws import FixedSet
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.taps.downs import Downs
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, KANDINSKY3_CONFIG

KANDINSKY3 = "kandinsky-community/kandinsky-3"

RECIPE = replace(
    CHECKPOINT,
    name="kandinsky31",
    note="Kandinsky 3.1: taps on the frozen down-sampling half, adversarial loss at each of the student's four steps.",
    dataset=replace(CHECKPOINT.dataset, size=1024),
    network=Diffusers(source=KANDINSKY3, config=KANDINSKY3_CONFIG),
    codec=Vae(source=KANDINSKY3, config=KANDINSKY3_CONFIG),
    shards=replace(
        CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.01, sigma_max=32.0728), guidance=4.0, batch_size=8
    ),
    levels=Good(four=(32.0728, 2.23457, 0.951181, 0.388649), two=(32.0728, 0.951181), one=(32.0728,)),
    student_sigma=FixedSet(),
    rollout=EveryStep(),
    taps=Downs(),
    distill_weight=Constant(value=0.0),
    train=replace(CHECKPOINT.train, batch_size=16),
    parallel=Zero2(),
)
