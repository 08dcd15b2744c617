"""Real samples under a wrong condition as further fakes of the heads (`train.mismatched`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ladd_toys import IMAGE, TAPS, Watched, difference, make_batch, make_step, weights, whole
from torch import Tensor

from ladd_dist.core.gan import over_heads
from ladd_dist.core.rng import whole_batch
from ladd_dist.costs.flops import count_flops
from ladd_dist.engine.draws import Part
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.losses.adversarial import Bce, Hinge, Relativistic
from ladd_dist.rollouts.policies import EveryStep
from plugins.heads import SmallConv

HEAD = SmallConv(width=8, conditioned=True)
CLASSES = IMAGE.num_classes


def wrong_of(step: LaddStep, part: Part, number: int = 0, turn: int = 0) -> Tensor:
    """The wrong conditions that the heads' turn of a step shows: turn 0 those that the micro-batch was made with."""
    return step.micro_batches.wrong(step.heads_update.redrawn(part, number, turn))


@pytest.mark.parametrize("game", [Bce(), Hinge(), Relativistic()], ids=lambda game: game.name)
def test_the_heads_loss_is_a_mixture_of_both_kinds_of_fakes(game: Any) -> None:
    """Against logits computed one picture at a time, with the wrong class told to teacher and heads alike."""
    step, batch = make_step(head=HEAD, adversarial=game, mismatched=0.25, lr_heads=0.0), make_batch()
    part = whole(step, batch)
    wrong, draws = wrong_of(step, part), part.draws
    fake = step.fake(part).detach()

    def logits(x0: Tensor, cond: Tensor) -> dict[str, Tensor]:
        rows = []
        for i in range(len(x0)):
            here = slice(i, i + 1)
            noised = x0[here] + draws.tau[here, None, None, None] * draws.renoise_eps[here]
            out = step.critic.network(noised, draws.tau[here], cond[here], taps=TAPS)
            rows.append(step.heads(out.features, out.cond_vec))
        return {tap: torch.cat([row[tap] for row in rows]) for tap in TAPS}

    real, faked, mismatched = logits(batch.x0, batch.cond), logits(fake, batch.cond), logits(batch.x0, wrong)
    expected = 0.75 * over_heads(game.discriminator, real, faked) + 0.25 * over_heads(
        game.discriminator, real, mismatched
    )
    figures = step(batch, 0)
    assert float(figures["loss/heads"]) == pytest.approx(float(expected.detach()), rel=1e-5)
    right = torch.stack([(game.margins(real[tap], mismatched[tap])[1] > 0).float().mean() for tap in TAPS]).mean()
    assert float(figures["accuracy/mismatched"]) == pytest.approx(float(right))


def test_the_students_update_sees_no_mismatched_sample() -> None:
    """With heads that stand still, its gradients are those without."""
    with_them, without = (make_step(head=HEAD, mismatched=w, lr_heads=0.0) for w in (0.5, 0.0))
    figures = [step(make_batch(), 0) for step in (with_them, without)]
    assert figures[0]["loss/heads"] != figures[1]["loss/heads"]
    assert difference(with_them.student.gradients, without.student.gradients) == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("mode", "passes"), [("fused", 3), ("alternate", 4)])
def test_it_costs_one_forward_of_the_critic_and_without_a_share_nothing(mode: str, passes: int) -> None:
    step, off = (make_step(head=HEAD, mismatched=w, mode=mode) for w in (0.5, 0.0))
    batch, sigma = make_batch(), torch.ones(6)
    with torch.no_grad():
        to_tap = count_flops(lambda: step.critic.features(batch.x0, batch.cond, sigma, batch.x0, sigma))
        heads = (
            count_flops(lambda: step.heads(*step.critic.features(batch.x0, batch.cond, sigma, batch.x0, sigma)))
            - to_tap
        )
    more = count_flops(lambda: step(batch, 0)) - count_flops(lambda: off(batch, 0))
    assert to_tap + 2 * heads < more <= to_tap + 3 * heads
    assert count_flops(lambda: off(batch, 0)) == count_flops(lambda: make_step(head=HEAD, mode=mode)(batch, 0))
    assert "accuracy/mismatched" not in off(batch, 1)


def test_a_wrong_condition_is_each_of_the_others_equally_often_and_never_the_right_one() -> None:
    step, batch = make_step(head=HEAD, wrong_of=CLASSES), make_batch(64)
    pairs = torch.stack([torch.stack([batch.cond, wrong_of(step, whole(step, batch, i))]) for i in range(100)])
    right, wrong = pairs.transpose(0, 1).flatten(1)
    assert not (right == wrong).any() and wrong.min() == 0 and wrong.max() == CLASSES - 1
    ahead = torch.bincount((wrong - right) % CLASSES, minlength=CLASSES)
    expected = len(right) / (CLASSES - 1)
    assert ((ahead[1:] - expected).abs() < 4 * expected**0.5).all()


def test_with_two_conditions_it_is_the_other_one() -> None:
    step, batch = make_step(head=HEAD, wrong_of=2), make_batch()
    part = whole(step, batch._replace(cond=batch.cond % 2))
    assert torch.equal(wrong_of(step, part), 1 - part.batch.cond)


def test_it_is_drawn_anew_in_each_step_and_turn_and_for_each_copy_of_a_row() -> None:
    step, batch = make_step(head=HEAD, wrong_of=CLASSES, rollout=EveryStep()), make_batch(64)
    part = whole(step, batch)
    copies = wrong_of(step, part).view(-1, 64)
    drawn = [*copies, wrong_of(step, whole(step, batch, 1))[:64], wrong_of(step, part, 0, 1)[:64]]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert 0 < (one == other).float().mean() < 0.5  # one in nine by chance


def test_micro_batches_and_ranks_draw_the_rows_of_the_whole_batch() -> None:
    step, batch = make_step(head=HEAD, wrong_of=CLASSES, mode="alternate", accumulate=2), make_batch(8)
    rows = whole_batch(8)
    one = wrong_of(step, whole(make_step(head=HEAD, wrong_of=CLASSES), batch, 3))
    shares = [
        wrong_of(step, part)
        for rank in range(2)
        for part in step.parts(batch.rows(slice(4 * rank, 4 * rank + 4)), 3, rows.part(rank, 2))
    ]
    assert torch.equal(torch.cat(shares), one)


def test_micro_batches_train_as_one_batch_does() -> None:
    one, four = (make_step(head=HEAD, mode="alternate", mismatched=0.5, head_updates=2, accumulate=n) for n in (1, 4))
    figures = [step(make_batch(8), 0) for step in (one, four)]
    assert float(figures[0]["loss/heads"]) == pytest.approx(float(figures[1]["loss/heads"]), rel=1e-5)
    for first, second in ((one.heads, four.heads), (one.student, four.student)):
        assert isinstance(first, Watched) and isinstance(second, Watched)
        assert difference(first.gradients, second.gradients) < 1e-5
        assert difference(weights(first), weights(second)) < 1e-5
