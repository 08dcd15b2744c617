"""The stages of a run, one function each: `stage(recipe, place) -> what it made`. A stage that is done is skipped."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.noise import hybrid_sample
from ladd_dist.core.rng import Rows, generator, whole_batch
from ladd_dist.core.rundir import RunDir, exclusive, read_json, save_tensors, write_json
from ladd_dist.core.serialize import RecipeError, to_data
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import SINGLE, Ranks
from ladd_dist.recipe import Recipe

TABLE = "conditions.safetensors"
"""Of the shards' folder: the encoded texts of the dataset."""
CODEC_PREFIX = "codec."
"""In a student's file: of the weights of a codec that was trained with it."""


@dataclass(frozen=True)
class Place:
    """Where a run works: folders, device, and which of how many processes this is. Nothing here changes a result."""

    runs: Path
    cache: Path
    device: torch.device
    ranks: Ranks = SINGLE

    def alone(self) -> Place:
        """For what rank 0 does while, or after, the others have left."""
        return dataclasses.replace(self, ranks=SINGLE)

    def run(self, recipe: Recipe) -> RunDir:
        """The run folder of a recipe."""
        return RunDir(self.runs / f"{recipe.name}-{recipe.distill_signature()}")

    def autoencoder(self, recipe: Recipe) -> Path:
        return self.cache / f"autoencoder-{recipe.autoencoder_signature()}"

    def teacher(self, recipe: Recipe) -> Path:
        return self.cache / f"teacher-{recipe.teacher_signature()}"

    def shards(self, recipe: Recipe) -> Path:
        return self.cache / f"shards-{recipe.shards_signature()}"

    def reference(self, recipe: Recipe) -> Path:
        return self.cache / f"reference-{recipe.reference_signature()}"


def make_together(place: Place, folder: Path, is_done: Callable[[], bool], make: Callable[[], None]) -> None:
    """Call `make`, which fills `folder`, on every rank, unless it is done; another run that makes it is waited for."""
    if place.ranks.agree(is_done):  # looked at without the lock too: a finished cache may be read-only
        return
    with place.ranks.first_holds(lambda: exclusive(folder)):
        if not place.ranks.agree(is_done):
            make()


def rows_of(where: str, batch_size: int, compute: Compute, ranks: Ranks) -> Rows:
    """This rank's rows of the global batch.

    Raises:
        RecipeError: the batch cannot be shared evenly.
    """
    shares = ranks.size * compute.accumulate
    if batch_size % shares:
        below, above = batch_size // shares * shares, -(-batch_size // shares) * shares
        near = f"{below} or {above}" if below else f"{above}"
        micro = f" with {compute.accumulate} micro-batches each" if compute.accumulate > 1 else ""
        raise RecipeError(
            f"recipe.{where}: {batch_size} samples cannot be shared evenly by {ranks.size} ranks{micro}; use another "
            f"number of ranks, or --{where.replace('_', '-')} {near}"
        )
    return whole_batch(batch_size).part(ranks.rank, ranks.size)


def is_done(marker: Path, signature: str) -> bool:
    """Whether a stage finished with this signature."""
    return marker.exists() and read_json(marker).get("signature") == signature


def mark_done(marker: Path, signature: str, **facts: Any) -> None:
    """Record that a stage finished."""
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(marker, {"signature": signature, "finished": finished, **facts})


def tracked_config(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """What a tracker is told about a run: its config.json, and the place it has in a sweep (LADD_SWEEP, LADD_AXES)."""
    known = read_json(run.config) if run.config.exists() else {}
    own = {"name": run.path.name, "signature": recipe.distill_signature(), "seed": recipe.seed}
    sweep = {"sweep": os.environ.get("LADD_SWEEP", ""), "axes": json.loads(os.environ.get("LADD_AXES") or "{}")}
    return {**known, **own, **sweep, "recipe": to_data(recipe)}


def denoiser(network: Denoiser) -> DenoiseFn:
    """A network as a plain function x, sigma, cond -> denoised."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        denoised: torch.Tensor | None = network(x, sigma, cond).denoised
        assert denoised is not None
        return denoised

    return denoise


@torch.inference_mode()
def sample_few(
    network: Denoiser,
    noise: Tensor,
    cond: Tensor,
    levels: tuple[float, ...],
    rule: Literal["sde", "ode"],
    seed: int,
    *,
    teacher: DenoiseFn | None = None,
    teacher_steps: int = 0,
) -> Tensor:
    """A student's samples [B,C,H,W] from unit noise [B,C,H,W]; the seed is that of the noise which `sde` adds.

    Args:
        teacher: takes the first `teacher_steps` of the steps, which are the student's own unless given.
    """
    noise = noise.contiguous(memory_format=torch.channels_last)
    source, student = generator("sde", seed, device=noise.device), denoiser(network)
    return hybrid_sample(teacher or student, student, noise, cond, levels, rule, source, teacher_steps=teacher_steps)


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's weights as safetensors."""
    save_tensors(path, {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()})


def own_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a student's file that are its own, without the codec's."""
    return {name: weights[name] for name in weights if not name.startswith(CODEC_PREFIX)}


def reads_texts(recipe: Recipe, network: Denoiser) -> bool:
    """Whether the network reads the dataset's texts (else class ids).

    Raises:
        ValueError: it needs what the dataset does not have.
    """
    texts, name = recipe.dataset.texts(), recipe.network.name
    if network.condition_shapes and not texts:
        raise ValueError(
            f"network {name!r} reads texts, dataset {recipe.dataset.name!r} has none: take --swap dataset=prompts with "
            "--dataset.file, a text file with one prompt a line"
        )
    if texts and not network.condition_shapes:
        raise ValueError(
            f"network {name!r} takes class ids and reads no texts: leave dataset.file out (dataset 'prompts' with "
            "num_classes), or take a checkpoint that was trained on texts"
        )
    return bool(texts)


def attach(network: Denoiser, recipe: Recipe, place: Place) -> Denoiser:
    """The network, with the shards' table of conditions where it reads texts.

    Raises:
        ValueError: there is no such table, or it is another dataset's.
    """
    if not reads_texts(recipe, network):
        return network
    path = place.shards(recipe) / TABLE
    if not path.exists():
        raise ValueError(f"{path} does not exist yet; the stage shards encodes the texts: --stages teacher,shards")
    conditions, asked = Conditions.read(path), len(recipe.dataset.texts())
    if conditions.num != asked:
        raise ValueError(
            f"{path} holds {conditions.num} texts, the recipe has {asked}; delete its folder, then --stages shards"
        )
    network.attach(conditions)
    return network


def load_network(recipe: Recipe, path: Path, place: Place, *, stage: str) -> Denoiser:
    """The recipe's network with the weights that a stage wrote, frozen, in eval mode, its conditions attached.

    Raises:
        ValueError: they are not there, or do not fit.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist yet; run the stage that makes it first: --stages {stage}")
    network = recipe.network.build(image=recipe.latent())
    try:
        network.load_state_dict(own_weights(load_file(path)))
    except Exception as error:
        raise ValueError(
            f"{path} does not fit the recipe's network ({error}); delete its folder, then --stages {stage}"
        ) from error
    return frozen(network, recipe, place)


def frozen(network: Denoiser, recipe: Recipe, place: Place) -> Denoiser:
    """The network on the device, in eval mode, without gradients, its conditions attached."""
    return attach(network.to(place.device).eval().requires_grad_(False), recipe, place)
