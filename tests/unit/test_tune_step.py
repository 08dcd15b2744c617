"""Training on new pictures with a share of old conditions: which rows are old, what they are pulled to, what moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from ladd_dist.core.augment import Augment, Moves
from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.core.types import Batch, ImageSpec
from ladd_dist.engine.discriminator import CriticOutput, FrozenCritic
from ladd_dist.engine.draws import MicroBatches
from ladd_dist.engine.heads_update import critique
from ladd_dist.engine.mixed_reader import MixedReader
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.losses.distance import Mse, PseudoHuber, SmoothL1
from ladd_dist.rollouts import Rollout
from ladd_dist.rollouts.policies import EveryStep, OffPolicy, OnPolicy
from ladd_dist.sigmas.laws import FixedSet, LogNormal
from ladd_dist.starts.couplings import Fresh, Ot
from ladd_dist.targets.old import OldOrDenoised, OldSample

IMAGE = ImageSpec(3, 4, 6, 5)
LEVELS = (80.0, 4.0, 1.0, 0.3)


def shards(folder: Path, num: int, first_value: float, *, noise: bool) -> ShardReader:
    """Samples that hold their own number."""

    def make(first: int, last: int) -> Chunk:
        x0 = torch.arange(first, last).float().view(-1, 1, 1, 1).expand(-1, *IMAGE.shape).clone() + first_value
        return Chunk(x0, torch.arange(first, last) % IMAGE.num_classes, x0 + 0.5 if noise else None, None)

    card = {"path_levels": []}
    write_shards(
        folder, num_samples=num, samples_per_chunk=4, chunks_per_shard=2, dtype=torch.float32, make=make, image=IMAGE,
        card=card, texts=(), progress=lambda done: None,
    )  # fmt: skip
    return ShardReader(folder)


@pytest.fixture
def mixed(tmp_path: Path) -> MixedReader:
    pictures = shards(tmp_path / "pictures", 7, 0.0, noise=False)
    return MixedReader(pictures, shards(tmp_path / "old", 9, 1000.0, noise=True), num_old=3)


def test_a_share_of_each_batch_is_old_and_every_picture_comes_once_an_epoch(mixed: MixedReader) -> None:
    seen = []
    for step in range(7):
        batch = mixed.batch(step, 10, 0, range(10))
        assert batch.old is not None and batch.noise is not None
        assert int(batch.old.sum()) == 3
        values = batch.x0[:, 0, 0, 0]
        assert ((values >= 1000) == batch.old).all()
        assert torch.equal(batch.noise[batch.old], batch.x0[batch.old] + 0.5), "an old sample keeps its noise"
        assert not batch.noise[~batch.old].any()
        seen += values[~batch.old].int().tolist()
    assert [seen.count(number) for number in range(7)] == [7] * 7


@pytest.mark.parametrize("parts", [2, 5])
def test_processes_read_the_rows_of_one_batch(mixed: MixedReader, parts: int) -> None:
    whole, size = mixed.batch(3, 10, 1, range(10)), 10 // parts
    read = [mixed.batch(3, 10, 1, range(rank * size, (rank + 1) * size)) for rank in range(parts)]
    for name in ("x0", "cond", "noise", "old"):
        assert torch.equal(torch.cat([getattr(part, name) for part in read]), getattr(whole, name)), name


def batch_of(num: int) -> Batch:
    source = torch.Generator().manual_seed(3)
    x0, noise = (torch.randn(num, *IMAGE.shape, generator=source) for _ in range(2))
    return Batch(x0, torch.arange(num) % 5, noise, None, (), torch.arange(num) % 3 == 0)


def micro_batches(start: Fresh | Ot, *, rollout: Rollout | None = None, **more: Augment) -> MicroBatches:
    return MicroBatches(
        start=start, rollout=rollout or OffPolicy(), student_sigma=FixedSet(), renoise_sigma=LogNormal(), levels=LEVELS,
        seed=0, **more,
    )  # fmt: skip


def still(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize("start", [Ot(), Fresh()], ids=lambda start: start.rule)
def test_an_old_row_starts_from_the_noise_of_its_sample_where_that_belongs_to_it(start: Fresh | Ot) -> None:
    batch = batch_of(48)
    (part,) = micro_batches(start).split(batch, 0, whole_batch(48), count=1, student=still)
    assert batch.old is not None and batch.noise is not None
    sigma = part.draws.sigma.view(-1, 1, 1, 1)
    own, new = batch.x0 + sigma * batch.noise, batch.x0 + sigma * part.draws.start_eps
    is_own = (part.inputs.x - own).abs().flatten(1).amax(1) < 1e-4
    is_new = (part.inputs.x - new).abs().flatten(1).amax(1) < 1e-4
    paired = (
        batch.old if start.rule == "ode" else torch.zeros(48, dtype=torch.bool)
    )  # `sde` adds new noise at each level
    assert (is_own == paired).all() and (is_new == ~paired).all()


def test_the_students_own_steps_start_an_old_row_at_the_noise_of_its_sample() -> None:
    batch = batch_of(24)
    (part,) = micro_batches(Ot(), rollout=OnPolicy(share=1.0)).split(batch, 0, whole_batch(24), count=1, student=still)
    assert batch.old is not None and batch.noise is not None
    expected = part.inputs.sigma.view(-1, 1, 1, 1) * batch.noise  # a student that answers 0 keeps the noise alone
    own = (part.inputs.x - expected).abs().flatten(1).amax(1) < 1e-3
    assert (own == batch.old).all()


@pytest.mark.parametrize("rollout", [OffPolicy(), EveryStep()], ids=lambda rollout: rollout.name)
def test_an_old_row_should_stay_what_the_student_before_training_makes_of_its_own_input(
    rollout: Rollout,
) -> None:
    """At each level, for heads and distance alike; the new rows keep their pictures."""
    batch, asked = batch_of(12)._replace(old=torch.arange(12) % 3 == 2), list[Tensor]()  # as `MixedReader` spreads four

    def before(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        asked.append(cond)
        return x / (1 + sigma.view(-1, 1, 1, 1)) + cond.view(-1, 1, 1, 1)

    micro = replace(micro_batches(Fresh(), rollout=rollout), before=before, num_old=4)
    parts = micro.split(batch, 0, whole_batch(12), count=2, student=still)
    assert sum(map(len, asked)) == 4 * micro.repeats, "only old rows cost a forward"
    for part in parts:
        assert part.batch.old is not None and part.batch.old.any() and not part.batch.old.all()
        answers = before(*part.inputs, part.batch.cond)
        assert torch.equal(part.batch.x0[part.batch.old], answers[part.batch.old])
        plain = batch.rows(slice(part.rows.first, part.rows.stop)).repeat(micro.repeats)
        assert torch.equal(part.batch.x0[~part.batch.old], plain.x0[~part.batch.old])
    asked.clear()
    micro.split(batch._replace(old=None), 0, whole_batch(12), count=1, student=still)
    assert not asked, "without old rows nobody asks it"


@pytest.mark.parametrize("distance", [Mse(), SmoothL1(), PseudoHuber()], ids=lambda distance: distance.name)
def test_only_old_rows_pull_at_the_student(distance: Mse) -> None:
    batch = batch_of(6)
    fake = torch.randn(6, *IMAGE.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    sigma, source = torch.full((6,), 2.0), RowSource(whole_batch(6), "target", 0)
    target = OldSample()(fake, fake.detach(), sigma, batch, teacher=still, source=source)
    (gradient,) = torch.autograd.grad(distance(fake, target.x0, target.sigma), fake)
    assert batch.old is not None
    assert not gradient[~batch.old].any()
    assert (gradient[batch.old].flatten(1).norm(dim=1) > 0).all()
    assert torch.equal(target.x0[batch.old], batch.x0[batch.old])


def test_new_rows_may_be_held_by_the_base_at_its_own_level() -> None:
    batch, fake, sigma = batch_of(6), torch.zeros(6, *IMAGE.shape), torch.full((6,), 2.0)
    source = RowSource(whole_batch(6), "target", 0)
    target = OldOrDenoised()(fake, fake, sigma, batch, teacher=lambda x, level, cond: x * 0 + 7, source=source)
    assert batch.old is not None
    assert torch.equal(target.x0[batch.old], batch.x0[batch.old])
    assert (target.x0[~batch.old] == 7).all()
    assert (target.sigma[batch.old] == 2).all() and (target.sigma[~batch.old] != 2).all()


def test_a_move_shifts_mirrors_and_fills_with_the_edge() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    still_, down, left, mirrored = (
        Moves(torch.tensor([flip]), torch.tensor([rows]), torch.tensor([columns]))(x)[0, 0].tolist()
        for flip, rows, columns in ((False, 0, 0), (False, 1, 0), (False, 0, -2), (True, 0, 0))
    )
    assert still_ == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert down == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert left == [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]
    assert mirrored == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]


def test_moves_are_drawn_by_row_within_their_limits_whatever_the_process() -> None:
    augment = Augment(flip=0.25, shift=0.25)
    drawn = augment.draw(RowSource(Rows(0, 4000, 4000), "augment", 0), 8, 16)
    assert drawn.flipped.float().mean() == pytest.approx(0.25, abs=0.03)
    for name, most in (("down", 2), ("right", 4)):
        values, counts = getattr(drawn, name).unique(return_counts=True)
        assert values.tolist() == list(range(-most, most + 1)), name
        assert counts.min() > 0.8 * counts.float().mean(), name
    part = augment.draw(RowSource(Rows(100, 300, 4000), "augment", 0), 8, 16)
    assert all(torch.equal(mine, whole[100:300]) for mine, whole in zip(part, drawn, strict=True))


def test_real_and_fake_of_a_row_move_alike_and_nothing_moves_unless_asked() -> None:
    batch = batch_of(8)
    (plain,) = micro_batches(Ot()).split(batch, 0, whole_batch(8), count=1, student=still)
    (moving,) = micro_batches(Ot(), augment=Augment(flip=0.4, shift=0.5)).split(
        batch, 0, whole_batch(8), count=1, student=still
    )
    assert plain.draws.shown(batch.x0) is batch.x0
    assert not torch.equal(moving.draws.shown(batch.x0), batch.x0)
    fake = batch.x0 + 1
    assert torch.equal(moving.draws.shown(fake), moving.draws.shown(batch.x0) + 1)
    for name in ("sigma", "start_eps", "tau", "renoise_eps"):
        assert torch.equal(getattr(plain.draws, name), getattr(moving.draws, name)), name


def test_old_rows_stay_with_their_samples_in_micro_batches_and_repeats() -> None:
    batch = batch_of(8)
    assert batch.old is not None
    again = batch.repeat(2).rows(slice(8, 16))
    assert again.old is not None and torch.equal(again.old, batch.old)
    parts = micro_batches(Ot()).split(batch, 0, whole_batch(8), count=4, student=still)
    assert torch.equal(torch.cat([part.batch.old for part in parts if part.batch.old is not None]), batch.old)


def test_the_critic_is_shown_moved_samples() -> None:
    batch = batch_of(8)
    (part,) = micro_batches(Ot(), augment=Augment(flip=0.4, shift=0.5)).split(
        batch, 0, whole_batch(8), count=1, student=still
    )
    seen = list[Tensor]()

    class Critic:
        def features(self, x0: Tensor, *rest: Tensor) -> CriticOutput:
            seen.append(x0)
            return CriticOutput({}, torch.zeros(8, 1))

    critique(cast(FrozenCritic, Critic()), batch.x0, part)
    assert torch.equal(seen[0], part.draws.shown(batch.x0)) and not torch.equal(seen[0], batch.x0)
