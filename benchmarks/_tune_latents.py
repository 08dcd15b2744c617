"""Base and student of `benchmarks.tune` in latents: recipe latent_digits on a folder of pictures."""

from dataclasses import replace

from ladd_dist.datasets.folder import Folder
from ladd_dist.metrics.class_features import ClassFeatures
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.matched import Matched
from ladd_dist.zoo.recipes._base import LAPTOP, SMOKE
from ladd_dist.zoo.recipes.latent_digits import RECIPE as LATENT_DIGITS

METRICS = (ClassFeatures(), Kid(features="pixels"), Matched())

RECIPE = (
    LATENT_DIGITS.replace(
        name="tune_latents", note="Digits without a hue, in the latents of an autoencoder.", dataset=Folder(size=16)
    )
    .at("smoke", evaluate=replace(SMOKE.evaluate, metrics=(ClassFeatures(steps=60), *METRICS[1:])))
    .at("laptop", evaluate=replace(LAPTOP.evaluate, metrics=METRICS))
)
