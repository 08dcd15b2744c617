"""Access to a recipe's finished shards."""

from __future__ import annotations

from ladd_dist.builders.networks import share_table
from ladd_dist.builders.texts import ShardOrigin, require_made_by
from ladd_dist.core.door import read_typed
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run


def open_shards(run: Run) -> ShardReader:
    """A reader of the recipe's shards, after their sha256 and every sample have been verified; a collective call.

    Raises:
        ShardError: they are missing or damaged; the message says what to do.
    """
    folder = run.shards_folder
    if not (folder / INDEX).exists():
        raise ShardError(f"no whole set of the teacher's samples in {folder}; make it first: --stages teacher,shards")
    reader = ShardReader(folder)
    share_table(run)
    run.ranks.from_rank0(lambda: _verify(run.recipe, reader))  # one rank reads it all, for every rank
    return reader


def _verify(recipe: Recipe, reader: ShardReader) -> None:
    require_made_by(recipe, read_typed(reader.folder / INDEX, ShardOrigin), reader.folder)
    reader.verify(recipe.latent())
