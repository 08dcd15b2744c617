"""Every sort of picture that people have becomes the right pixels, or is refused with a reason."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from picture_files import BLUE, GREEN, RED, WHITE, big_endian, encoded, halves, plain, png
from PIL import Image

from ladd_dist.core.picture_file import MOST_PIXELS, Fitting, PictureError, colour_of, decode, fitted

AS_IT_IS = Fitting(8, 8)
Colour = tuple[int, int, int]


def first(content: bytes, fitting: Fitting = AS_IT_IS, tolerance: int = 0) -> Colour:
    """The one colour that all pixels have."""
    pixels = decode(content, fitting).astype(int)
    assert pixels.shape == (3, fitting.height, fitting.width)
    assert int((pixels - pixels[:, :1, :1]).__abs__().max()) <= tolerance
    r, g, b = pixels[:, 0, 0].tolist()
    return r, g, b


def close(one: Colour, other: Colour, by: int) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= by


# --- modes ---


def test_grey_becomes_three_equal_channels() -> None:
    assert first(encoded(plain(77, mode="L"))) == (77, 77, 77)
    assert first(encoded(plain(1, mode="1"))) == WHITE
    assert first(png(8, 8, 2, 0, bytes([0b01010101]) * 16)) == (85, 85, 85)


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 30)])
def test_what_is_transparent_lies_on_the_background(background: Colour) -> None:
    on = Fitting(8, 8, background=background)
    half = tuple(round(c * 127 / 255 + 255 * 128 / 255 * (i == 0)) for i, c in enumerate(background))
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert first(encoded(plain((9, 9, 9, 0), mode="RGBA"), form, **options), on) == background
        assert close(first(encoded(plain((255, 0, 0, 128), mode="RGBA"), form, **options), on), half, 1)
    assert first(encoded(plain((50, 0), mode="LA")), on) == background
    assert first(encoded(plain((50, 255), mode="LA")), on) == (50, 50, 50)
    assert first(encoded(plain(RED), transparency=RED), on) == background
    assert first(encoded(plain(70, mode="L"), transparency=70), on) == background


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_is_looked_up_and_its_transparent_colour_is_background(form: str) -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *GREEN, *BLUE])
    assert first(encoded(palette, form)) == GREEN
    assert first(encoded(palette, form, transparency=1), Fitting(8, 8, background=BLUE)) == BLUE


def test_partly_transparent_colours_of_a_palette_are_blended() -> None:
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *GREEN])
    assert close(first(encoded(palette, transparency=bytes([255, 51]))), (204, 255, 204), 1)


@pytest.mark.parametrize("value", [0, 1, 128, 256, 300, 20_000, 32_768, 65_535])
def test_sixteen_bits_are_scaled_and_never_clipped(value: int) -> None:
    expected = round(value / 257)
    grey = first(png(8, 8, 16, 0, big_endian(value) * 64))
    colour = first(png(8, 8, 16, 2, big_endian(value, 65_535, 0) * 64))
    assert grey == (expected,) * 3
    assert close(colour, (expected, 255, 0), 1)
    alpha = first(png(8, 8, 16, 6, big_endian(value, 0, 0, 0) * 64), Fitting(8, 8, background=GREEN))
    assert alpha == GREEN
    with_alpha = first(png(8, 8, 16, 4, big_endian(value, 65_535) * 64))
    assert close(with_alpha, (expected,) * 3, 1)


def test_the_transparent_value_of_sixteen_bits_is_found() -> None:
    on = Fitting(8, 8, background=GREEN)
    clear = [(b"tRNS", big_endian(40_000))]
    assert first(png(8, 8, 16, 0, big_endian(40_000) * 64, clear), on) == GREEN
    assert first(png(8, 8, 16, 0, big_endian(40_001) * 64, clear), on) == (156,) * 3
    colour = [(b"tRNS", big_endian(40_000, 300, 65_535))]
    assert first(png(8, 8, 16, 2, big_endian(40_000, 300, 65_535) * 64, colour), on) == GREEN


def without_adobe(content: bytes) -> bytes:
    """A JPEG without Adobe's segment (APP14)."""
    place = content.index(b"\xff\xee")
    return content[:place] + content[place + 2 + struct.unpack(">H", content[place + 2 : place + 4])[0] :]


def test_cmyk_is_ink_whether_adobe_wrote_it_upside_down_or_not() -> None:
    cyan = encoded(plain((255, 0, 0, 0), mode="CMYK"), "JPEG", quality=95)
    assert b"Adobe" in cyan
    assert close(first(cyan, tolerance=3), (0, 255, 255), 4)
    upright = encoded(plain((0, 255, 255, 255), mode="CMYK"), "JPEG", quality=95)  # its bytes are 255, 0, 0, 0
    assert close(first(without_adobe(upright), tolerance=3), (0, 255, 255), 4)


# --- EXIF, animations ---

CORNERS = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
        (99, lambda x: x),
    ],
)
def test_a_picture_is_shown_as_the_camera_was_held(
    form: str, orientation: int, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(CORNERS.repeat(16, 0).repeat(24, 1))  # not square: 32 x 48
    options = {"lossless": True} if form == "WEBP" else {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    content = encoded(stored, form, exif=exif, **options)
    upright = turn(CORNERS.repeat(16, 0).repeat(24, 1))
    height, width = upright.shape[:2]
    shown = decode(content, Fitting(height, width)).transpose(1, 2, 0).astype(int)
    inside = (slice(4, 12), slice(height - 12, height - 4)), (slice(4, 12), slice(width - 12, width - 4))
    for rows in inside[0]:
        for columns in inside[1]:
            assert np.abs(shown[rows, columns] - upright[rows, columns].astype(int)).max() <= 12


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_it_is_the_first_frame(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(plain(BLUE), form, save_all=True, append_images=[plain(GREEN), plain(RED)], duration=9, **options)
    assert first(content) == BLUE


# --- fitting ---


def test_a_crop_takes_the_centre_a_pad_shows_all_and_a_squeeze_fills_the_size() -> None:
    wide = plain(RED, (32, 8))
    wide.paste(BLUE, (12, 0, 20, 8))  # the central square
    content = encoded(wide)
    assert first(content, Fitting(8, 8, "crop")) == BLUE
    padded = decode(content, Fitting(32, 32, "pad", GREEN))
    assert (padded[:, :12] == np.array(GREEN)[:, None, None]).all() and (padded[:, 20:].max(2)[1] == 255).all()
    assert np.array_equal(padded[:, 12:20], np.asarray(wide).transpose(2, 0, 1))
    squeezed = decode(content, Fitting(8, 8, "squeeze"))
    assert squeezed[:, :, 0].T.tolist() == [list(RED)] * 8 and squeezed[2, 0, 3] > 200


def test_a_size_may_have_any_shape_and_extremes_keep_a_pixel() -> None:
    content = encoded(halves(size=(64, 32)))
    for fit in ("crop", "pad", "squeeze"):
        assert decode(content, Fitting(12, 20, fit)).shape == (3, 12, 20)  # type: ignore[arg-type]
        assert decode(encoded(plain(size=(3000, 1))), Fitting(8, 8, fit)).shape == (3, 8, 8)  # type: ignore[arg-type]
    assert np.array_equal(decode(content, Fitting(32, 64)), np.asarray(halves(size=(64, 32))).transpose(2, 0, 1))


def test_shrinking_takes_means_and_not_single_pixels() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = decode(encoded(Image.fromarray(stripes)), Fitting(8, 8)).astype(int)
    assert np.abs(shrunk - 127.5).max() <= 8


def test_pixels_that_are_decoded_already_are_fitted_alike() -> None:
    image = halves(size=(64, 32))
    assert np.array_equal(fitted(np.asarray(image), AS_IT_IS), decode(encoded(image), AS_IT_IS))
    assert fitted(np.full((5, 9), 7, np.uint8), AS_IT_IS).max() == 7
    for wrong in (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(PictureError, match=r"uint8 \[H,W,3\]|no pixels"):
            fitted(wrong, AS_IT_IS)


@pytest.mark.parametrize(
    ("text", "colour"), [("white", WHITE), ("#0f0", GREEN), ("#ff0000", RED), ("rgb(0, 0, 255)", BLUE)]
)
def test_a_colour_has_a_name_or_numbers(text: str, colour: Colour) -> None:
    assert colour_of(text) == colour


@pytest.mark.parametrize("text", ["", "greenish", "#12", "#11223344", "#00000000", "rgb(1,2)"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no colour|is transparent"):
        colour_of(text)


# --- what is none ---


def damaged(content: bytes) -> bytes:
    return content[:60] + bytes(40) + content[100:]


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello, I am a text", "it is no PNG, JPEG, WebP or GIF, whatever its name says"),
        (b"\x89PNG\r\n\x1a\n", "truncated|no PNG"),
        *((encoded(NOISE, form)[:-400], "truncated") for form in ("PNG", "JPEG", "WEBP", "GIF")),
        *((encoded(NOISE, form)[:30], "truncated|no PNG") for form in ("PNG", "JPEG", "WEBP", "GIF")),
        (damaged(encoded(NOISE)), "truncated or damaged"),
        (encoded(NOISE, "BMP"), "it is no PNG"),
        (encoded(NOISE, "TIFF"), "it is no PNG"),
        (png(14_000, 12_000, 1, 0, b""), r"168 megapixels \(14000 x 12000\), and at most 100"),
        (png(2**31 - 1, 2**31 - 1, 16, 6, b""), "far more than 100 megapixels|damaged"),
        (png(0, 4, 8, 2, b""), "no pixels|damaged|no PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_cannot_be_decoded_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        decode(content, AS_IT_IS)


def test_a_picture_as_large_as_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    from ladd_dist.core import picture_file

    assert MOST_PIXELS == 100_000_000
    monkeypatch.setattr(picture_file, "MOST_PIXELS", 10_000)
    assert first(encoded(plain(size=(100, 100)))) == RED
    with pytest.raises(PictureError, match="megapixels"):
        first(encoded(plain(size=(100, 101))))
