"""Choosing taps from a catalog by kind of block."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ladd_dist.core.errors import UnknownTapError
from ladd_dist.core.types import TapSpec


def select(catalog: Mapping[str, TapSpec], layout: str, *blocks: str) -> tuple[str, ...]:
    """Names of the catalog, in its order, that are a block's name with or without a number (`down` -> down0, down1 ..).

    Raises:
        KeyError: the catalog has no tap for one of the blocks: a layout never shrinks silently.
    """
    for block in blocks:
        if not any(_is_block(name, block) for name in catalog):
            raise UnknownTapError(f"tap layout {layout!r} needs a tap {block!r}; the network has: {', '.join(catalog)}")
    return tuple(name for name in catalog if any(_is_block(name, block) for block in blocks))


def _is_block(name: str, block: str) -> bool:
    return re.fullmatch(rf"{block}\d*", name) is not None
