"""Normalised adversarial gradients: the scale of the heads does not matter, the weight keeps its meaning."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ladd_toys import assert_same, make_batch, make_step, weights, whole
from torch import Tensor

from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.heads_update import critique
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.losses.adversarial import Bce
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.recipe import DistillStage
from plugins.heads import SmallConv
from plugins.schedules import Constant


@dataclass(frozen=True)
class Louder(Bce):
    """The student's side of the game, times a factor; by a power of two, nothing is rounded differently."""

    factor: float = 128.0

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return self.factor * super().generator(fake, real)


def normalised(decay: float = 0.9, **options: Any) -> LaddStep:
    return make_step(head=SmallConv(width=8), adv_norm=AdversarialNorm(decay), **options)


def adversarial_slopes(step: LaddStep, number: int) -> Tensor:
    """The gradient [B,C,H,W] of each sample's own adversarial loss, from the networks as they are."""
    part = whole(step, make_batch(), number)
    fake = step.fake(part).detach().requires_grad_()
    seen = critique(step.critic, fake, part)
    logits = step.heads(seen.features, seen.cond_vec)
    loss = torch.stack([Bce().generator(value, value).mean() for value in logits.values()]).mean()
    (slope,) = torch.autograd.grad(loss, fake)
    return slope * len(fake)


@pytest.mark.parametrize(("mode", "accumulate"), [("fused", 1), ("alternate", 1), ("alternate", 3)])
def test_scaling_the_heads_loss_changes_nothing_once_it_is_normalised(mode: str, accumulate: int) -> None:
    plain, loud = (normalised(adversarial=game, mode=mode, accumulate=accumulate) for game in (Bce(), Louder()))
    for number in range(4):
        figures = [step(make_batch(seed=number), number) for step in (plain, loud)]
        assert_same(plain.student.gradients, loud.student.gradients)  # type: ignore[attr-defined]
    assert_same(weights(plain.student), weights(loud.student))
    roots = [float(row["grad_norm/adversarial"]) for row in figures]
    assert roots[1] == 128 * roots[0]


def test_the_gradient_is_divided_by_the_root_mean_square_norm_of_a_sample() -> None:
    """Networks stand still and one step is taken again: the second time it divides by what the first saw."""
    options: dict[str, Any] = {"lr_student": 0.0, "lr_heads": 0.0, "distill_weight": Constant(value=0.0)}
    step, plain = normalised(**options), make_step(head=SmallConv(width=8), **options)
    slopes = adversarial_slopes(step, 0)
    expected = float(slopes.flatten(1).square().sum(dim=1).mean().sqrt())
    first = step(make_batch(), 0)
    assert float(first["grad_norm/adversarial"]) == pytest.approx(expected, rel=1e-4)
    assert float(first["grad_norm/student"]) == 0  # it has seen nothing to divide by
    step(make_batch(), 0)
    plain(make_batch(), 0)
    divided = {name: value / expected for name, value in plain.student.gradients.items()}  # type: ignore[attr-defined]
    assert_same(step.student.gradients, divided, 1e-4)  # type: ignore[attr-defined]


def test_the_mean_runs_over_steps_with_adams_correction() -> None:
    step = normalised(decay=0.75, lr_student=0.0, lr_heads=0.0)
    squares = [adversarial_slopes(step, number).flatten(1).square().sum(dim=1).mean() for number in range(3)]
    for number in range(3):
        figures = step(make_batch(), number)
    mean = (0.75**2 * squares[0] + 0.75 * squares[1] + squares[2]) / (0.75**2 + 0.75 + 1)
    assert float(figures["grad_norm/adversarial"]) == pytest.approx(float(mean.sqrt()), rel=1e-4)


def test_micro_batches_are_one_batch() -> None:
    one, three = (normalised(mode="alternate", accumulate=count) for count in (1, 3))
    for number in range(3):
        figures = [step(make_batch(seed=number), number) for step in (one, three)]
        assert_same(one.student.gradients, three.student.gradients, 1e-4)  # type: ignore[attr-defined]
    roots = [float(row["grad_norm/adversarial"]) for row in figures]
    assert roots[0] == pytest.approx(roots[1], rel=1e-4)


class Two(Ranks):
    """Rank 0 of two, the other of which saw the same."""

    def sum_on_device(self, values: Tensor) -> Tensor:
        return 2 * values


def test_ranks_that_see_the_same_have_the_norm_of_one() -> None:
    alone = normalised()
    shared = dataclasses.replace(alone, adv_norm=AdversarialNorm(alone.adv_norm.decay, Two(0, 2)))
    roots = [float(step(make_batch(), 0)["grad_norm/adversarial"]) for step in (copy.deepcopy(alone), shared)]
    assert roots[1] == pytest.approx(roots[0], rel=1e-6) and roots[0] > 0


def test_steps_without_adversarial_weight_leave_it_alone() -> None:
    step = normalised(adv_weight=Constant(value=0.0))
    assert "grad_norm/adversarial" not in step(make_batch(), 0)
    assert step.adv_norm.state.tolist() == [0, 0]


def test_without_any_gradient_nothing_is_divided_by_zero() -> None:
    step = normalised(adversarial=Louder(factor=0.0))
    for number in range(2):
        figures = step(make_batch(), number)
    assert all(torch.as_tensor(value).isfinite() for value in figures.values())


def test_an_overflow_is_no_observation() -> None:
    norm = AdversarialNorm(0.9)
    for square in (4.0, float("inf")):
        norm.seen = [torch.tensor(square)]
        root = norm.advance()["grad_norm/adversarial"]
    assert float(root) == pytest.approx(2.0)


def test_a_checkpoint_brings_it_back_bit_by_bit(tmp_path: Path) -> None:
    step = normalised()
    for number in range(3):
        step(make_batch(seed=number), number)
    checkpoints = Checkpoints(tmp_path, identity="test", keep=1)
    checkpoints.save(3, step.adv_norm.parts(), {})
    checkpoints.wait()
    saved, fresh = checkpoints.latest(), AdversarialNorm(0.9)
    assert saved is not None
    saved.fill(fresh.parts())
    assert torch.equal(fresh.state, step.adv_norm.state)
    assert fresh.state[0] > 0
    assert AdversarialNorm(0.0).parts() == {}


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"DistillStage\.adv_norm_decay: must be .*at least 0 and below 1"):
        DistillStage(steps=1, batch_size=1, lr_student=1.0, lr_heads=1.0, adv_norm_decay=decay)
