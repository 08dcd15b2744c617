"""Samples of old conditions by the student before training, made once, which it is asked to keep (`train.old`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.old_conditions import needs_old, old_conditions
from ladd_dist.builders.sampling import sample_student
from ladd_dist.builders.student_start import student_at_start
from ladd_dist.core.rng import added_noise, sample_noise
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.mixed_reader import MixedReader
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.recipe import Recipe
from ladd_dist.stages.shards import is_whole
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import make_together, mark_done


def are_old_samples_done(run: Run) -> bool:
    """Whether the cache holds the whole set, or the recipe needs none."""
    return not needs_old(run.recipe) or is_whole(run.old_folder, run.recipe.old_signature())


def student_before(run: Run) -> Denoiser | None:
    """The student before training, which says what old conditions should give; None where nothing asks for them."""
    return student_at_start(run) if needs_old(run.recipe) else None


def make_old_samples(run: Run) -> None:
    """Let the student before training sample the old conditions, unless the cache holds that or nothing asks for it."""
    folder = run.old_folder
    if needs_old(run.recipe):
        make_together(run.ranks, folder, lambda: are_old_samples_done(run), lambda: _make(run, folder))


def batches_of(run: Run, pictures: ShardReader) -> ShardReader | MixedReader:
    """A reader of a training's batches, on the device if the recipe says so.

    Args:
        pictures: what it reads, together with the recipe's share of old samples, which are verified.

    Raises:
        ShardError: the old samples are missing or damaged.
    """
    reader = _with_old(run, pictures) if needs_old(run.recipe) else pictures
    if run.recipe.train.compute.data == "device":
        reader.keep_on(run.device)
    return reader


def _with_old(run: Run, pictures: ShardReader) -> MixedReader:
    folder, settings = run.old_folder, run.recipe.train
    if not (folder / INDEX).exists():
        raise ShardError(f"no whole set of old samples in {folder}; make it first: --stages teacher,shards")
    reader = ShardReader(folder)
    run.ranks.from_rank0(lambda: reader.verify(run.recipe.latent()))
    return MixedReader(pictures, reader, settings.old.num_of(settings.batch_size))


def _make(run: Run, folder: Path) -> None:
    recipe, ranks, stop = run.recipe, run.ranks, StopFlag()
    settings, num = recipe.shards, recipe.train.old.num_samples
    with stop.listen(), Bar("old samples", num, quiet=not ranks.is_first) as bar:
        write = partial(
            write_shards,
            folder,
            num_samples=num,
            samples_per_chunk=settings.samples_per_chunk,
            chunks_per_shard=settings.chunks_per_shard,
            dtype={"float32": torch.float32, "float16": torch.float16}[settings.dtype],
            make=OldSamples(recipe, student_at_start(run), stop),
            image=recipe.latent(),
            card={"path_levels": [], "old": recipe.old_signature()},
            texts=(),
            progress=bar.update,
        )
        if ranks.size > 1:
            write(share=(ranks.rank, ranks.size))
            ranks.barrier()
        if ranks.is_first:
            write()
    if ranks.is_first:
        mark_done(folder / "done.json", recipe.old_signature(), num_samples=num)
    stop.check()


class OldSamples:
    """Generator of samples by index, of old conditions in turn: each depends on (seed, index) alone."""

    def __init__(self, recipe: Recipe, network: Denoiser, stop: StopFlag) -> None:
        self.recipe, self.network, self.stop = recipe, network, stop
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def __call__(self, first: int, last: int) -> Chunk:
        size, parts = self.recipe.shards.batch_size, []
        for start in range(first, last, size):
            self.stop.check()
            parts.append(self._batch(range(start, min(start + size, last))))
        x0, cond, noise = (torch.cat(column) for column in zip(*parts, strict=True))
        return Chunk(x0, cond, noise, None)

    def _batch(self, indices: range) -> tuple[Tensor, Tensor, Tensor]:
        recipe, seed = self.recipe, self.recipe.train.old.seed
        cond, noise = old_conditions(recipe, seed, indices), sample_noise(seed, indices, recipe.latent().shape)
        given = noise.to(self.device), cond.to(self.device)
        x0 = sample_student(recipe, self.network, *given, recipe.student_steps, added_noise(seed, indices))
        return x0.cpu().contiguous(), cond, noise
