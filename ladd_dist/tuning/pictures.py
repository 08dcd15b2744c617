"""New pictures as flags of a recipe: which classes or captions they have, and what the student is to keep besides."""

from __future__ import annotations

from pathlib import Path

from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.datasets.folder_inventory import inventory
from ladd_dist.datasets.folder_listing import list_pictures
from ladd_dist.tuning.found import Student

FEWEST = 4
"""Fewest pictures: some are held out, and heads that see one or two only learn these by heart."""


def picture_flags(images: Path, student: Student, classes: tuple[int, ...], old_texts: Path | None) -> list[str]:
    """Flags for the pictures in a folder.

    Args:
        classes: the student's class for each folder of pictures, in the order of their names.
        old_texts: prompts to keep, for a student that reads texts.

    Raises:
        UserError: there are too few pictures, or no captions, or nobody says which classes they are.
    """
    listing = list_pictures(images)
    num = sum(not file.problem for file in listing.pictures)
    if num < FEWEST:
        there = "one picture" if num == 1 else f"{num} pictures"
        raise UserError(f"--images {images} holds {there} that can be read; some dozens are needed, {FEWEST} at least")
    height, width = student.sides
    size = [str(height)] if height == width else [str(height), str(width)]
    flags = ["--dataset.pictures.root", str(images), "--dataset.pictures.size", *size]
    if student.reads_texts:
        if classes:
            raise UserError("--classes are for a student that knows classes; this one reads the captions")
        kind = "metadata" if listing.metadata else "txt" if listing.texts else ""
        if not kind:
            raise UserError(
                f"--images {images} has no captions, which this student reads: put metadata.jsonl there, with lines "
                'like {"file_name": "a.png", "text": "a red fox"}, or a.txt beside a.png'
            )
        flags += ["--dataset.pictures.classes", "none", "--dataset.pictures.captions", kind]
        return [*flags, *(["--dataset.old-texts", str(old_texts)] if old_texts else [])]
    if old_texts:
        raise UserError("--old-texts are for a student that reads texts; this one keeps the classes without pictures")
    in_folders = any("/" in file.name for file in listing.pictures)
    names = inventory(images, "folders", "none").classes if in_folders else ("",)
    chosen = classes or _by_name(names, student)
    _require_classes(images, names, chosen, student)
    old = [number for number in range(student.num_classes) if number not in chosen]
    flags += [] if in_folders else ["--dataset.pictures.classes", "none"]
    flags += ["--network.classes", *map(str, [*chosen, *old]), "--dataset.old-classes", str(len(old))]
    return flags if old else [*flags, "--train.old.share", "0", "--distill-weight.value", "0"]


def _by_name(names: tuple[str, ...], student: Student) -> tuple[int, ...]:
    """The student's class for each folder: the one of its name, else the number that its name is; empty if unclear."""
    if student.num_classes == len(names) == 1:
        return (0,)
    if all(name in student.class_names for name in names):
        return tuple(student.class_names.index(name) for name in names)
    numbers = tuple(int(name) for name in names if name.isascii() and name.isdigit())
    return numbers if len(numbers) == len(names) else ()


def _require_classes(images: Path, names: tuple[str, ...], chosen: tuple[int, ...], student: Student) -> None:
    what = f"its folders {one_line(', '.join(names[:8]))}" if names != ("",) else "its pictures"
    known = student.num_classes
    called = f" ({one_line(', '.join(student.class_names[:8]))})" if student.class_names else ""
    if len(chosen) != len(names):
        raise UserError(
            f"--images {images}: say which of the student's classes, 0 to {known - 1}{called}, {what} take, with "
            f"--classes and {'a number' if len(names) == 1 else f'{len(names)} numbers in this order'}"
        )
    if wrong := [number for number in chosen if number >= known]:
        raise UserError(f"--classes: the student knows the classes 0 to {known - 1}, got {wrong[0]}")
    if len(set(chosen)) < len(chosen):
        raise UserError("--classes: each folder needs a class of its own; put pictures of one class into one folder")
