"""A recipe's network with weights from disk: frozen, and with its table of conditions if it reads texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.errors import RecipeError, UserError, reading
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

TABLE = "conditions.safetensors"
"""Name of the file in the shards' folder that holds the encoded texts of the dataset."""


SLACK = 0.01
"""How far a level may lie beyond a network's schedule, which settings give in few digits."""
CODEC_PREFIX = "codec."
"""Prefix, in a student's file, of the weights of a codec that was trained with it."""


def denoiser(network: Denoiser) -> DenoiseFn:
    """A network as a plain function x, sigma, cond -> denoised."""

    def denoise(x: torch.Tensor, sigma: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        denoised: torch.Tensor | None = network(x, sigma, cond).denoised
        assert denoised is not None
        return denoised

    return denoise


def require_within(network: Denoiser, levels: Sequence[float], where: str) -> None:
    """Refuse descending levels beyond the noise schedule of a network, which would silently take the nearest it has.

    Raises:
        RecipeError: the message begins with `where`, and gives the schedule's end.
    """
    if levels[0] > (1 + SLACK) * network.sigma_max:
        raise RecipeError(
            f"{where}: starts at level {levels[0]:g}, and the noise schedule of the network ends at "
            f"{network.sigma_max:.4g}; choose levels up to that"
        )
    if levels[-1] < (1 - SLACK) * network.sigma_min:
        raise RecipeError(
            f"{where}: ends at level {levels[-1]:g}, and the noise schedule of the network begins at "
            f"{network.sigma_min:.4g}; choose levels from that"
        )


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a network's weights as safetensors."""
    save_tensors(path, {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()})


def own_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a student's file without those of its codec."""
    return {name: weights[name] for name in weights if not name.startswith(CODEC_PREFIX)}


def reads_texts(recipe: Recipe, network: Denoiser) -> bool:
    """Whether the network reads the dataset's texts rather than class ids.

    Raises:
        UserError: the network reads texts and the dataset has none, or the other way round.
    """
    texts, name = recipe.dataset.texts(), recipe.network.name
    if network.condition_shapes and not texts:
        raise UserError(
            f"network {name!r} reads texts, dataset {recipe.dataset.name!r} has none: take --swap dataset=prompts with "
            "--dataset.file, a text file with one prompt a line"
        )
    if texts and not network.condition_shapes:
        raise UserError(
            f"network {name!r} takes class ids and reads no texts: leave dataset.file out (dataset 'prompts' with "
            "num_classes), or take a checkpoint that was trained on texts"
        )
    return bool(texts)


def attach(network: Denoiser, run: Run) -> Denoiser:
    """Attach the shards' table of conditions to a network that reads texts; returns the network.

    Raises:
        UserError: the table is missing, or belongs to another dataset.
    """
    if not reads_texts(run.recipe, network):
        return network
    path = run.shards_folder / TABLE
    if not path.exists():
        raise UserError(f"{path} does not exist yet; the stage shards encodes the texts: --stages teacher,shards")
    conditions, asked = Conditions.read(path), len(run.recipe.dataset.texts())
    if conditions.num != asked:
        raise UserError(
            f"{path} holds {conditions.num} texts, the recipe has {asked}; delete its folder, then --stages shards"
        )
    network.attach(conditions)
    return network


def load_network(run: Run, path: Path, *, stage: str) -> Denoiser:
    """The recipe's network with the weights that a stage wrote, frozen, in eval mode, its conditions attached.

    Raises:
        UserError: the weights are missing or do not fit.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages {stage}")
    network = run.recipe.network.build(image=run.recipe.latent())
    with reading(path, "does not fit the recipe's network", f"delete its folder, then --stages {stage}"):
        network.load_state_dict(own_weights(load_file(path)))
    return frozen(network, run)


def frozen(network: Denoiser, run: Run) -> Denoiser:
    """The network on the device, in eval mode, without gradients, its conditions attached."""
    return attach(network.to(run.device).eval().requires_grad_(False), run)
