"""No pairs: the heads decide what samples look like, and a transport cost decides which sample a noise becomes.

Coupling `ot` with target `input`: fresh noise n, and the student's sample pulled to n itself in the data's units,
w ||fake - sigma_data n||^2. The heads alone would allow any map of the noise, even one that forgets it; the cost picks
the nearest one. The student's inputs at lower levels are its own (share 1), because no pair of sample and noise
represents its map. Sampling keeps the noise's direction, as training does.

The cost counts at the first step only: its weight falls to a sixtieth from level 80 to 3.9 (`sigma_power` below 0),
because further down it would put the noise back into nearly finished samples. As nothing else stabilises it, the
student must not outrun its heads: they learn ten times as fast, with two updates for its one and R1, and compare at the
levels of experiments 2 to 6, where shapes differ and not only strokes. That is not enough: after 150 updates samples
are varied, after 300 most colours are gone (docs/methods.md). `no_pairs` does the same job and keeps them.
"""

from dataclasses import replace

from ladd_dist.losses.distance import Mse
from ladd_dist.regularisers.penalties import R1
from ladd_dist.rollouts.policies import OnPolicy
from ladd_dist.sigmas.laws import LogNormal
from ladd_dist.starts.couplings import Ot
from ladd_dist.targets.pulls import Input
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.recipes._base import LAPTOP
from ladd_dist.zoo.recipes.exp7_stored_smooth_l1 import RECIPE as EXP7

RECIPE = EXP7.replace(
    name="ot_coupling",
    note="No pairs: adversarial loss alone, and a transport cost between the student's sample and its noise.",
    start=Ot(),
    target=Input(),
    rollout=OnPolicy(share=1.0),
    renoise_sigma=LogNormal(mean=-0.5, std=1.2),
    regulariser=R1(gamma=0.1),
    distance=Mse(sigma_scale=10.0, sigma_power=-1.0),
    distill_weight=Constant(value=3e-4),
).at("laptop", train=replace(LAPTOP.train, lr_student=2e-4, lr_heads=2e-3, lr_final=0.05, head_updates=2))
