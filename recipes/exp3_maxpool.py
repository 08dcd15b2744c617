"""Experiment 3 of the report: max-pooling heads on nine taps, fresh noise. There: collapse by step 1,000."""

from ladd_dist.recipe import Reported
from ladd_dist.zoo.plugins.heads.max_pool import MaxPool
from ladd_dist.zoo.plugins.taps.downs_middle_ups import DownsMiddleUps
from ladd_dist.zoo.recipes._base import BASE

RECIPE = BASE.replace(
    name="exp3_maxpool",
    note="Heads with max-pooling down blocks on downs, middle and ups; fresh noise.",
    taps=DownsMiddleUps(),
    head=MaxPool(width=32),
    reported=Reported(teacher_4=25.29, teacher_50=3.66, outcome="collapse by step 1,000"),
).at("paper", head=MaxPool(width=328))
