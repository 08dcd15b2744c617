"""Control: fresh noise, adversarial loss alone (w_distil = 0). Is it the heads that collapse, or the distance?"""

from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.recipes.exp5_specnorm_5taps import RECIPE as EXP5

RECIPE = EXP5.replace(
    name="control_fresh_adv_only",
    note="As experiment 5, without the distillation loss; the adversarial weight is 1, the only loss left.",
    adv_weight=Constant(value=1.0),
    distill_weight=Constant(value=0.0),
)
