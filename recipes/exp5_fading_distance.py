"""Fresh noise rescued: experiment 5 with a distance that fades where the student's input does not fix its target.

With fresh noise at level 80 the optimum of the distance is the mean image of the class, and experiment 5 reaches it: in
one step one colour is left. Here the weight of the distance falls as (1 + (sigma / 7.81)^2)^-1: 1 at low noise, .0094
at 80, where the heads decide; the distance holds the rest in place. Above 7.81 the optimum keeps less than half of the
colours: `ladd diagnose recipes/exp5_specnorm_5taps.py` computes that from the stored samples. Nothing else differs from
experiment 5.
"""

from ladd_dist.losses.distance import Mse
from ladd_dist.recipe import Reported
from ladd_dist.zoo.recipes.exp5_specnorm_5taps import RECIPE as EXP5

# Not run at paper scale: take `sigma_scale` from `ladd diagnose` first.
RECIPE = EXP5.replace(
    name="exp5_fading_distance",
    note="As experiment 5, with a distance that fades at high noise levels; fresh noise.",
    distance=Mse(sigma_scale=7.81, sigma_power=1.0),
    reported=Reported(outcome="not run there"),
)
