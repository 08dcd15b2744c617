"""Experiment 6 of the report: the student's input has the stored noise. There: no collapse, FID 15.48."""

from dataclasses import replace

from ladd_dist.recipe import Reported
from ladd_dist.starts.couplings import Stored
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle
from ladd_dist.zoo.recipes._base import BASE, PAPER

RECIPE = BASE.replace(
    name="exp6_stored_noise",
    note="The noise from which the teacher made each sample is fed to the student; spectral-norm heads as in exp. 4.",
    start=Stored(),
    taps=DownsMiddle(),
    head=SpectralNorm(width=64),
    reported=Reported(student_4=15.48, teacher_4=25.29, teacher_50=3.66, outcome="no collapse"),
).at("paper", shards=replace(PAPER.shards, num_samples=20_000), head=SpectralNorm(width=152, blocks=2))
