"""Experiment 5 of the report: as experiment 4, on five taps. There: early collapse."""

from ladd_dist.recipe import Reported
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle
from ladd_dist.zoo.recipes._base import BASE

RECIPE = BASE.replace(
    name="exp5_specnorm_5taps",
    note="Spectral-norm heads on downs and middle; fresh noise.",
    taps=DownsMiddle(),
    head=SpectralNorm(width=64),
    reported=Reported(teacher_4=25.29, teacher_50=3.66, outcome="early collapse"),
).at("paper", head=SpectralNorm(width=236, blocks=2))
