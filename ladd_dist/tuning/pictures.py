"""New pictures as flags of a recipe: which classes or captions they have, and what the student is to keep besides."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ladd_dist.builders.data import prepare_data
from ladd_dist.cli.classes import class_numbers
from ladd_dist.core.errors import MachineError, UserError
from ladd_dist.core.printable import one_line
from ladd_dist.datasets import Counts
from ladd_dist.datasets.folder_contents import listing_of
from ladd_dist.datasets.folder_inventory import inventory, real
from ladd_dist.datasets.folder_listing import Listing
from ladd_dist.tuning.found import Student
from ladd_dist.workspace.run import Run

FEWEST = 4
"""Fewest pictures: some are held out, and heads that see one or two only learn these by heart."""
FEW = 50
"""With fewer pictures the early stop keeps a student of the first updates, whose old classes have moved the most."""
OLD_WEIGHT_OF_FEW = 32.0
"""The weight of old conditions then (docs/tune.md)."""
_NEEDED = f"some dozens are needed, {FEWEST} at least"
_AS_TYPED = (
    (re.compile(r", or take --dataset\.classes none"), ""),  # a student's classes follow from the folders
    (re.compile(r"(?<![\w.-])dataset\.root\b"), "--images"),
    (re.compile(r"(?<![\w.])(--)?dataset\.(?!pictures\b)"), "--dataset.pictures."),
)
"""Names of the fields of a `Folder` of its own, and what they are called on the command line of `ladd tune`."""


def picture_flags(
    images: Path,
    student: Student,
    classes: tuple[str, ...],
    old_texts: Path | None,
    *,
    weighs_old: bool = False,
) -> list[str]:
    """Flags for the pictures in a folder.

    Args:
        classes: the student's class for each folder of pictures, in the order of their names: numbers or names.
        old_texts: prompts to keep, for a student that reads texts.
        weighs_old: whether the user chose how old conditions are weighed; unless so, few pictures give them a weight.

    Raises:
        UserError: there are too few pictures, or no captions, or nobody says which classes they are.
    """
    with _named(images):
        listing = listing_of(real(images))
        _require_some(images, listing)
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
        with _named(images):  # now, where an error can name the flag that was typed
            inventory(images, "none", "metadata" if listing.metadata else "txt")
        flags += ["--dataset.pictures.classes", "none", "--dataset.pictures.captions", kind]
        return [*flags, *(["--dataset.old-texts", str(old_texts)] if old_texts else [])]
    if old_texts:
        raise UserError("--old-texts are for a student that reads texts; this one keeps the classes without pictures")
    in_folders = any("/" in file.name for file in listing.pictures)
    with _named(images):
        names = inventory(images, "folders", "none").classes if in_folders else ("",)
    chosen = class_numbers(classes, student.class_names, student.num_classes) or _by_name(names, student)
    _require_classes(images, names, chosen, student)
    old = [number for number in range(student.num_classes) if number not in chosen]
    flags += [] if in_folders else ["--dataset.pictures.classes", "none"]
    flags += ["--network.classes", *map(str, [*chosen, *old]), "--dataset.old-classes", str(len(old))]
    return [*flags, *_weight_of_old(len(listing.pictures), bool(old), weighs_old)]


def _weight_of_old(num: int, keeps_old: bool, weighs_old: bool) -> list[str]:
    """Flags for how firmly old classes are held, with `num` pictures; say so on stderr where it is for their number."""
    if not keeps_old:
        return ["--train.old.share", "0", "--distill-weight.value", "0"]
    if weighs_old or num >= FEW:
        return []
    print(
        f"note: fewer than {FEW} pictures, so old classes have a weight of {OLD_WEIGHT_OF_FEW:g}; --old-weight sets it",
        file=sys.stderr,
    )
    return ["--distill-weight.value", f"{OLD_WEIGHT_OF_FEW:g}"]


def prepare_pictures(images: Path, run: Run) -> None:
    """Decode the pictures of a tuning into its cache before anything of a run is written.

    Raises:
        UserError: some are damaged, or too few are left to train and to hold out.
    """
    with _named(images):
        prepare_data(run)
        require_pictures(images, run)


def require_pictures(images: Path, run: Run) -> None:
    """Refuse pictures of which a tuning has too few, as far as that is known without decoding one.

    Raises:
        UserError: there are too few to train and to hold out.
    """
    counts: Counts | None = run.recipe.dataset.counts(run.workspace.cache)
    if counts is None:
        return
    if (num := sum(counts.train) + counts.held_out) < FEWEST:
        raise UserError(f"--images {images} holds {_pictures(num)} that can be read; {_NEEDED}")
    if run.recipe.train.early_stop.every and not counts.held_out:
        raise UserError(
            f"--images {images}: none of the pictures is held out, and those tell when to stop (copies stay together, "
            "each class keeps one); add some, raise --dataset.pictures.held-out, or use --train.early-stop.every 0"
        )


def _require_some(images: Path, listing: Listing) -> None:
    problems = [file for file in listing.pictures if file.problem]
    num = len(listing.pictures) - len(problems)
    if not listing.pictures:
        raise UserError(
            f"--images {images} holds no picture, nor do the folders below it; put some dozens there, {FEWEST} at "
            "least: PNG, JPEG, WebP or GIF, by the endings of their names"
        )
    if num < FEWEST:
        why = f" ({problems[0].name}: {problems[0].problem})" if problems else ""
        raise UserError(one_line(f"--images {images} holds {_pictures(num)} that can be read{why}; {_NEEDED}"))


def _pictures(num: int) -> str:
    return "one picture" if num == 1 else f"{num or 'no'} pictures"


@contextlib.contextmanager
def _named(images: Path) -> Iterator[None]:
    """Let errors about the folder of pictures name the flag that it was typed with, not the recipe's field."""
    try:
        yield
    except MachineError:  # names the file, and no flag is at fault
        raise
    except UserError as error:
        text = str(error)
        for written, typed in _AS_TYPED:
            text = written.sub(typed, text)
        raise UserError(text if "--images" in text else f"--images {images}: {text}") from error


def _asked(num: int, student: Student) -> str:
    words = ("a number or name", "numbers or names") if student.class_names else ("a number", "numbers")
    return words[0] if num == 1 else f"{num} {words[1]} in this order"


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
            f"--classes and {_asked(len(names), student)}{f', got {len(chosen)}' if chosen else ''}"
        )
    if wrong := [number for number in chosen if number >= known]:  # names of folders
        raise UserError(f"--images {images}: the student knows the classes 0 to {known - 1}, got {wrong[0]}")
    if len(set(chosen)) < len(chosen):
        raise UserError("--classes: each folder needs a class of its own; put pictures of one class into one folder")
