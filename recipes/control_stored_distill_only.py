"""Control: stored noise with the distillation loss alone (w_adv = 0). Do the heads add anything?"""

from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.recipes.exp6_stored_noise import RECIPE as EXP6

RECIPE = EXP6.replace(
    name="control_stored_distill_only",
    note="As experiment 6, without the adversarial loss.",
    adv_weight=Constant(value=0.0),
)
