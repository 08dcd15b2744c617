"""Attributes of coloured digits: measures with known answers, edits that move them and can be undone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ladd_dist.datasets.color import hsv_to_rgb, paint
from ladd_dist.metrics.color import hue, mean_colour, saturation
from ladd_dist.sliders.attributes import (
    ATTRIBUTES,
    GAIN,
    PULL,
    RADIUS,
    attribute,
    brightness,
    redness,
    stroke_width,
    turn_hue,
    unturn_hue,
    widen,
)

SIDE = 16


def bars(width: int, hues: Tensor, *, value: float = 1.0) -> Tensor:
    """A bar of `width` pixels across each image, in a colour: [N,3,16,16]."""
    grey = torch.zeros(len(hues), 1, SIDE, SIDE)
    grey[:, :, :, 6 : 6 + width] = 1.0
    return paint(grey, hsv_to_rgb(torch.stack([hues, torch.full_like(hues, 0.8), torch.full_like(hues, value)], dim=1)))


def test_redness_is_1_for_red_0_a_quarter_turn_away_and_minus_1_for_cyan() -> None:
    images = bars(3, torch.tensor([0.0, 0.25, 0.5, 0.75, 0.125]))
    torch.testing.assert_close(redness(images), torch.tensor([1.0, 0.0, -1.0, 0.0, 0.5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.6, 1.0])
def test_the_hue_edit_moves_an_even_spread_by_its_pull_and_inverts(strength: float) -> None:
    images = bars(3, (torch.arange(360) + 0.5) / 360)
    edited = turn_hue(images, strength)
    moved = (redness(edited) - redness(images)).mean()
    assert float(moved) == pytest.approx(PULL * strength, abs=1e-3)
    torch.testing.assert_close(unturn_hue(edited, strength), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(saturation(mean_colour(edited)), saturation(mean_colour(images)), atol=1e-5, rtol=0)
    torch.testing.assert_close(edited.amax(dim=1), images.amax(dim=1))


def test_the_hue_edit_keeps_channels_outside_of_the_range() -> None:
    images = 2.0 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unturn_hue(turn_hue(images, 0.7), 0.7), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_width_of_a_bar_across_the_image_is_its_width(width: int) -> None:
    """The image's border closes the bar: edges of length 2 (16 + width) around an area of 16 width."""
    images = bars(width, torch.tensor([0.0, 0.4]))
    expected = 2 * SIDE * width / (2 * SIDE + 2 * width)
    assert stroke_width(images).tolist() == pytest.approx([expected] * 2, rel=0.02)
    darker = bars(width, torch.tensor([0.0, 0.4]), value=0.5)
    torch.testing.assert_close(stroke_width(darker), stroke_width(images), rtol=1e-4, atol=0)
    assert stroke_width(torch.full((1, 3, 8, 8), -1.0)).tolist() == [0.0]


@pytest.mark.parametrize("strength", [-1.0, 1.0])
def test_the_stroke_edit_adds_its_radius_on_each_side(strength: float) -> None:
    images = bars(4, torch.tensor([0.1]))
    area = (widen(images, strength) + 1).sum() / (images + 1).sum()  # the bar reaches from border to border
    assert float(area) == pytest.approx((4 + 2 * RADIUS * strength) / 4, rel=0.01)
    torch.testing.assert_close(hue(mean_colour(widen(images, strength))), torch.tensor([0.1]), atol=1e-4, rtol=0)


def test_brightness_is_the_ink_and_its_edit_a_factor_within_the_range() -> None:
    images = bars(3, torch.tensor([0.2, 0.7]), value=0.6)
    assert brightness(images).tolist() == pytest.approx([0.6, 0.6], rel=1e-4)
    brighten = attribute("value").edit
    assert brightness(brighten(images, -1.0)).tolist() == pytest.approx([0.6 / GAIN] * 2, rel=1e-4)
    assert brightness(brighten(images, 1.0)).tolist() == pytest.approx([0.6 * GAIN] * 2, rel=1e-4)
    full = brighten(images, 2.0)
    assert brightness(full).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
    torch.testing.assert_close(hue(mean_colour(full)), hue(mean_colour(images)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_edit_moves_its_attribute_the_right_way_and_nothing_at_0(name: str) -> None:
    images = bars(4, torch.tensor([0.15, 0.3, 0.8]), value=0.6)
    measure, edit = ATTRIBUTES[name].measure, ATTRIBUTES[name].edit
    assert torch.equal(edit(images, 0.0), images)
    assert (measure(edit(images, 1.0)) > measure(images)).all()
    assert (measure(edit(images, -1.0)) < measure(images)).all()


def test_an_unknown_attribute_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown attribute 'slant'; there are hue, stroke, value"):
        attribute("slant")
