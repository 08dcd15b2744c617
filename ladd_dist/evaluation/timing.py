"""Seconds for a sample by each sampler: all of them measured in turns, in one process, on batches of one size."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch

from ladd_dist.builders.codec import is_pixels
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.core.rng import RowSource, sample_starts, whole_batch
from ladd_dist.core.types import Autoencoder
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.evaluation.measurement import Figures
from ladd_dist.metrics.interval import HIGH, LOW
from ladd_dist.workspace.run import Run

TURNS = 5
"""Number of turns that count."""
BATCH = 32
"""Most images of a batch: the teacher needs six batches for every student that is measured."""
PART = 8
"""A batch is at most this part of the samples: the clock must not take longer than what it measures beside."""
LONG_ENOUGH_S = 0.05
"""Seconds that a sampler works in a turn, in several batches where one takes less: what a busy machine does in
between, and the first batch after another sampler's, must not decide."""
MOST_BATCHES = 20


class Spent(NamedTuple):
    """Seconds for one image: sampling, and decoding."""

    sampling: float
    decoding: float


@torch.inference_mode()
def time_in_turns(
    run: Run, samplers: Mapping[str, SampleFn], codec: Autoencoder, stop: StopFlag, slow: str | None = None
) -> dict[str, Figures]:
    """Seconds for each image and process by each sampler: medians over turns; a collective call.

    In a turn each sampler samples the same batch, the same for all, so a slower moment of the machine burdens none of
    them alone. A fast one samples it several times, and the median counts. A first turn, in which kernels are chosen
    and memory is allocated, does not count. `s_per_image` is the time of sampling without that of drawing the first
    noise; decoding latents is `s_decode_per_image`, which a recipe on pixels does not have. `timed_turns` says that
    seconds were measured in this way: those of two entries that have it may be divided by each other.

    Args:
        slow: the sampler that the others are compared with: `times_faster` is the median over turns of its seconds by
            those of the entry, both of one turn and with decoding; its bounds are the smallest and the largest turn's.
    """
    spent: dict[str, list[Spent]] = {name: [] for name in samplers}
    batches = dict.fromkeys(samplers, 1)
    with Bar("timing", (TURNS + 1) * len(samplers), quiet=not run.ranks.is_first) as bar:
        for turn in range(TURNS + 1):
            for number, (name, sample) in enumerate(samplers.items()):
                found = [_seconds(run, sample, codec, turn, stop) for _ in range(batches[name])]
                spent[name].append(Spent(*(statistics.median(column) for column in zip(*found, strict=True))))
                bar.update(turn * len(samplers) + number + 1)
            fastest = {name: min(sum(one) for one in turns) for name, turns in spent.items()}
            batches = run.ranks.from_rank0(functools.partial(_batches, run, fastest))
    counted = {name: turns[1:] for name, turns in spent.items()}
    return {
        name: _costs(run, turns) | ({} if slow is None else _ratio(run, counted[slow], turns))
        for name, turns in counted.items()
    }


def _size(run: Run) -> int:
    settings = run.recipe.evaluate
    return min(BATCH, settings.batch_size, -(-settings.num_samples // PART))


def _batches(run: Run, seconds: Mapping[str, float]) -> dict[str, int]:
    """The number of batches of each sampler in the next turn, by its seconds for an image."""
    one = {name: max(value * _size(run), 1e-9) for name, value in seconds.items()}
    return {name: min(MOST_BATCHES, max(1, math.ceil(LONG_ENOUGH_S / value))) for name, value in one.items()}


def _seconds(run: Run, sample: SampleFn, codec: Autoencoder, turn: int, stop: StopFlag) -> Spent:
    """Seconds for one image of a batch."""
    stop.check()
    size = _size(run)
    noise, cond = sample_starts(run.recipe.evaluate.seed, range(size), run.recipe.asked(), run.device)
    source = RowSource(whole_batch(size), "timing", turn, device=run.device)  # a user draws a batch on the device
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)  # the noise is on its way; a copy to the device does not wait for it
    started = time.perf_counter()
    latents = sample(noise, cond, source)
    latents.cpu()  # the copy waits for the device
    sampled = time.perf_counter()
    if not is_pixels(run.recipe):
        codec.decode(latents).cpu()
    return Spent((sampled - started) / size, (time.perf_counter() - sampled) / size)


def _costs(run: Run, turns: list[Spent]) -> Figures:
    medians = torch.tensor([statistics.median(column) for column in zip(*turns, strict=True)], dtype=torch.float64)
    sampling, decoding = run.ranks.mean(medians).tolist()
    costs = {"s_per_image": sampling, "timed_turns": float(len(turns))}
    return costs if is_pixels(run.recipe) else costs | {"s_decode_per_image": decoding}


def _ratio(run: Run, slow: list[Spent], turns: list[Spent]) -> Figures:
    """How many times faster than the slow sampler, from pairs of one turn."""
    ratios = [sum(one) / max(sum(own), 1e-12) for one, own in zip(slow, turns, strict=True)]
    found = torch.tensor([statistics.median(ratios), min(ratios), max(ratios)], dtype=torch.float64)
    names = (f"times_faster{end}" for end in ("", LOW, HIGH))
    return dict(zip(names, run.ranks.mean(found).tolist(), strict=True))
