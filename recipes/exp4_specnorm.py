"""Experiment 4 of the report: spectral-norm heads on nine taps, fresh noise. There: early collapse."""

from ladd_dist.recipe import Reported
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.taps.downs_middle_ups import DownsMiddleUps
from ladd_dist.zoo.recipes._base import BASE

RECIPE = BASE.replace(
    name="exp4_specnorm",
    note="Spectral-norm heads on downs, middle and ups; fresh noise.",
    taps=DownsMiddleUps(),
    head=SpectralNorm(width=64),
    reported=Reported(teacher_4=25.29, teacher_50=3.66, outcome="early collapse"),
).at("paper", head=SpectralNorm(width=164, blocks=2))
