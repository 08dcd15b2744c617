"""Half of the student's inputs are what its own previous steps lead to: on-policy training of `exp7_stored_smooth_l1`.

Everything else is that recipe's. With stored noise the student's own run begins at the noise of a pair, so the pair's
sample stays the target, and the student learns to put right at a lower level what it got wrong at a higher one.
"""

from ladd_dist.rollouts.policies import OnPolicy
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="on_policy",
    note="Our best recipe with half of the student's inputs made by its own previous steps.",
    rollout=OnPolicy(share=0.5),
)
