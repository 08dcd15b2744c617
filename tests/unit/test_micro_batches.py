"""A batch computed in parts - micro-batches, or the shares of several ranks - trains as the whole one does."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from ladd_toys import Watched, assert_same, difference, make_batch, make_step, weights
from torch import Tensor

from ladd_dist.core.rng import Rows, whole_batch
from ladd_dist.core.types import Batch
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.step_metrics import Means
from ladd_dist.losses.adversarial import Bce, Hinge, Relativistic
from ladd_dist.parallel.compute import Compute
from ladd_dist.regularisers.penalties import R1, R1R2, GradientPenalty, NoRegulariser
from ladd_dist.rollouts.policies import EveryStep, OnPolicy
from ladd_dist.starts.couplings import Fresh, Ot, Path, Stored
from ladd_dist.targets.pulls import Input, TeacherDenoised
from plugins.heads import SmallConv, SpectralNorm
from plugins.schedules import Constant

SMOOTH = SmallConv(width=8, conditioned=True)  # no buffer that moves with every forward
GAMES = [Bce(), Hinge(), Relativistic()]
PENALTIES = [NoRegulariser(), R1(gamma=2.0), R1R2(gamma=2.0), GradientPenalty(weight=3.0)]
NUM = 8


def shrunk(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """The perfect denoiser of Gaussian data of standard deviation .5."""
    return x * (0.25 / (0.25 + sigma.square())).view(-1, 1, 1, 1)


def calm_step(**options: Any) -> LaddStep:
    """A step whose optimizers do not blow rounding up: Adam divides a gradient by its own size, also one of 1e-9."""
    step = make_step(**options)
    calm(step)
    return step


def calm(step: LaddStep) -> None:
    for trainable in (step.student, step.heads):
        assert isinstance(trainable, Watched)
        trainable.base_lr = 0.1
        for group in trainable.optimizer.param_groups:
            group |= {"lr": 0.1, "eps": 0.1}


def close(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Figures within 1e-6 of their size, and shares (accuracies), which jump, too."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float(value) == pytest.approx(float(second[name]), rel=2e-6, abs=1e-6), name


def assert_same_training(first: LaddStep, second: LaddStep) -> None:
    for one, other in ((first.heads, second.heads), (first.student, second.student)):
        assert isinstance(one, Watched)
        assert isinstance(other, Watched)
        assert difference(one.gradients, other.gradients) < 2e-6
        assert difference(weights(one), weights(other)) < 1e-6
        assert one.updates == other.updates


@pytest.mark.parametrize("head_updates", [1, 2])
@pytest.mark.parametrize("regulariser", PENALTIES, ids=lambda penalty: penalty.name)
@pytest.mark.parametrize("adversarial", GAMES, ids=lambda game: game.name)
def test_four_micro_batches_train_as_one_batch_does(adversarial: Any, regulariser: Any, head_updates: int) -> None:
    options = {"adversarial": adversarial, "regulariser": regulariser, "head_updates": head_updates}
    one, four = (calm_step(head=SMOOTH, mode="alternate", accumulate=n, **options) for n in (1, 4))
    figures = [step(make_batch(NUM), 0) for step in (one, four)]
    close(*figures)
    assert_same_training(one, four)


@pytest.mark.parametrize("regulariser", [NoRegulariser(), R1()], ids=lambda penalty: penalty.name)
def test_spectral_norm_moves_as_far_with_four_micro_batches_as_with_one(regulariser: Any) -> None:
    """Buffers too: its power iteration takes a step in a forward, and that must be a step an update."""
    head = SpectralNorm(width=16, blocks=2, conditioned=True)
    one, four = (
        calm_step(head=head, mode="alternate", regulariser=regulariser, head_updates=2, accumulate=n) for n in (1, 4)
    )
    before = weights(one.heads)
    for number in range(3):
        close(*(step(make_batch(NUM, seed=number), number) for step in (one, four)))
    assert_same_training(one, four)
    moved = [name for name, _ in one.heads.module.named_buffers()]
    assert any(not torch.equal(before[name], weights(one.heads)[name]) for name in moved)


@pytest.mark.parametrize("start", [Fresh(), Stored(), Path()], ids=lambda start: start.name)
def test_micro_batches_get_their_rows_of_whatever_the_student_starts_from(start: Any) -> None:
    one, two = (calm_step(head=SMOOTH, mode="alternate", start=start, accumulate=n) for n in (1, 2))
    close(*(step(make_batch(NUM), 0) for step in (one, two)))
    assert_same_training(one, two)


def test_micro_batches_without_adversarial_weight_give_the_same_regression() -> None:
    one, four = (calm_step(mode="alternate", adv_weight=Constant(value=0.0), accumulate=n) for n in (1, 4))
    for step in (one, four):
        assert "loss/adversarial" not in step(make_batch(NUM), 0)
    assert difference(one.student.gradients, four.student.gradients) < 1e-6  # type: ignore[attr-defined]


def test_the_rows_of_a_share_are_parted_into_micro_batches_of_the_global_batch() -> None:
    """Rank 1 of 2 with two micro-batches: rows 4..6 and 6..8, each with the numbers of those rows."""
    step, batch = calm_step(accumulate=2), make_batch(NUM)
    parts = step.parts(batch.rows(slice(4, 8)), 3, whole_batch(NUM).part(1, 2))
    assert [part.rows for part in parts] == [Rows(4, 6, NUM), Rows(6, 8, NUM)]
    draws = step.micro_batches.draw(batch, whole_batch(NUM), 3, turn=0)
    for part in parts:
        own = slice(part.rows.first, part.rows.stop)
        assert torch.equal(part.batch.x0, batch.x0[own])
        for drawn, expected in zip(part.draws[:4], draws[:4], strict=True):
            assert torch.equal(drawn, expected[own])


def test_a_share_that_micro_batches_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 8 cannot be parted evenly by 3"):
        calm_step(accumulate=3, mode="alternate")(make_batch(NUM), 0)


def test_a_part_of_a_batch_has_the_rows_of_every_tensor() -> None:
    batch = make_batch(NUM)
    part = batch.rows(slice(2, 5))
    for name in ("x0", "cond", "noise", "path"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[2:5]), name
    assert part.path_levels == batch.path_levels
    bare = Batch(batch.x0, batch.cond, None, None, ()).rows(slice(2, 5))
    assert (bare.noise, bare.path) == (None, None)


# Data parallelism by hand


class Together(Watched):
    """A trainable whose gradients are averaged with those of the other ranks, which are threads."""

    table: dict[tuple[int, str], list[dict[str, Tensor]]]
    meeting: threading.Barrier
    role = ""

    def _watch(self, *args: Any) -> None:
        super()._watch(*args)
        shared = self.table.setdefault((self.updates, self.role), [])
        shared.append(self.gradients)
        self.meeting.wait(30)
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(torch.stack([gradients[name] for gradients in shared]).mean(dim=0))
        self.gradients = {name: p.grad.clone() for name, p in self.module.named_parameters() if p.grad is not None}
        self.meeting.wait(30)


def train_together(ranks: int, steps: int, **options: Any) -> tuple[list[LaddStep], list[list[dict[str, Any]]]]:
    """Train on shares of each batch, in a thread a rank; returns each rank's step and figures."""
    table: dict[tuple[int, str], list[dict[str, Tensor]]] = {}
    meeting = threading.Barrier(ranks)

    def together(step: LaddStep, role: str) -> Together:
        module, accumulate = getattr(step, role).module, step.student.accumulate
        trainable = Together(module, lr=1e-3, compute=Compute(accumulate=accumulate))
        trainable.table, trainable.meeting, trainable.role = table, meeting, role
        return trainable

    steps_alone = [calm_step(head=SMOOTH, **options) for _ in range(ranks)]
    members = [
        dataclasses.replace(step, student=together(step, "student"), heads=together(step, "heads"))
        for step in steps_alone
    ]
    for member in members:
        calm(member)
    figures: list[list[dict[str, Any]]] = [[] for _ in members]
    failures: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            for number in range(steps):
                rows = whole_batch(NUM).part(rank, ranks)
                batch = make_batch(NUM, seed=number).rows(slice(rows.first, rows.stop))
                figures[rank].append(members[rank](batch, number, rows))
        except BaseException as error:
            failures.append(error)
            meeting.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    return members, figures


@pytest.mark.parametrize("mode", ["fused", "alternate"])
@pytest.mark.parametrize("regulariser", PENALTIES, ids=lambda penalty: penalty.name)
@pytest.mark.parametrize("adversarial", [Bce(), Relativistic()], ids=lambda game: game.name)
def test_ranks_that_average_their_gradients_train_as_one_process_does(
    adversarial: Any, regulariser: Any, mode: str
) -> None:
    options = {"adversarial": adversarial, "regulariser": regulariser, "mode": mode, "head_updates": 2}
    alone = calm_step(head=SMOOTH, **options)
    expected = [alone(make_batch(NUM, seed=number), number) for number in range(2)]
    members, figures = train_together(2, 2, **options)
    for member in members:
        assert_same_training(alone, member)
        assert_same(weights(member.student), weights(members[0].student))
    for whole, *shares in zip(expected, *figures, strict=True):
        means = {name: sum(float(share[name]) for share in shares) / 2 for name in whole}
        for name, value in means.items():
            if not name.startswith("grad_norm"):  # of its own gradients: this toy averages after they are measured
                assert value == pytest.approx(float(whole[name]), rel=1e-4, abs=1e-5), name


METHODS: dict[str, dict[str, Any]] = {
    "every_step": {"rollout": EveryStep()},
    "on_policy": {"rollout": OnPolicy(share=0.5), "start": Fresh()},
    "teacher_denoised": {"rollout": EveryStep(), "target": TeacherDenoised(), "teacher": shrunk},
    "input": {"rollout": OnPolicy(share=1.0), "start": Ot(), "target": Input()},
}


@pytest.mark.parametrize("method", METHODS)
def test_ranks_with_micro_batches_and_a_penalty_train_as_one_process_whatever_the_method(method: str) -> None:
    options = METHODS[method] | {"head_updates": 2, "regulariser": GradientPenalty(weight=3.0), "mode": "alternate"}
    alone = calm_step(head=SMOOTH, **options)
    alone(make_batch(NUM), 0)
    for member in train_together(2, 1, accumulate=2, **options)[0]:
        assert_same_training(alone, member)


def test_the_first_step_of_ranks_is_that_of_one_process_to_rounding() -> None:
    alone = calm_step(head=SMOOTH)
    alone(make_batch(NUM), 0)
    for member in train_together(4, 1)[0]:
        assert_same_training(alone, member)


def test_ranks_with_micro_batches_train_as_one_process_without() -> None:
    alone = calm_step(head=SMOOTH)
    alone(make_batch(NUM), 0)
    for member in train_together(2, 1, mode="alternate", accumulate=2)[0]:
        assert_same_training(alone, member)


def test_means_of_figures_are_over_the_micro_batches_that_had_them_and_keep_no_graph() -> None:
    means, weight = Means(), torch.ones((), requires_grad=True)
    means.add({"a": 2 * weight, "b": torch.tensor(5.0)})
    means.add({"a": 4 * weight})
    found = means.means()
    assert found == {"a": torch.tensor(3.0), "b": torch.tensor(5.0)}
    assert not any(isinstance(value, Tensor) and value.requires_grad for value in found.values())
