"""The dataset's texts as a table of conditions beside the shards, encoded once by the checkpoint's own text encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladd_dist.core.conditions import Conditions, write_conditions
from ladd_dist.core.rundir import RunDir, read_json, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_writer import ShardError, file_sha256
from ladd_dist.recipe import Recipe
from ladd_dist.stages import TABLE, Place

TEXTS = "texts.json"
"""Of the shards' folder: the texts themselves, in the table's order, and what their table is."""
LABEL_CHARS = 32
"""Of a prompt beside its pictures."""
MOST_TEXTS = 16
"""Prompts that are shown where none are asked for."""


def encode_texts(recipe: Recipe, place: Place, folder: Path, stop: StopFlag) -> dict[str, Any]:
    """Write the table, unless it is there; returns its entry of the shards' index, on every rank.

    Nothing of a text encoder is left in memory afterwards. Rank 0 encodes, the others wait.

    Raises:
        ValueError: the checkpoint has no text encoder that can be read, or it gives what is not finite.
    """
    return place.ranks.agree(lambda: _found(recipe, folder) or _write(recipe, place, folder, stop))


def _found(recipe: Recipe, folder: Path) -> dict[str, Any]:
    if not (folder / TEXTS).exists() or not (folder / TABLE).exists():
        return {}
    entry: dict[str, Any] = read_json(folder / TEXTS)["table"]
    whole = entry["texts"] == texts_digest(recipe.dataset.texts()) and entry["bytes"] == (folder / TABLE).stat().st_size
    return entry if whole else {}


def _write(recipe: Recipe, place: Place, folder: Path, stop: StopFlag) -> dict[str, Any]:
    texts, dtype = recipe.dataset.texts(), getattr(torch, recipe.shards.dtype)
    folder.mkdir(parents=True, exist_ok=True)

    def chunks(bar: Bar) -> Iterator[dict[str, Tensor]]:
        done = 0
        for rows in recipe.network.encode(texts, image=recipe.dataset.spec(), device=place.device):
            stop.check()
            stored = {name: row.to(dtype) if row.is_floating_point() else row for name, row in rows.items()}
            _require_finite(stored, texts, done)
            yield stored
            done += len(next(iter(rows.values())))
            bar.update(min(done, len(texts)))

    with Bar("texts", len(texts)) as bar:
        write_conditions(folder / TABLE, len(texts) + 1, chunks(bar))
    entry = {
        "name": TABLE,
        "bytes": (folder / TABLE).stat().st_size,
        "sha256": file_sha256(folder / TABLE),
        "texts": texts_digest(texts),
    }
    write_json(folder / TEXTS, {"table": entry, "texts": list(texts)})
    return entry


def _require_finite(rows: dict[str, Tensor], texts: tuple[str, ...], first: int) -> None:
    for name, tensor in rows.items():
        broken = (~tensor.flatten(1).isfinite().all(dim=1)).nonzero()
        if len(broken):
            number = first + int(broken[0])
            text = repr(texts[number][:60]) if number < len(texts) else "the null condition"
            raise ValueError(
                f"{name} of {text} is not finite as {str(tensor.dtype).removeprefix('torch.')}; with float16, take "
                "--shards.dtype float32"
            )


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
        ValueError: the table is not known, not there, or another one's.
    """
    if not network.condition_shapes:
        return []
    config = RunDir(source).config
    if folder is None and config.is_file():
        folder = Path(read_json(config)["shards"])
    if folder is None:
        raise ValueError(f"{source} reads texts: name the folder of its shards (shards-...) with --conditions")
    if not (folder / TABLE).is_file():
        raise ValueError(f"{folder / TABLE} is missing: name the folder of the run's shards with --conditions")
    conditions = Conditions.read(folder / TABLE)
    if conditions.num != network.image.num_classes:
        raise ValueError(
            f"{folder / TABLE} holds {conditions.num} texts, the student knows {network.image.num_classes}"
        )
    network.attach(conditions)
    return [str(text) for text in read_json(folder / TEXTS)["texts"]]


def shortened(text: str) -> str:
    """The beginning of a text, for the margin of a grid."""
    return text if len(text) <= LABEL_CHARS else f"{text[: LABEL_CHARS - 3]}..."
