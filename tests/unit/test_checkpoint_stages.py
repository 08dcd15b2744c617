"""The stages with a checkpoint of diffusers as teacher: what they hold, and what they refuse."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from pathlib import Path

import pytest
import torch
from text_shards import recipe_in, workspace_in
from tiny_texts import write_pipeline

from ladd_dist.builders.teacher import load_teacher
from ladd_dist.codecs.pixels import Pixels
from ladd_dist.core.rundir import read_json
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.levels.named import Good
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import Recipe
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import is_teacher_done, train_teacher
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd") / "checkpoint", "sd")


@pytest.fixture(scope="module")
def made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    """A recipe and a workspace with its shards."""
    folder = tmp_path_factory.mktemp("made")
    recipe, workspace = recipe_in(folder, checkpoint), workspace_in(folder)
    make_shards(Run(recipe, workspace))
    return recipe, workspace


def test_training_holds_neither_text_encoder_nor_autoencoder(made: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    recipe, workspace = made
    lean = tmp_path / "lean"
    shutil.copytree(recipe.network.source, lean)  # type: ignore[attr-defined]
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(lean / part)  # an attempt to load them would fail
    recipe = recipe_in(tmp_path, lean)
    run = Run(recipe, workspace).folder
    run.create()
    training = Distillation(Run(recipe, workspace))
    training.step(0)
    gc.collect()
    held = {type(item).__name__ for item in gc.get_objects() if isinstance(item, torch.nn.Module)}
    assert "UNet2DConditionModel" in held
    assert not held & {"CLIPTextModel", "AutoencoderKL"}


def test_student_and_heads_have_their_own_rates_and_betas(made: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = made
    own = {"lr_student": 1e-3, "lr_heads": 2e-3, "betas_student": (0.1, 0.91), "betas_heads": (0.2, 0.92)}
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, weight_decay=0.03, **own))
    Run(recipe, workspace).folder.create()
    training = Distillation(Run(recipe, workspace))
    for role in ("student", "heads"):
        for group in getattr(training, role).optimizer.param_groups:
            assert (group["lr"], group["betas"]) == (own[f"lr_{role}"], own[f"betas_{role}"])
            assert group["weight_decay"] == 0.03


def test_a_pretrained_teacher_is_looked_at_and_not_copied(made: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = made
    assert not is_teacher_done(Run(recipe, workspace))
    folder = train_teacher(Run(recipe, workspace))
    facts = read_json(folder / "done.json")
    assert (facts["class"], facts["prediction"]) == ("UNet2DConditionModel", "epsilon")
    assert facts["parameters"] == sum(p.numel() for p in load_teacher(Run(recipe, workspace)).parameters())
    assert [path.name for path in folder.iterdir()] == ["done.json"]
    assert is_teacher_done(Run(recipe, workspace))


def test_a_network_and_a_dataset_that_do_not_go_together_are_told(checkpoint: Path, tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    with pytest.raises(ValueError, match="network 'diffusers' reads texts, dataset 'prompts' has none"):
        train_teacher(Run(recipe_in(tmp_path, checkpoint, dataset=Prompts(size=16)), workspace))
    classes = write_pipeline(tmp_path / "classes", "class_unet")
    with pytest.raises(ValueError, match="takes class ids and reads no texts"):
        train_teacher(Run(recipe_in(tmp_path, classes), workspace))
    with pytest.raises(ValueError, match="'prompts' has no images to train network 'cunet' on"):
        recipe_in(tmp_path, checkpoint, network=CUNet())


def test_guidance_needs_a_null_condition(tmp_path: Path) -> None:
    tiny = write_pipeline(tmp_path / "classes", "class_unet")
    known = Prompts(size=16, num_classes=4)  # all that its embedding has: none is left for "no class"
    recipe = recipe_in(tmp_path, tiny, dataset=known)
    with pytest.raises(ValueError, match=r"shards\.guidance 4 needs a null condition.*--shards\.guidance 1"):
        train_teacher(Run(recipe, workspace_in(tmp_path)))
    train_teacher(
        Run(
            dataclasses.replace(recipe, shards=dataclasses.replace(recipe.shards, guidance=1.0)), workspace_in(tmp_path)
        )
    )


def test_latents_of_another_shape_than_the_models_are_told(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="works on 4 channels, the dataset has 3"):
        train_teacher(Run(recipe_in(tmp_path, checkpoint, codec=Pixels()), workspace_in(tmp_path)))


def test_levels_beyond_the_noise_schedule_are_refused_before_anything_runs(checkpoint: Path, tmp_path: Path) -> None:
    """The timestep would be the last one, whatever the level: noise of another strength than the model is told."""
    recipe, workspace = recipe_in(tmp_path, checkpoint, levels=Good()), workspace_in(tmp_path)
    for ask in (lambda: describe_run(Run(recipe, workspace), "smoke"), lambda: train_teacher(Run(recipe, workspace))):
        with pytest.raises(ValueError, match=r"recipe\.levels: starts at level 80, .* ends at 14\.61"):
            ask()


def test_a_run_is_described_from_the_configuration_alone(checkpoint: Path, tmp_path: Path) -> None:
    """`--dry-run` and `plan`: without weights, text encoders or a table."""
    import diffusers

    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    for path in bare.rglob("*.safetensors"):
        path.unlink()
    facts = describe_run(Run(recipe_in(tmp_path, bare), workspace_in(tmp_path)), "smoke")
    model = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert facts.params["teacher"] == facts.params["student"] == expected
    assert facts.flops["step"] > facts.flops["student_forward"] > facts.flops["teacher_to_last_tap"] > 0
