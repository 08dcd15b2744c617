"""Samples from held-out noise: each depends on the seed and its index alone, whatever batch or process makes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.codec import is_pixels
from ladd_dist.builders.sampling import SampleFn
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.errors import UserError
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import NoiseSource, added_noise, sample_classes, sample_noise
from ladd_dist.core.rundir import commit_folder, save_tensors
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.core.types import Autoencoder, Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.parallel.gather import joined_rows, share_of
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, make_together, mark_done


def teacher_steps(recipe: Recipe) -> int:
    """The number of steps with which the recipe's teacher makes the shards."""
    return len(recipe.shards.sampler.levels())


def teacher_samplers(recipe: Recipe, teacher: Denoiser) -> dict[str, SampleFn]:
    """Samplers of the guided teacher by entry: as it makes the shards, then in 4 steps on each set of levels."""
    denoise = guided_teacher(recipe, teacher)

    def many(noise: Tensor, cond: Tensor, source: NoiseSource) -> Tensor:
        return recipe.shards.sampler(denoise, noise, cond)[0]

    def few(levels: tuple[float, ...]) -> SampleFn:
        return lambda noise, cond, source: few_step_sample(denoise, noise, cond, levels, "ode")

    few_step = {f"teacher@4:{name}": few(levels) for name, levels in recipe.teacher_levels().items()}
    return {f"teacher@{teacher_steps(recipe)}": many, **few_step}


def teacher_samples(
    run: Run, samplers: Mapping[str, SampleFn], codec: Autoencoder, stop: StopFlag
) -> dict[str, Tensor]:
    """The teacher's images [N,C,H,W] from the noise of `evaluate.seed`, by entry; made once for each teacher and seed.

    Args:
        samplers: as `teacher_samplers` returns them.
    """
    folder, name = run.reference_folder, run.recipe.reference_signature()
    make_together(
        run.ranks,
        folder,
        lambda: is_done(folder / "done.json", name),
        lambda: _make_teacher_samples(run, samplers, codec, stop),
    )
    return load_tensors(folder / "samples.safetensors", remedy="delete the folder and run the same command again")


def _make_teacher_samples(run: Run, samplers: Mapping[str, SampleFn], codec: Autoencoder, stop: StopFlag) -> None:
    images = {name: draw(run, name, sample, codec, stop) for name, sample in samplers.items()}

    def fill(temporary: Path) -> None:
        save_tensors(temporary / "samples.safetensors", images)
        mark_done(temporary / "done.json", run.recipe.reference_signature())

    if run.ranks.is_first:
        commit_folder(run.reference_folder, fill)


def asked_classes(run: Run) -> Tensor:
    """The class ids [num_samples] int64 that `draw` asks for, as often as the training pictures have each class."""
    recipe, settings = run.recipe, run.recipe.evaluate
    shares = recipe.dataset.shares(run.workspace.cache)
    return sample_classes(settings.seed, range(settings.num_samples), recipe.dataset.num_asked(), shares).to(run.device)


@torch.inference_mode()
def draw(
    run: Run, name: str, sample: SampleFn, codec: Autoencoder, stop: StopFlag, cond: Tensor | None = None
) -> Tensor:
    """Images [N,C,H,W] on the CPU, from the noise and classes of `evaluate.seed`; a collective call.

    Each rank samples whole batches, so that networks see the same ones on any number of ranks.

    Args:
        cond: other class ids [num_samples] int64 to ask for.
    """
    recipe, ranks = run.recipe, run.ranks
    settings, image = recipe.evaluate, recipe.dataset.spec()
    shares = share_of(settings.num_samples, settings.batch_size, ranks)
    own, last = shares[ranks.rank]
    asked = asked_classes(run) if cond is None else cond
    parts = [torch.empty(0, *image.shape)]
    with Bar(f"sampling {name}", settings.num_samples, quiet=not ranks.is_first) as bar:
        for first in range(own, last, settings.batch_size):
            stop.check()
            indices = range(first, min(first + settings.batch_size, last))
            noise = sample_noise(settings.seed, indices, recipe.latent().shape).to(run.device)
            noise = noise.contiguous(memory_format=torch.channels_last)
            latents = sample(noise, asked[first : indices.stop], added_noise(settings.seed, indices))
            parts.append((latents if is_pixels(recipe) else codec.decode(latents)).cpu())
            bar.update(indices.stop - own)
        images = joined_rows(torch.cat(parts), shares, ranks)
        bar.update(settings.num_samples)
    return _finite(name, images.contiguous())


def _finite(name: str, images: Tensor) -> Tensor:
    """The images [N,C,H,W], if all are finite.

    Raises:
        UserError: some are NaN or infinite.
    """
    bad = int((~images.flatten(1).isfinite().all(dim=1)).sum())
    if bad:
        raise UserError(
            f"{name}: {bad} of {len(images)} samples are NaN or infinite, so nothing was measured. The training "
            "diverged: look at its losses in metrics.jsonl, lower the learning rate or the adversarial weight"
        )
    return images
