"""The contract of kind `target`; see `ladd_dist/testing/checks.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.core.types import Batch
from ladd_dist.targets import Target, TargetSample
from ladd_dist.testing.basics import TOLERANCE, call, check_basics, label, require, seeded


def check_target(target: Target) -> None:
    """Check that x0 is finite and like the fake, levels are above 0, and each row depends on its own inputs alone.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(target)
    who = label(target)
    with seeded():
        fake, x, x0 = torch.randn(3, 4, 2, 4, 4)
    sigma, cond = torch.tensor([0.3, 1.0, 4.0, 80.0]), torch.tensor([0, 1, 2, 3])

    def asked(noised: Tensor, level: Tensor, classes: Tensor) -> Tensor:
        require(target.needs_teacher, f"{who} asks the teacher; set needs_teacher = True in its class")
        return noised / (1 + level.square()).view(-1, 1, 1, 1)

    def sample(rows: Rows) -> TargetSample:
        own = slice(rows.first, rows.stop)
        batch = Batch(x0[own], cond[own], None, None, ())
        source = RowSource(rows, "contract")
        found = call(
            who, f"on {len(rows)} rows", target, fake[own], x[own], sigma[own], batch, teacher=asked, source=source
        )
        shapes = [getattr(part, "shape", None) for part in found]
        require(shapes == [fake[own].shape, sigma[own].shape], f"{who} must return x0 and sigma like the fake's")
        return TargetSample(*found)

    rows = whole_batch(4)
    whole, again, halves = sample(rows), sample(rows), [sample(rows.part(number, 2)) for number in range(2)]
    require(bool(whole.x0.isfinite().all()), f"{who} returned a target that is not finite")
    require(bool((whole.sigma > 0).all()), f"{who} must return levels above 0, got {whole.sigma.tolist()}")
    require(torch.equal(whole.x0, again.x0), f"{who} must draw from the given source only: two calls differ")
    joined = torch.cat([half.x0 for half in halves])
    require(
        torch.allclose(whole.x0, joined, atol=TOLERANCE),
        f"{who} must make each row from that row and its place in the source, because other processes may compute it",
    )
