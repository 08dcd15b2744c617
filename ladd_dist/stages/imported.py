"""Samples of others for the stage `shards`: verified by all ranks, read again piece by piece, resumed after a stop."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.codecs.pixels import Pixels
from ladd_dist.core.door import read_typed
from ladd_dist.core.rundir import write_json
from ladd_dist.engine.foreign_samples import Wanted
from ladd_dist.engine.foreign_shards import matching
from ladd_dist.engine.foreign_survey import Survey, survey_shards
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_writer import Chunk
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

_RECORDS = "verified"
"""Folder of what is known of the source's shards, while they are imported."""
_SOURCE = "source.json"
"""Which files the samples in the folder come from."""


def import_shards(run: Run, stop: StopFlag) -> Imported:
    """Verify `shards.source`, every rank its share; a collective call. Shards that an earlier call verified are passed
    over.

    Raises:
        ShardError, UserError: a shard is missing, damaged or wrong; on every rank, before any sample is written.
    """
    recipe, folder, ranks = run.recipe, run.shards_folder, run.ranks
    source = recipe.shards.source
    with Bar("verifying shards", len(matching(source)), quiet=not ranks.is_first) as bar:
        survey = survey_shards(
            source,
            wanted_samples(recipe),
            recipe.shards.num_samples,
            ranks=ranks,
            records=folder / _RECORDS,
            check=stop.check,
            progress=lambda shards, samples: bar.update(shards, f"{samples:,} samples"),
        )
    if ranks.is_first:
        _begin(folder, survey.identity)
    ranks.barrier()
    return Imported(survey, stop)


def _begin(folder: Path, identity: str) -> None:
    """Note which files the samples come from; what came from other files is removed."""
    path = folder / _SOURCE
    if path.exists() and read_typed(path, dict[str, str]).get("files") != identity:
        print(f"note: the files of shards.source have changed; the import into {folder} begins anew", file=sys.stderr)
        for made in (*folder.glob("*.tar"), folder / INDEX):
            made.unlink(missing_ok=True)
    write_json(path, {"files": identity})


def finish_import(folder: Path) -> None:
    """Remove what only an unfinished import needs."""
    shutil.rmtree(folder / _RECORDS, ignore_errors=True)


class Imported:
    """Source of imported samples by index, one piece of them in memory at a time. Ascending indices are read once."""

    def __init__(self, survey: Survey, stop: StopFlag) -> None:
        """Nothing is read yet."""
        self.survey, self.stop = survey, stop
        self.first = self.last = 0
        self.pieces: Iterator[Chunk] = iter(())
        self.piece: Chunk | None = None

    def count(self) -> int:
        """The number of samples."""
        return len(self.survey)

    def _go_to(self, index: int) -> None:
        """Begin at the shard with a sample, unless what is being read comes to it without another shard between."""
        shard_of = self.survey.shard_of
        if self.piece is None or index < self.first or shard_of(index) > shard_of(self.last):
            self.last, self.pieces = self.survey.read_from(index)
            self.first, self.piece = self.last, None

    def __call__(self, first: int, last: int) -> Chunk:
        self._go_to(first)
        parts = []
        while True:
            self.stop.check()
            if self.piece is not None and self.last > first:
                rows = slice(max(first - self.first, 0), last - self.first)
                parts.append([None if tensor is None else tensor[rows] for tensor in self.piece])
            if self.last >= last:
                break
            self.piece = next(self.pieces, None)
            if self.piece is None:
                raise ShardError(f"shards.source: sample {self.last} was there before and is not now; run it again")
            self.first, self.last = self.last, self.last + len(self.piece.cond)
        x0, cond, noise, path = (_joined(column) for column in zip(*parts, strict=True))
        assert x0 is not None and cond is not None
        return Chunk(x0, cond, noise, path)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    held = [part for part in parts if part is not None]
    return torch.cat(held) if held else None


def wanted_samples(recipe: Recipe) -> Wanted:
    """What a recipe needs of imported samples."""
    image, settings = recipe.latent(), recipe.shards
    pixels = isinstance(recipe.codec, Pixels) and image.channels in (1, 3)  # a checkpoint's latents have 4 or more
    return Wanted(
        image,
        "pixels" if pixels else "latents",
        recipe.dataset.texts(),
        recipe.path_levels(),
        settings.most_member_bytes,
    )
