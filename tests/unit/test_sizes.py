"""Sizes of pictures in settings, on the command line, in recipes as data, and in signatures."""

from __future__ import annotations

import pytest
import torch

from ladd_dist.cli.arguments import read
from ladd_dist.core.errors import RecipeError
from ladd_dist.core.serialize import check, from_data, signature, to_data
from ladd_dist.core.sizes import height_width, size_text
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets.digits import Digits

Size = int | tuple[int, int]


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("--size 32", 32),
        ("--size 32 48", (32, 48)),
        ("--size=32,48", (32, 48)),
        ("--size 32 32", 32),
        ("", 16),
    ],
)
def test_a_flag_takes_a_side_or_height_and_width(words: str, size: Size) -> None:
    assert read(Digits, words.split(), prog="test").size == size


def test_a_pair_is_a_default_that_the_command_line_keeps() -> None:
    assert read(Digits, [], prog="test", default=Digits(size=(16, 24))).size == (16, 24)


@pytest.mark.parametrize("words", ["--size", "--size 1 2 3", "--size x", "--size 16 2.5"])
def test_a_flag_refuses_what_is_no_size(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(Digits, words.split(), prog="test")
    assert "--size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((16, 7), r"size \(width\): must be at least 8 and at most 65536, got 7"),
        ((7, 16), r"size \(height\): must be at least 8"),
        (7, r"size: must be at least 8"),
        ((16, 16), r"size: write a square as one number, 16, got \(16, 16\)"),
    ],
)
def test_a_side_out_of_range_is_named(size: Size, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Digits(size=size)


@pytest.mark.parametrize("size", [(16, 24, 3), (16,), "16", 16.0, (16, 2.5), [16, 24], True, None])
def test_the_check_of_a_recipe_refuses_what_is_no_size(size: object) -> None:
    made = Digits()
    object.__setattr__(made, "size", size)
    with pytest.raises(RecipeError, match=r"recipe\.size"):
        check(Digits, made)


def test_sizes_are_read_back_from_data() -> None:
    for made in (Digits(), Digits(size=(16, 24))):
        assert from_data(Digits, to_data(made)) == made
    assert to_data(Digits(size=(16, 24)))["size"] == [16, 24]
    with pytest.raises(RecipeError, match=r"recipe\.size: expected 2 values, got 3"):
        from_data(Digits, to_data(Digits()) | {"size": [16, 24, 3]})


def test_a_square_has_the_identity_that_it_always_had() -> None:
    assert ImageSpec(3, 16, 16, 10).identity() == {"channels": 3, "size": 16, "num_classes": 10}
    sides = [ImageSpec(3, *pair, 10).identity() for pair in ((16, 24), (24, 16), (16, 16))]
    assert len({signature(found) for found in sides}) == 3


def test_height_comes_first() -> None:
    assert (height_width(16), height_width((16, 24))) == ((16, 16), (16, 24))
    assert (size_text(16, 16), size_text(16, 24)) == ("16", "16 x 24")
    assert ImageSpec(3, 16, 24, 10).shape == (3, 16, 24)
    images = Digits(size=(16, 24), repeat=1).build(split="test")
    assert images.image == ImageSpec(3, 16, 24, 10) and images.batch(torch.arange(2))[0].shape == (2, 3, 16, 24)
