"""Benchmark: three heads x three tap layouts, three seeds each, in LADD alone on Fashion-MNIST.

`ladd sweep recipes/bench_heads.py --on slurm/laptop.py` runs it and, run again, what is missing; `python -m
benchmarks.bench` reads what `ladd compare` says of the runs. At laptop scale every variant has the same number of
updates and the same FLOPs, within 3 %: each head is as wide as its layout leaves room for.
"""

from ladd_dist.recipe import Points, Sweep
from ladd_dist.zoo.plugins.heads.max_pool import MaxPool
from ladd_dist.zoo.plugins.heads.small_conv import SmallConv
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.recipes._bench import BENCH

RECIPE = BENCH.replace(name="bench_heads", note="LADD alone on Fashion-MNIST: heads and taps at an equal budget.")

SWEEP = Sweep(
    name="bench_heads",
    base=RECIPE,
    mode=Points((
        {"taps": "downs", "head": SmallConv(width=387, pool=2, conditioned=True)},
        {"taps": "downs", "head": MaxPool(width=47, conditioned=True)},
        {"taps": "downs", "head": SpectralNorm(width=78, conditioned=True)},
        {"taps": "downs_middle", "head": SmallConv(width=293, pool=2, conditioned=True)},
        {"taps": "downs_middle", "head": MaxPool(width=38, conditioned=True)},
        {"taps": "downs_middle", "head": SpectralNorm(width=56, conditioned=True)},
        {"taps": "downs_middle_ups", "head": SmallConv(width=95, pool=2, conditioned=True)},
        {"taps": "downs_middle_ups", "head": MaxPool(width=11, conditioned=True)},
        {"taps": "downs_middle_ups", "head": SpectralNorm(width=13, conditioned=True)},
    )),
    seeds=(0, 1, 2),
)  # fmt: skip
