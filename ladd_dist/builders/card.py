"""The schema of a student's card, the JSON in the metadata of its file, and its reader.

Cards are typed dictionaries: a file keeps keys that other versions wrote, and which of them are there depends on the
student.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, cast

from ladd_dist.core.budget import require_declared
from ladd_dist.core.door import decode, fit
from ladd_dist.core.errors import UserError
from ladd_dist.core.noise import is_descending

C = TypeVar("C")
REMEDY = "copy or export it again, or delete it in its run's folder and launch the run again"
"""What to do about a damaged student."""
KEY = "ladd_dist"
"""Key of the card in a file's metadata."""
RULES = ("sde", "ode")
MOST_BYTES = 2**20
"""Bytes of the longest card that is read."""
MOST_NAMES = MOST_BYTES // 16
"""Characters of the names of all classes, with which a card is far from too long."""
MOST_SIZE, MOST_SAMPLE, MOST_CLASSES = 16_384, 2**28, 2**31
"""The longest side of an image or latent, the most numbers in one, and the most classes or prompts."""


class PluginData(TypedDict):
    """A plug-in as data: its registered name, and its fields, which depend on it."""

    plugin: str


class ImageData(TypedDict):
    """An `ImageSpec` as data."""

    channels: int
    height: int
    width: int
    num_classes: int


class CodecCard(TypedDict, total=False):
    """The codec whose latents a student makes; empty for a student on pixels."""

    codec: PluginData
    pixels: ImageData
    """The images that it encodes."""
    space: str
    """Signature that students of the same latents share."""


class TeacherCard(TypedDict):
    """The teacher that a student needs beside its own weights."""

    signature: str
    file: str


class BaseCard(TypedDict):
    """The teacher that a student was distilled from."""

    signature: NotRequired[str]
    dataset: NotRequired[str]
    """Name of the plug-in that it learned from."""


class StudentCard(CodecCard):
    """How to build and sample a student, and where it came from."""

    network: PluginData
    image: ImageData
    """Shape and classes of the student's samples: images or latents."""
    levels: dict[str, list[float]]
    """Descending noise levels, by number of steps."""
    law: NotRequired[PluginData]
    """The levels for other numbers of steps; missing in files of older versions."""
    rule: Literal["sde", "ode"]
    recipe: str
    signature: str
    class_names: NotRequired[list[str]]
    """Names of its classes, where the data had some."""
    base: NotRequired[BaseCard]
    """What it was distilled from, where that was no checkpoint of others; missing in files of older versions."""
    step: NotRequired[int]
    """The step whose weights these are, where an early stop chose it."""
    student: NotRequired[PluginData]
    """The form of a student that is not a full network, such as a LoRA adapter."""
    adapter: NotRequired[PluginData]
    """The form of an adapter that lies beside the weights that it is merged into."""
    teacher: NotRequired[TeacherCard]
    weights_sha256: NotRequired[str]
    """Digest of the weights; exported files have it."""


def text_of(metadata: dict[str, str], path: Path, problem: str) -> str:
    """The text of a card in a file's metadata.

    Args:
        problem: what is wrong with a file that has none, for the message.

    Raises:
        UserError: there is no card, or it is too long.
    """
    text = metadata.get(KEY)
    if text is None:
        raise UserError(f"{path} {problem}: its header has no card")
    if len(text) > MOST_BYTES:
        raise UserError(f"{path}: its card has {len(text):,} characters, and at most {MOST_BYTES:,} are read")
    return text


def checked_card(text: str, form: type[C], path: Path, remedy: str) -> C:
    """A card whose fields have the types of `form` and whose numbers can be built; unknown keys stay.

    Raises:
        UserError: it is no such card; the message names the field.
    """
    what = f"{path}: its card"
    card = decode(text, dict[str, Any], what, remedy)
    for name in ("image", "pixels"):
        if isinstance(image := card.get(name), dict) and "size" in image:  # of a version that knew squares alone
            side = image.pop("size")
            card[name] = {"height": side, "width": side, **image}
    if (rule := card.get("rule", "ode")) not in RULES:
        raise UserError(f"{what}: rule is {str(rule)[:40]!r}, expected one of {', '.join(RULES)}; {remedy}")
    fit(card, form, what, remedy)
    require_declared({name: card[name] for name in ("network", "codec", "student") if name in card}, what)
    for name in ("image", "pixels"):
        if name in card:
            _require_image(card[name], f"{what}: {name}")
    return cast(C, card)


def _require_image(image: ImageData, what: str) -> None:
    shape = channels, height, width = image["channels"], image["height"], image["width"]
    fits = min(shape) >= 1 and max(height, width) <= MOST_SIZE and math.prod(shape) <= MOST_SAMPLE
    if not fits or not 0 <= image["num_classes"] <= MOST_CLASSES:
        raise UserError(
            f"{what} is {channels} channels of {height} x {width} in {image['num_classes']} classes; expected sides "
            f"from 1 to {MOST_SIZE}, at most {MOST_SAMPLE:,} numbers, and at most {MOST_CLASSES:,} classes"
        )


def student_card(text: str, path: Path) -> StudentCard:
    """A student's card.

    Raises:
        UserError: a field is missing or of another type, or a number is out of range; the message names it.
    """
    card = checked_card(text, StudentCard, path, REMEDY)
    if not card["levels"]:
        raise UserError(f"{path}: its card has no levels; {REMEDY}")
    if "codec" in card and "pixels" not in card:
        raise UserError(f"{path}: its card has a codec, and no pixels that it encodes; {REMEDY}")
    for steps, levels in card["levels"].items():
        if steps != str(len(levels)) or not is_descending(tuple(levels)):
            shown = f"{len(levels)} numbers" if len(levels) > 8 else str(levels)
            raise UserError(
                f"{path}: its card's levels of {steps[:20]!r} steps are {shown}; expected as many descending numbers "
                "above 0"
            )
    return card
