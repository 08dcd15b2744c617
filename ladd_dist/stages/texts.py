"""The table of conditions beside the shards: the dataset's texts, encoded once by the checkpoint's text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.networks import TABLE, TEXTS, ConditionsEntry
from ladd_dist.builders.texts import read_texts, texts_digest
from ladd_dist.core.conditions import write_conditions
from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_json
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_writer import file_sha256
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run


def encode_texts(run: Run, folder: Path, stop: StopFlag) -> ConditionsEntry:
    """Write the table unless it is there; returns its entry in the shards' index, on every rank.

    Rank 0 encodes and the others wait. The text encoder does not stay in memory.

    Raises:
        UserError: the checkpoint's text encoder is missing, cannot be read, or gives values that are not finite.
    """
    return run.ranks.from_rank0(lambda: _found(run.recipe, folder) or _write(run, folder, stop))


def _found(recipe: Recipe, folder: Path) -> ConditionsEntry | None:
    """The entry of the table in `folder`, if it is whole and of the recipe's texts."""
    if not (folder / TEXTS).exists() or not (folder / TABLE).exists():
        return None
    entry = read_texts(folder)["table"]
    size = require_regular(folder / TABLE)
    whole = entry["texts"] == texts_digest(recipe.dataset.texts()) and entry["bytes"] == size
    return entry if whole else None


def _write(run: Run, folder: Path, stop: StopFlag) -> ConditionsEntry:
    recipe = run.recipe
    texts, dtype = recipe.dataset.texts(), getattr(torch, recipe.shards.dtype)
    folder.mkdir(parents=True, exist_ok=True)

    def chunks(bar: Bar) -> Iterator[dict[str, Tensor]]:
        done = 0
        for rows in recipe.network.encode(texts, image=recipe.dataset.spec(), device=run.device):
            stop.check()
            stored = {name: row.to(dtype) if row.is_floating_point() else row for name, row in rows.items()}
            _require_finite(stored, texts, done)
            yield stored
            done += len(next(iter(rows.values())))
            bar.update(min(done, len(texts)))

    with Bar("texts", len(texts)) as bar:
        write_conditions(folder / TABLE, len(texts) + 1, chunks(bar))
    entry: ConditionsEntry = {
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
            raise UserError(
                f"{name} of {text} is not finite as {str(tensor.dtype).removeprefix('torch.')}; with float16, take "
                "--shards.dtype float32"
            )
