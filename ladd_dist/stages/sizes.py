"""Refusal of a run whose numbers this machine cannot hold by far, before the first byte is computed or written.

Only lower bounds are compared: what is refused here would end in a full disk, or be killed when memory runs out.
`ladd plan` and `ladd doctor` say more exactly what fits.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from typing import TypeVar

import torch

from ladd_dist.builders.step import build_critic, build_heads
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.errors import RecipeError
from ladd_dist.core.machine import memory_bytes, require_memory
from ladd_dist.core.targets import nearest_there, require_place
from ladd_dist.core.types import Denoiser
from ladd_dist.core.units import si
from ladd_dist.costs.few_values import FewValues
from ladd_dist.costs.flops import count_parameters
from ladd_dist.costs.memory_model import STRATEGIES, memory
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import trial
from ladd_dist.workspace.config import RunFacts
from ladd_dist.workspace.run import Run

WORD = 4
"""Bytes of a float32."""
TRAINED = 5
"""Copies of a weight that trains: itself, its gradient, two moments, its average."""
CLOSE = 1 / 200
"""Share of the memory from which on a step's lower bound is followed by an exact count, which takes seconds. A step
takes up to a hundred times its feature maps."""
FEW = 2**24
"""Values up to which networks are built with data to count them: without data, PyTorch computes in Python, and imports
its compiler for that, which takes longer."""
T = TypeVar("T")


def require_room(run: Run, facts: RunFacts, names: Collection[str], num: int) -> None:
    """Refuse stages to come that cannot be held by this machine's memory or the cache's disk, or written at all.

    Args:
        names: the stages that are asked for.
        num: number of processes that share the run.

    Raises:
        RecipeError: names the field. UserError: --out or --cache cannot be made.
    """
    require_place(run.workspace.runs, "--out")
    require_place(run.workspace.cache, "--cache", may_be_full=True)
    recipe = run.recipe
    to_do = {stage.name for stage in facts.stages if not stage.cached} & set(names)
    has = _device_bytes(run)
    if "distill" in to_do:
        weights = facts.params["teacher"] + TRAINED * (facts.params["student"] + facts.params["heads"])
        if recipe.student.name == "full":
            require_memory(WORD * weights / num, "recipe.network, recipe.head", has)
    if "autoencoder" in to_do:
        require_memory(WORD * TRAINED * facts.params["codec"], "recipe.codec", has)
    network = None if recipe.network.pretrained else _planned(recipe)
    for stage, name in (("teacher", "teacher"), ("distill", "train")):
        settings = getattr(recipe, name)
        share = settings.batch_size / num / settings.compute.accumulate
        if stage in to_do and network is not None:
            needed = share * maps_bytes(network)
            require_memory(needed, f"recipe.{name}.batch_size: {settings.batch_size}", has)
            if stage == "distill" and needed > CLOSE * has:
                _require_step(recipe, num, has)
    if "shards" in to_do and not recipe.shards.source:
        _require_shards(run)
    if "evaluate" in to_do:
        require_evaluation(recipe)


def maps_bytes(network: Denoiser) -> int:
    """Bytes of a sample's feature maps at the network's taps, which are fewer than a forward makes."""
    image = network.image
    maps = (tap.channels * (image.height // tap.stride) * (image.width // tap.stride) for tap in network.taps.values())
    return WORD * (image.num_values + sum(maps))


def is_large(recipe: Recipe, num_samples: int) -> bool:
    """Whether a trial step on so many samples would take a good part of this machine's memory."""
    network = _planned(recipe)
    if network is None:
        return False
    weights = count_parameters(network)
    heads = _built(lambda: build_heads(recipe, build_critic(recipe, network)))
    weights += 0 if heads is None else count_parameters(heads)
    return WORD * (1 + TRAINED) * weights + num_samples * maps_bytes(network) / CLOSE > memory_bytes() / 2


def require_evaluation(recipe: Recipe, field: str = "recipe.evaluate.num_samples") -> None:
    """Refuse more samples than memory can hold: those of all samplers are compared with each other.

    Raises:
        RecipeError: the message begins with `field`.
    """
    image, settings = recipe.dataset.spec(), recipe.evaluate
    num_sets = 2 + len(recipe.teacher_levels()) + len(settings.steps)
    needed = num_sets * settings.num_samples * image.num_values * WORD
    require_memory(needed, f"{field}: {settings.num_samples}")


def _device_bytes(run: Run) -> int:
    if run.device.type == "cuda":
        return int(torch.cuda.get_device_properties(run.device).total_memory)
    return memory_bytes()


def _planned(recipe: Recipe) -> Denoiser | None:
    """The network, without data unless it is small; None where a user's own cannot be built so."""
    return _built(lambda: fresh_network(recipe))


def _built(build: Callable[[], T]) -> T | None:
    """What `build` makes, with data where that is few values, else without; None where it raises both times."""
    for way in (FewValues(FEW), torch.device("meta")):
        # A trial with data follows, which tells what is wrong.
        with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]), way:
            return build()
    return None


def _require_step(recipe: Recipe, num: int, has: int) -> None:
    strategy = next((name for name in STRATEGIES if name == recipe.parallel.name), None)
    if recipe.train.batch_size % (num * recipe.train.compute.accumulate) or strategy is None:
        return
    with trial(recipe) as step:
        profile = step.profile(recipe.train.batch_size // num)
    held = memory(strategy, profile, num)
    require_memory(held.total, f"recipe.train.batch_size: {recipe.train.batch_size}", has)


def _require_shards(run: Run) -> None:
    recipe, image = run.recipe, run.recipe.latent()
    settings = recipe.shards
    sample = image.num_values * (2 if settings.dtype == "float16" else WORD)
    at_once = min(settings.num_samples, max(settings.samples_per_chunk, settings.batch_size))
    require_memory(2 * at_once * sample, "recipe.shards.samples_per_chunk, recipe.shards.batch_size")
    needed = settings.num_samples * sample * (2 + len(recipe.path_levels()))
    disk = shutil.disk_usage(nearest_there(run.workspace.cache.absolute())).total
    if needed > disk:
        raise RecipeError(
            f"recipe.shards.num_samples: {settings.num_samples} take {si(needed, 'B')}, and the disk of --cache "
            f"{run.workspace.cache} has {si(disk, 'B')} in all; lower it, or choose another --cache"
        )
