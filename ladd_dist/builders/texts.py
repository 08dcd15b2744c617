"""The texts of a dataset as conditions of a network that reads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from ladd_dist.builders.networks import AGAIN, TEXTS, ConditionsEntry, Texts, read_table, table_in
from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import read_run_config
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.recipe import Recipe

LABEL_CHARS = 32
"""Length of a prompt beside its images."""
MOST_TEXTS = 16
"""Number of prompts that are shown if none are named."""


class ShardOrigin(TypedDict, total=False):
    """The part of a shards' index that says what the shards were made with."""

    teacher: str
    """Signature of the teacher; empty for imported samples."""
    conditions: ConditionsEntry


def read_texts(folder: Path) -> Texts:
    """The texts in a shards' folder, and the entry of their table.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_typed(folder / TEXTS, Texts, AGAIN)


def texts_digest(texts: tuple[str, ...]) -> str:
    """16 hexadecimal digits that identify texts in their order."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def require_made_by(recipe: Recipe, index: ShardOrigin, folder: Path) -> None:
    """Refuse shards in the recipe's folder that were made with something else than the recipe says.

    Raises:
        ShardError: they were made by another teacher, or with other texts.
    """
    again = "remove the folder and run the same command again, stage `shards` included"
    made_by, own = index.get("teacher"), recipe.teacher_signature()
    if made_by and made_by != own:
        raise ShardError(
            f"the shards in {folder} were made by another teacher ({made_by}, the recipe's is {own}); {again}"
        )
    texts, table = recipe.dataset.texts(), index.get("conditions")
    if texts and not table:
        raise ShardError(
            f"the shards in {folder} have no table of conditions for the recipe's {len(texts)} texts; {again}"
        )
    if texts and table and table["texts"] != texts_digest(texts):
        raise ShardError(f"the shards in {folder} were made with other texts than {recipe.dataset.name}'s; {again}")


def attach_texts(network: Denoiser, source: Path, folder: Path | None) -> list[str]:
    """Attach the table of its shards to a student that reads texts; returns the texts (empty for class ids).

    Args:
        source: the run's folder, or the student's file.
        folder: the shards' folder; None: the one of the run.

    Raises:
        UserError: no folder is known, the table is missing, or it has another number of texts.
    """
    if not network.condition_shapes:
        return []
    config = RunDir(source).config
    if folder is None and config.is_file() and (shards := read_run_config(config).shards) is not None:
        folder = Path(shards)
    if folder is None:
        raise UserError(f"{source} reads texts: name the folder of its shards (shards-...) with --conditions")
    table = table_in(folder)
    if not table.is_file():
        raise UserError(f"{table} is missing: name the folder of the run's shards with --conditions")
    conditions = read_table(folder)
    if conditions.num != network.image.num_classes:
        raise UserError(f"{table} holds {conditions.num} texts, the student knows {network.image.num_classes}")
    network.attach(conditions)
    texts = read_texts(folder)["texts"]
    if len(texts) != conditions.num:
        raise UserError(f"{folder / TEXTS} holds {len(texts)} texts, the table beside it {conditions.num}; {AGAIN}")
    return texts


def shortened(text: str) -> str:
    """A text cut to `LABEL_CHARS`, for the margin of a grid."""
    return text if len(text) <= LABEL_CHARS else f"{text[: LABEL_CHARS - 3]}..."
