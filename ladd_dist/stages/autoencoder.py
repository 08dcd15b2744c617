"""Stage `autoencoder`: train the codec of a recipe whose codec has to be trained, before the networks that use it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.builders.codec import FILE
from ladd_dist.builders.data import images_of
from ladd_dist.builders.networks import save_weights
from ladd_dist.codecs import TrainableAutoencoder, TrainedCodec
from ladd_dist.core.rng import RowSource, derive_seed, generator
from ladd_dist.core.rundir import make_folder, remove_stale
from ladd_dist.engine.checkpoint import Checkpoints, state_of
from ladd_dist.engine.loop import Figures, cosine_factor, train
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.gather import whole
from ladd_dist.trackers.jsonl import Jsonl
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import is_done, make_together, mark_done, rows_of

BATCH_FIELD = "codec.training.batch_size"
NUM_CALIBRATED = 2_048
"""Number of images on which the scale of the latents is measured."""


def is_autoencoder_done(run: Run) -> bool:
    """Whether the cache holds the trained codec."""
    folder = run.autoencoder_folder
    return is_done(folder / "done.json", run.recipe.autoencoder_signature()) and (folder / FILE).exists()


def train_autoencoder(run: Run) -> Path:
    """Train the codec unless the cache holds it; returns the folder with autoencoder.safetensors."""
    folder = run.autoencoder_folder
    make_together(run.ranks, folder, lambda: is_autoencoder_done(run), lambda: _train(run, folder))
    return folder


def _train(run: Run, folder: Path) -> None:
    training = AutoencoderTraining(run, folder)
    settings = training.settings
    log = Jsonl().build(folder=folder, config={}, resume_step=training.first_step) if run.ranks.is_first else None
    with training.checkpoints.complete():
        train(
            label="autoencoder",
            num_steps=settings.steps,
            first_step=training.first_step,
            samples_per_step=settings.batch_size,
            log_every=settings.log_every,
            save_at=lambda updates: updates % settings.checkpoint_every == 0,
            do_step=training.step,
            save=training.save,
            on_log=log.log if log else lambda updates, figures: None,
            note=lambda figures: f"error {figures['loss/error']:.4f}",
            ranks=run.ranks,
        )
    weights = whole(training.trainable.local("weight"), run.ranks)
    if log is not None and weights is not None:  # rank 0
        log.close()
        save_weights(folder / FILE, training.finished(weights))
        mark_done(folder / "done.json", run.recipe.autoencoder_signature())
        training.checkpoints.clear()


class AutoencoderTraining:
    """The state of a codec's training, restored from the newest checkpoint if there is one."""

    def __init__(self, run: Run, folder: Path) -> None:
        recipe = run.recipe
        assert isinstance(recipe.codec, TrainedCodec)
        self.recipe, self.codec, self.workspace = recipe, recipe.codec, run.workspace
        self.settings, compute = recipe.codec.training, Compute()
        self.rows = rows_of(BATCH_FIELD, self.settings.batch_size, compute, run.ranks)
        if run.ranks.is_first:
            make_folder(folder)
            remove_stale(folder)
        with run.ranks.first_goes_ahead():  # the first use may download it
            self.images = images_of(run)
        self.checkpoints = Checkpoints(
            folder / "checkpoints", identity=recipe.autoencoder_signature(), keep=1, ranks=run.ranks
        )
        saved = self.checkpoints.latest()
        self.first_step = saved.step if saved else 0
        network = self.fresh()
        if saved:
            saved.fill_module("autoencoder", network)
        adam = Adam(self.settings.lr, (0.9, 0.99), 0.0, self.settings.clip)
        self.trainable = recipe.parallel.build(
            network, role="teacher", adam=adam, compute=compute, ranks=run.ranks, device=run.device
        )
        if saved:
            saved.fill_optimizer("autoencoder", self.trainable)
        self.shape = recipe.latent().shape

    def fresh(self) -> TrainableAutoencoder:
        """The codec before training, initialised from its seed; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("init-autoencoder", self.settings.seed))
            return self.codec.build(image=self.recipe.dataset.spec()).train().requires_grad_(True)

    def step(self, step: int) -> Figures:
        """Make one update. Random numbers depend on (seed, step) and the row of the global batch alone."""
        settings, device = self.settings, self.workspace.device
        source = generator("autoencoder", settings.seed, step)
        picked = torch.randint(len(self.images), (settings.batch_size,), generator=source)
        images = self.images.batch(picked[self.rows.first : self.rows.stop])[0].to(device)
        eps = RowSource(self.rows, "autoencoder-noise", settings.seed, step, device=device).normal(*self.shape)
        self.trainable.set_lr_factor(cosine_factor(step, settings.steps, 0.0))
        figures: Figures = {}

        def loss_of(micro: int) -> Tensor:
            found: dict[str, Tensor] = self.trainable(images, eps)
            figures.update({f"loss/{name}": value.detach() for name, value in found.items()})
            return found["loss"]

        norm = self.trainable.update(loss_of)
        return {"grad_norm/autoencoder": norm, **figures}

    def save(self, updates: int) -> None:
        """Write a checkpoint after `updates` updates."""
        parts = state_of("autoencoder", self.trainable)
        self.checkpoints.save(updates, parts, {"counters": {"autoencoder": self.trainable.counters()}})

    @torch.no_grad()
    def finished(self, weights: dict[str, Tensor]) -> TrainableAutoencoder:
        """The codec with these weights, and with the scale of its latents measured on training images."""
        network = self.fresh().eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
        network.to(self.workspace.device)
        source = generator("calibrate", self.settings.seed)
        picked = torch.randperm(len(self.images), generator=source)[:NUM_CALIBRATED]
        network.calibrate(self.images.batch(picked)[0].to(self.workspace.device))
        return network
