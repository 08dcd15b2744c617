"""Tap layout: any list of names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ladd_dist.core.errors import UnknownTapError
from ladd_dist.core.plugin import register
from ladd_dist.core.types import TapSpec
from ladd_dist.taps import TapLayout


@register("named")
@dataclass(frozen=True)
class Named(TapLayout):
    """Taps chosen by name, one head each."""

    names: tuple[str, ...] = ("middle",)
    """Names of the taps, at least one, none twice."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("named: names must hold at least one tap name, got none")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"named: each tap name may stand once in names, found twice: {', '.join(twice)}")

    def __call__(self, catalog: Mapping[str, TapSpec]) -> tuple[str, ...]:
        """Tap names in the catalog's order, whatever the order of `names`.

        Raises:
            KeyError: the catalog lacks a name; the message lists the catalog.
        """
        for name in self.names:
            if name not in catalog:
                raise UnknownTapError(f"unknown tap {name!r}; the network has: {', '.join(catalog)}")
        return tuple(name for name in catalog if name in self.names)
