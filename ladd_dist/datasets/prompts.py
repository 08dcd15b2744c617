"""Prompts of a text file, or class ids alone, for a pretrained teacher: a data set without images."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ladd_dist.core.door import read_bytes, require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import digest
from ladd_dist.core.ranges import Count, Width
from ladd_dist.core.sizes import Size, height_width
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Split

MOST_PROMPTS = 5_000_000
"""Most prompts of a file: each is encoded once, and kept in memory."""
LONGEST = 10_000
"""Most characters of a prompt; text encoders read some hundred tokens, so a longer line is no prompt."""


@register("prompts")
@dataclass(frozen=True)
class Prompts(Dataset):
    """Prompts of a UTF-8 text file, one per line, for a pretrained teacher that reads texts; blank lines do not count.

    Without a file: `num_classes` class ids, for a pretrained teacher that knows classes; 1 if it knows none.
    """

    file: str = ""
    """Text file with one prompt per line; empty: class ids only."""
    size: Size = 512
    """Size of the images in pixels, a side or height and width."""
    channels: Width = 3
    """Channels of the images."""
    num_classes: Count = 1
    """Number of class ids, for a data set without a file."""
    has_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file and self.num_classes != 1:
            raise UserError("prompts: with a file, each of its lines is a class; leave num_classes out")

    def identity(self) -> dict[str, str]:
        path = Path(self.file).expanduser()
        return {"file": digest([path])} if self.file and path.is_file() else {}

    def texts(self) -> tuple[str, ...]:
        return read_prompts(Path(self.file).expanduser()) if self.file else ()

    def spec(self) -> ImageSpec:
        return ImageSpec(self.channels, *height_width(self.size), len(self.texts()) or self.num_classes)

    def build(self, *, split: Split) -> ImageSet:
        raise UserError("dataset 'prompts' has no images, only what to ask for: it needs a teacher that is trained")


def read_prompts(path: Path) -> tuple[str, ...]:
    """Prompts of a file, without the white space around them; they may repeat.

    Raises:
        UserError: the file is missing, empty or not UTF-8, or a line is too long; the message names the line.
    """
    try:
        require_regular(path)
        status = path.stat()
    except (OSError, UserError) as error:
        raise UserError(
            f"prompts.file: {path} cannot be read ({error}); it is a text file with one prompt a line"
        ) from error
    try:
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"prompts.file: {path} cannot be read ({error.strerror or error}); it is a text file with one prompt a line"
        ) from error


@functools.lru_cache(maxsize=4)
def _read(path: Path, size: int, changed_ns: int) -> tuple[str, ...]:
    """Prompts of a file, cached until the file changes (`changed_ns`)."""
    prompts, number = list[str](), 0
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(io.BytesIO(content), start=1):  # line by line: a list of all takes far more memory
        if len(prompts) > MOST_PROMPTS:
            raise UserError(f"prompts.file: {path} holds more than {MOST_PROMPTS:,} prompts; take a part of it")
        try:
            prompt = line.decode().strip()
        except UnicodeDecodeError as error:
            raise UserError(f"prompts.file: {path}, line {number} is not UTF-8 ({error.reason}); convert it") from error
        if len(prompt) > LONGEST:
            raise UserError(
                f"prompts.file: {path}, line {number} has {len(prompt):,} characters, a prompt at most {LONGEST:,}; "
                "is it a text file with one prompt a line?"
            )
        if "\0" in prompt:
            raise UserError(f"prompts.file: {path}, line {number} holds a NUL; it is no text file")
        if prompt:
            prompts.append(prompt)
    if not prompts:
        raise UserError(f"prompts.file: {path} holds no prompt ({number} lines, all blank); write one a line")
    return tuple(prompts)
