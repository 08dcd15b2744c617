"""Heads that see the level from which the student starts (`train.heads_see_level`)."""

from __future__ import annotations

import math

import pytest
import torch
from ladd_toys import LEVELS, TAPS, Watched, make_batch, make_step, network, whole
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.engine.discriminator import FrozenCritic, Heads, LevelCode
from ladd_dist.engine.heads_update import critique
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel.compute import Compute
from ladd_dist.regularisers.penalties import R1
from ladd_dist.rollouts.policies import EveryStep
from plugins.heads import SmallConv

HEAD = SmallConv(width=8, conditioned=True)
CODE = LevelCode(min(LEVELS), max(LEVELS))


def seeing_step(**options: object) -> LaddStep:
    teacher = network()
    torch.manual_seed(1)
    heads = Watched(Heads(HEAD, teacher, TAPS, CODE.dim), lr=1e-3, compute=Compute())
    return make_step(heads=heads, critic=FrozenCritic(teacher, TAPS, level_code=CODE), **options)  # type: ignore[arg-type]


def test_the_code_is_a_cosine_basis_over_the_logarithm_of_the_level() -> None:
    code = CODE(torch.tensor([0.34, 80.0, math.sqrt(0.34 * 80.0)]))
    signs = torch.tensor([(-1.0) ** k for k in range(1, 9)])
    middle = torch.tensor([math.cos(math.pi * k / 2) for k in range(1, 9)])
    torch.testing.assert_close(code, torch.stack([torch.ones(8), signs, middle]), atol=1e-5, rtol=0)
    torch.testing.assert_close(CODE(torch.tensor([1e-3, 1e3])), code[:2])
    assert CODE(torch.tensor(LEVELS)).svd().S.min() > 0.5  # any four values at the levels are a linear function of it


def test_a_student_of_one_level_has_one_code() -> None:
    assert LevelCode(80.0, 80.0)(torch.tensor([80.0, 80.0])).isfinite().all()


def test_the_heads_loss_is_that_of_logits_at_the_level_of_each_row() -> None:
    """Real samples have their row's level: otherwise the level alone would tell real from fake."""
    step, batch = seeing_step(), make_batch()
    part = whole(step, batch)
    sigma, draws = part.inputs.sigma, part.draws
    assert len(set(sigma.tolist())) > 1

    def logits(x0: Tensor) -> dict[str, Tensor]:
        noised = x0 + draws.tau[:, None, None, None] * draws.renoise_eps
        out = step.critic.network(noised, draws.tau, batch.cond, taps=TAPS)
        return dict(step.heads(out.features, torch.cat([out.cond_vec, CODE(sigma)], dim=1)))

    game = step.adversarial
    expected = over_heads(game.discriminator, logits(batch.x0), logits(step.fake(part).detach()))
    assert float(step(batch, 0)["loss/heads"]) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_another_level_gives_other_logits_and_only_where_the_heads_see_it() -> None:
    for step, sees in ((seeing_step(), True), (make_step(head=HEAD), False)):
        part = whole(step, make_batch())
        other = part._replace(inputs=part.inputs._replace(sigma=part.inputs.sigma.flip(0) * 1.5))
        one, two = (step.heads(*critique(step.critic, part.batch.x0, own)) for own in (part, other))
        assert any(bool((one[tap] != two[tap]).any()) for tap in TAPS) == sees


def test_every_row_of_a_rollout_over_all_levels_has_its_own_level() -> None:
    step = seeing_step(rollout=EveryStep(), regulariser=R1())
    part = whole(step, make_batch())
    seen = critique(step.critic, part.batch.x0, part)
    torch.testing.assert_close(seen.cond_vec[:, -8:], CODE(torch.tensor(LEVELS).repeat_interleave(6)))
    assert all(torch.as_tensor(value).isfinite().all() for value in step(make_batch(), 0).values())
