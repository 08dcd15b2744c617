"""A LADD step with normalised adversarial gradients under every strategy, against one process on the same batch.

`python -m torch.distributed.run --standalone --nproc-per-node 2 -m tests.distributed.adv_norm_worker OUT.json`
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, cast

import torch

from ladd_dist.core.plugin import create
from ladd_dist.core.rng import whole_batch
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.discriminator import FrozenCritic
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.gather import whole
from ladd_dist.parallel.ranks import SINGLE, Ranks, join
from ladd_dist.parallel.shard import Spread
from tests.distributed.distill_worker import SmoothHead
from tests.unit.ladd_toys import TAPS, make_batch, make_step

BATCH, STEPS = 8, 3


def train(name: str, ranks: Ranks) -> tuple[dict[str, torch.Tensor] | None, list[float]]:
    """The student's weights on rank 0, and the usual norm after each step."""
    strategy: Any = create("parallel", name)
    if isinstance(strategy, Spread):
        strategy = dataclasses.replace(strategy, shard_teacher=True)
    step = make_step(head=SmoothHead(), regulariser=create("regulariser", "approximate_r1"))
    common: dict[str, Any] = {"compute": Compute(), "ranks": ranks, "device": torch.device("cpu")}
    adam = Adam(1e-3, (0.5, 0.99), 0.0, 0.0)
    step = dataclasses.replace(
        step,
        student=strategy.build(step.student.module, role="student", adam=adam, **common),
        heads=strategy.build(step.heads.module, role="heads", adam=adam, **common),
        critic=FrozenCritic(cast(Denoiser, strategy.freeze(step.critic.network, **common)), TAPS),
        adv_norm=AdversarialNorm(0.9, ranks),
    )
    rows = whole_batch(BATCH).part(ranks.rank, ranks.size)
    roots = []
    for number in range(STEPS):
        batch = make_batch(BATCH, seed=number).rows(slice(rows.first, rows.stop))
        roots.append(float(step(batch, number, rows)["grad_norm/adversarial"]))
    return whole(step.student.local("weight"), ranks), roots


def main(out: Path) -> None:
    """Write the largest relative differences of each strategy."""
    torch.set_num_threads(1)
    with join("gloo", 120.0, needs_group=True) as ranks:
        expected, roots = train("single", SINGLE)
        assert expected is not None
        found = {}
        for name in ("ddp", "fsdp", "zero2", "zero3"):
            weights, own = train(name, ranks)
            if weights is not None:
                away = sum(float((weights[key] - value).square().sum()) for key, value in expected.items())
                size = sum(float(value.square().sum()) for value in expected.values())
                worst = max(abs(a - b) / b for a, b in zip(own, roots, strict=True))
                found[name] = {"weights": (away / size) ** 0.5, "roots": worst}
        if ranks.is_first:
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
