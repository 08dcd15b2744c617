"""Figures of the heads by noise level: counted by hand, and the same however the batch is parted."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from ladd_toys import TAPS, make_batch, make_step
from torch import Tensor

from ladd_dist.core.rng import whole_batch
from ladd_dist.engine.head_statistics import BINS, EDGES, HeadSums, figures, sides
from ladd_dist.engine.step_metrics import logit_metrics
from ladd_dist.guards.judge import GuardControl
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
