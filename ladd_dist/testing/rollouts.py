"""The contract of kind `rollout`; see `ladd_dist/testing/checks.py`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.rollouts import Inputs, Rollout
from ladd_dist.testing.basics import call, check_basics, label, require, seeded

LEVELS = (80.0, 4.0, 1.0)


def check_rollout(rollout: Rollout) -> None:
    """Check number and levels of rows, that each depends on its own row, and that ranks ask the student equally often.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(rollout)
    who, repeats = label(rollout), rollout.repeats(len(LEVELS))
    with seeded():
        x, states = torch.randn(4, 2, 3, 3), torch.randn(len(LEVELS), 4, 2, 3, 3)
    sigma = torch.tensor([1.0, 80.0, 4.0, 1.0])

    def inputs(rows: Rows) -> tuple[Inputs, int]:
        part, asked = slice(rows.first, rows.stop), []

        def own() -> Iterator[Tensor]:
            for state in states:
                asked.append(state)
                yield state[part]

        given = Inputs(x[part], sigma[part])
        found = call(who, f"on {len(rows)} rows", rollout, given, own, LEVELS, RowSource(rows, "contract"))
        right = (len(found.x), found.x.shape[1:], found.sigma.shape) == (
            repeats * len(rows), x.shape[1:], (repeats * len(rows),),
        )  # fmt: skip
        require(right, f"{who} says {repeats} x {len(rows)} rows, it gives {list(found.x.shape)}")
        return Inputs(*found), len(asked)

    rows = whole_batch(4)
    (whole, calls), (again, _) = inputs(rows), inputs(rows)
    require(bool((whole.sigma > 0).all()), f"{who} must give levels above 0, got {whole.sigma.tolist()}")
    require(torch.equal(whole.x, again.x), f"{who} must draw from the given source only: two calls differ")
    for number in range(4):
        alone, own_calls = inputs(rows.part(number, 4))
        require(
            own_calls == calls, f"{who} must ask the student as often for any rows: {calls} times, then {own_calls}"
        )
        same = torch.equal(alone.x[:, None], whole.x.view(repeats, 4, 2, 3, 3)[:, number, None])
        require(same, f"{who} must make each row from that row and its place in the source")
