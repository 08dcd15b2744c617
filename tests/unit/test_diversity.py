"""Variety of samples beside the teacher's: what collapses do to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ladd_dist.engine.diversity import compare, describe

CLASSES = torch.arange(40) % 4


def pictures(channels: int = 3) -> Tensor:
    """Squares [40,C,12,12], bright on black, of a colour of their own each; the class says where."""
    source = torch.Generator().manual_seed(0)
    images = torch.full((40, channels, 12, 12), -1.0)
    for image, cls in zip(images, CLASSES.tolist(), strict=True):
        colour = 2 * torch.rand(channels, 1, 1, generator=source) - 1
        image[:, 3 * cls : 3 * cls + 3, 2:10] = colour
    return images


def of(student: Tensor, teacher: Tensor, cond: Tensor = CLASSES) -> dict[str, float]:
    coloured = teacher.shape[1] == 3
    return compare(describe(student, coloured=coloured), describe(teacher, coloured=coloured), cond, coloured=coloured)


def test_the_teachers_own_samples_have_all_of_its_variety() -> None:
    assert set(of(pictures(), pictures()).values()) == {1.0}


def test_class_means_have_no_distance_within_a_class_and_little_colour() -> None:
    teacher = pictures()
    means = torch.stack([teacher[cls == CLASSES].mean(dim=0) for cls in CLASSES.tolist()])
    found = of(means, teacher)
    assert found["class_distance"] == pytest.approx(0.0, abs=1e-6)
    assert found["colour_variance"] < 0.2
    assert found["distance"] > 0.5  # classes still differ: this figure alone would miss it


def test_one_sample_for_all_has_no_variety_at_all() -> None:
    found = of(pictures()[:1].expand(40, -1, -1, -1), pictures())
    assert {found[name] for name in ("distance", "class_distance", "colour_variance")} == {0.0}


def test_distances_are_root_mean_squares_over_pairs() -> None:
    """Half as far apart is a share of .5; a mean of squares would call it .25."""
    student, teacher = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    student[2], teacher[2] = 1.0, 2.0
    found = of(student, teacher, torch.tensor([0, 1, 1]))
    assert found["distance"] == found["class_distance"] == pytest.approx(0.5)


def test_far_pairs_weigh_by_their_square_in_both_distances() -> None:
    """Two pairs of a class: the teacher's 1 and 3 apart, the student's 3 and 3."""
    student, teacher = torch.zeros(4, 1, 1, 1), torch.zeros(4, 1, 1, 1)
    student[1], student[3], teacher[1], teacher[3] = 3.0, 3.0, 1.0, 3.0
    found = of(student, teacher, torch.tensor([0, 0, 1, 1]))
    assert found["class_distance"] == pytest.approx((9 / 5) ** 0.5)


@pytest.mark.parametrize("channels", [1, 4])
def test_without_colour_distances_are_left(channels: int) -> None:
    images = pictures(channels)
    assert set(of(images, images)) == {"finite", "distance", "class_distance"}


def test_without_two_of_a_class_the_distance_within_falls_away() -> None:
    images = pictures(1)
    assert set(of(images, images, torch.arange(40))) == {"finite", "distance"}
    assert set(of(images, images, torch.randn(40, 5, 8))) == {"finite", "distance"}  # embeddings


def test_samples_that_are_no_numbers_are_counted_and_nothing_else_is_said() -> None:
    student = pictures()
    student[:10, 0, 0, 0] = float("nan")
    student[10:20, 0, 0, 0] = float("inf")
    assert of(student, pictures()) == {"finite": 0.5}


def test_a_row_depends_on_its_sample_alone() -> None:
    images = pictures()
    rows, alone = describe(images, coloured=True), describe(images[7:9], coloured=True)
    torch.testing.assert_close(rows[7:9], alone, rtol=0, atol=0)
