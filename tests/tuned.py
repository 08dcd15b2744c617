"""A base, its four-step student and new pictures, tiny: what `ladd tune` is given in tests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.student import save_student
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.types import Denoiser
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.given import Given
from ladd_dist.recipe import EarlyStop, Old, Recipe, load_recipe
from ladd_dist.samplers.karras import Euler
from ladd_dist.students.lora import Lora
from ladd_dist.workspace.config import RunFacts, write_config
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from ladd_dist.zoo.recipes._base import SMOKE

SIZE, COLOURS = 16, ((220, 30, 30), (30, 200, 30), (40, 40, 220), (230, 200, 20))


def write_pictures(
    folder: Path, num: int, *, size: int = SIZE, classes: tuple[str, ...] = (), captions: int = 0
) -> Path:
    """`num` pictures of discs in one colour, in folders of classes, or with so many different captions."""
    source = np.random.default_rng(num)
    lines = []
    for number in range(num):
        yy, xx = np.mgrid[:size, :size]
        centre, radius = source.uniform(0.35, 0.65, 2) * size, source.uniform(0.2, 0.35) * size
        pixels = np.full((size, size, 3), 250, np.uint8)
        pixels[(xx - centre[0]) ** 2 + (yy - centre[1]) ** 2 < radius**2] = COLOURS[number % len(COLOURS)]
        where = folder / classes[number % len(classes)] if classes else folder
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(where / f"{number:03d}.png")
        if captions:
            lines.append(json.dumps({"file_name": f"{number:03d}.png", "text": f"disc {number % captions}"}))
    if captions:
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def base_recipe() -> Recipe:
    """Ten classes of 16 px, in a network of some ten thousand weights."""
    network = CUNet(widths=(8, 8), blocks=1, patch=2, embed_dim=16, attention_heads=1)
    return dataclasses.replace(SMOKE, name="given", dataset=Digits(size=SIZE), network=network)


def write_student(folder: Path, seed: int = 0, dataset: Dataset | None = None) -> Path:
    """A finished run in `folder`/runs with its teacher in `folder`/cache, both as if trained; returns the run.

    Args:
        dataset: what it learned from; None: that of `base_recipe`.
    """
    recipe = base_recipe()
    recipe = dataclasses.replace(recipe, dataset=dataset) if dataset else recipe
    run = Run(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")))
    write_teacher(run.teacher_folder, recipe, seed)
    run.folder.create()
    facts = RunFacts(recipe.name, "smoke", recipe.distill_signature(), {}, (), {}, ())
    write_config(run, facts, path=Path("r.py"), plugins=(), command="ladd launch r.py")
    save_student(run.folder.student, moved(fresh_network(recipe), seed + 1), run)
    return run.folder.path


def write_teacher(folder: Path, recipe: Recipe, seed: int = 0) -> Path:
    """The weights of a teacher that looks trained; returns their file."""
    folder.mkdir(parents=True)
    save_weights(folder / "teacher.safetensors", moved(fresh_network(recipe), seed))
    return folder / "teacher.safetensors"


def tune_recipe(folder: Path, **train: Any) -> Recipe:
    """The recipe that tunes the student of `write_student(folder)` on the pictures in `folder`/pictures, for class 3.

    Args:
        train: changes of its field `train`.
    """
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "tune_folder.py", "smoke")
    (run,) = folder.glob("runs/given-*")
    (base,) = folder.glob("cache/teacher-*/teacher.safetensors")
    old = Old(share=0.25, num_samples=16)
    settings = {"steps": 6, "batch_size": 8, "dump_every": 6, "old": old, "early_stop": EarlyStop(), **train}
    pictures = Folder(root=str(folder / "pictures"), size=SIZE, classes="none", held_out=0.2)
    return dataclasses.replace(
        recipe,
        dataset=WithOld(pictures=pictures, old_classes=9),
        network=Given(network=base_recipe().network, weights=str(base), classes=(3, 0, 1, 2, 4, 5, 6, 7, 8, 9)),
        student=Lora(rank=4, init=str(run)),
        shards=dataclasses.replace(recipe.shards, sampler=Euler(steps=4), samples_per_chunk=4),
        train=dataclasses.replace(recipe.train, **settings),
    )


def moved(network: Denoiser, seed: int) -> Denoiser:
    """The network with noise on every weight: layers that begin at zero hide what is below them."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=source))
    return network
