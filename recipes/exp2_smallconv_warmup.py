"""Experiment 2 of the report: small-conv heads on four taps with warm-up, fresh noise. There: collapsed by step 20k."""

from ladd_dist.recipe import Reported
from ladd_dist.zoo.plugins.heads.small_conv import SmallConv
from ladd_dist.zoo.plugins.taps.downs import Downs
from ladd_dist.zoo.recipes._base import BASE

RECIPE = BASE.replace(
    name="exp2_smallconv_warmup",
    note="Small-conv heads on all downs; warm-up of the adversarial weight; fresh noise.",
    taps=Downs(),
    head=SmallConv(width=64),
    reported=Reported(student_4=98.88, teacher_4=25.29, teacher_50=3.66, outcome="varied at step 5k, collapsed at 20k"),
).at("paper", head=SmallConv(width=656, pool=2))
