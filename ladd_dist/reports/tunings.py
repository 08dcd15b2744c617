"""Tunings, in which a finished student learns new pictures: which runs are one, and the figures of them alone."""

from __future__ import annotations

from collections.abc import Sequence

from ladd_dist.datasets.with_old import WithOld
from ladd_dist.reports.json_object import JsonObject

KID_HELD_OUT = "kid_held_out"
"""Kernel distance of samples of the new conditions to held-out new pictures."""
KID_OLD = "kid_old"
"""Kernel distance of samples of old conditions to those that the student made before."""
OLD_ROW = ", old"
"""End of the label of a row of samples of old conditions."""


def is_tuning(recipe: JsonObject) -> bool:
    """Whether a finished student learns new pictures, so that nobody expects the teacher's of it.

    Such a run starts from a student, and its data have room for what that student knew.
    """
    return recipe.part("dataset").text("plugin") == WithOld.name and bool(recipe.part("student").text("init"))


def columns_in_words(labels: Sequence[str]) -> str:
    """What the columns of a row of samples ask for, from the left; one label where it is the same in all."""
    same = len(labels) > 1 and len(set(labels)) == 1
    return f"{labels[0]} in every column" if same else "; ".join(labels)
