"""The recipe under examination: its own objects at a small batch, in a temporary workspace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from ladd_dist.builders.codec import FILE, load_codec
from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.teacher import fresh_network, load_teacher
from ladd_dist.codecs import TrainedCodec
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.engine.shard_index import INDEX
from ladd_dist.engine.shard_reader import ShardReader, to_device
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.single import Single
from ladd_dist.preflight.check import Skip
from ladd_dist.preflight.recorder import Recorder, watched
from ladd_dist.recipe import Augment, Ema
from ladd_dist.samplers import Sampler
from ladd_dist.stages.autoencoder import is_autoencoder_done
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.old_samples import make_old_samples
from ladd_dist.stages.shards import are_shards_done, make_shards
from ladd_dist.stages.teacher import is_teacher_done
from ladd_dist.trackers.jsonl import Jsonl
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace, mark_done

BATCH = 8
OWN_SAMPLES = 16
MOST_STEPS = 2
"""Steps of the sampler that makes samples for the checks, which do not depend on their quality."""
SHOWN = 64
"""Number of real samples that checks examine."""
WAKE = 0.02
"""Size of the noise on untrained weights: zero-initialised layers would hide everything behind them."""

P = TypeVar("P", bound=Sampler)
NO_TEACHER = "no trained teacher in the cache yet"
NO_SHARDS = "no samples of the teacher in the cache yet"
RUN_FIRST = "launch the recipe with --stages teacher,shards, then call doctor again"


class Watched(NamedTuple):
    """Two recorded steps of the training, and the exception that ended them."""

    training: Distillation
    watch: Recorder
    figures: list[dict[str, float]]
    error: Exception | None
    first: int
    """Number of the first step."""


class Fixture:
    """A recipe and the objects that its checks share, all made by the code that a run uses."""

    def __init__(self, run: Run, folder: Path) -> None:
        recipe = run.recipe
        self.run, self.recipe, self.folder = run, recipe, folder
        train, shards = recipe.train, recipe.shards
        half_life = BATCH if train.ema.half_life > 0 else 0  # the average then moves by half: seen in float32
        self.small = dataclasses.replace(
            recipe,
            train=dataclasses.replace(
                train, batch_size=BATCH, compute=Compute(), ema=Ema(half_life=half_life, ramp=0.0), keep_steps=(),
                old=dataclasses.replace(train.old, num_samples=OWN_SAMPLES),
                augment=Augment(),  # checks know samples again by their values
            ),
            shards=dataclasses.replace(
                shards, num_samples=OWN_SAMPLES, sampler=short(shards.sampler), source="", dtype="float32",
                batch_size=OWN_SAMPLES, samples_per_chunk=OWN_SAMPLES // 2, chunks_per_shard=2,
            ),
            parallel=Single(),
            tracker=Jsonl(),
        )  # fmt: skip
        self.own = Run(self.small, Workspace(folder / "runs", folder / "cache", run.device))
        self.is_trained = is_teacher_done(run)
        self.has_shards = are_shards_done(run)
        self._made = 0

    @functools.cached_property
    def teacher(self) -> Denoiser:
        """The recipe's trained teacher; without one, a network that was never trained."""
        if self.is_trained:
            return load_teacher(self.run)
        network = fresh_network(self.recipe)
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(WAKE * torch.randn(parameter.shape, generator=source))
        return network.to(self.run.device).eval().requires_grad_(False)

    def build(self) -> None:
        """Put a teacher and its samples into the temporary workspace."""
        if isinstance(codec := self.recipe.codec, TrainedCodec):  # the dumps load it
            trained = is_autoencoder_done(self.run)
            network = load_codec(self.run) if trained else codec.build(image=self.recipe.dataset.spec())
            self.own.autoencoder_folder.mkdir(parents=True)
            save_weights(self.own.autoencoder_folder / FILE, network)
        folder = self.own.teacher_folder
        folder.mkdir(parents=True)
        save_weights(folder / "teacher.safetensors", self.teacher)
        mark_done(folder / "done.json", self.small.teacher_signature())
        with contextlib.redirect_stderr(io.StringIO()):  # hides the progress bars
            make_shards(self.own)
            make_old_samples(self.own)

    @functools.cached_property
    def reader(self) -> ShardReader:
        """A reader of the teacher's samples in the cache.

        Raises:
            Skip: the cache has none.
        """
        if not self.has_shards:
            if (self.run.shards_folder / INDEX).exists():  # damaged: opening it says how
                ShardReader(self.run.shards_folder)
            raise Skip(NO_SHARDS, cure=RUN_FIRST)
        return ShardReader(self.run.shards_folder)

    def require_trained(self) -> Denoiser:
        """The trained teacher.

        Raises:
            Skip: the cache has none.
        """
        if not self.is_trained:
            raise Skip(NO_TEACHER, cure=RUN_FIRST)
        return self.teacher

    @functools.cached_property
    def batch(self) -> Batch:
        """Up to `SHOWN` of the teacher's samples: from the cache, else from the temporary workspace."""
        reader = self.reader if self.has_shards else ShardReader(self.own.shards_folder)
        num = min(SHOWN, len(reader))
        return to_device(reader.take(np.linspace(0, len(reader) - 1, num).astype(np.int64)), self.run.device)

    def training(
        self, *, compute: Compute | None = None, workspace: Workspace | None = None, **changes: Any
    ) -> Distillation:
        """A training from its start, of the recipe at a small batch with `changes`."""
        recipe = dataclasses.replace(self.small, **changes)
        if compute is not None:
            recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=compute))
        self._made += 1
        own = self.own.workspace
        run = Run(recipe, dataclasses.replace(workspace or own, runs=own.runs / str(self._made)))
        run.folder.create()
        training = Distillation(run)
        for module in training.heads.module.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0  # allowed in heads, but it would make every comparison fail
        return training

    @functools.cached_property
    def untouched(self) -> Distillation:
        """A training that no check advances."""
        return self.training()

    @functools.cached_property
    def step(self) -> int:
        """An early step at which the adversarial weight is largest, before learning rates decay."""
        steps = self.recipe.train.steps
        choices = sorted({0, min(1, steps - 1), steps // 4, steps // 2})
        weights = [abs(self.recipe.adv_weight(step)) for step in choices]
        return choices[weights.index(max(weights))]

    @functools.cached_property
    def watched(self) -> Watched:
        """Two recorded steps of the training."""
        training = self.training()
        step, watch = watched(
            training.ladd_step, lambda: {name: part.tensor for name, part in training.average.weights.items()}
        )
        training.ladd_step = step
        figures: list[dict[str, float]] = []
        try:
            for number in (self.step, self.step + 1):
                figures.append({name: float(value) for name, value in training.step(number).items()})
        except Exception as error:
            return Watched(training, watch, figures, error, self.step)
        return Watched(training, watch, figures, None, self.step)

    def require_steps(self) -> Watched:
        """The two recorded steps.

        Raises:
            Skip: they failed; check `step` says why.
        """
        found = self.watched
        if found.error is not None:
            raise Skip("the training step fails", cure="see check `step`")
        return found


def short(sampler: P) -> P:
    """The sampler with at most `MOST_STEPS` steps, if it has a field for them."""
    steps = getattr(sampler, "steps", None)
    if isinstance(steps, int) and steps > MOST_STEPS:
        return dataclasses.replace(sampler, steps=MOST_STEPS)  # type: ignore[type-var]
    return sampler


@contextlib.contextmanager
def fixture(run: Run) -> Iterator[Fixture]:
    """The fixture of a recipe; its temporary workspace is removed at the end."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # checks compare computations, not their rounding
    try:
        with tempfile.TemporaryDirectory(prefix="ladd-doctor-") as folder:
            yield Fixture(run, Path(folder))
    finally:
        torch.backends.cudnn.allow_tf32 = before
