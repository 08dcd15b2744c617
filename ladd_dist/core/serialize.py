"""Conversion of recipes to JSON and back, type checks, and signatures. Nothing read here can run code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar, Union, get_args, get_origin

from ladd_dist.core.closest import closest_first
from ladd_dist.core.errors import RangeError
from ladd_dist.core.errors import RecipeError as RecipeError  # where recipe files and plug-ins import it from
from ladd_dist.core.plugin import Plugin, lookup, origin, summary
from ladd_dist.core.ranges import hints_of, range_of, require_ranges

T = TypeVar("T")

NEUTRAL = {"neutral": True}
"""Field metadata: the field says where or how often, and changes no result; signatures leave it out."""

ADDED = {"added": True}
"""Field metadata: the field is newer than existing runs. Signatures leave it out at its default, so theirs hold."""


class FieldDescription(TypedDict):
    """Field of a plug-in as JSON data: its annotation, its default, whether it has none, and the range of a number."""

    type: str
    default: object
    required: bool
    range: NotRequired[str]


class PluginDescription(TypedDict):
    """Plug-in as JSON data, as `ladd plugins --json` prints it."""

    name: str
    kind: str
    doc: str
    origin: str
    fields: dict[str, FieldDescription]


def to_data(value: Any, *, neutral: bool = True) -> Any:
    """A dataclass tree as JSON data. A plug-in becomes `{"plugin": name, ...fields}`.

    Args:
        neutral: whether to keep fields marked `NEUTRAL`, plug-ins that are neutral by themselves, and fields marked
            `ADDED` at their default, and to show files by their paths, not their contents (`Plugin.identity`).

    Raises:
        RecipeError: JSON cannot hold a value.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_data(getattr(value, field.name), neutral=neutral)
            for field in dataclasses.fields(value)
            if neutral or not _left_out(value, field)
        }
        if not isinstance(value, Plugin):
            return fields
        return {"plugin": value.name, **fields, **({} if neutral else value.identity())}
    if isinstance(value, tuple):
        return [to_data(item, neutral=neutral) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"a recipe holds dataclasses, tuples, numbers and text, not {type(value).__name__}: {value!r}")


def has_effect(value: Any) -> bool:
    """Whether a value changes results; a plug-in can declare that it does not (`Plugin.neutral`)."""
    return not (isinstance(value, Plugin) and value.neutral)


def _left_out(value: Any, field: dataclasses.Field[Any]) -> bool:
    if not has_effect(getattr(value, field.name)):
        return True
    if field.metadata.get("neutral") or not field.metadata.get("added"):
        return bool(field.metadata.get("neutral"))
    plain = [to_data(item, neutral=False) for item in (getattr(value, field.name), field.default)]
    return bool(plain[0] == plain[1])


def from_data(annotation: Any, data: Any, where: str = "recipe") -> Any:
    """Build a value of the annotated type from JSON data, with every part checked; the inverse of `to_data`.

    Raises:
        RecipeError: a value has the wrong type or is out of range, or a field is missing or unknown.
        PluginError: the name of a plug-in is unknown.
    """
    if get_origin(annotation) is Annotated:
        value = from_data(get_args(annotation)[0], data, where)
        check(annotation, value, where)
        return value
    if isinstance(annotation, type) and issubclass(annotation, Plugin):
        if not isinstance(data, dict) or not isinstance(data.get("plugin"), str):
            raise RecipeError(f"{where}: expected {{'plugin': NAME, ...}}, got {data!r}")
        cls = lookup(annotation.kind, data["plugin"])
        return _build(cls, {key: item for key, item in data.items() if key != "plugin"}, where)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        if not isinstance(data, dict):
            raise RecipeError(f"{where}: expected an object with the fields of {annotation.__name__}, got {data!r}")
        return _build(annotation, data, where)
    if get_origin(annotation) is tuple:
        if not isinstance(data, list | tuple):
            raise RecipeError(f"{where}: expected a list, got {data!r}")
        items = _item_types(annotation, len(data), where)
        return tuple(
            from_data(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(items, data, strict=True))
        )
    if get_origin(annotation) in (Union, types.UnionType) and isinstance(data, list):  # JSON has no tuples
        for option in get_args(annotation):
            if get_origin(option) is tuple:
                return from_data(option, data, where)
    if annotation is float and type(data) is int:
        try:
            data = float(data)
        except OverflowError as error:
            raise RecipeError(f"{where}: a number of {data.bit_length()} bits is too large for a float") from error
    check(annotation, data, where)
    return data


def _build(cls: type[T], data: Mapping[str, object], where: str) -> T:
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        fields = ", ".join(closest_first(unknown[0], sorted(known)))
        raise RecipeError(f"{where}: {cls.__name__} has no field {unknown[0]!r}; fields: {fields}")
    hints = hints_of(cls)
    values = {key: from_data(hints[key], item, f"{where}.{key}") for key, item in data.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(f"{where}: {error}") from error


def _item_types(annotation: Any, length: int, where: str) -> list[Any]:
    args = get_args(annotation)
    if len(args) == 2 and args[1] is Ellipsis:
        return [args[0]] * length
    if len(args) != length:
        raise RecipeError(f"{where}: expected {len(args)} values, got {length}")
    return list(args)


def check(annotation: Any, value: Any, where: str = "recipe") -> None:
    """Check a value against its annotation and ranges, all the way down.

    An int passes for a float, a bool for nothing else.

    Raises:
        RecipeError: a value does not fit; the message gives the path of the first such field.
    """
    origin = get_origin(annotation)
    if annotation is Any:
        return
    if origin is Annotated:
        check(get_args(annotation)[0], value, where)
        require_ranges(annotation, value, where)
    elif origin is typing.Literal:
        if value not in get_args(annotation):
            raise RecipeError(f"{where}: expected one of {', '.join(map(repr, get_args(annotation)))}, got {value!r}")
    elif origin in (Union, types.UnionType):
        for option in get_args(annotation):
            try:
                return check(option, value, where)
            except RangeError:
                raise  # the type was right
            except RecipeError:
                continue
        raise RecipeError(f"{where}: expected {annotation}, got {value!r}")
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise RecipeError(f"{where}: expected a tuple, got {type(value).__name__} {value!r}")
        for i, (kind, item) in enumerate(zip(_item_types(annotation, len(value), where), value, strict=True)):
            check(kind, item, f"{where}[{i}]")
    elif isinstance(annotation, type):
        accepted = (int, float) if annotation is float else annotation
        if not isinstance(value, accepted) or (isinstance(value, bool) and annotation is not bool):
            raise RecipeError(f"{where}: expected {_type_name(annotation)}, got {type(value).__name__} {value!r}")
        if isinstance(value, str) and not _is_utf8(value):
            raise RecipeError(f"{where}: {ascii(value)[:80]} cannot be written as UTF-8: a byte of it is no text")
        if dataclasses.is_dataclass(value):
            for name, hint in hints_of(type(value)).items():
                check(hint, getattr(value, name), f"{where}.{name}")
    else:
        raise RecipeError(f"{where}: the annotation {annotation!r} is not supported in recipes")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(annotation: type) -> str:
    return f"a {annotation.kind} plug-in" if issubclass(annotation, Plugin) else annotation.__name__


def signature(*parts: Any) -> str:
    """Ten hexadecimal digits that identify the parts (dataclasses or JSON data).

    Fields marked `NEUTRAL`, and those marked `ADDED` at their default, do not count.
    """
    data = [to_data(part, neutral=False) if dataclasses.is_dataclass(part) else part for part in parts]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _as_text(field: dataclasses.Field[Any], ranged: Any, bare: Any) -> str:
    """Annotation as the source has it, but without ranges."""
    if ranged == bare:
        return str(field.type)
    return bare.__name__ if type(bare) is type else str(bare)


def describe(cls: type[Plugin]) -> PluginDescription:
    """Name, kind, doc, origin and fields of a plug-in, as `ladd plugins --json` prints them."""
    fields: dict[str, FieldDescription] = {}
    ranged, bare = hints_of(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None
        if field.default is not dataclasses.MISSING:
            default = to_data(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = to_data(field.default_factory())
        fields[field.name] = {
            "type": _as_text(field, ranged[field.name], bare[field.name]),
            "default": default,
            "required": required,
        }
        if (within := range_of(ranged[field.name])) is not None:
            fields[field.name]["range"] = within.interval
    return {"name": cls.name, "kind": cls.kind, "doc": summary(cls), "origin": origin(cls), "fields": fields}
