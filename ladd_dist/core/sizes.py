"""Sizes of pictures in settings: one number for a square, or two, height and width."""

from __future__ import annotations

from typing import Annotated

from ladd_dist.core.errors import RangeError
from ladd_dist.core.ranges import Within


class Sides(Within):
    """Range of a picture's sides: `Sides("[8, 65536]")` for one number, the side of a square, or height and width.

    Where a range begins at 0, which switches something off, only the one number may be 0.
    """

    def require(self, value: object, where: str) -> None:
        """Refuse a side outside the range, and a square that is written as two numbers: it has one signature.

        Raises:
            RangeError: the message gives `where`, the range and the value.
        """
        if not isinstance(value, tuple):
            return super().require(value, where)
        for name, side in zip(("height", "width"), value, strict=False):  # the check of types counts them
            super().require(side, f"{where} ({name})")
            if side == 0:
                raise RangeError(f"{where} ({name}): must be at least 1, got 0")
        if len(value) == 2 and value[0] == value[1]:
            raise RangeError(f"{where}: write a square as one number, {value[0]}, got {value}")


Size = Annotated[int | tuple[int, int], Sides("[1, 65536]")]
"""Size of a picture in pixels: the side of a square, or height and width."""
PictureSize = Annotated[int | tuple[int, int], Sides("[8, 65536]")]
"""Size of a picture that shows something: sides of 8 pixels or more."""
SizeOrZero = Annotated[int | tuple[int, int], Sides("[0, inf)")]
"""Size of a picture in pixels; 0 usually switches something off."""


def height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size."""
    return (size, size) if isinstance(size, int) else size


def size_text(height: int, width: int) -> str:
    """A size for messages: `32` for a square, `32 x 48` for height 32 and width 48."""
    return str(height) if height == width else f"{height} x {width}"
