"""Tap layouts on catalogs of U-Nets."""

from __future__ import annotations

import pytest

from ladd_dist.core.types import TapSpec
from ladd_dist.taps import TapLayout
from ladd_dist.testing import unet_catalog
from plugins.taps import Downs, DownsMiddle, DownsMiddleUps, Early, Named

FOUR = unet_catalog(4)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (Early(), "input down0 down1 down2 down3"),
        (Downs(), "down0 down1 down2 down3"),
        (DownsMiddle(), "down0 down1 down2 down3 middle"),
        (DownsMiddleUps(), "down0 down1 down2 down3 middle up0 up1 up2 up3"),
        (Named(names=("up1", "input")), "input up1"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_layout_chooses_its_taps_in_order_of_execution(layout: TapLayout, names: str) -> None:
    assert layout(FOUR) == tuple(names.split())


@pytest.mark.parametrize(("layout", "heads"), [(Early(), 5), (Downs(), 4), (DownsMiddle(), 5), (DownsMiddleUps(), 9)])
def test_a_4_level_network_gets_the_number_of_heads_its_docstring_says(layout: TapLayout, heads: int) -> None:
    assert len(layout(FOUR)) == heads
    assert f"{heads} heads on a 4-level network" in " ".join((type(layout).__doc__ or "").split())


def test_more_than_ten_levels_are_found_too() -> None:
    assert Downs()(unet_catalog(12))[-1] == "down11"


def test_names_that_only_look_alike_are_left_alone() -> None:
    catalog = {name: TapSpec(1, 1) for name in ("down0", "downsample", "shutdown0", "middle2x")}
    assert Downs()(catalog) == ("down0",)


@pytest.mark.parametrize("layout", [Early(), Downs(), DownsMiddle(), DownsMiddleUps()], ids=lambda layout: layout.name)
def test_a_network_without_the_blocks_is_refused_with_its_catalog(layout: TapLayout) -> None:
    with pytest.raises(KeyError, match=rf"'{layout.name}' needs a tap .*block3, block7"):
        layout({"block3": TapSpec(1, 1), "block7": TapSpec(1, 1)})


def test_a_layout_never_shrinks_when_one_of_its_blocks_is_missing() -> None:
    catalog = {name: spec for name, spec in FOUR.items() if name != "middle"}
    with pytest.raises(KeyError, match="needs a tap 'middle'"):
        DownsMiddleUps()(catalog)


def test_an_unknown_name_lists_the_catalog() -> None:
    with pytest.raises(KeyError, match=r"unknown tap 'down9'; the network has: input, down0, .*up3"):
        Named(names=("middle", "down9"))(FOUR)


def test_no_name_and_a_name_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Named(names=())
    with pytest.raises(ValueError, match="found twice: down0"):
        Named(names=("down0", "middle", "down0"))
