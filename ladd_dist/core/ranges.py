"""Ranges of numbers in settings: `width: Count = 64`, `share: Annotated[float, Within("[0, 1)")] = 0.5`.

A field says its range in its annotation, which changes neither its type nor its value, its flag or a signature. The
range is checked when the dataclass is made (`Ranged`), and again with the whole recipe, whose messages give the path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from ladd_dist.core.errors import RangeError
from ladd_dist.core.names import Name

_INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")
_BITS = 63
"""Most bits of a whole number: no count is larger, and neither files nor random generators take more."""
_hints: dict[type[Any], Mapping[str, Any]] = {}
_deferred = ContextVar("deferred", default=False)


class Within:
    """Range of a number, as an interval: `Within("[0, 1)")` holds 0 and every number below 1.

    Infinite ends are open, so NaN and infinity are in no range, and neither is a whole number of more than 63 bits.
    """

    def __init__(self, interval: str) -> None:
        found = _INTERVAL.fullmatch(interval)
        if found is None:
            raise ValueError(f"an interval is written like [0, 1) or (0, inf), got {interval!r}")
        self.interval = interval
        self.low, self.high = float(found[2]), float(found[3])
        self.has_low, self.has_high = found[1] == "[", found[4] == "]"
        self.ends = tuple(
            words
            for end, words in (
                (self.low, f"{'at least' if self.has_low else 'above'} {found[2]}"),
                (self.high, f"{'at most' if self.has_high else 'below'} {found[3]}"),
            )
            if math.isfinite(end)
        )
        if not self.low < self.high or "[-inf" in interval or "inf]" in interval:
            raise ValueError(f"an interval ascends, and its infinite ends are open, got {interval!r}")

    def __repr__(self) -> str:
        return f"Within({self.interval!r})"

    def __contains__(self, value: float) -> bool:
        if _is_too_long(value):
            return False
        above = value >= self.low if self.has_low else value > self.low
        below = value <= self.high if self.has_high else value < self.high
        return above and below

    def require(self, value: object, where: str) -> None:
        """Refuse a number outside the range. A value of another type passes: the check of types refuses it.

        Raises:
            RangeError: the message gives `where`, the range and the value.
        """
        if isinstance(value, int | float) and not isinstance(value, bool) and value not in self:
            if _is_too_long(value):
                raise RangeError(
                    f"{where}: must be a whole number below 2^{_BITS}, got one of {value.bit_length()} bits"
                )
            finite = () if math.isfinite(value) and self.ends else ("finite",)
            raise RangeError(f"{where}: must be {' and '.join((*finite, *self.ends))}, got {value}")


def _is_too_long(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value.bit_length() > _BITS


Count = Annotated[int, Within("[1, inf)")]
"""Integer of 1 or more."""
CountOrZero = Annotated[int, Within("[0, inf)")]
"""Integer of 0 or more; 0 usually switches something off."""
AnyInteger = Annotated[int, Within("(-inf, inf)")]
"""Any integer between -2^63 and 2^63, such as a seed."""
Finite = Annotated[float, Within("(-inf, inf)")]
"""Any finite number."""
Positive = Annotated[float, Within("(0, inf)")]
"""Finite number above 0."""
NonNegative = Annotated[float, Within("[0, inf)")]
"""Finite number of 0 or more."""
Share = Annotated[float, Within("[0, 1]")]
"""Number between 0 and 1, both included."""
Steps = Annotated[int, Within("[1, 10000]")]
"""Number of steps of a sampler; DDPM's own has a thousand."""
Updates = Annotated[int, Within("[1, 1000000000]")]
"""Number of updates of a training."""
BatchSize = Annotated[int, Within("[1, 10000000]")]
"""Number of samples that are computed together."""
Width = Annotated[int, Within("[1, 65536]")]
"""Number of channels, or of pixels along a side."""
Depth = Annotated[int, Within("[1, 256]")]
"""Number of blocks one after the other."""
Seconds = Annotated[float, Within("(0, 1e7]")]
"""Time to wait for something, up to four months, which every clock of the libraries can hold."""
Threads = Annotated[int, Within("[0, 1024]")]
"""Number of threads; 0 leaves the choice to PyTorch. OpenMP crashes where the system does not give it as many."""

Rho = Annotated[float, Within("[0.1, 1000]")]
"""Exponent of a spacing of noise levels, for which their powers are finite."""
Decay = Annotated[float, Within("[0, 1)")]
"""Decay of a running mean: 0 or more, below 1."""
LogLevel = Annotated[float, Within("[-20, 20]")]
"""Logarithm of a noise level, far within what float32 holds."""
LogSpread = Annotated[float, Within("[0, 10]")]
"""Standard deviation of the logarithm of a noise level."""


class Ranged:
    """Base of dataclasses whose numbers are checked against their ranges when an instance is made.

    A subclass with a `__post_init__` of its own calls `super().__post_init__()` first.
    """

    def __post_init__(self) -> None:
        """Check the ranges of the fields.

        Raises:
            RangeError: a number is outside its range; the message gives the field, the range and the value.
        """
        if not _deferred.get():
            for name, hint in hints_of(type(self)).items():
                require_ranges(hint, getattr(self, name), f"{type(self).__name__}.{name}")


@contextlib.contextmanager
def checked_later() -> Iterator[None]:
    """Make dataclasses without the check of ranges, for a caller that checks the whole tree and knows the paths."""
    token = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(token)


def hints_of(cls: type[Any]) -> Mapping[str, Any]:
    """Annotations of a dataclass's fields by name, with their ranges; empty for another class."""
    if not dataclasses.is_dataclass(cls):
        return {}
    if cls not in _hints:
        hints = typing.get_type_hints(cls, include_extras=True)
        _hints[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return _hints[cls]


def range_of(annotation: Any) -> Within | None:
    """Range that an annotation gives a number; None for one without a range, or of no number."""
    more = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((item for item in more if isinstance(item, Within)), None)


def require_ranges(annotation: Any, value: object, where: str) -> None:
    """Check a value against the ranges in its annotation, within tuples and other dataclasses too.

    Raises:
        RangeError: a number is outside its range; the message gives its path, the range and the value.
        RecipeError: a text that becomes part of a path is no name (`ladd_dist.core.names`).
    """
    if get_origin(annotation) is Annotated:
        for item in get_args(annotation)[1:]:
            if isinstance(item, Within | Name):
                item.require(value, where)
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            require_ranges(option, value, where)
    elif get_origin(annotation) is tuple and isinstance(value, tuple):
        kinds = get_args(annotation)
        kinds = kinds[:1] * len(value) if kinds[1:] == (Ellipsis,) else kinds
        for number, (kind, item) in enumerate(zip(kinds, value, strict=False)):  # the check of types counts them
            require_ranges(kind, item, f"{where}[{number}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, Ranged | type):  # a `Ranged` one checked itself
        for name, hint in hints_of(type(value)).items():
            require_ranges(hint, getattr(value, name), f"{where}.{name}")
