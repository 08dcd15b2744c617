"""Every family of diffusers checkpoints, from a folder on disk to figures and pictures of a distilled student."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import REPO
from tiny_texts import PIPELINES, write_pipeline

from ladd_dist.builders.networks import TABLE
from ladd_dist.builders.texts import shortened
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse
from ladd_dist.codecs.vae import Vae
from ladd_dist.core.rundir import read_json
from ladd_dist.core.serialize import RecipeError
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.guards.collapse import NoGuard
from ladd_dist.levels.named import Karras
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.matched import Matched
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.recipe import Recipe, validate
from ladd_dist.reports.grids import grid_rows
from ladd_dist.sample import main as sample
from ladd_dist.samplers.karras import Euler
from ladd_dist.stages.distill import distill
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.evaluate import evaluate
from ladd_dist.stages.run import prepare_run
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.taps.named import Named
from recipes._base import SMOKE

PROMPTS = ["a cat", "a dog on a mat", "two birds; one cup", "a cat", "nothing to see here, but a long line of words"]
TAPS = {
    "pixart": ("block01",), "pixart_sized": ("block00", "block01"), "sd3": ("block01",),
    "sana": ("block01",), "kandinsky3": ("down0", "down1", "down2"),
    "flux": ("double00", "single00"), "flux_guided": ("double00", "single00"),
    "flux2": ("double00", "single00"), "qwen_image": ("block01",), "z_image": ("refiner00", "block00"),
}  # fmt: skip
LEVEL = 14.0  # which all of them know
LOWEST = 0.03
FIXED_LENGTH = ("sd", "sdxl", "kandinsky3", "class_unet", "unet")
FAMILIES = [*(name for name in PIPELINES if name != "flux2_guided"), "class_unet", "unet"]


def family_recipe(source: Path, family: str, **changes: Any) -> Recipe:
    """A run of seconds on a tiny pipeline, in the latents of its autoencoder."""
    dataset = Prompts(size=16, num_classes=3 if family == "class_unet" else 1)
    if family in PIPELINES:
        prompts = source.parent / "prompts.txt"
        prompts.write_text("\n\n".join(PROMPTS) + "\n")
        dataset = Prompts(file=str(prompts), size=16)
    metrics = (Kid(features="pixels"), Memorising(features="pixels"), Matched())
    recipe = dataclasses.replace(
        SMOKE,
        dataset=dataset,
        network=Diffusers(source=str(source), tokens=0 if family in FIXED_LENGTH else 12),
        codec=Vae(source=str(source)),
        taps=Named(names=TAPS.get(family, ("down0", "middle"))),
        shards=dataclasses.replace(
            SMOKE.shards,
            num_samples=16,
            batch_size=16,
            samples_per_chunk=4,
            sampler=Euler(steps=8, sigma_min=LOWEST, sigma_max=LEVEL),
        ),
        train=dataclasses.replace(SMOKE.train, batch_size=4, dump_every=20, evaluate_every=20, checkpoint_every=20),
        evaluate=dataclasses.replace(SMOKE.evaluate, num_samples=8, num_references=16, metrics=metrics, steps=(2,)),
        levels=Karras(sigma_min=LOWEST, sigma_max=LEVEL),
        guard=NoGuard(),
        student_steps=2,
    )
    return validate(dataclasses.replace(recipe, **changes))


def place_in(folder: Path) -> Workspace:
    return Workspace(folder / "runs", folder / "cache", torch.device("cpu"))


def remove_text_parts(checkpoint: Path) -> None:
    for pattern in ("text_encoder*", "tokenizer*"):
        for part in checkpoint.glob(pattern):
            shutil.rmtree(part)


def test_the_training_of_a_teacher_that_is_trained_already_cannot_be_set(tmp_path: Path) -> None:
    checkpoint = write_pipeline(tmp_path / "checkpoint", "sd")
    words = [str(REPO / "recipes" / "sd15.py"), "--network.source", str(checkpoint), "--teacher.batch-size", "16"]
    with pytest.raises(RecipeError, match=r"^--teacher\.batch-size: network 'diffusers' is trained already"):
        parse(RecipeOptions, words, prog="ladd launch")
    recipe = family_recipe(checkpoint, "sd")
    graph = dataclasses.replace(recipe.teacher.compute, graph=True)
    with pytest.raises(RecipeError, match=r"teacher\.compute\.graph: .* is trained already, so there is no step"):
        validate(dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, compute=graph)))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow) if name == "kandinsky3" else name for name in FAMILIES]
)
def test_a_family_goes_from_checkpoint_to_pictures(family: str, tmp_path: Path) -> None:
    checkpoint = write_pipeline(tmp_path / "checkpoint", family)
    recipe, workspace = family_recipe(checkpoint, family), place_in(tmp_path)
    facts = describe_run(Run(recipe, workspace), "smoke")
    run = Run(recipe, workspace).folder
    prepare_run(Run(recipe, workspace), facts, path=Path("recipe.py"), plugins=(), command="ladd launch")

    teacher = read_json(train_teacher(Run(recipe, workspace)) / "done.json")
    assert teacher["parameters"] == facts.params["teacher"] > 0
    shards = make_shards(Run(recipe, workspace))
    remove_text_parts(checkpoint)  # they were needed once
    distill(Run(recipe, workspace))
    figures = evaluate(Run(recipe, workspace))
    assert {"kid_teacher", "matched_error", "nearest_teacher_share"} < set(figures["student@2"])
    assert not {"kid", "kid_low", "nearest_train_distance"} & set(figures["student@2"])
    picture = tmp_path / "out.png"
    assert sample([str(run.path), "--out", str(picture), "--columns", "2"]) == 0
    labels = grid_rows(picture)
    assert labels == tuple(shortened(text) for text in PROMPTS) if family in PIPELINES else labels[0] == "class 0"
    assert (shards / TABLE).exists() == (family in PIPELINES)
