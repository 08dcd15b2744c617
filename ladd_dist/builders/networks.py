"""A recipe's network with weights from disk: frozen, and with its table of conditions if it reads texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from ladd_dist.codecs import CODEC_PREFIX
from ladd_dist.core.budget import at_most
from ladd_dist.core.condition_index import INDEX, read_table_index, require_piece
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.door import read_typed, require_regular
from ladd_dist.core.errors import RecipeError, UserError, reading
from ladd_dist.core.known_digests import believe, read_digests, sha256_of
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.tensor_file import load_weights
from ladd_dist.core.types import DenoiseFn, Denoiser
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.run import Run

TABLE = INDEX
"""Name of the file in the shards' folder that says where the encoded texts of the dataset lie."""
OLD_TABLE = "conditions.safetensors"
"""Name of the file that held all of them, padded, in earlier versions; it is still read."""
TEXTS = "texts.json"
"""Name of the file in the shards' folder that holds the texts, in the table's order, and the table's entry."""


class ConditionsEntry(TypedDict):
    """The table of conditions, as the shards' index and `texts.json` describe it."""

    name: str
    bytes: int
    sha256: str
    texts: str
    """Digest of the texts in their order."""


class Texts(TypedDict):
    """The content of `texts.json`."""

    table: ConditionsEntry
    texts: list[str]


AGAIN = "delete the shards' folder, then --stages shards"
SLACK = 0.01
"""How far a level may lie beyond a network's schedule, which settings give in few digits."""
ADAPTER_PREFIX = "adapter."
"""Prefix, in a student's file with merged weights, of the adapter that was merged into them."""


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
    """The weights of a student's file without those of its codec, and without an adapter that they hold already."""
    return {name: weights[name] for name in weights if not name.startswith((CODEC_PREFIX, ADAPTER_PREFIX))}


def adapter_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapter beside the merged weights in a student's file; empty where there is none."""
    return {name.removeprefix(ADAPTER_PREFIX): weights[name] for name in weights if name.startswith(ADAPTER_PREFIX)}


def reads_texts(recipe: Recipe, network: Denoiser) -> bool:
    """Whether the network reads the dataset's texts rather than class ids.

    Raises:
        UserError: the network reads texts and the dataset has none, or the other way round.
    """
    texts, name = recipe.dataset.texts(), recipe.network.name
    if network.condition_shapes and not texts:
        raise UserError(
            f"network {name!r} reads texts, dataset {recipe.dataset.name!r} has none: take --swap dataset=prompts with "
            "--dataset.file, a text file with one prompt a line, or the dataset 'folder' with --dataset.captions"
        )
    if texts and not network.condition_shapes:
        raise UserError(
            f"network {name!r} takes class ids and reads no texts: leave dataset.file out (dataset 'prompts' with "
            "num_classes) and dataset.captions (dataset 'folder'), or take a checkpoint that was trained on texts"
        )
    return bool(texts)


def attach(network: Denoiser, run: Run) -> Denoiser:
    """Attach the shards' table of conditions to a network that reads texts; returns the network.

    Raises:
        UserError: the table is missing, or belongs to another dataset.
    """
    if not reads_texts(run.recipe, network):
        return network
    path = table_in(run.shards_folder)
    if not path.exists():
        raise UserError(f"{path} does not exist yet; the stage shards encodes the texts: --stages teacher,shards")
    conditions, asked = read_table(run.shards_folder), len(run.recipe.dataset.texts())
    if conditions.num != asked:
        raise UserError(
            f"{path} holds {conditions.num} texts, the recipe has {asked}; delete its folder, then --stages shards"
        )
    network.attach(conditions)
    return network


def table_in(folder: Path) -> Path:
    """The path of the table of conditions in the shards' folder, whether it is there or not."""
    old = folder / OLD_TABLE
    return old if old.exists() and not (folder / TABLE).exists() else folder / TABLE


def read_table(folder: Path) -> Conditions:
    """The table of conditions in the shards' folder, after a check of its sha256, if the folder says one.

    It is all compared at once: a damaged file that is found when its rows are read would end a training in its midst.

    Raises:
        UserError: missing, damaged, or not the one that the folder describes.
    """
    path = table_in(folder)
    if (folder / TEXTS).exists():
        _require_sha256(path, read_typed(folder / TEXTS, Texts, AGAIN)["table"]["sha256"], TEXTS)
    if path.name == TABLE:
        for piece in read_table_index(path).files:
            _require_sha256(require_piece(folder, piece), piece.sha256, TABLE)
    return Conditions.read(path)


def share_table(run: Run) -> None:
    """Let each rank hash its share of the table of conditions and believe the others'; a collective call.

    Without it `read_table` hashes the whole table in every process: ten seconds for the 8 GB of 100,000 prompts.
    """
    ranks, folder = run.ranks, run.shards_folder
    if ranks.size == 1 or not run.recipe.dataset.texts():
        return
    path, files = table_in(folder), list[Path]()
    if path.exists():  # otherwise whoever reads it says so
        pieces = read_table_index(path).files if path.name == TABLE else []
        files = [path, *(require_piece(folder, piece) for piece in pieces)]
    for found in ranks.from_all(read_digests(files[ranks.rank :: ranks.size])):
        believe(found)


def _require_sha256(path: Path, stated: str, where: str) -> None:
    require_regular(path)
    if sha256_of(path) != stated:
        raise UserError(f"{path} is damaged: its sha256 is not that in {where}; {AGAIN}")


def load_network(run: Run, path: Path, *, stage: str) -> Denoiser:
    """The recipe's network with the weights that a stage wrote, frozen, in eval mode, its conditions attached.

    Raises:
        UserError: the weights are missing or do not fit.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist yet; run the stage that makes it first: --stages {stage}")
    remedy = f"delete {'it' if stage == 'distill' else 'its folder'}, then --stages {stage}"
    weights = own_weights(load_weights(path, remedy=remedy))
    with at_most(weights, f"the recipe for {path}"):
        network = run.recipe.network.build(image=run.recipe.latent())
    with reading(path, "does not fit the recipe's network", remedy):
        network.load_state_dict(weights)
    return frozen(network, run)


def frozen(network: Denoiser, run: Run) -> Denoiser:
    """The network on the device, in eval mode, without gradients, its conditions attached."""
    return attach(network.to(run.device).eval().requires_grad_(False), run)
