"""Benchmark: three heads x three tap layouts, three seeds each, in LADD alone on Fashion-MNIST."""

from ladd_dist.recipe import Axis, Sweep
from plugins.heads.max_pool import MaxPool
from plugins.heads.small_conv import SmallConv
from plugins.heads.spectral_norm import SpectralNorm
from recipes._bench import BENCH

RECIPE = BENCH.replace(name="bench_heads", note="LADD alone on Fashion-MNIST: heads and taps, at an equal budget.")
SWEEP = Sweep(
    name="bench_heads",
    base=RECIPE,
    axes=(
        Axis(
            "head",
            (
                SmallConv(width=64, pool=2, conditioned=True),
                MaxPool(width=64, conditioned=True),
                SpectralNorm(width=64, conditioned=True),
            ),
        ),
        Axis("taps", ("downs", "downs_middle", "downs_middle_ups")),
    ),
    seeds=(0, 1, 2),
)
