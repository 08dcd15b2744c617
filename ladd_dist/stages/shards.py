"""Stage `shards`: the teacher's samples, or real pictures, made once and shared by every run with the same teacher."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.networks import share_table
from ladd_dist.builders.teacher import guided_teacher, load_teacher
from ladd_dist.core.rng import sample_starts
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.recipe import Recipe
from ladd_dist.stages.imported import Imported, finish_import, import_shards
from ladd_dist.stages.pictures import Pictures
from ladd_dist.stages.texts import encode_texts
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, make_together, mark_done


def are_shards_done(run: Run) -> bool:
    """Whether the cache holds the whole set."""
    return is_whole(run.shards_folder, run.recipe.shards_signature())


def is_whole(folder: Path, signature: str) -> bool:
    """Whether a folder holds the whole set of shards of a signature: each is there and has its size."""
    if not is_done(folder / "done.json", signature) or not (folder / INDEX).exists():
        return False
    try:
        ShardReader(folder)
    except ShardError:
        return False
    return True


def make_shards(run: Run) -> Path:
    """Generate the teacher's samples, copy the dataset's pictures, or import foreign shards, unless the cache holds
    them; returns their folder."""
    folder = run.shards_folder
    make_together(run.ranks, folder, lambda: are_shards_done(run), lambda: _make(run, folder))
    return folder


def _make(run: Run, folder: Path) -> None:
    with StopFlag().listen() as stop:
        num_samples = _write(run, folder, _given(run, stop), stop)
    if run.ranks.is_first:
        mark_done(folder / "done.json", run.recipe.shards_signature(), num_samples=num_samples)
        finish_import(folder)
    stop.check()  # a signal during the last batch


def _write(run: Run, folder: Path, given: Imported | Pictures | None, stop: StopFlag) -> int:
    """Write the shards and their index; returns the number of samples."""
    recipe = run.recipe
    settings, image, ranks = recipe.shards, recipe.latent(), run.ranks
    num_samples = settings.num_samples if given is None else given.count()
    if num_samples < settings.num_samples and ranks.is_first:
        few = f"{num_samples:,}, fewer than shards.num_samples ({settings.num_samples:,})"
        where = "shards.source" if settings.source else "shards.samples"
        print(f"note: {where}: the samples there are {few}; all of them are taken", file=sys.stderr)
    with Bar("shards", num_samples, quiet=not ranks.is_first) as bar:
        texts = recipe.dataset.texts()
        table = encode_texts(run, folder, stop) if texts else None  # before the teacher: one at a time in memory
        share_table(run)
        make = given or TeacherSamples(recipe, load_teacher(run), stop, recipe.dataset.shares(run.workspace.cache))
        write = partial(
            write_shards,
            folder,
            num_samples=num_samples,
            samples_per_chunk=settings.samples_per_chunk,
            chunks_per_shard=settings.chunks_per_shard,
            dtype={"float32": torch.float32, "float16": torch.float16}[settings.dtype],
            make=make,
            image=image,
            card=_card(recipe, made=given is None) | ({"conditions": table} if table else {}),
            texts=texts,
            in_turn=not isinstance(given, Imported),  # so that a rank reads its part of the source alone
            progress=bar.update,
        )
        if ranks.size > 1:
            write(share=(ranks.rank, ranks.size))
            ranks.barrier()
        if ranks.is_first:
            write()  # finished shards stay, so with several ranks this writes the index alone
    return num_samples


def _card(recipe: Recipe, *, made: bool) -> dict[str, object]:
    """Facts about the samples for the index; `made`: by the teacher."""
    settings = recipe.shards
    return {
        "image": to_data(recipe.latent()),
        "seed": settings.seed,
        "sampler": to_data(settings.sampler),
        "guidance": settings.guidance,
        "teacher": recipe.teacher_signature() if made else "",
        "source": settings.source,
        "dtype": settings.dtype,
        "path_levels": list(recipe.path_levels()),
    }


def _given(run: Run, stop: StopFlag) -> Imported | Pictures | None:
    """The samples that the teacher need not make: the dataset's pictures, or foreign shards; None: it makes them."""
    if run.recipe.shards.samples == "dataset":
        return Pictures(run, stop)
    return import_shards(run, stop) if run.recipe.shards.source else None


class TeacherSamples:
    """Generator of samples by index: each depends on (seed, index) alone, not on its batch."""

    def __init__(self, recipe: Recipe, teacher: Denoiser, stop: StopFlag, shares: Tensor | None = None) -> None:
        """Args: shares: how often each class is asked for (`sample_classes`)."""
        self.recipe, self.stop, self.shares = recipe, stop, shares
        self.device = next(teacher.parameters()).device
        self.denoise = guided_teacher(recipe, teacher)

    @torch.inference_mode()
    def __call__(self, first: int, last: int) -> Chunk:
        parts = []
        for start in range(first, last, self.recipe.shards.batch_size):
            self.stop.check()
            parts.append(self._batch(range(start, min(start + self.recipe.shards.batch_size, last))))
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        x0, cond, noise, path = columns
        return Chunk(x0, cond, noise, path if self.recipe.path_levels() else None)

    def _batch(self, indices: range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        settings = self.recipe.shards
        noise, cond = sample_starts(settings.seed, indices, self.recipe.asked(), self.device, self.shares)
        x0, path = settings.sampler(self.denoise, noise, cond, record=self.recipe.path_levels())
        return x0.cpu().contiguous(), cond.cpu(), noise.cpu().contiguous(), path.cpu().contiguous()
