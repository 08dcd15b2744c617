"""Penalties that ask the teacher about moved inputs, centring, and sums of penalties."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ladd_toys import LEVELS, TAPS, make_batch, make_step, whole
from torch import Tensor, nn
from torch.nn import functional

from ladd_dist.core.noise import SIGMA_DATA
from ladd_dist.core.plugin import registered
from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.engine.discriminator import FrozenCritic
from ladd_dist.engine.draws import Part
from ladd_dist.engine.heads_update import critique
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.heads import Head
from ladd_dist.recipe import load_recipe, swap, validate
from ladd_dist.regularisers import PenaltyInputs, Regulariser, Side
from ladd_dist.regularisers.approximate import ApproximateR1, ApproximateR2
from ladd_dist.regularisers.centring import Centring
from ladd_dist.regularisers.penalties import R1, NoRegulariser
from ladd_dist.regularisers.total import Sum
from ladd_dist.rollouts.policies import EveryStep
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parents[2]


class SmoothHead(Head):
    """Two logits, without a kink: the error of a difference quotient has its order everywhere."""

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return _Smooth(channels, cond_dim)


class _Smooth(nn.Module):
    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__()
        self.conv, self.logit = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8 + cond_dim, 2)

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        pooled = functional.silu(self.conv(features)).mean(dim=(2, 3))
        logits: Tensor = self.logit(torch.cat([pooled, cond_vec], dim=1))
        return logits


def prepared() -> tuple[LaddStep, Part, Tensor]:
    """A step in float64 with smooth heads, its part, and fakes."""
    step, batch = make_step(head=SmoothHead()), make_batch()
    for module in (step.critic.network, step.heads.module):
        module.double()
    part = whole(step, batch._replace(x0=batch.x0.double()))
    return step, part, part.batch.x0 + 0.3


def penalty(step: LaddStep, part: Part, fake: Tensor, regulariser: Regulariser) -> float:
    step = dataclasses.replace(step, regulariser=regulariser)
    with torch.no_grad():
        real, faked = (critique(step.critic, x0, part) for x0 in (part.batch.x0, fake))
    return float(step.heads_update.penalty(part, fake, real, faked, 0, 0).detach())


def slopes(step: LaddStep, part: Part, x0: Tensor) -> Tensor:
    """Gradients [logits of all heads, B, C*H*W] with respect to the network's input c_in x of the noised x0."""
    level = part.draws.tau.view(-1, 1, 1, 1)
    moved = torch.zeros_like(x0).requires_grad_()
    noised = x0 + level * part.draws.renoise_eps + (level**2 + SIGMA_DATA**2).sqrt() * moved
    out = step.critic.network(noised, part.draws.tau, part.batch.cond, taps=TAPS, denoise=False)
    logits = step.heads(out.features, out.cond_vec)
    columns = [value[:, k].sum() for value in logits.values() for k in range(value.shape[1])]
    return torch.stack([torch.autograd.grad(column, moved, retain_graph=True)[0].flatten(1) for column in columns])


@pytest.mark.parametrize("cls", [ApproximateR1, ApproximateR2])
def test_it_tends_to_the_squared_slope_along_its_noise_with_the_order_of_a_difference_quotient(
    cls: type[ApproximateR1],
) -> None:
    """For one n: ((l(x + eps n) - l(x)) / eps)^2 = (g . n)^2 + O(eps), g from autograd, in the network's units."""
    step, part, fake = prepared()
    noise = RowSource(part.rows, "regulariser", step.micro_batches.seed, 0, 0).normal(*fake.shape[1:]).flatten(1)
    g = slopes(step, part, part.batch.x0 if cls is ApproximateR1 else fake)
    exact = float((g * noise).sum(dim=2).square().mean())
    sizes = (0.04, 0.02, 0.01, 0.005)
    errors = [abs(penalty(step, part, fake, cls(weight=1.0, eps=eps, every=1)) - exact) for eps in sizes]
    rates = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert rates == pytest.approx([1, 1, 1], abs=0.2)
    assert errors[-1] < 0.05 * exact


def test_on_average_over_directions_it_is_exact_r1_on_the_input() -> None:
    """E (g . n)^2 = |g|^2: the mean over 150 draws has a standard error of sqrt(2 / 150) of it at most."""
    step, part, fake = prepared()
    exact = float(slopes(step, part, part.batch.x0).square().sum(dim=2).mean())
    found = []
    for seed in range(150):
        own = dataclasses.replace(step, micro_batches=dataclasses.replace(step.micro_batches, seed=seed))
        found.append(penalty(own, part, fake, ApproximateR1(weight=1.0, eps=1e-4, every=1)))
    spread = torch.tensor(found).std() / math.sqrt(len(found))
    assert abs(sum(found) / len(found) - exact) < 4 * spread < 0.5 * exact


def toy(rows: Rows, regulariser: Regulariser) -> tuple[float, list[int]]:
    """The penalty of a linear head on rows that differ, and which rows were looked at."""
    source = RowSource(rows, "test")
    values = torch.arange(1.0, 1 + rows.total).view(-1, 1, 1, 1).expand(-1, 2, 2, 2)[rows.first : rows.stop]
    looked: list[int] = []

    def nearby(side: Side, which: slice, eps: float) -> dict[str, Tensor]:
        looked.extend(range(rows.first, rows.stop)[which])
        return {"a": values[which] * (1 + eps)}

    def heads(features: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        assert len(cond_vec) == len(features["a"])
        return {"a": features["a"].flatten(1).mean(dim=1, keepdim=True)}

    seen = {"a": values}
    inputs = PenaltyInputs(heads, seen, seen, torch.zeros(len(values), 3), source, nearby)
    return float(regulariser(inputs)), looked


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_one_sample_in_four_is_looked_at_whoever_has_it(parts: int) -> None:
    """Of 6 samples those at 0 and 4; a process that has neither asks once all the same, and counts nothing."""
    asked = [toy(whole_batch(6).part(number, parts), ApproximateR1(weight=2.0)) for number in range(parts)]
    mean = sum(value for value, _ in asked) / parts
    assert mean == pytest.approx(2.0 * (1**2 + 5**2) / 2, rel=1e-4)
    assert all(looked for _, looked in asked)
    assert {row for value, looked in asked for row in looked if value} == {0, 4}


def test_a_batch_that_is_seen_several_times_is_looked_at_in_each_copy() -> None:
    """As with `every_step`, where a sample is shown at each of the student's levels."""
    step = make_step(head=SmoothHead(), rollout=EveryStep(), regulariser=ApproximateR1())
    part = whole(step, make_batch())
    fake = part.batch.x0 + 0.3
    assert len(fake) == 6 * len(LEVELS)
    with torch.no_grad():
        real, faked = (critique(step.critic, x0, part) for x0 in (part.batch.x0, fake))
    asked: list[int] = []

    def watched(x0: Tensor, cond: Tensor, draws: Any, shift: Tensor) -> dict[str, Tensor]:
        asked.extend(int((part.batch.x0 == row).flatten(1).all(dim=1).nonzero()[0]) for row in x0)
        assert torch.equal(draws[0], part.draws.tau[[0, 4, 6, 10, 12, 16, 18, 22]])
        return FrozenCritic.nearby(step.critic, x0, cond, draws, shift)

    step.critic.nearby = watched  # type: ignore[method-assign]
    assert float(step.heads_update.penalty(part, fake, real, faked, 0, 0).detach()) > 0
    assert asked == [0, 4] * len(LEVELS)


@pytest.mark.parametrize("name", registered()["regulariser"])
def test_a_launch_can_try_the_step_with_every_regulariser(name: str, tmp_path: Path) -> None:
    """Under PyTorch's FLOP counter, which follows modules with hooks of its own."""
    recipe = validate(swap(load_recipe(REPO / "recipes" / "exp7_stored_smooth_l1.py", "smoke"), f"regulariser={name}"))
    workspace = Workspace(tmp_path, tmp_path, torch.device("cpu"))
    plain = dataclasses.replace(recipe, regulariser=NoRegulariser())
    more, less = (describe_run(Run(each, workspace), "smoke").flops["step"] for each in (recipe, plain))
    assert more > less or name == "none"


def test_centring_is_the_mean_square_of_the_sum_of_real_and_fake_logits() -> None:
    logits = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[3.0]])}
    fake = {"a": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[-2.0]])}
    source = RowSource(whole_batch(1), "test")

    def heads(features: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        return features

    def nearby(side: Side, which: slice, eps: float) -> dict[str, Tensor]:
        raise AssertionError("the teacher was asked")

    inputs = PenaltyInputs(heads, logits, fake, torch.zeros(1, 3), source, nearby)
    assert float(Centring(weight=0.5)(inputs)) == pytest.approx(0.5 * ((4 + 4) / 2 + 1) / 2)
    opposite = {tap: -value for tap, value in logits.items()}
    assert float(Centring()(inputs._replace(fake=opposite))) == 0


def test_a_sum_is_the_sum_and_says_whether_a_term_differentiates() -> None:
    step, part, fake = prepared()
    terms = (Centring(), R1(), ApproximateR1())
    alone = [penalty(step, part, fake, term) for term in terms]
    assert penalty(step, part, fake, Sum(terms=terms)) == pytest.approx(sum(alone))
    assert Sum(terms=terms).differentiates()
    assert not Sum().differentiates()
    assert penalty(step, part, fake, Sum(terms=())) == penalty(step, part, fake, NoRegulariser()) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "ApproximateR1.weight: must be at least 0, got -1.0"),
        ({"eps": 0.0}, "ApproximateR1.eps: must be above 0, got 0.0"),
        ({"every": 0}, "ApproximateR1.every: must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ApproximateR1(**settings)


def test_a_regulariser_says_whether_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with one that does cannot be recorded: in every replay its numbers would be the same."""
    step, part, fake = prepared()
    asked = list[str]()
    draw = RowSource._draw
    monkeypatch.setattr(RowSource, "_draw", lambda self, *given: (asked.append("x"), draw(self, *given))[1])
    found = registered()["regulariser"].values()
    shipped: list[Any] = [kind() for kind in found if kind.__module__.startswith("ladd_dist.")]
    for regulariser in [*shipped, Sum(terms=(R1(), Centring())), Sum(terms=(R1(), ApproximateR2()))]:
        asked.clear()
        penalty(step, part, fake, regulariser)
        assert bool(asked) is regulariser.draws(), regulariser
    assert {regulariser.name for regulariser in shipped if not regulariser.draws()} >= {"none", "r1", "r2", "r1_r2"}
