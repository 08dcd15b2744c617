"""A JSON object of a run's folder, read by type: what older versions did not write, or wrote otherwise, is empty."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Values = Mapping[str, float | None]
"""Figures by name; None where the file holds something else than a number."""


def number(figures: Mapping[str, object], key: str) -> float | None:
    """The figure of that name where it is a finite number, else None."""
    return finite(figures.get(key))


def finite(value: object) -> float | None:
    """The value where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None  # an int may have more digits than any float
    return float(value)


@dataclass(frozen=True)
class JsonObject:
    """A JSON object whose values are asked for by name and type."""

    fields: Mapping[str, object] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A finite number, or None."""
        return number(self.fields, name)

    def whole(self, name: str) -> int | None:
        """A whole number, or None."""
        value = self.fields.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, name: str, default: str = "") -> str:
        """A value as text; `default` where it is missing or null."""
        value = self.fields.get(name)
        return default if value is None else str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """The items of a list as text; none where there is no list."""
        return tuple(str(item) for item in items(self.fields.get(name)))

    def numbers(self, name: str) -> tuple[float, ...]:
        """The finite numbers in a list."""
        return tuple(item for value in items(self.fields.get(name)) if (item := finite(value)) is not None)

    def values(self) -> Values:
        """All values as figures; what is no number is None."""
        return {key: _figure(value) for key, value in self.fields.items()}

    def part(self, name: str) -> JsonObject:
        """The object below `name`; an empty one where there is none."""
        return _object(self.fields.get(name))

    def parts(self) -> dict[str, JsonObject]:
        """Every value as an object, by name."""
        return {name: _object(value) for name, value in self.fields.items()}

    def listed(self, name: str) -> list[JsonObject]:
        """The objects in the list below `name`; none where there is no list."""
        return [_object(item) for item in items(self.fields.get(name))]


def _object(value: object) -> JsonObject:
    return JsonObject(value if isinstance(value, Mapping) else {})


def items(value: object) -> Sequence[object]:
    """The items of a list; none of another value."""
    return value if isinstance(value, list | tuple) else ()


def _figure(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value
