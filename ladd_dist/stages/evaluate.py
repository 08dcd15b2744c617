"""Stage `evaluate`: student and teacher at the same held-out noise and classes, measured against real and teacher."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import generator, sample_classes, sample_starts
from ladd_dist.core.rundir import RunDir, commit_folder, make_once, read_json, save_tensors, write_json
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.metrics import References, Samples
from ladd_dist.recipe import Recipe
from ladd_dist.stages import Place, is_done, load_network, mark_done, tracked_config
from ladd_dist.stages.charts import write_grid
from ladd_dist.stages.collapse import as_number, onset
from ladd_dist.stages.distill import sample_student
from ladd_dist.stages.shards import open_shards
from ladd_dist.stages.teacher import guided_teacher, load_teacher
from ladd_dist.trackers.opening import tracker_alone

NUM_SHOWN = 16
Evaluation = dict[str, dict[str, float]]
SampleFn = Callable[[Tensor, Tensor], Tensor]


def is_evaluated(recipe: Recipe, place: Place) -> bool:
    """Whether `eval.json` holds this recipe's figures."""
    run = place.run(recipe)
    return is_done(run.path / "evaluate.done.json", recipe.evaluate_signature()) and run.eval.exists()


def evaluate(recipe: Recipe, place: Place) -> Evaluation:
    """Measure the run's student and its teacher; returns what `eval.json` holds."""
    run = place.run(recipe)
    if is_evaluated(recipe, place):
        found: Evaluation = read_json(run.eval)
        return found
    student = load_network(recipe, run.student, place.device, stage="distill")
    cond = sample_classes(recipe.evaluate.seed, range(recipe.evaluate.num_samples), recipe.dataset.spec().num_classes)
    figures: Evaluation = {}
    sampled: dict[str, Tensor] = {}
    with StopFlag().listen() as stop:
        teacher, seconds = teacher_samples(recipe, place, stop)
        for steps in recipe.evaluate.steps:
            name = f"student@{steps}"
            sampled[name], seconds[name] = _timed(recipe, name, _student_fn(recipe, student, steps), place, stop)
        # The student before training is the teacher, without guidance and by the student's rule: what a run began with.
        name = f"untrained@{recipe.student_steps}"
        untrained = _student_fn(recipe, load_teacher(recipe, place), recipe.student_steps)
        sampled[name], seconds[name] = _timed(recipe, name, untrained, place, stop)
        compared_with = references(recipe, place)
        measures = [metric.build(references=compared_with) for metric in recipe.evaluate.metrics]
        for name, images in (sampled | teacher).items():
            stop.check()
            check_finite(name, images)
            figures[name] = {"num_samples": float(len(images)), "s_per_image": seconds[name]}
            for measure in measures:
                figures[name] |= measure(Samples(images.to(place.device), cond.to(place.device)))
    order = [f"teacher@{_steps(recipe)}", *sampled, "teacher@4:good", "teacher@4:karras"]
    write_grid(run.samples / "final.png", [(name, (sampled | teacher)[name][:NUM_SHOWN]) for name in order])
    write_json(run.eval, figures)
    tell_tracker(recipe, run, figures)
    mark_done(run.path / "evaluate.done.json", recipe.evaluate_signature())
    stop.check()  # a signal while the last figures were computed
    return figures


def tell_tracker(recipe: Recipe, run: RunDir, figures: Evaluation) -> None:
    """Give the recipe's tracker what `eval.json` holds, and the last grid."""
    flat = {f"eval/{name}/{key}": value for name, measured in figures.items() for key, value in measured.items()}
    if (collapsed := as_number(onset(run.path))) is not None:
        flat["collapse/step"] = collapsed  # trackers have no dumps to tell it from
    config = tracked_config(recipe, run)
    with tracker_alone(recipe.tracker, folder=run.path, config=config, resume_step=recipe.train.steps) as log:
        log.summary(flat, {"samples/final": run.samples / "final.png"})


def check_finite(name: str, images: Tensor) -> None:
    """Refuse samples that no figure could describe.

    Raises:
        ValueError: some are NaN or infinite.
    """
    bad = int((~images.flatten(1).isfinite().all(dim=1)).sum())
    if bad:
        raise ValueError(
            f"{name}: {bad} of {len(images)} samples are NaN or infinite, so nothing was measured. The training "
            "diverged: look at its losses in metrics.jsonl, lower the learning rate or the adversarial weight"
        )


def _steps(recipe: Recipe) -> int:
    return len(recipe.shards.sampler.levels())


def _student_fn(recipe: Recipe, student: Denoiser, steps: int) -> SampleFn:
    return lambda noise, cond: sample_student(recipe, student, noise, cond, steps)


def teacher_samples(recipe: Recipe, place: Place, stop: StopFlag) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The teacher's samples at 50 and at 4 steps (both sets of levels) and seconds an image; made once a teacher."""
    folder = place.reference(recipe)
    make_once(
        folder,
        lambda: is_done(folder / "done.json", recipe.reference_signature()),
        lambda: _make_teacher_samples(recipe, place, stop, folder),
    )
    try:
        samples = load_file(folder / "samples.safetensors")
    except Exception as error:
        raise ValueError(f"{folder}: samples.safetensors cannot be read ({error}); delete the folder") from error
    return samples, dict(read_json(folder / "done.json")["s_per_image"])


def _make_teacher_samples(recipe: Recipe, place: Place, stop: StopFlag, folder: Path) -> None:
    denoise = guided_teacher(recipe, load_teacher(recipe, place))

    def few(levels: tuple[float, ...]) -> SampleFn:
        return lambda noise, cond: few_step_sample(denoise, noise, cond, levels, "ode")

    ways: dict[str, SampleFn] = {
        f"teacher@{_steps(recipe)}": lambda noise, cond: recipe.shards.sampler(denoise, noise, cond)[0]
    }
    ways |= {f"teacher@4:{name}": few(levels) for name, levels in recipe.teacher_levels().items()}
    timed = {name: _timed(recipe, name, way, place, stop) for name, way in ways.items()}

    def fill(temporary: Path) -> None:
        save_tensors(temporary / "samples.safetensors", {name: images for name, (images, _) in timed.items()})
        facts = {"s_per_image": {name: seconds for name, (_, seconds) in timed.items()}}
        mark_done(temporary / "done.json", recipe.reference_signature(), **facts)

    commit_folder(folder, fill)


@torch.inference_mode()
def _timed(recipe: Recipe, name: str, sample: SampleFn, place: Place, stop: StopFlag) -> tuple[Tensor, float]:
    """Samples [N,C,H,W] on the CPU and seconds an image (sampling alone, without drawing the noise)."""
    settings = recipe.evaluate
    parts, seconds = [], 0.0
    with Bar(f"sampling {name}", settings.num_samples) as bar:
        for first in range(0, settings.num_samples, settings.batch_size):
            stop.check()
            indices = range(first, min(first + settings.batch_size, settings.num_samples))
            noise, cond = sample_starts(settings.seed, indices, recipe.dataset.spec(), place.device)
            started = time.perf_counter()
            parts.append(sample(noise, cond).cpu())  # the copy waits for the device
            seconds += time.perf_counter() - started
            bar.update(indices.stop)
    return torch.cat(parts).contiguous(), seconds / settings.num_samples


def references(recipe: Recipe, place: Place) -> References:
    """Real images and the teacher's stored samples, up to `num_references` of each."""
    images = recipe.dataset.build(split="train")
    count = min(recipe.evaluate.num_references, len(images))
    real = images.batch(torch.randperm(len(images), generator=generator("references"))[:count])
    reader = open_shards(recipe, place)
    stored = reader.take(np.arange(min(recipe.evaluate.num_references, len(reader))))
    device = place.device
    return References(
        Samples(real[0].to(device), real[1].to(device)), Samples(stored.x0.to(device), stored.cond.to(device))
    )
