"""The guard's monitor: what it looks at, whoever shares the work, and that it leaves the training alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ladd_toys import IMAGE, LEVELS, TAPS, make_batch, make_step, weights
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ladd_dist.core.types import Batch
from ladd_dist.engine.guard_monitor import GuardMonitor
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.guards.collapse import Collapse
from ladd_dist.guards.judge import GuardControl
from ladd_dist.parallel.ranks import Ranks

FIXED = make_batch(10, seed=7)
GUARD = Collapse(every=2, full_every=2, grace=0.0, samples=10, one_step=0.0, few_steps=0.0)


class OneOf(Ranks):
    """A rank whose sums with the others are its own part: the test adds them up."""

    def sum(self, values: Tensor) -> Tensor:
        return values

    def from_rank0(self, ask: Callable[[], Any]) -> Any:
        return ask()

    def max(self, value: int) -> int:
        return value


def monitor(step: LaddStep, ranks: Ranks | None = None) -> GuardMonitor:
    return GuardMonitor(
        GUARD, FIXED, step.head_sums or HeadSums(TAPS), levels={1: LEVELS[:1], 4: LEVELS}, rule="sde", coloured=True,
        num_steps=100, ranks=ranks or Ranks(), device=torch.device("cpu"),
    )  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 4, 10, 13])
def test_ranks_share_the_samples_and_together_have_each_once(size: int) -> None:
    """Ranks sample equally many, as a student that is spread over them demands; what is there twice counts once."""
    step = make_step()
    whole = monitor(step)._look(step.student, 4)
    parts = [monitor(step, OneOf(rank, size))._look(step.student, 4) for rank in range(size)]
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), whole, rtol=1e-4, atol=1e-5)
    assert whole[:, 0].eq(1.0).all()


def test_what_is_compared_lies_on_the_cpu_wherever_the_samples_lie() -> None:
    """`compute.data device` keeps the fixed samples on the device. Tensors of a pretended one stand for it here."""
    with FakeTensorMode():
        device = torch.device("cuda")
        x0, cond, noise, *_ = make_batch(10, seed=7)
        assert noise is not None
        fixed = Batch(x0.to(device), cond.to(device), noise.to(device), None, ())
        watched = GuardMonitor(
            GUARD, fixed, HeadSums(TAPS), levels={1: LEVELS[:1]}, rule="sde", coloured=False, num_steps=100,
            ranks=Ranks(), device=device,
        )  # fmt: skip
    assert watched.noise.device.type == watched.own_cond.device.type == "cuda"
    assert watched.teacher.device.type == watched.cond.device.type == "cpu"


def test_looking_changes_no_weight_no_mode_and_draws_from_no_generator() -> None:
    step = make_step()
    before, state = weights(step.student), torch.get_rng_state()
    watched = monitor(step)
    figures = {"loss/heads": torch.ones(()), "weight/adversarial": 0.1}
    assert watched.after(1, figures, step.student) is None
    judgement = watched.after(4, figures, step.student)
    assert judgement is not None and judgement.state.healthy == 4
    assert step.student.module.training
    assert all(torch.equal(value, before[name]) for name, value in weights(step.student).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert {"student@1/distance", "student@4/class_distance"} <= watched.seen.keys()


def test_each_number_of_steps_is_looked_at_by_its_own_levels() -> None:
    """One step need not begin where four steps do."""
    step, seen = make_step(), list[float]()
    step.student.module.register_forward_pre_hook(lambda module, arguments: seen.append(float(arguments[1][0])))
    watched = monitor(step)
    watched.levels = {1: (7.0,), 4: LEVELS}
    for steps, levels in watched.levels.items():
        seen.clear()
        watched._look(step.student, steps)
        assert seen == pytest.approx(levels)


def test_a_loss_that_was_no_number_between_two_checks_is_not_forgotten() -> None:
    step = make_step()
    watched = monitor(step)
    watched.after(1, {"loss/heads": torch.tensor(float("nan"))}, step.student)
    judgement = watched.after(2, {"loss/heads": torch.ones(())}, step.student)
    assert judgement is not None and judgement.verdict is not None
    assert "not finite" in judgement.verdict.headline
    again = watched.after(4, {"loss/heads": torch.ones(())}, step.student)
    assert again is not None and again.state.level == "healthy"


def test_a_loss_that_was_no_number_in_a_skipped_update_is_no_finding() -> None:
    step = make_step()
    watched = monitor(step)
    broken = {"loss/heads": torch.tensor(float("nan")), "grad_norm/heads": torch.tensor(float("inf"))}
    watched.after(1, {**broken, "skipped": torch.tensor(True)}, step.student)
    assert watched.to_checkpoint()["not_finite"] == 0
    watched.after(2, {**broken, "skipped": torch.tensor(False)}, step.student)
    assert watched.seen["not_finite"] == 2


def test_its_state_is_json_and_brings_back_the_window_of_the_heads() -> None:
    step = make_step(head_sums=HeadSums(TAPS))
    watched = monitor(step)
    for number in range(3):
        figures = step(make_batch(), number)
        watched.after(number + 1, figures, step.student)
    state = json.loads(json.dumps(watched.to_checkpoint()))
    other_step = make_step()
    other = monitor(other_step)
    other.restore(state)
    assert other.to_checkpoint() == state and other.state == watched.state
    for one in (watched, other):
        one.after(4, figures, step.student)
    assert other.seen == watched.seen and "accuracy/down0" in other.seen
    assert IMAGE.channels == 3 and "student@1/colour_variance" in other.seen


def test_rollbacks_after_the_checkpoint_halve_the_weight_once_each() -> None:
    first, again, anew = (monitor(make_step()) for _ in range(3))
    first.restore(None, rollbacks=1)
    saved = first.to_checkpoint()
    again.restore(saved, rollbacks=3)
    assert (again.state.rollbacks, again.state.control) == (3, GuardControl(adv_factor=0.125))
    anew.restore(saved, rollbacks=1)
    assert anew.state == first.state
