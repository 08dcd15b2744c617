"""Base of the benchmark sweeps: LADD alone on colour Fashion-MNIST, where heads, taps, games and schedules can differ.

Fresh noise and no distance, so nothing but the adversarial game moves the student. At laptop scale a step takes less
than .15 s on one quiet core, the teacher minutes, and figures are means over all noise seeds of `_base.SEEDS`.
"""

from dataclasses import replace

from ladd_dist.datasets.fashion_mnist import FashionMnist
from ladd_dist.guards.collapse import Collapse
from ladd_dist.losses.adversarial import Bce
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import Ema
from ladd_dist.regularisers.penalties import R1
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts.couplings import Fresh
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm
from ladd_dist.zoo.plugins.schedules.constant import Constant
from ladd_dist.zoo.plugins.taps.downs_middle import DownsMiddle
from ladd_dist.zoo.recipes._base import BASE, LAPTOP, PAPER, SEEDS, SMOKE

EQUAL = Phase(0, (0.25, 0.25, 0.25, 0.25))
MOSTLY_NOISE = (0.4, 0.2, 0.2, 0.2)
UPDATES = 3_000
"""Updates of the student at laptop scale."""
BENCH = (
    BASE.replace(
        dataset=FashionMnist(size=32),
        start=Fresh(),
        taps=DownsMiddle(),
        head=SpectralNorm(width=56, conditioned=True),
        adversarial=Bce(),
        regulariser=R1(gamma=0.1),
        renoise_sigma=LogNormal(mean=-0.5, std=1.2),
        adv_weight=Constant(value=1.0),
        distill_weight=Constant(value=0.0),
    )
    .at(
        "smoke",
        shards=replace(SMOKE.shards, guidance=1.5),
        student_sigma=FixedSet((EQUAL, Phase(5, MOSTLY_NOISE))),
        train=replace(SMOKE.train, betas_student=(0.0, 0.99), betas_heads=(0.0, 0.99)),
    )
    .at(
        "laptop",
        network=CUNet(widths=(16, 32, 64), blocks=1, patch=2, embed_dim=128, precondition="edm"),
        teacher=replace(LAPTOP.teacher, steps=2_500),
        shards=replace(LAPTOP.shards, guidance=1.5),
        student_sigma=FixedSet((EQUAL, Phase(75, MOSTLY_NOISE))),
        train=replace(
            LAPTOP.train,
            steps=UPDATES,
            lr_student=1e-4,
            lr_heads=1e-3,
            lr_final=0.05,
            betas_student=(0.0, 0.99),
            betas_heads=(0.0, 0.99),
            ema=Ema(half_life=16_000, ramp=0.0),
            dump_every=1_000,
            evaluate_every=500,
            checkpoint_every=1_000,
        ),
        evaluate=replace(LAPTOP.evaluate, seeds=SEEDS),
        guard=Collapse(every=100),
    )
    .at(
        "paper",
        shards=replace(PAPER.shards, guidance=1.5),
        student_sigma=FixedSet((EQUAL, Phase(500, MOSTLY_NOISE))),
        train=replace(PAPER.train, lr_final=0.05, betas_student=(0.0, 0.99), betas_heads=(0.0, 0.99)),
    )
)
