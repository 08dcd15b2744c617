"""Figures of the heads by noise level: counted by hand, and the same however the batch is parted."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest
import torch
from ladd_toys import TAPS, Watched, make_batch, make_step
from torch import Tensor

from ladd_dist.core.rng import whole_batch
from ladd_dist.engine.head_statistics import BINS, EDGES, HeadSums, figures, sides
from ladd_dist.engine.step_metrics import logit_metrics
from ladd_dist.guards.judge import GuardControl
from ladd_dist.losses import Adversarial
from ladd_dist.losses.adversarial import Bce, Lsgan, Relativistic, Wgan
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import Ranks

Logits = dict[str, Tensor]


def drawn(num: int = 40) -> tuple[Logits, Logits, Tensor]:
    source = torch.Generator().manual_seed(0)
    real, fake = (
        {"a": torch.randn(num, 3, generator=source), "b": torch.randn(num, 1, generator=source)} for _ in "rf"
    )
    return real, fake, 10 ** (4 * torch.rand(num, generator=source) - 2)


def rows(logits: Logits, which: slice) -> Logits:
    return {tap: value[which] for tap, value in logits.items()}


def test_accuracy_and_gap_are_counted_by_hand() -> None:
    sums = HeadSums(("a",))
    sums.add({"a": torch.tensor([[1.0], [-1.0], [4.0]])}, {"a": torch.tensor([[-2.0], [3.0], [-1.0]])},
             torch.tensor([0.05, 0.05, 50.0]))  # fmt: skip
    found = sums.read("log")
    assert found["accuracy/a@0-0.1"] == 0.5  # one of two real ones, one of two fake ones
    assert found["gap/a@0-0.1"] == (1 - 1) / 2 - (-2 + 3) / 2
    assert (found["accuracy/a@10-inf"], found["gap/a@10-inf"]) == (1.0, 5.0)
    assert found["accuracy/a"] == pytest.approx(4 / 6)
    assert found["gap/a"] == pytest.approx(4 / 3)
    assert {key for key in found if "@" in key} == {
        f"{n}/a@{b}" for n in ("accuracy", "gap") for b in ("0-0.1", "10-inf")
    }


def test_an_edge_belongs_to_the_bin_above_it_and_bins_are_named_by_their_edges() -> None:
    for place, edge in enumerate(EDGES):
        sums = HeadSums(("a",))
        sums.add({"a": torch.ones(1, 1)}, {"a": torch.ones(1, 1)}, torch.tensor([edge]))
        (name,) = (key.partition("@")[2] for key in sums.read("log") if key.startswith("accuracy/a@"))
        assert name == BINS[place + 1] and float(name.partition("-")[0]) == edge


def test_over_all_bins_it_is_what_the_step_reports() -> None:
    real, fake, tau = drawn()
    sums = HeadSums(("a", "b"))
    sums.add(real, fake, tau)
    whole = sides(sums.taps, sums.take("log"))
    found, expected = sums.read("log"), logit_metrics(real, fake)
    for tap in ("a", "b"):
        mean = (expected[f"accuracy/real/{tap}"] + expected[f"accuracy/fake/{tap}"]) / 2
        assert found[f"accuracy/{tap}"] == pytest.approx(float(mean))
        assert found[f"gap/{tap}"] == pytest.approx(float(expected[f"logit_gap/{tap}"]), abs=1e-6)
    assert whole["heads/accuracy_real"] == pytest.approx(float(expected["accuracy/real"]))
    assert whole["heads/accuracy_fake"] == pytest.approx(float(expected["accuracy/fake"]))
    assert whole["heads/gap"] == pytest.approx(float(expected["logit_gap"]), abs=1e-6)


def test_parts_of_unequal_size_add_up_to_the_whole() -> None:
    """Means of means would not: a bin with one sample would weigh as much as one with twenty."""
    real, fake, tau = drawn()
    whole, parted = HeadSums(("a", "b")), HeadSums(("a", "b"))
    whole.add(real, fake, tau)
    for which in (slice(0, 5), slice(5, 6), slice(6, 40)):
        parted.add(rows(real, which), rows(fake, which), tau[which])
    assert parted.read("log") == pytest.approx(whole.read("log"), rel=1e-12)


class Two(Ranks):
    """Rank 0 of two, the other of which says the same."""

    def sum(self, values: Tensor) -> Tensor:
        return 2 * values


def test_gradients_are_known_to_all_ranks_alike_and_so_counted_once() -> None:
    sums = HeadSums(("a", "b"))
    for factor in (1.0, 2.0):
        sums.add_norms({"a": torch.tensor(3.0 * factor), "b": torch.tensor(4.0 * factor)})
    alone, of_two = sums.take("log"), sums.take("log", Two(0, 2))
    torch.testing.assert_close(alone, of_two)
    found = figures(sums.taps, alone)
    assert found["grad_norm/heads/a"] == pytest.approx(3 * (2.5**0.5))
    assert (found["grad_share/heads/a"], found["grad_share/heads/b"]) == pytest.approx((0.36, 0.64))


def test_readers_do_not_disturb_each_other_and_a_window_can_be_put_back() -> None:
    real, fake, tau = drawn()
    sums = HeadSums(("a", "b"))
    sums.open("guard")
    sums.add(real, fake, tau)
    before = sums.take("guard")
    assert sums.read("log") != {} and sums.read("log") == {}
    other = HeadSums(("a", "b"))
    other.put("guard", before)
    assert other.read("guard") == sums.read("guard")


@pytest.mark.parametrize("accumulate", [2, 3])
def test_micro_batches_of_a_step_have_the_figures_of_one_batch(accumulate: int) -> None:
    batch, found = make_batch(6), []
    for number in (1, accumulate):
        sums = HeadSums(TAPS)
        step = make_step(mode="alternate", accumulate=number, head_updates=2, head_sums=sums)
        step(batch, 0, whole_batch(6))
        found.append(sums.read("log"))
    assert found[0].keys() == found[1].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5)
    shares = [value for key, value in found[0].items() if key.startswith("grad_share/")]
    assert len(shares) == len(TAPS) and sum(shares) == pytest.approx(1.0)


def test_the_norms_of_the_heads_make_the_norm_of_all() -> None:
    step = make_step(head_sums=HeadSums(TAPS))
    total = step(make_batch(), 0)["grad_norm/heads"]
    norms = cast(dict[str, Tensor], step.heads.group_norms)
    assert float(torch.stack(list(norms.values())).norm()) == pytest.approx(float(total), rel=1e-5)


def test_heads_that_learn_no_more_stay_as_they_are_and_the_student_goes_on() -> None:
    step = make_step()
    before = {name: value.clone() for name, value in step.heads.module.state_dict().items()}
    student = {name: value.clone() for name, value in step.student.module.state_dict().items()}
    found = step(make_batch(), 0, control=GuardControl(heads_learn=False))
    assert "loss/heads" in found and "grad_norm/heads" not in found
    assert all(torch.equal(value, before[name]) for name, value in step.heads.module.state_dict().items())
    assert any(not torch.equal(value, student[name]) for name, value in step.student.module.state_dict().items())


def test_a_lowered_weight_is_the_schedules_times_the_factor() -> None:
    figures = make_step()(make_batch(), 0, control=GuardControl(adv_factor=0.25))
    assert figures["weight/adversarial"] == pytest.approx(0.25 * 0.3)


# --- fp16 ---


class Overflowing(Bce):
    """A game whose heads' loss is no number; not registered: the name table is the whole test session's."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().discriminator(real, fake) * float("inf")


def test_what_a_skipped_update_of_the_heads_saw_is_left_out() -> None:
    watched = []
    for sums_of_skipped in (True, False):
        sums = HeadSums(TAPS)
        sums.open("guard")
        step = make_step(head_sums=sums, mode="alternate", accumulate=2)
        scaled = Watched(step.heads.module, lr=1e-3, compute=Compute(precision="fp16", accumulate=2))
        good = dataclasses.replace(step, heads=scaled)
        bad = dataclasses.replace(good, adversarial=Overflowing(), head_sums=sums if sums_of_skipped else None)
        found = bad(make_batch(), 0)
        assert bool(found["skipped"]) and not bool(torch.as_tensor(found["loss/heads"]).isfinite())
        assert figures(TAPS, sums.take("log")) == {}
        assert not bool(good(make_batch(), 1)["skipped"])
        bad(make_batch(), 2)
        watched.append([sums.read("log"), sums.read("guard")])
    assert watched[0] == watched[1]
    assert {"accuracy/middle", "grad_norm/heads/middle"} <= watched[0][0].keys()


def test_heads_that_were_skipped_and_learn_no_more_are_no_reason_to_skip_a_step() -> None:
    step = make_step()
    heads = Watched(step.heads.module, lr=1e-3, compute=Compute(precision="fp16"))
    dataclasses.replace(step, heads=heads, adversarial=Overflowing())(make_batch(), 0)
    assert bool(heads.skipped)
    step = dataclasses.replace(step, heads=heads)
    assert "skipped" not in step(make_batch(), 1, control=GuardControl(heads_learn=False))
    assert not bool(step(make_batch(), 2)["skipped"])


# --- games ---


class Earlier(Adversarial):
    """A game as one wrote it before a game could say which logits are right."""

    name = "earlier_test_game"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return Bce().discriminator(real, fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return Bce().generator(fake, real)


ROWS = {"real": torch.tensor([[1.0], [12.0], [-3.0]]), "fake": torch.tensor([[0.0], [8.0], [-2.0]])}


@pytest.mark.parametrize(
    ("game", "real", "fake"),
    [(Bce(), 2 / 3, 1 / 3), (Earlier(), 2 / 3, 1 / 3), (Lsgan(), 2 / 3, 2 / 3), (Wgan(), 2 / 3, 2 / 3),
     (Relativistic(), 2 / 3, 2 / 3)],
)  # fmt: skip
def test_a_game_says_which_logits_are_right(game: Adversarial, real: float, fake: float) -> None:
    """Of least squares by the labels' middle; of games of pairs by which is larger."""
    logits = [{"a": ROWS["real"], "b": ROWS["real"]}, {"a": ROWS["fake"], "b": ROWS["fake"]}]
    found = {name: float(value) for name, value in logit_metrics(*logits, game.margins).items()}
    assert (found["accuracy/real/a"], found["accuracy/fake/b"]) == pytest.approx((real, fake))
    assert found["logit_gap"] == pytest.approx(4 / 3)
    sums = HeadSums(("a", "b"))
    sums.add(*logits, torch.ones(3), game.margins)
    whole = sides(sums.taps, sums.take("log"))
    assert (whole["heads/accuracy_real"], whole["heads/accuracy_fake"]) == pytest.approx((real, fake))


@pytest.mark.parametrize(
    ("game", "real", "fake"), [(Lsgan(), 1.0, 0.0), (Relativistic(), 12.0, 8.0), (Wgan(), -5.0, -9.0)]
)
def test_perfect_heads_are_always_right_in_a_step_of_their_game(
    game: Adversarial, real: float, fake: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step and the sums ask the game; by the sign of a logit these heads were right in .75 and .5 of cases."""
    step = make_step(adversarial=game, head_sums=HeadSums(TAPS))
    own = Watched.__call__

    def perfect(self: Watched, *args: object, **kwargs: object) -> object:
        logits = own(self, *args, **kwargs)
        if self is not step.heads:
            return logits
        (size,) = {len(value) for value in logits.values()}
        sides = torch.tensor([real] * (size // 2) + [fake] * (size - size // 2))
        return {tap: 0 * value + sides[:, None] for tap, value in logits.items()}

    monkeypatch.setattr(Watched, "__call__", perfect)
    found = step(make_batch(), 0)
    assert [float(found[f"accuracy{side}"]) for side in ("", "/real", "/fake")] == [1.0, 1.0, 1.0]
    assert step.head_sums is not None
    assert {value for name, value in step.head_sums.read("log").items() if name.startswith("accuracy/")} == {1.0}
