"""Concept sliders: one low-rank direction of the weights for one attribute, for teacher and student alike.

After Gandikota et al. 2023 (arXiv 2311.12092, section 4.2, sliders from pairs of images). With the adapter at strength
+1 the network learns, by the loss of its own training, samples that have more of the attribute; at strength -1 it
learns the same samples with less of it. Fitting these samples better would need opposite signs of the adapter at +1 and
-1, so to first order the direction contains the attribute alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast

import torch
from torch import Tensor

from ladd_dist.builders.card import ImageData, PluginData, checked_card, text_of
from ladd_dist.builders.codec import is_pixels
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.student import load_student
from ladd_dist.builders.teacher import load_teacher, teacher_loss
from ladd_dist.core.door import decode
from ladd_dist.core.errors import UserError
from ladd_dist.core.ranges import AnyInteger, BatchSize, Positive, Ranged, Updates, Within
from ladd_dist.core.rng import derive_seed, generator
from ladd_dist.core.rundir import RunDir, save_tensors
from ladd_dist.core.serialize import to_data
from ladd_dist.core.tensor_file import read_tensors, require_finite
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.engine.loop import Bar, StopFlag
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.recipe import Recipe
from ladd_dist.sliders.attributes import ATTRIBUTES, attribute
from ladd_dist.students.adapter import (
    adaptable,
    adapter_state,
    add_adapter,
    layers_of,
    require_patterns,
    set_adapter,
    set_strength,
    targeted,
)
from ladd_dist.workspace.run import Run

On = Literal["teacher", "student"]
NONE = "is no direction that `ladd control train` wrote"
REMEDY = "copy it again, or train it again with `ladd control train`"


@dataclass(frozen=True)
class Training(Ranged):
    """Settings for learning a direction."""

    attribute: str
    on: On
    rank: Annotated[int, Within("[1, 4096]")] = 4
    steps: Updates = 200
    batch_size: BatchSize = 64
    lr: Positive = 2e-3
    targets: tuple[str, ...] = ()
    seed: AnyInteger = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        attribute(self.attribute)
        require_patterns(self.targets, "targets")


class _Required(TypedDict):
    """The keys without which a card is refused."""

    kind: Literal["control"]
    attribute: str
    on: On
    rank: int
    alpha: float
    network: PluginData
    image: ImageData
    signature: str
    """Signature of the teacher, or of the student's run."""


class ControlCard(_Required):
    """What a direction is, and the network on which it was learned: the JSON in the metadata of its file."""

    steps: int
    batch_size: int
    lr: float
    targets: list[str]
    seed: int
    recipe: str


class Control(NamedTuple):
    """A direction: the state of its adapter, and its card."""

    state: dict[str, Tensor]
    card: ControlCard


def require_pixels(recipe: Recipe) -> None:
    """Refuse a recipe whose networks do not work on RGB pixels, which attributes are edited in.

    Raises:
        UserError: the networks work on latents or on another number of channels.
    """
    if not is_pixels(recipe) or recipe.latent().channels != 3:
        raise UserError(
            f"attributes are edited in RGB pixels, and the networks of {recipe.name} see {recipe.latent().channels} "
            f"channels of codec {recipe.codec.name!r}"
        )


def network_of(run: Run, folder: RunDir, on: On) -> Denoiser:
    """The run's teacher or trained student, frozen, in eval mode.

    Raises:
        UserError: its weights are missing.
    """
    return load_teacher(run) if on == "teacher" else load_student(run, folder.student)


def train_control(run: Run, folder: RunDir, settings: Training) -> Control:
    """Learn a direction from the run's stored samples; random numbers depend on the seed and the step alone.

    Raises:
        UserError: the network or the samples are missing, or the loss is not finite.
    """
    recipe = run.recipe
    require_pixels(recipe)
    network = network_of(run, folder, settings.on)
    edit, reader = attribute(settings.attribute).edit, open_shards(run)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("control", settings.seed))
        layers = targeted(network, settings.targets)
        add_adapter(network, rank=settings.rank, alpha=float(settings.rank), layers=layers)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    loss_of = _teacher_loss if settings.on == "teacher" else _student_loss
    total = torch.zeros((), device=run.device)
    with StopFlag().listen() as stop, Bar(f"{settings.attribute} on {settings.on}", settings.steps) as bar:
        for step in range(settings.steps):
            stop.check()
            batch = to_device(reader.batch(step, min(settings.batch_size, len(reader)), settings.seed), run.device)
            for strength in (1.0, -1.0):
                set_strength(network, strength)
                loss = loss_of(recipe, network, _edited(batch, edit, strength), settings.seed, step)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            bar.update(step + 1)
    if not total.isfinite():
        raise UserError(f"the loss became NaN or infinite; lower --lr (it was {settings.lr})")
    return Control(adapter_state(network), _card(recipe, settings))


def _edited(batch: Batch, edit: Callable[[Tensor, float], Tensor], strength: float) -> Batch:
    """The batch with more or less of the attribute in its samples (and in their paths); its noise stays."""
    x0 = edit(batch.x0, strength)
    path = None if batch.path is None else batch.path + (x0 - batch.x0)[:, None]
    return batch._replace(x0=x0, path=path)


def _teacher_loss(recipe: Recipe, network: Denoiser, batch: Batch, seed: int, step: int) -> Tensor:
    """The denoising loss of the teacher's training, at its levels and with its label dropout."""
    num, device = len(batch.x0), batch.x0.device
    source = generator("control-levels", seed, step)
    sigma = recipe.teacher.sigma(num, step, source, levels=()).to(device)
    dropped = (torch.rand(num, generator=source) < recipe.teacher.label_dropout).to(device)
    cond = torch.where(dropped, recipe.latent().num_classes, batch.cond)
    return teacher_loss(network, batch.x0, sigma, cond, _noise(batch, seed, step), recipe.teacher.weighting)


def _student_loss(recipe: Recipe, network: Denoiser, batch: Batch, seed: int, step: int) -> Tensor:
    """The recipe's distance, at the student's levels and with the recipe's coupling of noise."""
    source = generator("control-levels", seed, step)
    sigma = recipe.student_sigma(len(batch.x0), step, source, levels=recipe.student_levels()).to(batch.x0.device)
    fake = network(recipe.start(batch, sigma, _noise(batch, seed, step)), sigma, batch.cond).denoised
    return recipe.distance(fake, batch.x0, sigma)


def _noise(batch: Batch, seed: int, step: int) -> Tensor:
    source = generator("control-noise", seed, step, device=batch.x0.device)
    return torch.randn(batch.x0.shape, generator=source, device=batch.x0.device)


def _card(recipe: Recipe, settings: Training) -> ControlCard:
    signature = recipe.teacher_signature() if settings.on == "teacher" else recipe.distill_signature()
    return {
        "kind": "control",
        "attribute": settings.attribute,
        "on": settings.on,
        "rank": settings.rank,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "lr": settings.lr,
        "targets": list(settings.targets),
        "seed": settings.seed,
        "alpha": float(settings.rank),
        "network": to_data(recipe.network),
        "image": to_data(recipe.latent()),
        "recipe": recipe.name,
        "signature": signature,
    }


def save_control(path: Path, control: Control) -> None:
    """Write a direction as safetensors, its card in the metadata."""
    save_tensors(path, control.state, {"ladd_dist": json.dumps(control.card)})


def load_control(path: Path) -> Control:
    """The direction in a file. Nothing in the file can run code.

    Raises:
        UserError: the file is missing or damaged, or holds no direction.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; `ladd control train` writes such a file")
    content = read_tensors(path, problem=NONE, remedy=REMEDY)
    text, state = text_of(content.metadata, path, NONE), content.tensors
    if decode(text, dict[str, Any], f"{path}: its card", REMEDY).get("kind") != "control":
        raise UserError(f"{path} {NONE}: its card is of something else")
    card = cast(ControlCard, checked_card(text, _Required, path, REMEDY))
    if card["attribute"] not in ATTRIBUTES:
        raise UserError(
            f"{path}: its card has the attribute {card['attribute'][:40]!r}, known are {', '.join(ATTRIBUTES)}"
        )
    ranks = {len(tensor) for name, tensor in state.items() if name.endswith(".lora_A.weight") and tensor.ndim}
    if ranks != {card["rank"]} or not card["alpha"] > 0:
        raise UserError(f"{path}: its card has rank {card['rank']} and alpha {card['alpha']}, its weights {ranks}")
    require_finite(state, path)
    return Control(state, card)


def attach(network: Denoiser, control: Control, recipe: Recipe) -> Denoiser:
    """Add a direction to a network in place, at strength 1; returns the network, frozen, in eval mode.

    Raises:
        UserError: the direction was learned on a network of another shape.
    """
    if control.card["network"] != to_data(recipe.network) or control.card["image"] != to_data(recipe.latent()):
        raise UserError(
            f"the direction was learned on the {control.card['on']} of {control.card.get('recipe')}, whose network is "
            f"{control.card['network']} for {control.card['image']}; this run's is {to_data(recipe.network)} for "
            f"{to_data(recipe.latent())}: only networks of one shape can share a direction"
        )
    layers = [name for name in layers_of(control.state) if name in adaptable(network)]
    add_adapter(network, rank=int(control.card["rank"]), alpha=float(control.card["alpha"]), layers=layers)
    set_adapter(network, control.state)
    return network.requires_grad_(False).eval()
