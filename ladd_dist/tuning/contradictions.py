"""Flags of `ladd tune` that say two things at once, or nothing, and numbers of steps that a student cannot take."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ladd_dist.core.errors import RecipeError
from ladd_dist.tuning.found import Student

OWN = {
    "--student-steps": "--steps",
    "--student.rank": "--rank",
    "--train.steps": "--updates",
    "--train.old.share": "--old-share",
    "--distill-weight.value": "--old-weight",
    "--network.classes": "--classes",
    "--network.weights": "--base",
    "--dataset.old-texts": "--old-texts",
    "--dataset.pictures.root": "--images",
    "--student.init": "STUDENT",
}
"""Fields of the recipe that the command fills from flags of its own."""
ALWAYS = ("--steps", "--images", "STUDENT")
"""Of those, what every call of the command says."""


def require_sense(given: Mapping[str, Any], more: Sequence[str]) -> None:
    """Refuse flags of which one makes another meaningless.

    Args:
        given: the command's own flags that the user gave, with their values.
        more: the words that are left for the recipe.

    Raises:
        RecipeError: names the flags.
    """
    if "--full" in given and "--rank" in given:
        raise RecipeError("--rank is of the adapter, and --full trains all weights instead of one: give one of them")
    if given.get("--old-share") == 0:
        for flag in ("--old-weight", "--old-texts"):
            if flag in given and given[flag] != 0:
                raise RecipeError(
                    f"{flag} says how old conditions are kept, and --old-share 0 keeps none: give one of them"
                )
    for word in more:
        field = word.partition("=")[0].replace("_", "-")
        own = OWN.get(field, "") if word.startswith("--") else ""
        if own in given or own in ALWAYS:
            raise RecipeError(f"{field} and {own} say the same thing of the recipe: give {own} alone")


def require_steps(steps: int, student: Student, more: Sequence[str]) -> None:
    """Refuse a number of steps for which a student has no levels; note on stderr one that it was not measured at.

    Args:
        more: the words that are left for the recipe, which may choose other levels.

    Raises:
        RecipeError: says which numbers work, and why.
    """
    if any("levels" in word.partition("=")[0] or word.startswith("levels=") for word in more):
        return
    if student.steps and steps not in student.steps:
        known = _listed(student.steps)
        raise RecipeError(
            f"--steps {steps}: the student's noise levels are known for {known} steps, not {steps}, and a few-step "
            f"student is taught at those alone; give {_listed(student.steps, 'or')}"
        )
    if student.measured and steps not in student.measured:
        print(
            f"note: --steps {steps}: the student was measured in {_listed(student.measured)} steps; it learns {steps} "
            "anew, and keeps old conditions as it makes them in as many",
            file=sys.stderr,
        )


def _listed(numbers: Sequence[int], last: str = "and") -> str:
    *first, end = map(str, sorted(numbers))
    return f"{', '.join(first)} {last} {end}" if first else end
