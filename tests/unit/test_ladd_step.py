"""The LADD step: its cost, its gradients against an independent computation, and who may change what."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ladd_toys import TAPS, Watched, assert_same, make_batch, make_step, weights, whole
from torch import Tensor, nn
from torch.nn import functional

from ladd_dist.core.plugin import registered
from ladd_dist.core.rng import whole_batch
from ladd_dist.core.types import ImageSpec
from ladd_dist.costs.flops import count_flops
from ladd_dist.heads import Head
from ladd_dist.losses.adversarial import Bce, Relativistic
from ladd_dist.networks.cunet import CUNet
from ladd_dist.starts.couplings import Fresh, Path, Stored
from plugins.heads import SmallConv
from plugins.schedules import Constant, LinearWarmup

# Cost


class FreeHead(Head):
    """A head without convolution or matrix product: nothing that the FLOP counter counts."""

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return _Free()


class _Free(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        return self.scale * features.mean(dim=(1, 2, 3))[:, None]


LAPTOP_IMAGE = ImageSpec(3, 16, 16, 10)


@pytest.mark.parametrize(
    "taps", [("down0",), ("down0", "down1", "down2", "middle"), ("down0", "down1", "down2", "middle", "up0", "up2")]
)
@pytest.mark.parametrize(("mode", "factor"), [("fused", 3), ("alternate", 4)])
def test_a_step_costs_as_many_passes_as_promised(taps: tuple[str, ...], mode: str, factor: int) -> None:
    """Within 2 %: the passes back leave out the gradient of the student's input, of the teacher's embedding."""
    step = make_step(head=FreeHead(), taps=taps, mode=mode, settings=CUNet(), image=LAPTOP_IMAGE)
    batch = make_batch(4, LAPTOP_IMAGE)
    sigma = torch.ones(4)
    with torch.no_grad():
        student = count_flops(lambda: step.student(batch.x0, sigma, batch.cond))
        to_tap = count_flops(lambda: step.critic.features(batch.x0, batch.cond, sigma, batch.x0, sigma))
    total = count_flops(lambda: step(batch, 0))
    assert total == pytest.approx(factor * (student + to_tap), rel=0.02)


def test_without_adversarial_weight_the_students_turn_touches_no_teacher() -> None:
    step = make_step(head=FreeHead(), adv_weight=Constant(value=0.0), settings=CUNet(), image=LAPTOP_IMAGE)
    batch = make_batch(4, LAPTOP_IMAGE)
    sigma = torch.ones(4)
    with torch.no_grad():
        student = count_flops(lambda: step.student(batch.x0, sigma, batch.cond))
        to_tap = count_flops(lambda: step.critic.features(batch.x0, batch.cond, sigma, batch.x0, sigma))
    assert count_flops(lambda: step(batch, 0)) == pytest.approx(3 * student + 2 * to_tap, rel=0.02)


# Gradients


def test_gradients_are_those_of_an_independent_computation() -> None:
    """In float64, where 1e-6 is no rounding error."""
    step, batch = make_step(head=SmallConv(width=8, conditioned=True)), make_batch()
    batch = batch._replace(x0=batch.x0.double())
    for module in (step.critic.network, step.student.module, step.heads.module):
        module.double()
    assert isinstance(step.heads, Watched)
    assert isinstance(step.student, Watched)
    teacher = copy.deepcopy(step.critic.network).eval()
    student = copy.deepcopy(step.student.module)
    heads = copy.deepcopy(step.heads.module)
    draws = whole(step, batch).draws
    metrics = step(batch, 0)

    def bchw(level: Tensor) -> Tensor:
        return level[:, None, None, None]

    def logits(x0: Tensor) -> list[Tensor]:
        """All heads on the teacher's features of re-noised images, one image at a time."""
        rows = []
        for i in range(len(x0)):
            tau = draws.tau[i : i + 1]
            x = x0[i : i + 1] + bchw(tau) * draws.renoise_eps[i : i + 1]
            out = teacher(x, tau, batch.cond[i : i + 1], taps=TAPS)
            rows.append([head(out.features[tap], out.cond_vec) for tap, head in heads.heads.items()])  # type: ignore
        return [torch.cat(column) for column in zip(*rows, strict=True)]

    assert batch.noise is not None
    fake = student(batch.x0 + bchw(draws.sigma) * batch.noise, draws.sigma, batch.cond).denoised
    pairs = list(zip(logits(batch.x0), logits(fake.detach()), strict=True))
    per_head = [torch.log1p(torch.exp(-real)).mean() + torch.log1p(torch.exp(fake)).mean() for real, fake in pairs]
    loss_heads = torch.stack(per_head).mean()
    gradients = torch.autograd.grad(loss_heads, list(heads.parameters()))
    assert_same(dict(zip(step.heads.gradients, gradients, strict=True)), step.heads.gradients, 1e-6)
    assert float(metrics["loss/heads"]) == pytest.approx(loss_heads.item(), rel=1e-5)

    heads.load_state_dict(step.heads.module.state_dict())  # the student plays against the updated heads
    loss_adversarial = torch.stack([-functional.logsigmoid(fake).mean() for fake in logits(fake)]).mean()
    loss_distill = ((fake - batch.x0) ** 2).mean()
    gradients = torch.autograd.grad(0.3 * loss_adversarial + loss_distill, list(student.parameters()))
    assert_same(dict(zip(step.student.gradients, gradients, strict=True)), step.student.gradients, 1e-6)
    assert float(metrics["loss/adversarial"]) == pytest.approx(loss_adversarial.item(), rel=1e-5)
    assert float(metrics["loss/distill"]) == pytest.approx(loss_distill.item(), rel=1e-5)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert float(metrics["grad_norm/student"]) == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("start", [Fresh(), Stored(), Path()])
@pytest.mark.parametrize("head_updates", [1, 3])
def test_fused_and_alternate_give_the_same_gradients(start: Any, head_updates: int) -> None:
    fused, alternate = (
        make_step(mode=mode, start=start, head_updates=head_updates, head=SmallConv(width=8))
        for mode in ("fused", "alternate")
    )
    batch = make_batch()
    fused(batch, 0)
    alternate(batch, 0)
    assert_same(fused.heads.gradients, alternate.heads.gradients, 1e-6)  # type: ignore[attr-defined]
    assert_same(fused.student.gradients, alternate.student.gradients, 1e-6)  # type: ignore[attr-defined]
    assert_same(weights(fused.heads), weights(alternate.heads), 1e-6)


def test_with_a_student_that_stands_still_both_modes_give_the_same_heads() -> None:
    heads = []
    for mode in ("fused", "alternate"):
        step = make_step(mode=mode, lr_student=0.0, head_updates=2)
        before = weights(step.student)
        for number in range(4):
            step(make_batch(seed=number), number)
        assert_same(before, weights(step.student))
        heads.append(weights(step.heads))
    assert_same(*heads, rtol=1e-6)


def test_zero_adversarial_weight_is_plain_regression() -> None:
    step = make_step(adv_weight=Constant(value=0.0), start=Fresh())
    student = copy.deepcopy(step.student.module)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, betas=(0.5, 0.99), weight_decay=0.01, fused=True)
    for number in range(3):
        batch = make_batch(seed=number)
        draws = whole(step, batch, number).draws
        noised = batch.x0 + draws.sigma[:, None, None, None] * draws.start_eps
        loss = (student(noised, draws.sigma, batch.cond).denoised - batch.x0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        metrics = step(batch, number)
        assert "loss/adversarial" not in metrics
        assert float(metrics["loss/distill"]) == pytest.approx(float(loss.detach()), rel=1e-6)
    assert_same(weights(step.student), student.state_dict(), 1e-6)


def test_zero_distillation_weight_leaves_the_adversarial_gradient_alone() -> None:
    both, half, double = (
        make_step(distill_weight=Constant(value=0.0), adv_weight=Constant(value=w)) for w in (0.3, 0.15, 0.6)
    )
    for step in (both, half, double):
        step(make_batch(), 0)
    doubled = {name: 2 * value for name, value in both.student.gradients.items()}  # type: ignore[attr-defined]
    halved = {name: value / 2 for name, value in both.student.gradients.items()}  # type: ignore[attr-defined]
    assert_same(double.student.gradients, doubled, 1e-5)  # type: ignore[attr-defined]
    assert_same(half.student.gradients, halved, 1e-5)  # type: ignore[attr-defined]


def test_weights_follow_their_schedules() -> None:
    step = make_step(adv_weight=LinearWarmup(value=0.1, steps=10))
    first, middle = step(make_batch(), 0), step(make_batch(), 5)
    assert (first["weight/adversarial"], middle["weight/adversarial"]) == (0.0, pytest.approx(0.05))
    assert "loss/adversarial" not in first
    assert "loss/adversarial" in middle


def test_the_adversarial_gradient_reaches_the_student_through_the_frozen_teacher() -> None:
    step = make_step(distill_weight=Constant(value=0.0))
    step(make_batch(), 0)
    assert isinstance(step.student, Watched)
    assert set(step.student.gradients) == {name for name, _ in step.student.module.named_parameters()}
    assert all(value.any() for value in step.student.gradients.values())


# Who may change what


@pytest.mark.parametrize("mode", ["fused", "alternate"])
def test_no_gradient_is_left_anywhere_and_the_teacher_stands_still(mode: str) -> None:
    step = make_step(mode=mode)
    teacher = {name: value.clone() for name, value in step.critic.network.state_dict().items()}
    for number in range(3):
        step(make_batch(seed=number), number)
        for module in (step.critic.network, step.heads.module, step.student.module):
            assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in step.critic.network.parameters())
    assert not step.critic.network.training
    assert_same(teacher, step.critic.network.state_dict())
    for trainable in (step.heads, step.student):
        assert trainable.module.training
        assert all(parameter.requires_grad for parameter in trainable.module.parameters())


@pytest.mark.parametrize("mode", ["fused", "alternate"])
def test_the_heads_change_on_their_own_turn_alone(mode: str) -> None:
    """Weights and buffers: spectral norm's power iteration would move in any training-mode forward."""
    step = make_step(mode=mode)
    before = weights(step.heads)
    after_own_turn: dict[str, Tensor] = {}
    assert isinstance(step.heads, Watched)
    step.heads.optimizer.register_step_post_hook(lambda *_: after_own_turn.update(weights(step.heads)))
    step(make_batch(), 0)
    assert_same(after_own_turn, weights(step.heads))
    assert all(not torch.equal(before[name], after_own_turn[name]) for name, _ in step.heads.module.named_parameters())
    assert any(not torch.equal(before[name], after_own_turn[name]) for name, _ in step.heads.module.named_buffers())


def test_frozen_heads_pass_gradients_on_and_keep_none() -> None:
    step = make_step(head=SmallConv(width=8))
    features = {tap: torch.randn(2, c, 2, 2) for tap, (c, _) in step.critic.network.taps.items() if tap in TAPS}
    for value in features.values():
        value.requires_grad_()
    with step.heads.frozen():
        logits = step.heads(features, torch.randn(2, 16))
        assert not step.heads.module.training
    torch.stack([value.sum() for value in logits.values()]).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in features.values())
    assert all(parameter.grad is None for parameter in step.heads.module.parameters())
    with pytest.raises(RuntimeError, match="inside"), step.heads.frozen():
        raise RuntimeError("inside")
    assert step.heads.module.training
    assert all(parameter.requires_grad for parameter in step.heads.module.parameters())


@pytest.mark.parametrize("head_updates", [1, 4])
@pytest.mark.parametrize("mode", ["fused", "alternate"])
def test_heads_are_updated_as_often_as_asked_and_the_student_once(mode: str, head_updates: int) -> None:
    step = make_step(mode=mode, head_updates=head_updates)
    step(make_batch(), 0)
    assert isinstance(step.heads, Watched)
    assert isinstance(step.student, Watched)
    assert (step.heads.updates, step.student.updates) == (head_updates, 1)


def test_every_turn_of_the_heads_compares_at_new_levels() -> None:
    step, batch = make_step(), make_batch()
    first, second = (step.micro_batches.draw(batch, whole_batch(6), 0, turn) for turn in (0, 1))
    assert not torch.equal(first.tau, second.tau)
    assert not torch.equal(first.renoise_eps, second.renoise_eps)


def test_real_and_fake_are_compared_at_the_same_level_and_noise() -> None:
    """A student that reproduces the teacher's samples exactly cannot be told from them."""
    step, batch = make_step(head=SmallConv(width=8)), make_batch()
    part = whole(step, batch)
    figures, _ = step.heads_update([part], [batch.x0], [None], 0, learn=True)
    assert float(figures.means()["logit_gap"]) == pytest.approx(0.0, abs=1e-6)


@dataclass
class Recorder(Relativistic.__base__):  # type: ignore[misc,name-defined]
    """A relativistic loss that keeps the logits the generator's turn is given."""

    def __post_init__(self) -> None:
        self.real: list[Tensor] = []

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return Relativistic().discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        self.real.append(real)
        return Relativistic().generator(fake, real)


def test_the_student_is_compared_with_real_logits_of_its_own_noise_level() -> None:
    step, batch = make_step(head=SmallConv(width=8), head_updates=3, lr_heads=0.0, adversarial=Recorder()), make_batch()
    draws = whole(step, batch).draws  # at these levels the student's own fakes were seen
    seen = step.critic.features(batch.x0, batch.cond, draws.tau, draws.renoise_eps, draws.sigma)
    with torch.no_grad():
        expected = step.heads(seen.features, seen.cond_vec)
    step(batch, 0)
    for tap, real in zip(TAPS, step.adversarial.real, strict=True):  # type: ignore[attr-defined]
        assert torch.allclose(real, expected[tap], atol=1e-5), tap


# Randomness


def run(steps: list[int], **options: Any) -> list[dict[str, Tensor]]:
    step = make_step(**options)
    for number in steps:
        torch.randn(7)  # whatever else draws from the global generator
        step(make_batch(), number)
    return [weights(step.student), weights(step.heads)]


def test_the_same_seed_and_steps_give_the_same_bits() -> None:
    for first, second in zip(run([0, 1]), run([0, 1]), strict=True):
        assert_same(first, second)


@pytest.mark.parametrize("other", [{"steps": [0, 2]}, {"steps": [0, 1], "seed": 6}])
def test_another_step_or_seed_gives_other_weights(other: dict[str, Any]) -> None:
    for first, second in zip(run([0, 1]), run(**other), strict=True):
        assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_draws_of_a_step_have_nothing_in_common_with_each_other() -> None:
    step, batch = make_step(), make_batch(64)
    draws = [step.micro_batches.draw(batch, whole_batch(64), number, turn) for number in (0, 1) for turn in (0, 1)]
    noises = [eps.flatten() for draw in draws for eps in (draw.start_eps, draw.renoise_eps)]
    correlations = torch.corrcoef(torch.stack(noises)).fill_diagonal_(0)
    assert float(correlations.abs().max()) < 0.05
    assert all(draw.start_eps.is_contiguous(memory_format=torch.channels_last) for draw in draws)


def test_every_sample_has_a_level_of_its_own() -> None:
    draws = whole(make_step(), make_batch(64)).draws
    assert len(draws.sigma.unique()) == 4
    assert len(draws.tau.unique()) == 64


# Every loss and penalty

GAMES = [Bce(saturating=True), *(cls() for cls in registered()["adversarial"].values() if cls.__module__ != __name__)]


@pytest.mark.parametrize("regulariser", registered()["regulariser"].values(), ids=lambda cls: cls.name)
@pytest.mark.parametrize("adversarial", GAMES, ids=str)
def test_every_game_with_every_penalty_takes_a_finite_step(adversarial: Any, regulariser: Any) -> None:
    step = make_step(adversarial=adversarial, regulariser=regulariser())
    metrics = [step(make_batch(seed=number), number) for number in range(2)]
    for figures in metrics:
        for name, value in figures.items():
            assert torch.as_tensor(value).isfinite().all(), name
    moved = [weights(step.student), weights(step.heads)]
    still = [weights(make_step().student), weights(make_step().heads)]
    for after, before in zip(moved, still, strict=True):
        assert all(value.isfinite().all() for value in after.values())
        assert any(not torch.equal(after[name], before[name]) for name in after)


def test_a_penalty_reaches_the_heads_and_not_the_student() -> None:
    penalty = registered()["regulariser"]["r1"]
    without, with_penalty = make_step(), make_step(regulariser=penalty(gamma=100.0))  # type: ignore[call-arg]
    for step in (without, with_penalty):
        step(make_batch(), 0)
    first, second = without.heads.gradients, with_penalty.heads.gradients  # type: ignore[attr-defined]
    assert any(not torch.allclose(first[name], second[name]) for name in first)


def test_logit_metrics_count_the_right_side_of_zero() -> None:
    from ladd_dist.engine.step_metrics import logit_metrics

    real = {"a": torch.tensor([[1.0], [2.0], [-1.0], [3.0]]), "b": torch.full((4, 2), 1.0)}
    fake = {"a": torch.tensor([[-1.0], [2.0], [1.0], [3.0]]), "b": torch.full((4, 2), -1.0)}
    found = {name: float(value) for name, value in logit_metrics(real, fake).items()}
    assert (found["accuracy/real/a"], found["accuracy/fake/a"]) == (0.75, 0.25)
    assert (found["accuracy/real"], found["accuracy/fake"], found["accuracy"]) == (0.875, 0.625, 0.75)
    assert (found["logit_gap/a"], found["logit_gap/b"], found["logit_gap"]) == (0.0, 2.0, 1.0)


def test_a_head_of_the_wrong_shape_is_named_with_its_tap() -> None:
    class Flat(nn.Module):
        def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
            return features.mean(dim=(1, 2, 3))

    step = make_step(head=SmallConv(width=8))
    step.heads.module.heads["down1"] = Flat()  # type: ignore[index,operator]
    with pytest.raises(ValueError, match=r"head 'small_conv' on tap 'down1' returned shape \(12,\)"):
        step(make_batch(), 0)
