"""On-policy training of `exp7_stored_smooth_l1`: the student's own previous steps make half of its inputs.

Everything else is that recipe's. With stored noise the student's own run begins at the noise of a pair, so the pair's
sample stays the target, and the student learns to correct at a lower level its errors at a higher one.
"""

from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="on_policy",
    note="Our best recipe with half of the student's inputs made by its own previous steps.",
    rollout=OnPolicy(share=0.5),
)
