"""The parts of a recipe that say in short which method a run is: head, taps, start and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PARTS = ("head", "taps", "start", "adversarial", "distance")
"""Fields of the recipe; the last two are the losses."""
WEIGHTS = {"adversarial": "adv_weight", "distance": "distill_weight"}
"""Loss -> the field with its weight."""


def method_of(recipe: Mapping[str, object], parts: Sequence[str] = PARTS) -> dict[str, str]:
    """Names of a recipe's plug-ins by field, from its JSON data.

    Left out are fields that the data lack, and losses whose weight is 0 at every step.
    """
    off = {"plugin": "constant", "value": 0}
    found = {field: recipe.get(field) for field in parts if recipe.get(WEIGHTS.get(field, "")) != off}
    return {
        field: str(part["plugin"]) for field, part in found.items() if isinstance(part, Mapping) and "plugin" in part
    }


def in_words(method: Mapping[str, str]) -> str:
    """The method as a line of text: `head max_pool, taps downs, start fresh, losses bce and mse`."""
    losses = [method[field] for field in PARTS[3:] if field in method]
    words = [f"{field} {method[field]}" for field in PARTS[:3] if field in method]
    return ", ".join([*words, *([f"losses {' and '.join(losses)}"] if losses else [])])
