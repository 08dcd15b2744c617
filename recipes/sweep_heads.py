"""Heads x taps x warm-up of the adversarial weight, two seeds each: which variant wins, and which collapses when.

`ladd sweep recipes/sweep_heads.py --on slurm/single_gpu.py` runs it; all runs share one teacher and its samples.
"""

from ladd_dist.recipe import Axis, Sweep
from ladd_dist.zoo.plugins.heads.max_pool import MaxPool
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.schedules.linear_warmup import LinearWarmup
from ladd_dist.zoo.recipes._base import BASE

RECIPE = BASE.replace(name="sweep_heads", note="Heads, taps and warm-up of the adversarial weight.")

SWEEP = Sweep(
    name="heads",
    base=RECIPE,
    axes=(
        Axis("head", (SpectralNorm(width=64), MaxPool())),
        Axis("taps", ("downs_middle", "downs_middle_ups")),
        Axis("adv_weight", (Constant(value=0.1), LinearWarmup(value=0.1, steps=60))),
    ),
    seeds=(0, 1),
)
