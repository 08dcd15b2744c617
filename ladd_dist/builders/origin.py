"""Where a teacher came from: what its folder in the cache, and the file of a student distilled from it, say of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ladd_dist.builders.card import MOST_NAMES, ImageData
from ladd_dist.builders.codec import codec_card
from ladd_dist.core.door import read_typed
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import Recipe


class Origin(TypedDict):
    """What a teacher learned, and as which network. Files of older versions lack all but the signature, or all."""

    signature: NotRequired[str]
    """Of the teacher; it stands for everything that the teacher's weights follow from."""
    dataset: NotRequired[str]
    """Name of the plug-in."""
    class_names: NotRequired[list[str]]
    network: NotRequired[dict[str, Any]]
    """The plug-in as data, with all its fields."""
    image: NotRequired[ImageData]
    space: NotRequired[str]
    """The latents that it works in, as on a student's card; missing for pixels."""


class _Marker(TypedDict):
    """What a teacher's done.json says of it."""

    signature: NotRequired[str]
    origin: NotRequired[Origin]


def origin_of(recipe: Recipe) -> Origin:
    """What a recipe says of its teacher."""
    found: Origin = {
        "signature": recipe.teacher_signature(),
        "dataset": recipe.dataset.name,
        "class_names": names_to_keep(recipe.dataset.class_names()),
        "network": to_data(recipe.network),
        "image": to_data(recipe.latent()),
    }
    if space := codec_card(recipe).get("space"):
        found["space"] = space
    return found


def origin_beside(weights: Path) -> Origin:
    """What the done.json beside a teacher's weights says of it; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    marker = weights.with_name("done.json")
    if not marker.exists():
        return {}
    found = read_typed(marker, _Marker)
    return {**found.get("origin", {}), "signature": found.get("signature", "")}


def names_to_keep(names: Sequence[str]) -> list[str]:
    """Names of the classes for a file: all of them, or none where one is no text or they are too many to keep."""
    try:
        size = len("".join(names).encode())
    except UnicodeEncodeError:  # a folder's name that is no UTF-8, which JSON cannot hold
        return []
    return list(names) if size + len(names) <= MOST_NAMES else []
