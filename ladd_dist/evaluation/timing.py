"""Seconds for a sample by each sampler: all of them measured in turns, in one process, on batches of one size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch

from ladd_dist.builders.codec import is_pixels
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.core.rng import RowSource, sample_starts, whole_batch
from ladd_dist.core.types import Autoencoder
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.evaluation.measurement import Figures
from ladd_dist.workspace.run import Run

TURNS = 3
"""Number of turns that count."""
BATCH = 32
"""Most images of a batch: the teacher needs four batches for every student that is measured."""


@torch.inference_mode()
def time_in_turns(run: Run, samplers: Mapping[str, SampleFn], codec: Autoencoder, stop: StopFlag) -> dict[str, Figures]:
    """Seconds for each image and process by each sampler: medians over turns; a collective call.

    In a turn each sampler samples one batch, the same for all, so a slower moment of the machine burdens none of them
    alone. A first turn, in which kernels are chosen and memory is allocated, does not count. `s_per_image` is the
    time of sampling without that of drawing the first noise; decoding latents is `s_decode_per_image`, which a recipe
    on pixels does not have. `timed_turns` says that seconds were measured in this way: those of two entries that have
    it may be divided by each other.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in samplers}
    with Bar("timing", (TURNS + 1) * len(samplers), quiet=not run.ranks.is_first) as bar:
        for turn in range(TURNS + 1):
            for number, (name, sample) in enumerate(samplers.items()):
                stop.check()
                spent[name].append(_seconds(run, sample, codec, turn))
                bar.update(turn * len(samplers) + number + 1)
    return {name: _costs(run, turns[1:]) for name, turns in spent.items()}


def _seconds(run: Run, sample: SampleFn, codec: Autoencoder, turn: int) -> tuple[float, float]:
    """Seconds for one image of a batch: sampling, and decoding."""
    settings = run.recipe.evaluate
    size = min(BATCH, settings.batch_size, settings.num_samples)
    noise, cond = sample_starts(settings.seed, range(size), run.recipe.latent(), run.device)
    source = RowSource(whole_batch(size), "timing", turn, device=run.device)  # a user draws a batch on the device
    started = time.perf_counter()
    latents = sample(noise, cond, source)
    latents.cpu()  # the copy waits for the device
    sampled = time.perf_counter()
    if not is_pixels(run.recipe):
        codec.decode(latents).cpu()
    return (sampled - started) / size, (time.perf_counter() - sampled) / size


def _costs(run: Run, turns: list[tuple[float, float]]) -> Figures:
    medians = torch.tensor([statistics.median(column) for column in zip(*turns, strict=True)], dtype=torch.float64)
    sampling, decoding = run.ranks.mean(medians).tolist()
    costs = {"s_per_image": sampling, "timed_turns": float(len(turns))}
    return costs if is_pixels(run.recipe) else costs | {"s_decode_per_image": decoding}
