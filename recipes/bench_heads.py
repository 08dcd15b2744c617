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
        {"taps": "downs", "head": SmallConv(width=381, pool=2, conditioned=True)},
        {"taps": "downs", "head": MaxPool(width=46, conditioned=True)},
        {"taps": "downs", "head": SpectralNorm(width=74, conditioned=True)},
        {"taps": "downs_middle", "head": SmallConv(width=298, pool=2, conditioned=True)},
        {"taps": "downs_middle", "head": MaxPool(width=38, conditioned=True)},
        {"taps": "downs_middle", "head": SpectralNorm(width=56, conditioned=True)},
        {"taps": "downs_middle_ups", "head": SmallConv(width=122, pool=2, conditioned=True)},
        {"taps": "downs_middle_ups", "head": MaxPool(width=15, conditioned=True)},
        {"taps": "downs_middle_ups", "head": SpectralNorm(width=17, conditioned=True)},
    )),
    seeds=(0, 1, 2),
)  # fmt: skip
