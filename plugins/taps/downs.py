"""Tap layout: all down blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ladd_dist.core.plugin import register
from ladd_dist.core.types import TapSpec
from ladd_dist.taps import TapLayout
from ladd_dist.zoo.plugins.taps._select import select


@register("downs")
@dataclass(frozen=True)
class Downs(TapLayout):
    """All down blocks: 4 heads on a 4-level network."""

    def __call__(self, catalog: Mapping[str, TapSpec]) -> tuple[str, ...]:
        """Tap names in the catalog's order.

        Raises:
            KeyError: the catalog lacks one of these blocks; the message lists the catalog.
        """
        return select(catalog, self.name, "down")
