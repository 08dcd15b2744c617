"""No pairs: the heads say what samples look like, and a transport cost says which of them a noise becomes.

Coupling `ot` with target `input`: fresh noise n, the student's sample pulled to n itself in the data's units,
w ||fake - sigma_data n||^2. The heads alone would allow any map of the noise, also one that forgets it; the cost picks
the nearest one. The student's inputs at lower levels are its own (share 1), because no pair of
sample and noise stands for its map, and it is sampled as it is trained, by keeping the noise's direction.
"""

from ladd_dist.losses.distance import Mse
from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.starts.couplings import Ot
from ladd_dist.targets.pulls import Input
from plugins.schedules.constant import Constant
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="ot_coupling",
    note="No pairs: adversarial loss alone, and a transport cost between the student's sample and its noise.",
    start=Ot(),
    target=Input(),
    rollout=OnPolicy(share=1.0),
    distance=Mse(),
    distill_weight=Constant(value=0.1),
)
