"""Stage `shards`: the teacher's samples, or real pictures, made once and shared by every run with the same teacher."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.teacher import guided_teacher, load_teacher
from ladd_dist.codecs.pixels import Pixels
from ladd_dist.core.rng import sample_starts
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.foreign_shards import Wanted, read_foreign
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_index import INDEX, ShardError
from ladd_dist.engine.shard_reader import ShardReader
from ladd_dist.engine.shard_writer import Chunk, write_shards
from ladd_dist.recipe import Recipe
from ladd_dist.stages.pictures import Pictures
from ladd_dist.stages.texts import encode_texts
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, make_together, mark_done


def are_shards_done(run: Run) -> bool:
    """Whether the cache holds the whole set: each shard is there and has its size."""
    folder = run.shards_folder
    if not is_done(folder / "done.json", run.recipe.shards_signature()) or not (folder / INDEX).exists():
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
    recipe = run.recipe
    settings, image, ranks = recipe.shards, recipe.latent(), run.ranks
    stop = StopFlag()
    given = _given(run, stop)
    num_samples = settings.num_samples if given is None else given.count()
    if num_samples < settings.num_samples and ranks.is_first:
        few = f"{num_samples:,}, fewer than shards.num_samples ({settings.num_samples:,})"
        where = "shards.source" if settings.source else "shards.samples"
        print(f"note: {where}: the samples there are {few}; all of them are taken", file=sys.stderr)
    with stop.listen(), Bar("shards", num_samples, quiet=not ranks.is_first) as bar:
        texts = recipe.dataset.texts()
        table = encode_texts(run, folder, stop) if texts else None  # before the teacher: one at a time in memory
        make = given or TeacherSamples(recipe, load_teacher(run), stop)
        write = partial(
            write_shards,
            folder,
            num_samples=num_samples,
            samples_per_chunk=settings.samples_per_chunk,
            chunks_per_shard=settings.chunks_per_shard,
            dtype={"float32": torch.float32, "float16": torch.float16}[settings.dtype],
            make=make,
            image=image,
            card={
                "image": to_data(image),
                "seed": settings.seed,
                "sampler": to_data(settings.sampler),
                "guidance": settings.guidance,
                "teacher": recipe.teacher_signature() if given is None else "",
                "source": settings.source,
                "dtype": settings.dtype,
                "path_levels": list(recipe.path_levels()),
                **({"conditions": table} if table else {}),
            },
            texts=texts,
            progress=bar.update,
        )
        if ranks.size > 1:
            write(share=(ranks.rank, ranks.size))
            ranks.barrier()
        if ranks.is_first:
            write()  # finished shards stay, so with several ranks this writes the index alone
    if ranks.is_first:
        mark_done(folder / "done.json", recipe.shards_signature(), num_samples=num_samples)
    stop.check()  # a signal during the last batch


def _given(run: Run, stop: StopFlag) -> Imported | Pictures | None:
    """The samples that the teacher need not make: the dataset's pictures, or foreign shards; None: it makes them."""
    if run.recipe.shards.samples == "dataset":
        return Pictures(run, stop)
    return Imported(partial(_import, run.recipe)) if run.recipe.shards.source else None


class TeacherSamples:
    """Generator of samples by index: each depends on (seed, index) alone, not on its batch."""

    def __init__(self, recipe: Recipe, teacher: Denoiser, stop: StopFlag) -> None:
        self.recipe, self.stop = recipe, stop
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
        noise, cond = sample_starts(settings.seed, indices, self.recipe.latent(), self.device)
        x0, path = settings.sampler(self.denoise, noise, cond, record=self.recipe.path_levels())
        return x0.cpu().contiguous(), cond.cpu(), noise.cpu().contiguous(), path.cpu().contiguous()


class Imported:
    """Source of imported samples by index, one piece of them in memory at a time. Ascending indices are read once."""

    def __init__(self, read: Callable[[], Iterator[Chunk]]) -> None:
        """Nothing is read yet; `read` begins to read all samples, in the same order each time."""
        self.read = read
        self.restart()

    def restart(self) -> None:
        """Begin at the first sample again."""
        self.pieces, self.first, self.last = self.read(), 0, 0
        self.piece: Chunk | None = None

    def count(self) -> int:
        """The number of samples; every one of them is read and verified.

        Raises:
            ShardError: a shard or a sample is wrong.
        """
        return sum(len(piece.cond) for piece in self.read())

    def __call__(self, first: int, last: int) -> Chunk:
        if first < self.first:
            self.restart()
        parts = []
        while True:
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


def _import(recipe: Recipe) -> Iterator[Chunk]:
    return read_foreign(recipe.shards.source, wanted_samples(recipe), recipe.shards.num_samples)
