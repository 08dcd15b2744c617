"""Replacing plug-ins of a recipe by name, as `--swap` and `--parallel` do."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

from ladd_dist.core.closest import closest_first
from ladd_dist.core.plugin import Plugin, create
from ladd_dist.core.serialize import RecipeError, has_effect
from ladd_dist.recipe.recipe import Recipe

SWAPPED = "+"
"""Sign in a run's name before each swap."""
LONGEST = 80
"""Most characters that swaps add to a name."""


def choose_parallel(recipe: Recipe, asked: str, swaps: tuple[str, ...], num: int) -> Recipe:
    """Recipe with the requested strategy; without a request, `ddp` replaces `single` for several processes.

    Raises:
        RecipeError: `single` was requested for several processes, or `--swap` requests another strategy.
        PluginError: there is no such strategy.
    """
    if asked:
        other = [item.partition("=")[2] for item in swaps if item.startswith("parallel=")]
        if other and other[0] != asked:
            raise RecipeError(f"--parallel {asked} and --swap parallel={other[0]} at the same time; leave one out")
        recipe = swap(recipe, f"parallel={asked}")
    elif num > 1 and recipe.parallel.name == "single" and not any(s.startswith("parallel=") for s in swaps):
        recipe = swap(recipe, "parallel=ddp")
    if num > 1 and recipe.parallel.name == "single":
        raise RecipeError(
            f"--parallel single is for one process, there are {num}; use ddp, fsdp, zero1, zero2 or zero3"
        )
    return recipe


def apply_swaps(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Replace plug-in fields, as `swap` does; name, note and published figures no longer describe the recipe before.

    The order of the assignments does not matter: a plug-in comes before the plug-ins inside it.

    The name shows each swap that may change results (`exp4_specnorm+head=max_pool`), the note says what was swapped. A
    swap of what changes none (`parallel`, `tracker`) leaves them, and so does one for what is there already.

    Raises:
        RecipeError: there is no such field, it holds no plug-in, or two assignments give it different ones.
        PluginError: a name is unknown.
    """
    plain, shown = recipe, list[str]()
    for assignment in _in_order(assignments):
        before, recipe = recipe, swap(recipe, assignment)
        path, _, name = assignment.partition("=")
        field = path.replace("-", "_")
        if _may_change_results(before, recipe, field.partition(".")[0]):
            shown.append(f"{field}={name}")
    if not shown:
        return recipe
    ending = SWAPPED + SWAPPED.join(shown)
    if len(ending) > LONGEST:  # names become names of folders
        ending = f"{SWAPPED}{len(shown)}_swaps"
    note = f"Like {plain.name}, but with {', '.join(shown)}."
    reported = dataclasses.replace(plain.reported, student_4=None, outcome="")
    return dataclasses.replace(recipe, name=plain.name + ending, note=note, reported=reported)


def _in_order(assignments: Sequence[str]) -> list[str]:
    names: dict[str, str] = {}
    for assignment in assignments:
        field, _, name = assignment.partition("=")
        if names.setdefault(field, name) != name:
            raise RecipeError(f"--swap {field}: {names[field]} and {name} at the same time; leave one out")
    return sorted(assignments, key=lambda item: item.partition("=")[0].count("."))


def _may_change_results(before: Recipe, after: Recipe, field: str) -> bool:
    metadata = {each.name: each.metadata for each in dataclasses.fields(before)}[field]
    values = getattr(before, field), getattr(after, field)
    return values[0] != values[1] and not metadata.get("neutral") and any(map(has_effect, values))


def swap(recipe: Recipe, assignment: str) -> Recipe:
    """Replace one plug-in field by name: `head=max_pool`, `adv_weight=cosine`, `teacher.sigma=log_normal`.

    A field may be written as in flags, `adv-weight`.

    Raises:
        RecipeError: there is no such field, or it holds no plug-in.
        PluginError: the name is unknown; the message lists the valid ones.
    """
    path, equals, name = assignment.partition("=")
    if not equals or not path or not name:
        raise RecipeError(f"--swap takes FIELD=NAME, like head=max_pool, got {assignment!r}")
    return typing.cast(Recipe, _swap(recipe, path.replace("-", "_").split("."), name, path))


def _swap(node: Any, path: list[str], name: str, where: str) -> Any:
    hints = typing.get_type_hints(type(node))
    if path[0] not in hints:
        choices = [key for key, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Plugin)]
        raise RecipeError(
            f"--swap {where}={name}: no field {path[0]!r}; plug-in fields: {', '.join(closest_first(path[0], choices))}"
        )
    if len(path) > 1:
        return dataclasses.replace(node, **{path[0]: _swap(getattr(node, path[0]), path[1:], name, where)})
    hint = hints[path[0]]
    if not (isinstance(hint, type) and issubclass(hint, Plugin)):
        raise RecipeError(f"--swap {where}={name}: field {where!r} holds no plug-in; set it with --{where} VALUE")
    return dataclasses.replace(node, **{path[0]: create(hint.kind, name)})
