"""A picture file of any sort that people have, as pixels of one size.

No torch here: processes that do nothing but decode import this file alone.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ladd_dist.core.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Fit = Literal["crop", "pad", "squeeze"]
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Pillow's names of the formats that are read; APNG is a PNG, and MPO, as some cameras write, begins as a JPEG."""
SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif"})
"""Endings of names of such files, in small letters."""
OTHER_SUFFIXES = frozenset(
    {".avif", ".bmp", ".cr2", ".dng", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".nef", ".ppm", ".psd", ".svg", ".tga",
     ".tif", ".tiff"}
)  # fmt: skip
"""Endings of names of pictures in formats that are not read."""
MOST_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded; decoding takes up to eight bytes for each."""
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Pillow's name of what makes a picture upright, by the value of EXIF's tag Orientation (EXIF 2.3, section 4.6.4)."""


class Fitting(NamedTuple):
    """How a picture becomes one of `height` x `width` pixels."""

    height: int
    width: int
    fit: Fit = "crop"
    """`crop`: its centre; `pad`: all of it, with `background` around; `squeeze`: all of it, whatever its shape."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour beneath transparent pixels and around padded pictures: red, green, blue, 0 to 255."""


class PictureError(UserError):
    """A picture that cannot be decoded; its text says why, without the picture's name."""


def colour_of(text: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour like `white`, `#20c0ff` or `rgb(32, 192, 255)`.

    Raises:
        ValueError: it is no such colour, or is not opaque.
    """
    from PIL import ImageColor

    try:
        found = ImageColor.getrgb(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no colour; name one like white, black or #20c0ff") from error
    if len(found) == 4 and found[3] != 255:
        raise ValueError(f"{text!r} is transparent; a background is opaque, like white or #20c0ff")
    return found[0], found[1], found[2]


def decode(content: bytes, fitting: Fitting) -> Pixels:
    """A picture file's content as pixels uint8 [3,H,W], red, green, blue: upright, on `fitting.background`, resized.

    Resizing is bicubic and antialiased. 16 bits become 8 by v / 257. Of an animation it is the first frame. Grey
    becomes three equal channels. Colour profiles are not applied.

    Raises:
        PictureError: it is empty, truncated, damaged, of another format, or larger than `MOST_PIXELS`.
        MemoryError: there is too little memory. OSError: of the machine, with its number.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise PictureError("it is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about sizes below our own limit and odd metadata
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _require_size(image.size)
                return _resized(_flat(image, fitting.background), fitting)
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise PictureError("it is no PNG, JPEG, WebP or GIF, whatever its name says") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has far more than {MOST_PIXELS / 1e6:.0f} megapixels; scale it down") from error
    except Exception as error:  # decoders of damaged bytes have many ways to fail
        if isinstance(error, OSError) and error.errno is not None:  # no content has one: a module could not be loaded
            raise
        _require_memory(error)
        raise PictureError(f"it is truncated or damaged ({' '.join(str(error).split())[:100]})") from error


def fitted(pixels: Pixels, fitting: Fitting) -> Pixels:
    """Pixels uint8 [H,W,3] or [H,W] of any size as uint8 [3,H,W] of the size of `fitting`.

    Raises:
        PictureError: another shape or type, no pixels, or more than `MOST_PIXELS`.
    """
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise PictureError(f"pixels must be uint8 [H,W,3] or [H,W], got {pixels.dtype} {list(pixels.shape)}")
    _require_size((pixels.shape[1], pixels.shape[0]))
    return _resized(Image.fromarray(pixels).convert("RGB"), fitting)


def _require_memory(error: Exception) -> None:
    """Tell damage from a lack of memory: libwebp fails in the same way for both.

    Raises:
        MemoryError: the largest picture could not be decoded either.
    """
    if "out of memory" in str(error).lower():  # Pillow's for a decoder, and zlib's
        raise MemoryError from error
    np.zeros(8 * MOST_PIXELS, np.uint8)  # asked for, and not touched


def _require_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureError("it has no pixels")
    if width * height > MOST_PIXELS:
        raise PictureError(
            f"it has {width * height / 1e6:.0f} megapixels ({width} x {height}), and at most "
            f"{MOST_PIXELS / 1e6:.0f} are decoded; scale it down"
        )


def _flat(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The first frame, upright, in red, green and blue, on the background."""
    from PIL import Image

    image.load()
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    flat = _opaque(image, background)
    return flat if turn is None else flat.transpose(Image.Transpose[turn])


def _opaque(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        return _on(_eight_bits(image), background)
    if image.mode == "CMYK" and "adobe" not in image.info:  # Pillow takes all for Adobe's, whose ink is upside down
        image = Image.eval(image, lambda value: 255 - value)
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        return _on(_with_alpha(image), background)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    from PIL import Image

    grey = np.asarray(image).astype(np.int64)
    narrow = Image.fromarray(((grey.clip(0, 65_535) + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        alpha = Image.fromarray(np.where(grey == clear, 0, 255).astype(np.uint8))
        return Image.merge("LA", (narrow, alpha)).convert("RGBA")
    return narrow.convert("RGBA")


def _with_alpha(image: Image.Image) -> Image.Image:
    clear: Any = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, and the pixels are of 8
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    return image.convert("RGBA")


def _on(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    ground = Image.new("RGB", image.size, background)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _resized(image: Image.Image, fitting: Fitting) -> Pixels:
    from PIL import Image

    (width, height), wanted = image.size, (fitting.width, fitting.height)
    if fitting.fit == "pad":
        scale = min(wanted[0] / width, wanted[1] / height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", wanted, fitting.background)
        place = ((wanted[0] - inner[0]) // 2, (wanted[1] - inner[1]) // 2)
        canvas.paste(image.resize(inner, Image.Resampling.BICUBIC), place)
        image = canvas
    elif fitting.fit == "crop":
        scale = min(width / wanted[0], height / wanted[1])
        across, down = (width - scale * wanted[0]) / 2, (height - scale * wanted[1]) / 2
        box = (across, down, width - across, height - down)
        image = image.resize(wanted, Image.Resampling.BICUBIC, box=box)
    else:
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))
