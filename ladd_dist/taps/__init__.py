"""Kind `taps`: which of the teacher's feature maps get a head."""

from __future__ import annotations

from collections.abc import Mapping

from ladd_dist.core.plugin import Plugin
from ladd_dist.core.types import TapSpec


class TapLayout(Plugin):
    """Chooses tap names from a network's catalog."""

    kind = "taps"

    def __call__(self, catalog: Mapping[str, TapSpec]) -> tuple[str, ...]:
        """Tap names in the catalog's order, at least one.

        Raises:
            KeyError: a name that the catalog lacks; the message lists the catalog.
        """
        raise NotImplementedError
