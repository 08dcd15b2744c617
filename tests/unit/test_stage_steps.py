"""One step of the stages `teacher` and `distill`, on stand-ins for what it tells or asks: no files, no network.

The stand-ins write down what they were told, so a test can compare it with what the recipe says.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ladd_dist.core.noise import SIGMA_DATA
from ladd_dist.core.rng import Rows, sample_starts, whole_batch
from ladd_dist.core.types import Batch, Denoiser, ImageSpec
from ladd_dist.datasets import ImageSet
from ladd_dist.engine.ahead import Ahead
from ladd_dist.engine.resident import ResidentImages
from ladd_dist.guards.judge import NO_CHANGE
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.stages import sample_monitor
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.sample_monitor import shown_samples
from ladd_dist.stages.teacher import TeacherTraining
from ladd_dist.workspace.run import Run

RECIPE = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "exp4_specnorm.py", "smoke")
IMAGE = ImageSpec(channels=1, height=4, width=4, num_classes=10)
NULL = IMAGE.num_classes
CPU = torch.device("cpu")


def recipe_of(**changes: Any) -> Recipe:
    """The recipe with other settings of the stages `teacher` and `train`."""
    parts = {name: dataclasses.replace(getattr(RECIPE, name), **fields) for name, fields in changes.items()}
    return dataclasses.replace(RECIPE, **parts)


# The teacher


class Images:
    """1,000 images that are their index, of class index modulo 10."""

    image = IMAGE

    def __len__(self) -> int:
        return 1_000

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        shape = (len(indices), *IMAGE.shape)
        return (indices / 1_000).view(-1, 1, 1, 1).expand(shape), indices % IMAGE.num_classes


class Listener:
    """A network that answers with its input and writes down what it was shown; a trainable without weights."""

    accumulate = 1

    def __init__(self) -> None:
        self.factors: list[float] = []
        self.x, self.sigma, self.cond = (list[Tensor]() for _ in range(3))

    def set_lr_factor(self, factor: float) -> None:
        self.factors.append(factor)

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        for micro in range(self.accumulate):
            loss_of(micro)
        return torch.zeros(())

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> SimpleNamespace:
        for kept, value in ((self.x, x), (self.sigma, sigma), (self.cond, cond)):
            kept.append(value.detach().clone())
        return SimpleNamespace(denoised=x)


def teacher_step(
    step: int,
    rows: Rows | None = None,
    images: ImageSet | None = None,
    *,
    ahead: bool = False,
    flips: bool = False,
    first: int | None = None,
    **settings: Any,
) -> Listener:
    """What a step of the teacher's training shows its network, of 400 samples if nothing else is said.

    Args:
        first: the first of several steps, whose last is `step`.
    """
    first = step if first is None else first
    listener, recipe = Listener(), recipe_of(teacher={"batch_size": 400, **settings})
    training = SimpleNamespace(
        settings=recipe.teacher,
        device=CPU,
        rows=rows or whole_batch(recipe.teacher.batch_size),
        images=images or Images(),
        flips=flips,
        codec=SimpleNamespace(encode=lambda images: images),
        trainable=listener,
        average=SimpleNamespace(update=lambda updates: None),
        graph=None,
    )
    given = functools.partial(TeacherTraining.read, cast(TeacherTraining, training))
    training.update = functools.partial(TeacherTraining.update, cast(TeacherTraining, training))
    training.batches = Ahead(given, CPU, on=ahead, end=recipe.teacher.steps)
    for number in range(first, step + 1):
        TeacherTraining.step(cast(TeacherTraining, training), number)
    return listener


@pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0, 0), (0.1, 20, 64), (0.9, 336, 380)])
def test_the_teacher_trains_a_share_of_its_samples_without_their_class(dropout: float, low: int, high: int) -> None:
    """Of 400; the bounds are 3.7 standard deviations of a share of .1 away."""
    cond = teacher_step(0, label_dropout=dropout).cond[0]
    assert low <= int((cond == NULL).sum()) <= high
    assert set(cond.tolist()) <= set(range(NULL + 1))


def test_two_ranks_train_the_teacher_on_what_one_would() -> None:
    """Images, levels, noise and dropped classes of a rank are those of its rows of the global batch."""
    whole = teacher_step(3, label_dropout=0.5)
    shares = [teacher_step(3, whole_batch(400).part(rank, 2), label_dropout=0.5) for rank in range(2)]
    for name in ("x", "sigma", "cond"):
        joined = torch.cat([getattr(share, name)[0] for share in shares])
        torch.testing.assert_close(joined, getattr(whole, name)[0], msg=name)


def test_images_that_are_kept_on_a_device_train_the_teacher_on_the_same_numbers() -> None:
    usual, kept = teacher_step(3), teacher_step(3, images=ResidentImages(Images(), CPU))
    for name in ("x", "sigma", "cond"):
        assert torch.equal(getattr(usual, name)[0], getattr(kept, name)[0]), name


def test_images_that_are_read_ahead_train_the_teacher_on_the_same_numbers() -> None:
    usual, ahead = (teacher_step(4, first=1, label_dropout=0.5, ahead=ahead) for ahead in (False, True))
    for name in ("x", "sigma", "cond"):
        for one, other in zip(getattr(usual, name), getattr(ahead, name), strict=True):
            assert torch.equal(one, other), name


class Sided(Images):
    """The same images; their right half is darker by one."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images, cond = super().batch(indices)
        return images - (torch.arange(IMAGE.width) >= IMAGE.width // 2).float(), cond


def test_a_teacher_whose_data_are_flipped_sees_mirror_images_half_of_the_time_and_the_same_on_any_rank() -> None:
    plain, flipped = (teacher_step(3, images=Sided(), flips=flips) for flips in (False, True))
    change = flipped.x[0] - plain.x[0]
    turned = change.abs().flatten(1).max(dim=1).values > 0.5
    assert 150 < int(turned.sum()) < 250
    expected = torch.cat([-torch.ones(IMAGE.width // 2), torch.ones(IMAGE.width // 2)]).expand(IMAGE.shape)
    torch.testing.assert_close(change, turned.view(-1, 1, 1, 1) * expected, atol=1e-4, rtol=0)
    shares = [teacher_step(3, whole_batch(400).part(rank, 2), Sided(), flips=True).x[0] for rank in range(2)]
    torch.testing.assert_close(torch.cat(shares), flipped.x[0])
    other = teacher_step(4, images=Sided(), flips=True).x[0] - teacher_step(4, images=Sided()).x[0]
    assert not torch.equal(other.abs().flatten(1).max(dim=1).values > 0.5, turned)


def test_each_step_of_the_teacher_has_images_levels_and_noise_of_its_own() -> None:
    first, second = teacher_step(0, label_dropout=0.0), teacher_step(1, label_dropout=0.0)
    assert float((first.cond[0] == second.cond[0]).float().mean()) < 0.5  # a tenth by chance
    assert not torch.isclose(first.sigma[0], second.sigma[0]).any()
    noises = [(step.x[0] / step.sigma[0].view(-1, 1, 1, 1))[step.sigma[0] > 2 * SIGMA_DATA] for step in (first, second)]
    num = min(map(len, noises))
    assert num > 10
    assert float(torch.corrcoef(torch.stack([noise[:num].flatten() for noise in noises]))[0, 1]) < 0.5


def test_the_teachers_learning_rate_falls_along_the_cosine() -> None:
    """From 1 at the first step over the middle between both to `lr_final` at the end."""
    factors = [teacher_step(step, steps=100, lr_final=0.2).factors for step in (0, 50, 100)]
    assert factors == [[pytest.approx(value)] for value in (1.0, 0.6, 0.2)]


# The student


@dataclasses.dataclass
class Told:
    """What a step of the distillation told everybody."""

    student: list[float] = dataclasses.field(default_factory=list)
    heads: list[float] = dataclasses.field(default_factory=list)
    asked: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)
    trained: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)
    averaged: list[int] = dataclasses.field(default_factory=list)
    guarded: list[int] = dataclasses.field(default_factory=list)


BATCH = Batch(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), None, None, ())


def distill_step(step: int, rows: Rows, recipe: Recipe) -> Told:
    told = Told()

    def read(*arguments: Any) -> Batch:
        told.asked.append(arguments)
        return BATCH

    def train(*arguments: Any) -> dict[str, float]:
        told.trained.append(arguments[1:])
        return {}

    training = SimpleNamespace(
        run=SimpleNamespace(recipe=recipe, device=CPU),
        student=SimpleNamespace(set_lr_factor=told.student.append),
        heads=SimpleNamespace(set_lr_factor=told.heads.append),
        rows=rows,
        reader=SimpleNamespace(batch=read),
        ladd_step=train,
        recorded=None,
        average=SimpleNamespace(update=told.averaged.append),
        guarding=SimpleNamespace(control=NO_CHANGE, after=lambda updates, *rest: told.guarded.append(updates)),
        early=SimpleNamespace(after=lambda updates, averaged: None),
        averaged=None,
        log=None,
        save=None,
    )
    given = functools.partial(Distillation.read, cast(Distillation, training))
    training.batches = Ahead(given, CPU, on=recipe.train.compute.data == "ahead", end=recipe.train.steps)
    Distillation.step(cast(Distillation, training), step)
    return told


def test_both_learning_rates_fall_along_the_cosine() -> None:
    """From 1 at the first step over the middle between both to `lr_final` at the end: a heads' rate that stays would
    let the heads win at the end."""
    recipe = recipe_of(train={"steps": 100, "lr_final": 0.2})
    told = [distill_step(step, whole_batch(8), recipe) for step in (0, 50, 100)]
    expected = [[pytest.approx(value)] for value in (1.0, 0.6, 0.2)]
    assert [item.student for item in told] == expected
    assert [item.heads for item in told] == expected


@pytest.mark.parametrize("seed", [0, 7])
def test_a_step_reads_its_rows_of_its_batch_in_the_order_of_the_runs_seed(seed: int) -> None:
    recipe = dataclasses.replace(recipe_of(train={"batch_size": 8}, teacher={"seed": 3}), seed=seed)
    told = distill_step(5, Rows(4, 8, 8), recipe)
    assert told.asked == [(5, 8, seed, range(4, 8))]
    assert told.trained == [(5, Rows(4, 8, 8), NO_CHANGE)]


def test_the_next_batch_is_read_ahead_but_none_after_the_last_step() -> None:
    ahead = Compute(data="ahead")
    last = recipe_of(train={"compute": ahead}).train.steps - 1
    for step, asked in ((5, [5, 6]), (last, [last])):
        told = distill_step(step, whole_batch(8), recipe_of(train={"compute": ahead}))
        assert [arguments[0] for arguments in told.asked] == asked


def test_a_step_that_was_not_read_ahead_is_read_when_it_is_asked_for() -> None:
    """A rollback goes back to an earlier step than the one that was prepared."""
    read = list[int]()
    ahead = Ahead(lambda step: (read.append(step), torch.tensor(step))[1:], CPU, on=True, end=9)
    assert [int(ahead.of(3)[0]), ahead.prepare(4), int(ahead.of(2)[0]), int(ahead.of(3)[0])] == [3, None, 2, 3]
    ahead.prepare(4)
    assert int(ahead.of(4)[0]) == 4
    assert read == [3, 4, 2, 3, 4]


def test_average_and_guard_are_told_the_updates_done() -> None:
    told = distill_step(5, whole_batch(8), RECIPE)
    assert (told.averaged, told.guarded) == ([6], [6])


def test_the_small_set_is_measured_with_the_first_row_after_each_interval_and_at_the_end() -> None:
    """A row is logged every 10 updates, the set is due every 25: at 25, 50, 75, 100, 125 and 128."""

    def watched(every: int) -> list[int]:
        recipe = recipe_of(train={"steps": 128, "log_every": 10, "evaluate_every": every})
        training = cast(Distillation, SimpleNamespace(run=SimpleNamespace(recipe=recipe)))
        return [updates for updates in range(1, 129) if Distillation.is_watched(training, updates)]

    assert watched(25) == [30, 50, 80, 100, 128]
    assert watched(0) == []


def test_the_shown_samples_are_of_held_out_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sample_monitor, "guided_teacher", lambda recipe, teacher: lambda x, sigma, cond: torch.zeros_like(x)
    )
    monkeypatch.setattr(sample_monitor, "decoded", lambda run, samples: samples)
    teacher = cast(Denoiser, torch.nn.Linear(1, 1))
    found = shown_samples(cast(Run, SimpleNamespace(recipe=RECIPE)), teacher)
    noise, cond = sample_starts(RECIPE.evaluate.seed, range(32), RECIPE.latent(), CPU)
    assert torch.equal(found["noise"], noise) and torch.equal(found["cond"], cond)
    stored, _ = sample_starts(RECIPE.shards.seed, range(32), RECIPE.latent(), CPU)
    assert not (found["noise"] == stored).any()
