"""Kind `taps`: the choice of the teacher's feature maps that get a head."""

from __future__ import annotations

from collections.abc import Mapping

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import TapSpec


class TapLayout(Plugin):
    """Choice of tap names from a network's catalog."""

    kind = "taps"

    def __call__(self, catalog: Mapping[str, TapSpec]) -> tuple[str, ...]:
        """Tap names in the catalog's order, at least one.

        Raises:
            KeyError: the catalog lacks a name; the message lists the catalog.
        """
        raise NotImplementedError
