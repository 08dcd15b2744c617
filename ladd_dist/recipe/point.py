"""One point of a sweep: its values put into a recipe, and its labels read off the finished recipe."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladd_dist.core.plugin import Plugin, PluginError
from ladd_dist.core.ranges import hints_of
from ladd_dist.core.serialize import RecipeError, check, from_data, to_data
from ladd_dist.recipe.axes import WHOLE, Point
from ladd_dist.recipe.recipe import Recipe
from ladd_dist.recipe.swap import swap

Labels = tuple[tuple[str, str], ...]
"""Axes, each with the label of its value."""


def put(recipe: Recipe, point: Point) -> Recipe:
    """Recipe at a point, whatever the order of its axes.

    A whole plug-in or stage comes before the fields inside it, which it would set back.

    Raises:
        RecipeError: an axis names no field, or a value does not fit.
    """
    for field, value in sorted(point.items(), key=lambda item: item[0].count(".")):
        if field != WHOLE:
            recipe = _set(recipe, field, value)
    return recipe


def labels_of(recipe: Recipe, point: Point, values: Mapping[str, list[Any]]) -> Labels:
    """Label of each axis, read off the finished recipe, which must hold what the point says.

    Args:
        values: every value of each axis in the sweep; plug-ins of one name are told apart by their settings.

    Raises:
        RecipeError: the recipe has another value than the point.
    """
    labels = []
    for field, value in point.items():
        if field == WHOLE:
            stems = {Path(other).stem: other for other in values[field] if str(other) != str(value)}
            labels.append((field, str(value) if Path(value).stem in stems else Path(value).stem))
            continue
        inner = [other.removeprefix(f"{field}.") for other in point if other.startswith(f"{field}.")]
        found, asked = _at(recipe, field), _at(put(recipe, {field: value}), field)
        if _without(found, inner) != _without(asked, inner):
            raise RecipeError(f"axis {field!r}: the point has {value!r}, but the finished recipe has {found!r}")
        labels.append((field, _label(found, value, values[field], inner)))
    return tuple(labels)


def in_words(point: Point) -> str:
    """Values of a point, for messages about one that cannot be."""
    return " ".join(f"{field}={value.name if isinstance(value, Plugin) else value}" for field, value in point.items())


def _at(node: Any, field: str) -> Any:
    for name in field.split("."):
        node = getattr(node, name)
    return node


def _without(value: Any, inner: list[str]) -> Any:
    """A value as JSON data, without the fields inside it that have axes of their own."""
    data = to_data(value)
    for field in inner:
        *path, last = field.split(".")
        holder = data
        for name in path:
            holder = holder.get(name, {})
        holder.pop(last, None)
    return data


def _label(found: Any, value: Any, others: list[Any], inner: list[str]) -> str:
    """Short text for a value: a plug-in's name, with its settings where another value has the same name."""
    if not isinstance(found, Plugin):
        return _number(found) if isinstance(found, float) else str(found)
    names = {(other.name if isinstance(other, Plugin) else other, str(other)) for other in others}
    if isinstance(value, str) or sum(name == found.name for name, _ in names) < 2:
        return found.name
    own = _without(found, inner)
    return f"{found.name}({','.join(f'{key}={item}' for key, item in own.items() if key != 'plugin')})"


def _number(value: float) -> str:
    """A number in six digits where these are exact, else in full, so that no two numbers share a label."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _set(recipe: Recipe, field: str, value: Any) -> Recipe:
    """Recipe with one field changed to a plug-in, the plug-in of a name, or a plain value."""
    try:
        hint = _hint(recipe, field.split("."), field)
        if isinstance(hint, type) and issubclass(hint, Plugin) and isinstance(value, str):
            return swap(recipe, f"{field}={value}")
        if not isinstance(value, Plugin) and not dataclasses.is_dataclass(value):
            value = from_data(hint, list(value) if isinstance(value, tuple) else value, f"axis {field!r}")
        check(hint, value, f"axis {field!r}")
        return typing.cast(Recipe, _replace(recipe, field.split("."), value))
    except RecipeError:
        raise
    except (PluginError, TypeError, ValueError) as error:
        raise RecipeError(f"axis {field!r}: {error}") from error


def _hint(node: Any, path: list[str], where: str) -> Any:
    hints = hints_of(type(node))
    if path[0] not in hints:
        of = node.name if isinstance(node, Plugin) else type(node).__name__
        fields = f"fields of {of}: {', '.join(hints)}" if hints else f"{of} has no fields"
        own = "; or 'recipe' with files as values" if isinstance(node, Recipe) else ""
        raise RecipeError(f"axis {where!r}: no field {path[0]!r}; {fields}{own}")
    return hints[path[0]] if len(path) == 1 else _hint(getattr(node, path[0]), path[1:], where)


def _replace(node: Any, path: list[str], value: Any) -> Any:
    if len(path) > 1:
        value = _replace(getattr(node, path[0]), path[1:], value)
    return dataclasses.replace(node, **{path[0]: value})
