"""The teacher's own states as the student's inputs: coupling `path`, on the recipe `exp7_stored_smooth_l1`.

Inputs with stored noise lie on the straight line between noise and sample; the teacher's path between them is curved.
Here the shards hold the teacher's state at each of the student's levels, and the student learns the teacher's map from
each of them. It trains and samples at these levels only.

Half of its inputs are its own: a student that predicts the final sample leaves the curved path, and its next input lies
on the straight line, where it was never trained. With the teacher's states alone four steps are worse than one.
"""

from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.starts.couplings import Path
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="path_coupling",
    note="The student's inputs are the teacher's own states on its way from noise to sample.",
    start=Path(),
    rollout=OnPolicy(share=0.5),
)
