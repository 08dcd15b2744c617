"""Qwen-Image at 1024 pixels in four calls: low-rank adapters of 20 billion weights.

Eight accelerators of 80 GB hold teacher, student and adapters; to train all weights (`--swap student=full`) takes more.
The levels are the times 1, 3/4, 1/2 and 1/4 of a rectified flow, with t = .995 for 1, as in `sd3`. Guidance is that of
its pipeline, which scales each token of a guided prediction to the length of the conditional one.
"""

from dataclasses import replace

from ladd_dist.codecs.vae import Vae
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.fsdp import Fsdp
from ladd_dist.samplers.karras import Euler
from ladd_dist.students.lora import Lora
from ladd_dist.zoo.plugins.taps.named import Named
from ladd_dist.zoo.recipes._checkpoints import CHECKPOINT, QWEN_IMAGE_CONFIG

QWEN_IMAGE = "Qwen/Qwen-Image"

RECIPE = replace(
    CHECKPOINT,
    name="qwen_image",
    note="Qwen-Image: a low-rank student, stored noise, hinge on four of its 60 blocks.",
    dataset=replace(CHECKPOINT.dataset, size=1024),
    network=Diffusers(source=QWEN_IMAGE, config=QWEN_IMAGE_CONFIG),
    codec=Vae(source=QWEN_IMAGE, config=QWEN_IMAGE_CONFIG),
    shards=replace(
        CHECKPOINT.shards, sampler=Euler(steps=50, sigma_min=0.01, sigma_max=200.0), guidance=4.0, batch_size=4
    ),
    levels=Good(four=(200.0, 3.0, 1.0, 0.3333), two=(200.0, 1.0), one=(200.0,)),
    taps=Named(names=("block11", "block23", "block35", "block44")),
    train=replace(CHECKPOINT.train, batch_size=16, lr_student=1e-4),
    student=Lora(),
    parallel=Fsdp(),
)
