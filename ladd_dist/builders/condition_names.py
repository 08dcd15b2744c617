"""What the conditions of a tuning are called: the number of a class, its name, and its number before; or a text."""

from __future__ import annotations

from pathlib import Path

from ladd_dist.builders.student_file import file_of, read_student
from ladd_dist.core.errors import UserError
from ladd_dist.core.printable import one_line
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.networks.given import Given
from ladd_dist.recipe import Recipe

MOST_CHARACTERS = 60
"""Of a text or a name that is shown; a longer one ends in an ellipsis."""


def condition_names(recipe: Recipe) -> list[str]:
    """A label for each condition of the student that a tuning makes, in order.

    New classes come first there, so `2 fox (before: 7)` is the class 2 of the result, which was 7 in the student that
    was given. Names of new classes are those of their folders, names of old ones those on that student's card; where
    nobody named them, labels are numbers.
    """
    if texts := recipe.dataset.texts():
        return [_short(text) for text in texts]
    return [
        " ".join([str(number), *([_short(name)] if name else []), *([f"(before: {was})"] if was != number else [])])
        for number, (was, name) in enumerate(_named_classes(recipe))
    ]


def class_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the classes of a recipe's student, in order; empty where one has none or two have the same.

    Those of a tuning are what `condition_names` shows.
    """
    if not isinstance(recipe.network, Given):
        return recipe.dataset.class_names()
    names = tuple(name for _, name in _named_classes(recipe))
    return names if all(names) and len(set(names)) == len(names) else ()


def _named_classes(recipe: Recipe) -> list[tuple[int, str]]:
    """Of each class, in order, its number in the student that was given, and its name or nothing."""
    num = recipe.latent().num_classes
    before = recipe.network.classes if isinstance(recipe.network, Given) else ()
    before = before if len(before) == num else tuple(range(num))
    new = (recipe.dataset.pictures if isinstance(recipe.dataset, WithOld) else recipe.dataset).class_names()
    known = _names_before(recipe.student.init)
    names = (*new, *(known[was] if was < len(known) else "" for was in before[len(new) :]))
    return list(zip(before, names, strict=True))


def _names_before(init: str) -> tuple[str, ...]:
    """Names of the classes on the card of the student that was given; none where it is gone, or no student's file."""
    path = file_of(Path(init))
    try:
        return tuple(read_student(path)[1].get("class_names", ())) if init and path.is_file() else ()
    except UserError:
        return ()


def _short(text: str) -> str:
    plain = one_line(" ".join(text.split()))  # a folder's name may be no UTF-8, which JSON cannot hold
    return plain if len(plain) <= MOST_CHARACTERS else f"{plain[: MOST_CHARACTERS - 1]}\u2026"
