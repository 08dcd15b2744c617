"""Pictures in a table: labels at the left and above, gaps, frames around single pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ladd_dist.core.rundir import write_bytes
from ladd_dist.reports.grids import GROUND, INK, TILE_PIXELS, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

WHITE, YELLOW = (255, 255, 255), (255, 196, 0)
_GAP, _GROUP_GAP, _MARGIN = 2, 10, 8


class Line(NamedTuple):
    """A row of pictures [C,H,W] in [-1, 1] by column, its label, and frames by column."""

    label: str
    tiles: Mapping[int, Tensor]
    frames: Mapping[int, Sequence[tuple[int, int, int]]]


def write_tiles(path: Path, groups: Sequence[Sequence[Line]], header: Sequence[str]) -> None:
    """Write groups of lines as one PNG; a column that a line has no picture for stays empty.

    Args:
        header: a label for each column.
    """
    from PIL import Image, ImageDraw, ImageFont

    small, font = ImageFont.load_default(size=11), ImageFont.load_default(size=13)
    lines = [line for group in groups for line in group]
    height, width = next(iter(lines[0].tiles.values())).shape[-2:]
    scale = max(1, round(TILE_PIXELS / max(height, width)))
    left = _MARGIN + round(max(font.getlength(line.label) for line in lines)) + 10
    top = _MARGIN + 16
    size = (
        left + len(header) * (width * scale + _GAP) + _MARGIN,
        top + len(lines) * (height * scale + _GAP) + (len(groups) - 1) * _GROUP_GAP + _MARGIN,
    )
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    for column, text in enumerate(header):
        middle = left + column * (width * scale + _GAP) + width * scale / 2
        draw.text((middle, top - 4), text, fill=INK, font=small, anchor="ms")
    y = top
    for group in groups:
        for line in group:
            draw.text((left - 10, y + height * scale / 2), line.label, fill=INK, font=font, anchor="rm")
            for column, tile in line.tiles.items():
                x = left + column * (width * scale + _GAP)
                image.paste(Image.fromarray(_large(tile, scale)), (x, y))
                for inset, colour in enumerate(line.frames.get(column, ())):
                    edge = 3 * inset
                    box = (x + edge, y + edge, x + width * scale - 1 - edge, y + height * scale - 1 - edge)
                    draw.rectangle(box, outline=colour, width=3)
            y += height * scale + _GAP
        y += _GROUP_GAP
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _large(tile: Tensor, scale: int) -> NDArray[np.uint8]:
    large: NDArray[np.uint8] = to_bytes(tile[None])[0].repeat(scale, axis=0).repeat(scale, axis=1)
    return large
