"""Texts of a dataset as conditions of a network that reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ladd_dist.builders.networks import TABLE
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import RunDir, read_json
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.recipe import Recipe

TEXTS = "texts.json"
"""Of the shards' folder: the texts themselves, in the table's order, and what their table is."""


LABEL_CHARS = 32
"""Of a prompt beside its pictures."""


MOST_TEXTS = 16
"""Prompts that are shown where none are asked for."""


def texts_digest(texts: tuple[str, ...]) -> str:
    """16 hexadecimal digits for some texts in their order."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def require_made_by(recipe: Recipe, index: dict[str, Any], folder: Path) -> None:
    """Refuse shards that lie under this recipe's name and were made with something else.

    Raises:
        ShardError: another teacher, or other texts.
    """
    again = "remove the folder and run the same command again, stage `shards` included"
    made_by, own = index.get("teacher"), recipe.teacher_signature()
    if made_by and made_by != own:
        raise ShardError(
            f"the shards in {folder} were made by another teacher ({made_by}, the recipe's is {own}); {again}"
        )
    texts, table = recipe.dataset.texts(), index.get("conditions") or {}
    if texts and not table:
        raise ShardError(
            f"the shards in {folder} have no table of conditions for the recipe's {len(texts)} texts; {again}"
        )
    if texts and table["texts"] != texts_digest(texts):
        raise ShardError(f"the shards in {folder} were made with other texts than {recipe.dataset.name}'s; {again}")


def attach_texts(network: Denoiser, source: Path, folder: Path | None) -> list[str]:
    """Give a student that reads texts the table of its shards; returns the texts (none for one that takes classes).

    Raises:
        UserError: the table is not known, not there, or another one's.
    """
    if not network.condition_shapes:
        return []
    config = RunDir(source).config
    if folder is None and config.is_file():
        folder = Path(read_json(config)["shards"])
    if folder is None:
        raise UserError(f"{source} reads texts: name the folder of its shards (shards-...) with --conditions")
    if not (folder / TABLE).is_file():
        raise UserError(f"{folder / TABLE} is missing: name the folder of the run's shards with --conditions")
    conditions = Conditions.read(folder / TABLE)
    if conditions.num != network.image.num_classes:
        raise UserError(f"{folder / TABLE} holds {conditions.num} texts, the student knows {network.image.num_classes}")
    network.attach(conditions)
    return [str(text) for text in read_json(folder / TEXTS)["texts"]]


def shortened(text: str) -> str:
    """The beginning of a text, for the margin of a grid."""
    return text if len(text) <= LABEL_CHARS else f"{text[: LABEL_CHARS - 3]}..."
