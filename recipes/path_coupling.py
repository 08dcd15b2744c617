"""The teacher's own states as the student's inputs: coupling `path`, on the recipe `exp7_stored_smooth_l1`.

Stored noise lies on the straight line between noise and sample; the teacher's way between them is bent. Here the shards
hold the teacher's state at each of the student's levels, so the student learns the teacher's map from each of them. It
is trained and sampled at these levels alone.

Half of its inputs are its own: a student whose sample is final leaves the bent way, and its next input lies on the
straight one, where it was never asked. With the teacher's states alone four steps are worse than one.
"""

from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.starts.couplings import Path
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="path_coupling",
    note="The student's inputs are the teacher's own states on its way from noise to sample.",
    start=Path(),
    rollout=OnPolicy(share=0.5),
)
