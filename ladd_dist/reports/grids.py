"""Grids of samples as PNG. Knows nothing of recipes or stages."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
    """[N,C,H,W] in [-1, 1], array or tensor on any device -> [N,H,W,3] bytes."""
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
    gap, margin = max(2, scale // 2), 8
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
        large = images.repeat(scale, axis=1).repeat(scale, axis=2)
        for index, tile in enumerate(large):
            y, x = top + index // columns * (height + gap), gutter + index % columns * (width + gap)
            canvas[y : y + height, x : x + width] = tile
        top += lines * (height + gap) + block_gap - gap
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for (label, _), middle in zip(pictures, middles, strict=True):
        draw.text((gutter - 12, middle), label, fill=INK, font=font, anchor="rm")
    return image


def _save_png(path: Path, image: Image, *, labels: list[str]) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(ROWS_KEY, json.dumps(labels))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def grid_rows(path: Path) -> tuple[str, ...]:
    """The labels of the rows of a grid which `write_grid` made; none for another picture.

    Raises:
        UserError: not a picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return tuple(str(row) for row in json.loads(image.info.get(ROWS_KEY, "[]")))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} is not a whole PNG picture ({error}); delete it and run the same command again"
        ) from error


# --- curves ---
