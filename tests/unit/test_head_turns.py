"""Several updates of the heads in one step, and several steps: each has levels and random numbers of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ladd_toys import LEVELS, TAPS, make_batch, make_step, network, whole
from torch import Tensor

from ladd_dist.core.rng import RowSource, whole_batch
from ladd_dist.core.types import Batch
from ladd_dist.engine.discriminator import FrozenCritic
from ladd_dist.engine.head_statistics import BINS, HeadSums
from ladd_dist.regularisers import PenaltyInputs, Regulariser
from ladd_dist.regularisers.approximate import ApproximateR1
from ladd_dist.rollouts import Inputs
from ladd_dist.rollouts.policies import OffPolicy
from ladd_dist.targets.pulls import StoredSample
from plugins.heads import SmallConv
from plugins.schedules import LinearWarmup

HEAD = SmallConv(width=8)


@pytest.mark.parametrize("mode", ["fused", "alternate"])
def test_the_penalty_of_each_update_moves_the_inputs_which_that_update_saw(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved inputs at other levels differ from those seen by far more than the little that the penalty measures."""
    step = make_step(mode=mode, head=HEAD, head_updates=3, regulariser=ApproximateR1(every=1))
    batch, moved = make_batch(), []
    nearby = step.critic.nearby

    def watched(x0: Tensor, cond: Tensor, draws: tuple[Tensor, Tensor], shift: Tensor) -> dict[str, Tensor]:
        moved.append(draws)
        return nearby(x0, cond, draws, shift)

    monkeypatch.setattr(step.critic, "nearby", watched)
    step(batch, 4)
    expected = [step.micro_batches.draw(batch, whole_batch(6), 4, turn) for turn in range(3)]
    assert len(moved) == 3
    for (tau, eps), draws in zip(moved, expected, strict=True):
        assert torch.equal(tau, draws.tau)
        assert torch.equal(eps, draws.renoise_eps)


def test_the_penalty_of_each_update_has_random_numbers_of_its_own() -> None:
    drawn: list[Tensor] = []

    class Listening(Regulariser):
        def __call__(self, inputs: PenaltyInputs) -> Tensor:
            drawn.append(inputs.source.uniform(3))
            return torch.zeros(())

    step = make_step(head=HEAD, head_updates=2, regulariser=Listening())
    for number in range(2):
        step(make_batch(), number)
    assert len({float(value) for value in torch.cat(drawn).flatten()}) == 2 * 2 * 6 * 3


@pytest.mark.parametrize("head_updates", [1, 3])
def test_the_figures_by_head_are_those_of_the_last_update(head_updates: int) -> None:
    """As all other figures of the heads' turn are, which the step returns."""
    sums = HeadSums(TAPS)
    figures = make_step(head=HEAD, head_updates=head_updates, head_sums=sums)(make_batch(), 0)
    found = sums.read("log")
    for tap in TAPS:
        assert found[f"gap/{tap}"] == pytest.approx(float(figures[f"logit_gap/{tap}"]), rel=1e-4, abs=1e-6)


def bins_of(levels: Tensor) -> set[str]:
    """Names of the bins that hold the levels."""
    edges = [(float(low), float(high)) for low, high in (name.split("-") for name in BINS)]
    pairs = zip(BINS, edges, strict=True)
    return {name for name, (low, high) in pairs if bool(((levels >= low) & (levels < high)).any())}


def test_without_re_noising_the_figures_are_by_the_level_of_the_students_input() -> None:
    sums = HeadSums(TAPS)
    step = make_step(head=HEAD, head_sums=sums, critic=FrozenCritic(network(), TAPS, renoises=False))
    step(make_batch(), 0)
    draws = whole(step, make_batch()).draws
    assert bins_of(draws.sigma) != bins_of(draws.tau)
    assert {key.partition("@")[2] for key in sums.read("log") if "@" in key} == bins_of(draws.sigma)


def test_both_weights_are_those_of_the_updates_done_so_far() -> None:
    schedule = LinearWarmup(value=1.0, steps=10)
    step = make_step(head=HEAD, adv_weight=schedule, distill_weight=schedule)
    for number in (0, 3, 10):
        figures = step(make_batch(), number)
        assert figures["weight/adversarial"] == figures["weight/distill"] == pytest.approx(schedule(number))


def test_rollout_target_and_penalty_draw_anew_in_each_step_and_each_by_itself() -> None:
    """Nothing that one of them drew is drawn again: in another step, by another of them, or as the step's own noise."""
    drawn: list[Tensor] = []

    def listen(source: RowSource) -> None:
        drawn.append(source.normal(3, 8, 8))

    class ListeningRollout(OffPolicy):
        def __call__(self, given: Inputs, own: Any, levels: tuple[float, ...], source: RowSource) -> Inputs:
            listen(source)
            return given

    class ListeningTarget(StoredSample):
        def __call__(
            self, fake: Tensor, x: Tensor, sigma: Tensor, batch: Batch, *, teacher: Any, source: RowSource
        ) -> Any:
            listen(source)
            return super().__call__(fake, x, sigma, batch, teacher=teacher, source=source)

    class ListeningRegulariser(Regulariser):
        def __call__(self, inputs: PenaltyInputs) -> Tensor:
            listen(inputs.source)
            return torch.zeros(())

    listeners = {"rollout": ListeningRollout(), "target": ListeningTarget(), "regulariser": ListeningRegulariser()}
    step = make_step(head=HEAD, **listeners)
    for number in range(3):
        step(make_batch(), number)
    assert len(drawn) == 9
    for number in range(3):
        draws = step.micro_batches.draw(make_batch(), whole_batch(6), number, 0)
        drawn += [draws.start_eps, draws.renoise_eps]
    assert len({float(row[0, 0, 0]) for noise in drawn for row in noise}) == 15 * 6


@pytest.mark.parametrize("other", [{"step": 1, "turn": 0}, {"step": 0, "turn": 1}])
def test_levels_are_drawn_anew_in_each_step_and_for_each_purpose(other: dict[str, Any]) -> None:
    """With one law for the student's levels and the heads', equal random numbers would give equal levels."""
    step, batch = make_step(), make_batch(64)
    law = step.micro_batches.student_sigma
    draw = make_step(renoise_sigma=law).micro_batches.draw
    first, second = draw(batch, whole_batch(64), 0, 0), draw(batch, whole_batch(64), **other)
    levels = torch.stack([first.sigma, first.tau, second.sigma, second.tau])
    alike = (levels[:, None] == levels[None]).float().mean(dim=2)
    assert alike.fill_diagonal_(0).max() < 0.5  # of four levels, a quarter by chance
    assert set(levels.flatten().tolist()) == set(torch.tensor(LEVELS).tolist())
