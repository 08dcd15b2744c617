"""Stage `distill`: trains student and heads on the teacher's samples."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ladd_dist.builders.codec import decoded
from ladd_dist.builders.sampling import sample_student
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.step import build_critic, build_heads, build_step, freeze
from ladd_dist.builders.student import new_student, save_student
from ladd_dist.builders.student_start import keep_start
from ladd_dist.builders.teacher import averaged, load_teacher
from ladd_dist.core.rng import added_noise
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.engine.adv_norm import AdversarialNorm
from ladd_dist.engine.ahead import Ahead
from ladd_dist.engine.checkpoint import Checkpoints, state_of
from ladd_dist.engine.checkpoint_files import DataPosition, Facts
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.loop import Figures, NotFiniteError, cosine_factor, note_of, train
from ladd_dist.engine.recorded_step import RecordedStep
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.engine.step_metrics import scaling
from ladd_dist.evaluation.class_features import trained_features
from ladd_dist.parallel import Adam
from ladd_dist.recipe.fitting import feature_network, fitting_metrics
from ladd_dist.stages.guard_actions import Guarding, RollBack
from ladd_dist.stages.held_out import EarlyStopping
from ladd_dist.stages.old_samples import batches_of, student_before
from ladd_dist.stages.sample_monitor import NUM_SHOWN, SampleMonitor, shown_samples, write_dump
from ladd_dist.trackers import RunLog
from ladd_dist.trackers.opening import run_log
from ladd_dist.workspace.config import tracked_config
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, mark_done, rows_of


def is_distilled(run: Run) -> bool:
    """Whether the trained student lies in the run folder."""
    return (
        is_done(run.folder.path / "distill.done.json", run.recipe.distill_signature()) and run.folder.student.exists()
    )


def distill(run: Run) -> Path:
    """Train the student, or find it trained; returns `student.safetensors` (averaged weights and a card)."""
    if is_distilled(run):
        return run.folder.student
    training = _best_of(_train(run))
    student = training.averaged()
    if student is not None:  # rank 0
        save_student(run.folder.student, student, run, step=training.early.best)
        mark_done(run.folder.path / "distill.done.json", run.recipe.distill_signature())
    run.ranks.barrier()
    return run.folder.student


def _train(run: Run) -> Distillation:
    """Train to the end, beginning anew from an earlier checkpoint as often as the guard wants that."""
    training = None
    while training is None:
        training = _attempt(run)
    return training


def _best_of(training: Distillation) -> Distillation:
    """The training at the step that its early stop keeps, whose checkpoint becomes the newest."""
    best = training.early.best
    if best is None or best == training.early.measured[-1][0]:
        return training
    training.checkpoints.forget_after(best)
    return Distillation(training.run)


def _attempt(run: Run) -> Distillation | None:
    """Train from the newest checkpoint to the end; None where the guard went back and made an older one the newest.

    A function of its own: when it has returned, nothing holds the networks that were given up.
    """
    training = Distillation(run)
    try:
        training.run_to_end()
    except RollBack as back:
        training.checkpoints.forget_after(back.to)
        return None
    except NotFiniteError as error:
        if not training.guarding.can_roll_back():
            raise
        training.checkpoints.forget_after(training.guarding.roll_back(error.step, str(error)))
        return None
    return training


def _log_of(run: Run, first_step: int) -> contextlib.AbstractContextManager[RunLog]:
    if not run.ranks.is_first:
        return contextlib.nullcontext(RunLog())
    config = tracked_config(run.recipe, run.folder)
    return run_log(run.recipe.tracker, folder=run.folder.path, config=config, resume_step=first_step)


class Distillation:
    """Everything the training of a student holds, restored from the newest checkpoint if there is one."""

    def __init__(self, run: Run) -> None:
        recipe = run.recipe
        self.run = run
        self.log, self.waiting = RunLog(), dict[str, float]()
        settings, ranks, device = recipe.train, run.ranks, run.device
        self.rows = rows_of("train.batch_size", settings.batch_size, settings.compute, ranks)
        pictures = open_shards(run)
        self.reader = batches_of(run, pictures)
        self.batches = Ahead(self.read, device, on=settings.compute.data == "ahead", end=settings.steps)
        self.checkpoints = Checkpoints(
            run.folder.checkpoints, identity=recipe.distill_signature(), keep=settings.keep_checkpoints,
            pinned=settings.keep_steps, ranks=ranks,
        )  # fmt: skip
        saved = self.checkpoints.latest()
        self.first_step = saved.step if saved else 0
        keep_start(run)
        network = new_student(run)
        teacher = load_teacher(run)
        critic = build_critic(recipe, teacher, run)
        heads = build_heads(recipe, critic)
        if saved:  # before a strategy takes them: each makes its own form of the weights
            saved.fill_module("student", network)
            saved.fill_module("heads", heads)
        common: dict[str, Any] = {"compute": settings.compute, "ranks": ranks, "device": device}
        decay, clip = settings.weight_decay, settings.clip
        adam_student = Adam(settings.lr_student, settings.betas_student, decay, clip)
        adam_heads = Adam(settings.lr_heads, settings.betas_heads, decay, clip)
        self.student = recipe.parallel.build(network, role="student", adam=adam_student, **common)
        self.heads = recipe.parallel.build(heads, role="heads", adam=adam_heads, **common)
        ema = settings.ema
        self.average = WeightAverage(
            self.student.local("weight"), half_life=ema.half_life, ramp=ema.ramp, batch_size=settings.batch_size
        )
        self.adv_norm = AdversarialNorm(settings.adv_norm_decay, ranks, device)
        if saved:
            saved.fill_optimizer("student", self.student)
            saved.fill_optimizer("heads", self.heads)
            saved.fill(self.average.parts() | self.adv_norm.parts())
        self.shown = shown_samples(run, teacher) if ranks.is_first else {}
        metrics = fitting_metrics(recipe) if ranks.is_first else ()
        self.monitor = SampleMonitor(metrics, self.shown, feature_network(recipe), trained_features(run))
        self.head_sums = HeadSums(heads.taps)
        self.ladd_step = build_step(
            recipe, self.student, self.heads, freeze(recipe, teacher, critic, student_before(run), **common),
            adv_norm=self.adv_norm, head_sums=self.head_sums,
        )  # fmt: skip
        self.recorded = RecordedStep(self.ladd_step, device) if settings.compute.graph else None
        self.guarding = Guarding(run, pictures, self.head_sums, self.checkpoints)
        self.guarding.restore(self.first_step, saved.meta.get("guard") if saved else None)
        self.early = EarlyStopping(run, saved.meta.get("early") if saved else None)

    def run_to_end(self) -> None:
        """Train for the steps that are left."""
        settings, ranks = self.run.recipe.train, self.run.ranks
        # The log outside: a run that is stopped has its checkpoint before anybody waits for a tracker's server.
        with _log_of(self.run, self.first_step) as log, self.checkpoints.complete():
            self.log = log
            train(
                label="distill",
                num_steps=settings.steps,
                first_step=self.first_step,
                samples_per_step=settings.batch_size,
                log_every=settings.log_every,
                save_at=self.is_to_be_saved,
                do_step=self.step,
                save=self.save,
                on_log=self.on_log,
                note=_note,
                after_step=self.maybe_dump,
                more=self.further_figures,
                is_over=lambda: self.early.is_over,
                ranks=ranks,
            )

    def further_figures(self) -> dict[str, float]:
        """Figures of a logged step that are no means over steps; every rank calls this."""
        scales = scaling({"student": self.student, "heads": self.heads})
        return (
            self.head_sums.read("log", self.run.ranks)
            | self.guarding.take_metrics()
            | self.early.take_metrics()
            | scales
        )

    def is_to_be_saved(self, updates: int) -> bool:
        """Whether a checkpoint is due after so many updates."""
        settings = self.run.recipe.train
        regular = updates % settings.checkpoint_every == 0 or updates in settings.keep_steps
        return regular or self.guarding.wants_save(updates) or self.early.is_due(updates)

    def step(self, step: int) -> Figures:
        """Update heads and student once, and let guard and early stop look at them."""
        settings = self.run.recipe.train
        factor = cosine_factor(step, settings.steps, settings.lr_final)
        self.student.set_lr_factor(factor)
        self.heads.set_lr_factor(factor)
        train_step = self.recorded or self.ladd_step
        figures = train_step(self.batches.of(step), step, self.rows, self.guarding.control)
        self.average.update(step + 1)
        self.batches.prepare(step + 1)
        self.guarding.after(step + 1, figures, self.student, self.log, self.save)
        self.early.after(step + 1, self.averaged)  # before this step's row of the log, which has its figures
        return figures

    def read(self, step: int) -> Batch:
        """This rank's rows of the batch of a step, on the device."""
        settings, rows = self.run.recipe.train, range(self.rows.first, self.rows.stop)
        batch = self.reader.batch(step, settings.batch_size, self.run.recipe.seed, rows)
        return to_device(batch, self.run.device)

    def save(self, updates: int) -> None:
        """Write a checkpoint, enough for a bit-exact continuation: order and noise follow from seed and step."""
        networks = {"student": self.student, "heads": self.heads}
        parts = self.average.parts() | self.adv_norm.parts()
        for name, network in networks.items():
            parts |= state_of(name, network)
        epoch, position = divmod(updates * self.run.recipe.train.num_new(), len(self.reader))
        counters = {name: network.counters() for name, network in networks.items()}
        data: DataPosition = {"seed": self.run.recipe.seed, "epoch": epoch, "position": position}
        facts: Facts = {"counters": counters, "data": data}
        facts |= {"guard": self.guarding.to_checkpoint(), "early": self.early.to_checkpoint()}
        self.checkpoints.save(updates, parts, facts, pinned=(*self.guarding.pinned(), *self.early.pinned()))

    def averaged(self) -> Denoiser | None:
        """The student with averaged weights, on rank 0 (None elsewhere); every rank calls this."""
        return averaged(self.run, self.average, self.student, new_student)

    def is_watched(self, updates: int) -> bool:
        """Whether the fixed small set is measured after so many updates: with the first row after each interval."""
        every, log_every, last = (
            self.run.recipe.train.evaluate_every,
            self.run.recipe.train.log_every,
            self.run.recipe.train.steps,
        )
        if every == 0 or updates == last:
            return every > 0
        return updates % log_every == 0 and updates // every > (updates - log_every) // every

    def on_log(self, updates: int, figures: dict[str, float]) -> None:
        """Log a row; where the fixed set is measured at the same step, its figures join it (`maybe_dump`)."""
        if self.is_watched(updates):
            self.waiting = figures
        else:
            self.log.log(updates, figures)

    def maybe_dump(self, updates: int) -> None:
        """Sample the fixed small set once for what is due: its figures in the log, a dump with its picture."""
        last = updates == self.run.recipe.train.steps
        is_dumped = updates % self.run.recipe.train.dump_every == 0 or last
        if not is_dumped and not self.is_watched(updates):
            return
        network = self.averaged()
        if network is None:  # rank 0 draws the pictures
            return
        noise, cond, recipe = self.shown["noise"], self.shown["cond"], self.run.recipe
        source = added_noise(recipe.evaluate.seed, range(NUM_SHOWN))
        latents = sample_student(recipe, network, noise, cond, recipe.student_steps, source)
        student = decoded(self.run, latents)
        if self.is_watched(updates):
            self.log.log(updates, self.waiting | self.monitor(student))
            self.waiting = {}
        if is_dumped:
            self.log.picture(updates, "samples", write_dump(self.run, updates, self.shown, student, latents))


def _note(figures: dict[str, float]) -> str:
    losses = [("heads", "loss/heads", ".3f"), ("distill", "loss/distill", ".4f"), ("adv", "loss/adversarial", ".3f")]
    return note_of(figures, *losses, ("accuracy", "accuracy", ".2f"))
