"""Pictures beside each other as one PNG: grids of labelled rows, and tables with frames around single pictures."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ladd_dist.core.door import decode, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

TILE_PIXELS = 48  # wanted width of one picture of a grid; the upscaling is the nearest whole factor
GROUND = (24, 26, 32)  # the grid's own ground: not black, so that the edges of pictures on black can be seen
INK = (226, 229, 236)
NOT_A_NUMBER = (255, 0, 255)
WHITE, YELLOW = (255, 255, 255), (255, 196, 0)
_GAP, _GROUP_GAP, _MARGIN = 2, 10, 8  # pixels between the tiles of a table, between its groups, around it
MOST_PIXELS = 2**26
"""Pixels of the largest picture that is read: 8192 x 8192, a quarter of a gigabyte unpacked."""
ROWS_KEY = "rows"  # PNG text chunk with the labels of the rows, for the page's alternative text


def write_grid(
    path: Path,
    rows: Sequence[tuple[str, NDArray[Any] | Tensor]],
    columns: int = 16,
    scale: int | None = None,
) -> None:
    """Write labelled rows of pictures as one PNG, each pixel as a square of `scale` x `scale` pixels.

    Args:
        path: the PNG file; its folder is made where missing; written atomically.
        rows: (label, pictures [N,C,H,W] in [-1, 1], C = 1 or 3); a row of more than `columns` pictures goes on in
            further lines under the same label. Values outside [-1, 1] are drawn as the nearest colour, NaN as magenta.
        columns: pictures in a line, at most.
        scale: whole upscaling factor; None takes the one which makes a picture about 48 pixels wide.

    Raises:
        UserError: no rows, another number of channels, or rows of different picture sizes.
    """
    pictures = [(label, to_bytes(images)) for label, images in rows]
    if not pictures or columns < 1:
        raise UserError(f"a grid needs at least one row and one column; got {len(pictures)} rows, {columns} columns")
    sizes = {images.shape[1:3] for _, images in pictures}
    if len(sizes) > 1:
        raise UserError(f"all rows of a grid must have pictures of one size; got {sorted(sizes)}")
    height, width = sizes.pop()
    scale = scale or max(1, round(TILE_PIXELS / max(height, width)))
    canvas = _draw(pictures, columns=min(columns, max(len(images) for _, images in pictures)), scale=scale)
    _save_png(path, canvas, labels=[label for label, _ in pictures])


def write_pictures(paths: Sequence[Path], images: NDArray[Any] | Tensor) -> None:
    """Write pictures [N,C,H,W] in [-1, 1] as a PNG each, pixel by pixel."""
    from PIL import Image

    for path, picture in zip(paths, to_bytes(images), strict=True):
        _save_png(path, Image.fromarray(picture), labels=[])


def to_bytes(images: NDArray[Any] | Tensor) -> NDArray[np.uint8]:
    """Pictures [N,C,H,W] in [-1, 1], array or tensor on any device, as bytes [N,H,W,3]."""
    array = np.asarray(images if isinstance(images, np.ndarray) else images.detach().float().cpu().numpy(), np.float32)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.shape[0] == 0:
        raise UserError(f"a grid draws pictures [N,C,H,W] with N > 0 and C = 1 or 3; got shape {tuple(array.shape)}")
    pixels = np.repeat(array, 3, axis=1) if array.shape[1] == 1 else array
    pixels = pixels.transpose(0, 2, 3, 1)
    broken = np.isnan(pixels).any(axis=-1)
    result = (np.clip(np.nan_to_num(pixels), -1.0, 1.0) * 127.5 + 128.0).clip(0, 255).astype(np.uint8)
    result[broken] = NOT_A_NUMBER
    return result


def _draw(pictures: list[tuple[str, NDArray[np.uint8]]], *, columns: int, scale: int) -> Image:
    """Lay the rows out on one canvas: a gutter with the labels, then the tiles, a thin line between them."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = (side * scale for side in pictures[0][1].shape[1:3])
    gap, margin = max(2, scale // 2), _MARGIN
    font = ImageFont.load_default(size=15)
    gutter = margin + round(max(font.getlength(label) for label, _ in pictures)) + 12
    num_lines = [-(-len(images) // columns) for _, images in pictures]
    block_gap = gap + (4 if max(num_lines) > 1 else 0)  # lines of one label keep together
    total = sum(n * (height + gap) for n in num_lines) + (block_gap - gap) * (len(pictures) - 1)
    canvas = np.empty((total + 2 * margin, gutter + columns * (width + gap) + margin, 3), np.uint8)
    canvas[:] = GROUND
    middles, top = [], margin
    for (_, images), lines in zip(pictures, num_lines, strict=True):
        middles.append(top + (lines * (height + gap) - gap) / 2)
        for index, tile in enumerate(_enlarged(images, scale)):
            y, x = top + index // columns * (height + gap), gutter + index % columns * (width + gap)
            canvas[y : y + height, x : x + width] = tile
        top += lines * (height + gap) + block_gap - gap
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for (label, _), middle in zip(pictures, middles, strict=True):
        draw.text((gutter - 12, middle), label, fill=INK, font=font, anchor="rm")
    return image


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
    high, wide = height * scale, width * scale
    left = _MARGIN + round(max(font.getlength(line.label) for line in lines)) + 10
    top = _MARGIN + 16
    size = (
        left + len(header) * (wide + _GAP) + _MARGIN,
        top + len(lines) * (high + _GAP) + (len(groups) - 1) * _GROUP_GAP + _MARGIN,
    )
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    for column, text in enumerate(header):
        middle = left + column * (wide + _GAP) + wide / 2
        draw.text((middle, top - 4), text, fill=INK, font=small, anchor="ms")
    y = top
    for group in groups:
        for line in group:
            draw.text((left - 10, y + high / 2), line.label, fill=INK, font=font, anchor="rm")
            for column, tile in line.tiles.items():
                x = left + column * (wide + _GAP)
                image.paste(Image.fromarray(_enlarged(to_bytes(tile[None]), scale)[0]), (x, y))
                for inset, colour in enumerate(line.frames.get(column, ())):
                    edge = 3 * inset
                    draw.rectangle(
                        (x + edge, y + edge, x + wide - 1 - edge, y + high - 1 - edge), outline=colour, width=3
                    )
            y += high + _GAP
        y += _GROUP_GAP
    _save_png(path, image, labels=[])


def _enlarged(images: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Pictures [N,H,W,3] with each pixel as a square of `scale` x `scale`."""
    large: NDArray[np.uint8] = images.repeat(scale, axis=1).repeat(scale, axis=2)
    return large


def _save_png(path: Path, image: Image, *, labels: list[str]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(ROWS_KEY, json.dumps(labels))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def grid_row(path: Path, label: str) -> Image | None:
    """A row of a grid which `write_grid` made, with its label; None where it has no such row of one line.

    Raises:
        UserError: not a picture.
    """
    labels = grid_rows(path)
    image = _load(path)
    pitch, rest = divmod(image.height - 2 * _MARGIN, max(1, len(labels)))
    if label not in labels or rest:  # rows of several lines are set further apart
        return None
    top = _MARGIN + labels.index(label) * pitch
    return image.convert("RGB").crop((0, top, image.width, top + pitch))


def grid_rows(path: Path) -> tuple[str, ...]:
    """The labels of the rows of a grid which `write_grid` made; none for another picture.

    Raises:
        UserError: not a PNG picture, or one of more than 180 million pixels.
    """
    rows = _load(path).info.get(ROWS_KEY, "[]")
    return tuple(decode(str(rows), list[str], f"{path}: its text {ROWS_KEY!r}"))


def _load(path: Path) -> Image:
    """A picture; its size is looked at before it is unpacked.

    Raises:
        UserError: not a whole PNG picture, or too large.
    """
    from PIL import Image, UnidentifiedImageError

    require_regular(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and refuses
            with Image.open(path, formats=("PNG",)) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read")
                image.load()
                return image
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole PNG picture ({error}); delete it and run the same command again"
        ) from error
