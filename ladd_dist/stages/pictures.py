"""The dataset's own pictures as shards, in place of the teacher's samples (`shards.samples`)."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.builders.codec import is_pixels, load_codec
from ladd_dist.builders.data import images_of
from ladd_dist.core.rng import generator
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_writer import Chunk
from ladd_dist.workspace.run import Run


class Pictures:
    """Source of training pictures with their classes, by index; they have no noise and no states of a teacher.

    There are `shards.num_samples` of them, drawn once each by `shards.seed`, or all where the dataset has fewer.
    """

    def __init__(self, run: Run, stop: StopFlag) -> None:
        """Open the data, and the codec for the latents.

        Raises:
            UserError, FileNotFoundError: the pictures are missing or wrong, or the codec is not trained yet.
        """
        settings = run.recipe.shards
        self.images, self.stop, self.batch_size = images_of(run), stop, settings.batch_size
        source = generator("pictures", settings.seed)
        self.order = torch.randperm(len(self.images), generator=source)[: settings.num_samples]
        self.codec, self.device = None if is_pixels(run.recipe) else load_codec(run), run.device

    def count(self) -> int:
        """The number of pictures that become samples."""
        return len(self.order)

    @torch.inference_mode()
    def __call__(self, first: int, last: int) -> Chunk:
        parts, conds = [], []
        for rows in torch.split(self.order[first:last], self.batch_size):
            self.stop.check()
            images, cond = self.images.batch(rows)
            parts.append(self._latents(images).contiguous())
            conds.append(cond)
        return Chunk(torch.cat(parts), torch.cat(conds), None, None)

    def _latents(self, images: Tensor) -> Tensor:
        return images if self.codec is None else self.codec.encode(images.to(self.device)).cpu()
