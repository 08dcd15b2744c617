"""Stage `distill`: student and heads are trained on the teacher's samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import derive_seed, generator, sample_starts
from ladd_dist.core.rundir import RunDir, save_tensors
from ladd_dist.core.serialize import to_data
from ladd_dist.core.types import Denoiser
from ladd_dist.engine.checkpoint import Checkpoints
from ladd_dist.engine.discriminator import FrozenTeacher, Heads
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.loop import Figures, train
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.recipe import Recipe
from ladd_dist.stages import Place, denoiser, is_done, mark_done, save_weights
from ladd_dist.stages.charts import write_grid
from ladd_dist.stages.shards import open_shards
from ladd_dist.stages.teacher import cosine_factor, guided_teacher, load_teacher

NUM_SHOWN = 32
"""Samples in a dump and its grid."""


def is_distilled(recipe: Recipe, place: Place) -> bool:
    """Whether the trained student lies in the run folder."""
    run = place.run(recipe)
    return is_done(run.path / "distill.done.json", recipe.distill_signature()) and run.student.exists()


def distill(recipe: Recipe, place: Place) -> Path:
    """Train the student, or find it trained; returns `student.safetensors` (averaged weights and a card)."""
    run = place.run(recipe)
    if is_distilled(recipe, place):
        return run.student
    training = Distillation(recipe, place, run)
    log = recipe.tracker.build(folder=run.path, config={}, resume_step=training.first_step)
    train(
        label="distill",
        num_steps=recipe.train.steps,
        first_step=training.first_step,
        samples_per_step=recipe.train.batch_size,
        log_every=recipe.train.log_every,
        checkpoint_every=recipe.train.checkpoint_every,
        do_step=training.step,
        save=training.save,
        on_log=log.log,
        note=_note,
        after_step=training.maybe_dump,
    )
    log.close()
    save_student(run.student, training.average.module, recipe)
    mark_done(run.path / "distill.done.json", recipe.distill_signature())
    return run.student


def build_heads(recipe: Recipe, network: Denoiser) -> Heads:
    """The recipe's heads on the recipe's taps, initialised from the run's seed.

    Raises:
        KeyError: a tap that the network lacks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("heads", recipe.seed))
        return Heads(recipe.head, network, recipe.taps(network.taps))


class Distillation:
    """Everything the training of a student holds, restored from the newest checkpoint if there is one."""

    def __init__(self, recipe: Recipe, place: Place, run: RunDir) -> None:
        self.recipe, self.run, self.device = recipe, run, place.device
        self.reader = open_shards(recipe, place)
        settings = recipe.train
        teacher = load_teacher(recipe, place)
        network = load_teacher(recipe, place).train().requires_grad_(True)
        self.heads = recipe.parallel.build(
            build_heads(recipe, teacher), lr=settings.lr_heads, betas=settings.betas_heads,
            weight_decay=settings.weight_decay, clip=settings.clip, device=place.device,
        )  # fmt: skip
        self.student = recipe.parallel.build(
            network, lr=settings.lr_student, betas=settings.betas_student,
            weight_decay=settings.weight_decay, clip=settings.clip, device=place.device,
        )  # fmt: skip
        self.average = WeightAverage(
            network, half_life=settings.ema.half_life, ramp=settings.ema.ramp, batch_size=settings.batch_size
        )
        self.ladd_step = build_step(recipe, self.student, self.heads, teacher)
        self.checkpoints = Checkpoints(
            run.checkpoints, identity=recipe.distill_signature(), keep=settings.keep_checkpoints
        )
        self.first_step = self._restore()
        self.shown = shown_samples(recipe, teacher)

    def _restore(self) -> int:
        state = self.checkpoints.load_latest(self.device)
        if state is None:
            return 0
        self.student.load_state_dict(state["student"])
        self.heads.load_state_dict(state["heads"])
        self.average.module.load_state_dict(state["average"])
        return int(state["step"])

    def step(self, step: int) -> Figures:
        """One update of heads and student."""
        settings = self.recipe.train
        factor = cosine_factor(step, settings.steps, settings.lr_final)
        self.student.set_lr_factor(factor)
        self.heads.set_lr_factor(factor)
        batch = to_device(self.reader.batch(step, settings.batch_size, self.recipe.seed), self.device)
        figures = self.ladd_step(batch, step)
        self.average.update(self.student.module, step + 1)
        return figures

    def save(self, updates: int) -> None:
        """Write a checkpoint: all that a bit-exact continuation needs (order and noise follow from seed and step)."""
        state = {"student": self.student.state_dict(), "heads": self.heads.state_dict()}
        self.checkpoints.save(updates, {**state, "average": self.average.module.state_dict()})

    def maybe_dump(self, updates: int) -> None:
        """Every `dump_every` updates: teacher's and student's samples at the same noise, as tensors and picture."""
        if updates % self.recipe.train.dump_every and updates != self.recipe.train.steps:
            return
        noise, cond, teacher = (self.shown[name] for name in ("noise", "cond", "teacher"))
        student = sample_student(self.recipe, self.average.module, noise, cond, self.recipe.student_steps)
        tensors = {**self.shown, "student": student}
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_tensors(self.run.dumps / f"step-{updates:06d}.safetensors", tensors)
        rows = [("teacher", teacher), (f"student@{self.recipe.student_steps}", student)]
        write_grid(self.run.samples / f"step-{updates:06d}.png", rows)


def build_step(recipe: Recipe, student: Any, heads: Any, teacher: Denoiser) -> LaddStep:
    """The recipe's LADD step on given networks."""
    return LaddStep(
        student=student,
        heads=heads,
        teacher=FrozenTeacher(teacher, recipe.taps(teacher.taps)),
        start=recipe.start,
        student_sigma=recipe.student_sigma,
        renoise_sigma=recipe.renoise_sigma,
        levels=recipe.student_levels(),
        adversarial=recipe.adversarial,
        distance=recipe.distance,
        regulariser=recipe.regulariser,
        adv_weight=recipe.adv_weight,
        distill_weight=recipe.distill_weight,
        mode=recipe.train.mode,
        head_updates=recipe.train.head_updates,
        seed=recipe.seed,
    )


@torch.inference_mode()
def shown_samples(recipe: Recipe, teacher: Denoiser) -> dict[str, Tensor]:
    """Held-out noise and classes, and what the teacher makes of them, for the dumps."""
    device = next(teacher.parameters()).device
    noise, cond = sample_starts(recipe.evaluate.seed, range(NUM_SHOWN), recipe.dataset.spec(), device)
    samples, _ = recipe.shards.sampler(guided_teacher(recipe, teacher), noise, cond)
    return {"noise": noise, "cond": cond, "teacher": samples}


@torch.inference_mode()
def sample_student(recipe: Recipe, network: Denoiser, noise: Tensor, cond: Tensor, num_steps: int) -> Tensor:
    """Student's samples [B,C,H,W] from unit noise, by the rule that matches the recipe's coupling."""
    noise = noise.contiguous(memory_format=torch.channels_last)
    source = generator("sde", recipe.evaluate.seed, device=noise.device)
    return few_step_sample(denoiser(network), noise, cond, recipe.levels(num_steps), recipe.start.rule, source)


def save_student(path: Path, network: Denoiser, recipe: Recipe) -> None:
    """Write the student with a card that says how to build and sample it."""
    levels = {str(steps): list(recipe.levels(steps)) for steps in recipe.evaluate.steps}
    card = {
        "network": to_data(recipe.network),
        "image": to_data(recipe.dataset.spec()),
        "levels": levels,
        "rule": recipe.start.rule,
        "recipe": recipe.name,
        "signature": recipe.distill_signature(),
    }
    save_weights(path, network, card)


def _note(figures: dict[str, float]) -> str:
    adversarial = figures.get("loss/adversarial")
    parts = [f"heads {figures['loss/heads']:.3f}", f"distill {figures['loss/distill']:.4f}"]
    parts += [f"adv {adversarial:.3f}"] if adversarial is not None else []
    return "  ".join([*parts, f"accuracy {figures['accuracy']:.2f}"])
