"""The schema of a student's card, the JSON in the metadata of its file.

Cards are typed dictionaries: a file keeps keys that other versions wrote, and which of them are there depends on the
student.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class PluginData(TypedDict):
    """A plug-in as data: its registered name, and its fields, which depend on it."""

    plugin: str


class ImageData(TypedDict):
    """An `ImageSpec` as data."""

    channels: int
    size: int
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
    student: NotRequired[PluginData]
    """The form of a student that is not a full network, such as a LoRA adapter."""
    teacher: NotRequired[TeacherCard]
    weights_sha256: NotRequired[str]
    """Digest of the weights; exported files have it."""
