"""Digits in the latents of a small autoencoder: latent diffusion at the size of a laptop.

The stage `autoencoder` trains the codec first. Teacher, shards and distillation stay in its latents, which are decoded
for dumps and figures only. `reconstruction` in eval.json is the error of the codec by itself.
"""

from dataclasses import replace

from ladd_dist.codecs import CodecTraining
from ladd_dist.codecs.autoencoder_kl import AutoencoderKL
from ladd_dist.datasets.mnist import Mnist
from ladd_dist.networks.cunet import CUNet
from ladd_dist.zoo.recipes._base import LAPTOP
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = (
    EXP7.replace(
        name="latent_digits",
        note="Distillation in the latents of a small autoencoder, figures in pixels.",
        codec=AutoencoderKL(channels=4, widths=(8, 16), training=CodecTraining(steps=1_200, lr=4e-3)),
    )
    .at(
        "smoke",
        codec=AutoencoderKL(
            channels=4, widths=(8, 8), training=CodecTraining(steps=20, batch_size=16, checkpoint_every=5, log_every=1)
        ),
        network=CUNet(widths=(16, 16), blocks=1, patch=1, embed_dim=32),
    )
    # In latents guidance moves colours too: at 4 the hue entropy of teacher@50 is 0.73, not 0.99.
    .at("laptop", network=replace(LAPTOP.network, patch=1), shards=replace(LAPTOP.shards, guidance=1.5))
    .at(
        "paper",
        dataset=Mnist(size=32),
        codec=AutoencoderKL(
            channels=4, widths=(64, 128, 128), blocks=2, training=CodecTraining(steps=20_000, batch_size=128, lr=5e-4)
        ),
        network=CUNet(widths=(128, 256), blocks=2, patch=1, embed_dim=256, precondition="edm"),
    )
)
