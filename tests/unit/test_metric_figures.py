"""Kernel distance, manifolds, diversity, memorising and intervals against closed forms and clean-fid."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladd_dist.evaluation.measurement import Measurement
from ladd_dist.metrics import Measure, Metric, References, Samples
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.diversity import Diversity, pairwise_estimate
from ladd_dist.metrics.frechet import frechet_distance, frechet_estimate, frechet_reference, moments
from ladd_dist.metrics.interval import Estimate, is_bound, share_of, with_intervals
from ladd_dist.metrics.kernel import kernel_estimate, kernel_reference, subset_kernel_distance
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.manifold import Manifold, manifold_figures
from ladd_dist.metrics.matched import Matched
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.metrics.neighbours import blocks, nearest, radii

needs_clean_fid = pytest.mark.skipif(
    importlib.util.find_spec("cleanfid") is None, reason="clean-fid is not installed (extra 'dev')"
)


def normal(num: int, dim: int, seed: int) -> Tensor:
    return torch.randn(num, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pictures(num: int, seed: int, *, classes: int = 3) -> Samples:
    images = normal(num, 3 * 4 * 4, seed).float().reshape(num, 3, 4, 4) * 0.3
    return Samples(images, torch.arange(num) % classes)


def manifold(samples: Tensor, reference: Tensor, k: int) -> dict[str, float]:
    found = manifold_figures(samples, reference, k, radii(reference, k))
    return {name: value for name, value in found.items() if not is_bound(name)}


# Kernel distance


@needs_clean_fid
@pytest.mark.parametrize("sizes", [(300, 200), (150, 150)])
def test_the_subset_estimate_is_clean_fids(sizes: tuple[int, int]) -> None:
    import numpy as np
    from cleanfid.fid import kernel_distance

    ours, reference = normal(sizes[0], 16, 1), normal(sizes[1], 16, 2) * 1.1 + 0.1
    np.random.seed(5)
    expected = kernel_distance(reference.numpy(), ours.numpy(), num_subsets=7, max_subset_size=120)
    found = subset_kernel_distance(ours, reference, num_subsets=7, subset_size=120, seed=5)
    assert found == pytest.approx(expected, abs=1e-6)


@needs_clean_fid
def test_over_all_pairs_the_kernel_distance_is_clean_fids_on_one_subset_that_is_everything() -> None:
    from cleanfid.fid import kernel_distance

    ours, reference = normal(200, 16, 1), normal(200, 16, 2) * 1.2
    expected = kernel_distance(reference.numpy(), ours.numpy(), num_subsets=1, max_subset_size=1000)
    assert kernel_estimate(ours, kernel_reference(reference)).value == pytest.approx(expected, abs=1e-6)


def test_the_kernel_distance_of_two_points_each_is_worked_out_by_hand() -> None:
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    # k(x,y) = (xy + 1)^3: within x 27, within y 1, across (1, 0, 1, -1) -> mean 0.25
    assert kernel_estimate(x, kernel_reference(y)).value == pytest.approx(27 + 1 - 2 * 0.25)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    found = [kernel_estimate(normal(60, 8, 2 * i), kernel_reference(normal(60, 8, 2 * i + 1))).value for i in range(60)]
    mean, deviation = torch.tensor(found).mean(), torch.tensor(found).std()
    assert abs(float(mean)) < 3 * float(deviation) / math.sqrt(60)
    assert min(found) < 0 < max(found)


def test_the_kernel_distance_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(50, 4, 1), normal(70, 4, 2)
    whole = kernel_estimate(x, kernel_reference(y))
    monkeypatch.setattr("ladd_dist.metrics.kernel._ELEMENTS", 500)
    again = kernel_estimate(x, kernel_reference(y))
    assert again.value == pytest.approx(whole.value, rel=1e-12)
    torch.testing.assert_close(again.parts, whole.parts)


# Frechet distance with its parts


def test_the_frechet_estimate_is_the_distance() -> None:
    one, two = normal(400, 6, 1), normal(300, 6, 2) + 0.5
    expected = frechet_distance(*moments(one), *moments(two))
    assert frechet_estimate(one, frechet_reference(two)).value == pytest.approx(expected, rel=1e-9)


def test_the_parts_are_the_derivative_of_the_distance_by_the_weight_of_a_sample() -> None:
    rows, reference = normal(400, 5, 1) * 1.3 + 0.2, moments(normal(500, 5, 2))
    parts = frechet_estimate(rows, frechet_reference(normal(500, 5, 2))).parts
    for index in (0, 17, 200):
        share = 1e-5  # this sample counts for so much more than the others
        weights = torch.full((400,), (1 - share) / 400, dtype=torch.float64)
        weights[index] += share
        mean = weights @ rows
        cov = (rows - mean).T @ (weights[:, None] * (rows - mean)) * 400 / 399
        moved = frechet_distance(mean, cov, *reference) - frechet_distance(*moments(rows), *reference)
        assert moved / share == pytest.approx(float(parts[index] - parts.mean()), rel=2e-2, abs=2e-2)


def test_a_shift_of_gaussians_has_a_known_distance_within_the_interval() -> None:
    shifted = normal(20_000, 3, 1) + torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    figures = with_intervals({"fd_real": frechet_estimate(shifted, frechet_reference(normal(200_000, 3, 2)))})
    assert figures["fd_real_low"] < 1.25 < figures["fd_real_high"]
    assert figures["fd_real_high"] - figures["fd_real_low"] < 0.15


def test_fewer_samples_than_features_still_have_an_interval() -> None:
    figures = with_intervals({"fd_real": frechet_estimate(normal(10, 32, 1), frechet_reference(normal(100, 32, 2)))})
    assert all(math.isfinite(value) for value in figures.values())


# Intervals


def spread_of(figure: Callable[[Tensor], Estimate], num: int = 400, sets: int = 120) -> tuple[float, float]:
    """How far a figure spreads over sets of samples (as wide as 95 % of a normal law), and the mean interval."""
    found = [with_intervals({"it": figure(normal(num, 4, 1000 + seed))}) for seed in range(sets)]
    values = torch.tensor([figures["it"] for figures in found])
    widths = torch.tensor([figures["it_high"] - figures["it_low"] for figures in found])
    return 2 * 1.96 * float(values.std()), float(widths.mean())


@pytest.mark.parametrize(
    "figure",
    [
        lambda rows: frechet_estimate(rows, frechet_reference(normal(3_000, 4, 1) + 0.5)),
        lambda rows: kernel_estimate(rows, kernel_reference(normal(1_000, 4, 1) + 0.5)),
        lambda rows: pairwise_estimate(rows.float(), torch.arange(len(rows)) % 4),
        lambda rows: Estimate(float((rows[:, 0] > 1).double().mean()), rows[:, 0] > 1),
    ],
    ids=["frechet", "kernel", "pairwise", "share"],
)
def test_an_interval_is_as_wide_as_the_figure_spreads_over_sets(figure: Callable[[Tensor], Estimate]) -> None:
    spread, width = spread_of(figure)
    assert width == pytest.approx(spread, rel=0.25)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        rows = normal(100, 1, seed)[:, 0]
        figures = with_intervals({"it": Estimate(float(rows.mean()), rows)})
        covered += figures["it_low"] <= 0 <= figures["it_high"]
    assert 180 <= covered <= 199


def test_an_interval_is_the_same_every_time_and_holds_its_figure() -> None:
    rows = normal(50, 1, 0)[:, 0]
    estimate = {"it": Estimate(float(rows.mean()), rows)}
    first = with_intervals(estimate)
    assert first == with_intervals(estimate) and first["it_low"] < first["it"] < first["it_high"]
    assert [name for name in first if is_bound(name)] == ["it_low", "it_high"]


def test_equal_parts_leave_no_doubt() -> None:
    assert with_intervals({"it": Estimate(1.0, torch.ones(20))}) == {"it": 1.0, "it_low": 1.0, "it_high": 1.0}


@pytest.mark.parametrize("chance", [0.5, 0.98, 0.99, 0.995, 0.999])
def test_the_interval_of_a_share_covers_the_truth_as_often_as_it_says_also_near_one(chance: float) -> None:
    """Exactly, over all numbers of successes: 400 draws with chance .995 give no failure at all in 13 % of cases."""
    covered = 0.0
    for right in range(401):
        figures = with_intervals({"it": share_of(torch.arange(400) < right)})
        probability = math.exp(
            math.lgamma(401) - math.lgamma(right + 1) - math.lgamma(401 - right)
            + right * math.log(chance) + (400 - right) * math.log(1 - chance)
        )  # fmt: skip
        covered += probability * (figures["it_low"] <= chance <= figures["it_high"])
    assert 0.92 <= covered <= 0.98


def test_an_accuracy_of_one_is_not_certain() -> None:
    teacher = pictures(60, 1)
    seen = {"features": normal(60, 64, 1).float(), "digit": teacher.cond}
    own = Samples(teacher.images, teacher.cond, lambda what, reader, images: seen)
    figures = DigitColor().build(references=References(own, own))(own)
    assert (figures["accuracy"], figures["accuracy_high"]) == (1.0, 1.0)
    assert figures["accuracy_low"] == pytest.approx(60 / (60 + 1.96**2), abs=1e-3)  # Wilson's, worked out by hand


# Manifolds


def test_a_set_is_inside_its_own_manifold() -> None:
    rows = normal(200, 4, 1).float()
    found = manifold(rows, rows, 5)
    assert found["precision"] == found["recall"] == found["coverage"] == 1.0
    assert found["density"] == pytest.approx(
        6 / 5, abs=0.02
    )  # 5 neighbours and itself; on a ball's edge rounding decides


@pytest.mark.parametrize("scale", [1.0, 0.7], ids=["one law", "a narrower student"])
def test_the_intervals_of_a_manifold_cover_the_truth_as_often_as_they_say(scale: float) -> None:
    """Both sets are drawn anew each time. Rows taken for independent cover it in .67 to .88 of the cases."""
    sets, size = 150, 300
    found = []
    for seed in range(2_500, 2_500 + sets):
        own, reference = (
            Samples(rows.float().view(size, 3, 1, 1), torch.zeros(size, dtype=torch.int64))
            for rows in (normal(size, 3, 2 * seed) * scale, normal(size, 3, 2 * seed + 1))
        )
        found.append(Manifold(features="pixels").build(references=References(reference, reference))(own))
    for name in ("precision", "recall", "density", "coverage"):
        truth = sum(figures[name] for figures in found) / sets
        covered = sum(figures[f"{name}_low"] <= truth <= figures[f"{name}_high"] for figures in found) / sets
        assert 0.92 <= covered <= 0.98, name


def test_a_manifold_of_too_few_rows_for_halves_has_figures_and_no_interval() -> None:
    found = manifold_figures(normal(11, 3, 1), normal(11, 3, 2), 5, radii(normal(11, 3, 2), 5))
    assert set(found) == {"precision", "recall", "density", "coverage"}


def test_the_interval_of_a_manifold_is_the_same_every_time_also_where_a_part_of_the_rows_is_enough() -> None:
    one, other = normal(1_100, 3, 1), normal(30, 3, 2)
    found = manifold_figures(one, other, 5, radii(other, 5))
    assert found == manifold_figures(one, other, 5, radii(other, 5))
    assert 0 <= found["recall_low"] < found["recall"] <= found["recall_high"] <= 1


def test_sets_far_apart_share_nothing() -> None:
    found = manifold(normal(100, 4, 1).float() + 100, normal(100, 4, 2).float(), 5)
    assert found == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}


def test_dropping_modes_lowers_recall_and_coverage_and_leaves_precision() -> None:
    place = torch.tensor([[0.0, 0.0], [50.0, 0.0]]).repeat(200, 1)
    reference, one_mode = normal(400, 2, 1).float() + place, normal(400, 2, 2).float()
    found = manifold(one_mode, reference, 5)
    assert found["precision"] > 0.9 and found["density"] > 0.8
    assert found["recall"] < 0.55 and found["coverage"] < 0.55


def test_inventing_a_mode_lowers_precision_and_leaves_recall() -> None:
    place = torch.tensor([[0.0, 0.0], [50.0, 0.0]]).repeat(200, 1)
    found = manifold(normal(400, 2, 1).float() + place, normal(400, 2, 2).float(), 5)
    assert found["precision"] < 0.55 and found["recall"] > 0.9


def test_recall_is_by_the_samples_balls_and_coverage_by_the_references() -> None:
    """Samples ten times as far apart, around the reference: their balls hold it, its balls hold few of them."""
    found = manifold(10 * normal(300, 2, 1).float(), normal(300, 2, 2).float(), 5)
    assert found["recall"] > 0.9
    assert found["coverage"] < 0.3


def test_samples_are_held_against_as_many_of_the_reference() -> None:
    """More references would have smaller balls: the figures would depend on the ratio of the numbers."""
    teacher, samples = pictures(90, 1), pictures(30, 2)
    measure = built(Manifold(features="pixels"), teacher, teacher)
    expected = manifold(samples.images.flatten(1), teacher.images[:30].flatten(1), 5)
    found = measure(samples)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert expected != pytest.approx(manifold(samples.images.flatten(1), teacher.images.flatten(1), 5))


def test_one_distribution_has_the_coverage_that_theory_gives() -> None:
    """Naeem et al. 2020, section 3.3: 1 - (M - 1)...(M - k) / ((2M - 1)...(2M - k)) on average for N = M."""
    size, k = 500, 5
    found = [
        manifold(normal(size, 3, 2 * i).float(), normal(size, 3, 2 * i + 1).float(), k)["coverage"] for i in range(10)
    ]
    missed = math.prod((size - j) / (2 * size - j) for j in range(1, k + 1))
    assert sum(found) / len(found) == pytest.approx(1 - missed, abs=0.01)


def test_distances_in_blocks_are_the_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(33, 6, 1), normal(41, 6, 2)
    expected = (x[:, None] - y[None]).norm(dim=2).float()
    monkeypatch.setattr("ladd_dist.metrics.neighbours._ELEMENTS", 100)
    found = torch.cat([away for _, away in blocks(x, y)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nearest(x, y).float(), expected.amin(1))
    within = (x[:, None] - x[None]).norm(dim=2).sort(dim=1).values[:, 3].float()
    torch.testing.assert_close(radii(x, 3), within, rtol=1e-5, atol=1e-5)


def test_as_many_neighbours_as_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="needs more than 5 samples, got 5"):
        radii(normal(5, 2, 1), 5)


# Diversity, memorising, matched noise


def test_the_distance_within_classes_is_the_mean_over_classes() -> None:
    features = torch.tensor([[0.0], [1.0], [10.0], [0.0], [2.0], [4.0]])
    cond = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = ((1 + 10 + 9) / 3 + (2 + 4 + 2) / 3) / 2
    assert pairwise_estimate(features, cond).value == pytest.approx(expected, rel=1e-4)


def built(metric: Metric, real: Samples, teacher: Samples, matched: Samples | None = None) -> Measure:
    return metric.build(references=References(real, teacher, matched))


def test_one_picture_a_class_has_no_diversity_and_the_teachers_own_samples_all_of_it() -> None:
    teacher = pictures(90, 1)
    measure = built(Diversity(features="pixels"), teacher, teacher)
    one_each = Samples(teacher.images[:3].repeat(30, 1, 1, 1), teacher.cond)
    assert measure(teacher)["pairwise_share"] == pytest.approx(1.0)
    assert measure(one_each)["pairwise_share"] == pytest.approx(0.0, abs=0.02)
    half = Samples(teacher.images * 0.5, teacher.cond)
    assert measure(half)["pairwise_share"] == pytest.approx(0.5, abs=0.01)


def test_samples_of_some_classes_are_held_against_the_teachers_of_these_classes() -> None:
    """The teacher's class 0 is ten times as varied as the others: samples of class 1 have nothing to do with it."""
    teacher = pictures(90, 1)
    loud = Samples(torch.where((teacher.cond == 0).view(-1, 1, 1, 1), 10.0, 1.0) * teacher.images, teacher.cond)
    measure = built(Diversity(features="pixels"), loud, loud)
    assert measure(loud.of_class(1))["pairwise_share"] == pytest.approx(1.0)


def test_where_no_class_is_there_twice_there_is_no_diversity_to_speak_of() -> None:
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    twice, once = Samples(images, torch.tensor([0, 0, 1, 1, 2, 2])), Samples(images, torch.arange(6))
    assert "pairwise_distance" in Diversity().build(references=References(twice, twice))(twice)
    assert Diversity().build(references=References(twice, twice))(once) == {}


def test_copies_are_at_distance_zero_and_new_samples_at_the_usual_one() -> None:
    train, new = pictures(300, 1), pictures(100, 2)
    measure = built(Memorising(features="pixels"), train, new)
    copies = measure(Samples(train.images[:50], train.cond[:50]))
    assert copies["nearest_train_distance"] == 0.0 == copies["nearest_train_share"]
    fresh = measure(pictures(200, 3))
    assert fresh["nearest_train_share"] == pytest.approx(1.0, abs=0.05)
    assert measure(new)["nearest_teacher_distance"] == 0.0


def test_each_nearest_share_is_of_the_usual_distance_in_its_own_set() -> None:
    """A teacher three times as spread as the data: new samples of its own are at its usual distance, not at three."""
    train, teacher, new = pictures(300, 1), pictures(300, 2), pictures(300, 3)
    wide = Samples(3 * teacher.images, teacher.cond)
    found = built(Memorising(features="pixels"), train, wide)(Samples(3 * new.images, new.cond))
    assert found["nearest_teacher_share"] == pytest.approx(1.0, abs=0.05)
    assert found["nearest_train_share"] > 2


def test_the_matched_error_is_the_mean_square_of_the_difference() -> None:
    teacher = pictures(40, 1)
    measure = built(Matched(), teacher, teacher, teacher)
    assert measure(teacher)["matched_error"] == 0.0
    moved = Samples(teacher.images + 0.1, teacher.cond)
    assert measure(moved)["matched_error"] == pytest.approx(0.01, rel=1e-4)


def test_samples_of_other_classes_cannot_be_matched() -> None:
    teacher = pictures(40, 1)
    measure = built(Matched(), teacher, teacher, teacher)
    with pytest.raises(ValueError, match="same classes in the same order"):
        measure(Samples(teacher.images, teacher.cond.flip(0)))
    with pytest.raises(ValueError, match="there are none"):
        built(Matched(), teacher, teacher)


# One pass over the samples


def test_all_metrics_and_all_classes_read_the_samples_once() -> None:
    calls: list[tuple[str, int]] = []

    def counting(what: str, reader: Callable[[Tensor], dict[str, Tensor]], images: Tensor) -> dict[str, Tensor]:
        calls.append((what.split()[0], len(images)))
        return reader(images)

    real, teacher, own = (Samples(pictures(60, seed).images, torch.arange(60) % 3, counting) for seed in range(3))
    references = References(real, teacher, own)
    for metric in (DigitColor(), Kid(), Manifold(), Diversity(), Memorising()):
        metric.build(references=references)(own)
        for number in range(3):
            metric.build(references=references.of_class(number))(own.of_class(number))
    assert sorted(calls) == [("digit_color", 60)] * 3


@pytest.mark.parametrize("metric", [DigitColor(), Kid(), Manifold(), Diversity(), Memorising(), Matched()])
def test_the_figures_of_a_class_are_those_of_its_samples_alone(metric: Metric) -> None:
    real, teacher, own, theirs = (pictures(90, seed) for seed in range(4))
    references = References(real, teacher, theirs)
    found = metric.build(references=references.of_class(1))(own.of_class(1))
    alone = [Samples(part.images[part.cond == 1], part.cond[part.cond == 1]) for part in (real, teacher, own, theirs)]
    expected = metric.build(references=References(alone[0], alone[1], alone[3]))(alone[2])
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_references_of_a_class_are_of_that_class() -> None:
    sets = References(pictures(30, 1), pictures(60, 2), pictures(30, 3))
    for number in (0, 2):
        for alone, all_of_them in zip(sets.of_class(number)[:3], sets[:3], strict=True):
            assert alone is not None and all_of_them is not None
            assert torch.equal(alone.images, all_of_them.images[all_of_them.cond == number])
            assert alone.cond.unique().tolist() == [number]


def test_every_figure_of_a_shipped_metric_has_its_interval() -> None:
    real, teacher, own = (pictures(60, seed) for seed in range(3))
    for metric in (DigitColor(), Kid(), Manifold(), Diversity(), Memorising(), Matched()):
        figures = metric.build(references=References(real, teacher, teacher))(own)
        for name, value in figures.items():
            if not is_bound(name):
                assert figures[f"{name}_low"] <= value <= figures[f"{name}_high"], (metric.name, name)
        assert set(metric.few) <= set(figures)


def test_the_metric_on_the_page_works_as_it_stands(own_tables: None) -> None:
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if '@register("brightness")' in block]
    names: dict[str, Any] = {"__name__": "my_metrics"}
    exec(compile(code, "my_metrics.py", "exec", dont_inherit=True), names)
    teacher = pictures(60, 1)
    measured = Measurement((names["Brightness"](),), References(teacher, teacher))
    found = measured({"own": Samples((teacher.images + 1) * 0.5 - 1, teacher.cond)}, num_classes=3)
    assert found.figures["own"]["brightness_share"] == pytest.approx(0.5, rel=1e-5)
    assert [found.classes["own"][number]["brightness_share"] > 0 for number in "012"] == [True] * 3
