"""Base of the benchmark sweeps: `ladd` on colour Fashion-MNIST, where heads, taps, games and schedules can differ.

Fresh noise and no distance, so nothing but the adversarial game moves the student, and real pictures as real, so that
the best possible student is at the floor of real against real. At laptop scale the teacher and a run take minutes, and
figures are means over all noise seeds of `_base.SEEDS`.
"""

from dataclasses import replace

from ladd_dist.datasets.fashion_mnist import FashionMnist
from ladd_dist.guards.collapse import Collapse
from ladd_dist.networks.cunet import CUNet
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle
from ladd_dist.zoo.recipes._base import LAPTOP, PAPER, SEEDS, SMOKE
from ladd_dist.zoo.recipes.ladd import RECIPE as LADD

UPDATES = 1_500
"""Updates of the student at laptop scale."""
BENCH = (
    LADD.replace(dataset=FashionMnist(size=32), taps=DownsMiddle(), head=SpectralNorm(width=56, conditioned=True))
    .at("smoke", shards=replace(SMOKE.shards, samples="dataset", guidance=1.5))
    .at(
        "laptop",
        network=CUNet(widths=(16, 32, 64), blocks=1, patch=2, embed_dim=128, precondition="edm"),
        teacher=replace(LAPTOP.teacher, steps=2_500),
        shards=replace(LAPTOP.shards, samples="dataset", num_samples=20_000, guidance=1.5),
        train=replace(LADD.laptop.train, steps=UPDATES),
        evaluate=replace(LAPTOP.evaluate, seeds=SEEDS),
        guard=Collapse(every=100),
    )
    .at("paper", shards=replace(PAPER.shards, samples="dataset", guidance=1.5))
)
