"""Stage `teacher`: EDM training (Karras et al. 2022, arXiv 2206.00364, section 5) with label dropout for guidance.

With `sigma=Timesteps()` and `weighting="simple"` it is DDPM training. A pretrained network is only checked; its weights
are not copied.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.data import images_of
from ladd_dist.builders.networks import reads_texts, save_weights
from ladd_dist.builders.origin import origin_of
from ladd_dist.builders.teacher import averaged, fresh_network, require_levels, teacher_loss
from ladd_dist.cli.recipe_arguments import TeacherOptions
from ladd_dist.core.errors import UserError
from ladd_dist.core.rng import generator
from ladd_dist.core.rundir import make_folder, remove_stale
from ladd_dist.core.transfer import sent
from ladd_dist.costs.flops import count_parameters
from ladd_dist.datasets import ImageSet
from ladd_dist.engine.ahead import Ahead
from ladd_dist.engine.checkpoint import Checkpoints, state_of
from ladd_dist.engine.ema import WeightAverage
from ladd_dist.engine.loop import Figures, cosine_factor, note_of, train
from ladd_dist.engine.resident import ResidentImages
from ladd_dist.engine.step_graph import CudaRecorder, Recorder, StepGraph
from ladd_dist.engine.step_metrics import scaling, skipped
from ladd_dist.parallel import Adam
from ladd_dist.parallel.devices import compute_on
from ladd_dist.recipe import Recipe
from ladd_dist.trackers.jsonl import Jsonl
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace, is_done, make_together, mark_done, rows_of


def is_teacher_done(run: Run) -> bool:
    """Whether the cache holds the trained teacher, or a pretrained one has been checked."""
    folder = run.teacher_folder
    if not is_done(folder / "done.json", run.recipe.teacher_signature()):
        return False
    return run.recipe.network.pretrained or (folder / "teacher.safetensors").exists()


def run_with_teacher(options: TeacherOptions, recipe: Recipe) -> Run:
    """The recipe's run, whose trained teacher lies in the cache, on the device and with the threads asked for.

    Raises:
        UserError: the cache has no such teacher; the message has the line that trains it.
    """
    run = Run(recipe, Workspace(Path("runs"), options.cache, compute_on(options.device, options.threads)))
    if not is_teacher_done(run):
        raise UserError(
            f"no trained teacher at {run.teacher_folder}; train it first: "
            f"python -m ladd_dist.launch {options.recipe} --scale {options.scale} --stages teacher, with the same "
            "--cache and overrides"
        )
    return run


def train_teacher(run: Run) -> Path:
    """Train the teacher unless the cache holds it; returns the folder with teacher.safetensors (averaged weights)."""
    folder = run.teacher_folder
    make = _check if run.recipe.network.pretrained else _train
    make_together(run.ranks, folder, lambda: is_teacher_done(run), lambda: make(run, folder))
    return folder


def _check(run: Run, folder: Path) -> None:
    """Load a pretrained teacher once, to report faults before it makes samples.

    Raises:
        UserError: it does not fit the recipe's levels, texts or guidance.
    """
    recipe = run.recipe
    if run.ranks.is_first:
        network = recipe.network.load(image=recipe.latent())
        reads_texts(recipe, network)
        require_levels(recipe, network)
        if recipe.shards.guidance != 1.0 and not network.has_null:
            raise UserError(
                f"shards.guidance {recipe.shards.guidance:g} needs a null condition, which this checkpoint does "
                "not have: --shards.guidance 1"
            )
        facts = {**network.facts(), "parameters": count_parameters(network)}
        mark_done(folder / "done.json", recipe.teacher_signature(), **facts)


def _train(run: Run, folder: Path) -> None:
    recipe = run.recipe
    training = TeacherTraining(run, folder)
    log = Jsonl().build(folder=folder, config={}, resume_step=training.first_step) if run.ranks.is_first else None
    with training.checkpoints.complete():
        train(
            label="teacher",
            num_steps=recipe.teacher.steps,
            first_step=training.first_step,
            samples_per_step=recipe.teacher.batch_size,
            log_every=recipe.teacher.log_every,
            save_at=lambda updates: updates % recipe.teacher.checkpoint_every == 0,
            do_step=training.step,
            save=training.save,
            on_log=log.log if log else lambda updates, figures: None,
            note=lambda figures: note_of(figures, ("loss", "loss/teacher", ".4f")),
            more=lambda: scaling({"teacher": training.trainable}),
            ranks=run.ranks,
        )
    network = averaged(run, training.average, training.trainable)
    if log is not None and network is not None:  # rank 0
        log.close()
        save_weights(folder / "teacher.safetensors", network)
        mark_done(folder / "done.json", recipe.teacher_signature(), origin=origin_of(recipe))
        training.checkpoints.clear()


class TeacherTraining:
    """The state of a teacher's training, restored from the newest checkpoint if there is one."""

    def __init__(self, run: Run, folder: Path, recorder: Recorder | None = None) -> None:
        """
        Args:
            recorder: what records the update, where the recipe asks for it; CUDA graphs if nothing else is said.

        Raises:
            RecipeError: the recipe asks for it, and there is nothing to record with.
        """
        recipe = run.recipe
        self.settings, self.device = recipe.teacher, run.device
        self.rows = rows_of("teacher.batch_size", self.settings.batch_size, self.settings.compute, run.ranks)
        if run.ranks.is_first:
            make_folder(folder)
            remove_stale(folder)
        with run.ranks.first_goes_ahead():  # the first use may download it
            self.images: ImageSet = images_of(run)
        self.flips = recipe.dataset.flips()
        if self.settings.compute.data == "device":
            self.images = ResidentImages(self.images, run.device)
        self.batches = Ahead(self.read, run.device, on=self.settings.compute.data == "ahead", end=self.settings.steps)
        self.codec = load_codec(run)
        self.checkpoints = Checkpoints(
            folder / "checkpoints", identity=recipe.teacher_signature(), keep=1, ranks=run.ranks
        )
        saved = self.checkpoints.latest()
        self.first_step = saved.step if saved else 0
        network = fresh_network(recipe)
        if saved:
            saved.fill_module("teacher", network)
        adam = Adam(self.settings.lr, (0.9, 0.99), self.settings.weight_decay, self.settings.clip)
        self.trainable = recipe.parallel.build(
            network, role="teacher", adam=adam, compute=self.settings.compute, ranks=run.ranks, device=run.device
        )
        ema = self.settings.ema
        self.average = WeightAverage(
            self.trainable.local("weight"), half_life=ema.half_life, ramp=ema.ramp, batch_size=self.settings.batch_size
        )
        if saved:
            saved.fill_optimizer("teacher", self.trainable)
            saved.fill(self.average.parts())
        recorded = self.settings.compute.graph
        self.graph = StepGraph(recorder or CudaRecorder(run.device, "teacher"), "teacher") if recorded else None

    def read(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's images [B,C,H,W] of a step and their classes [B], some of them dropped, on the device."""
        settings, rows = self.settings, slice(self.rows.first, self.rows.stop)
        source = generator("teacher", settings.seed, step)
        picked = torch.randint(len(self.images), (settings.batch_size,), generator=source)
        dropped = torch.rand(settings.batch_size, generator=source) < settings.label_dropout
        x0, cond = self.images.batch(picked[rows])
        if self.flips:
            turned = torch.rand(settings.batch_size, generator=generator("teacher-flip", settings.seed, step)) < 0.5
            x0 = torch.where(sent(turned[rows], x0.device).view(-1, 1, 1, 1), x0.flip(-1), x0)
        null = self.images.image.num_classes
        return sent(x0, self.device), torch.where(sent(dropped[rows], self.device), null, sent(cond, self.device))

    def step(self, step: int) -> Figures:
        """Make one update. Random numbers depend on (seed, step) and the row of the global batch alone."""
        settings, rows = self.settings, slice(self.rows.first, self.rows.stop)
        x0, cond = self.batches.of(step)
        on_device = generator("teacher-noise", settings.seed, step, device=self.device)
        sigma = settings.sigma(settings.batch_size, step, on_device, levels=())[rows]
        with torch.no_grad():
            x0 = self.codec.encode(x0).contiguous(memory_format=torch.channels_last)
        eps = torch.randn((settings.batch_size, *x0.shape[1:]), generator=on_device, device=self.device)[rows]
        self.trainable.set_lr_factor(cosine_factor(step, settings.steps, settings.lr_final))
        given = (x0, sigma, cond, eps)
        figures = self.graph(self.update, given) if self.graph else self.update(given)
        self.average.update(step + 1)
        self.batches.prepare(step + 1)
        return {**figures}

    def update(self, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        """One update on samples [B,C,H,W], levels [B], classes [B] and noise [B,C,H,W]; its figures."""
        losses: list[Tensor] = []

        def loss_of(micro: int) -> Tensor:
            part = self.rows.part(micro, self.trainable.accumulate)
            own = slice(part.first - self.rows.first, part.stop - self.rows.first)
            x0, sigma, cond, eps = (value[own] for value in given)
            loss = teacher_loss(self.trainable, x0, sigma, cond, eps, self.settings.weighting)
            losses.append(loss.detach())
            return loss

        figures = {"grad_norm/teacher": self.trainable.update(loss_of), **skipped(self.trainable)}
        return {**figures, "loss/teacher": torch.stack(losses).mean()}

    def save(self, updates: int) -> None:
        """Write a checkpoint after `updates` updates."""
        parts = state_of("teacher", self.trainable) | self.average.parts()
        self.checkpoints.save(updates, parts, {"counters": {"teacher": self.trainable.counters()}})
