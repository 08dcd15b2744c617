"""The recipes for real checkpoints: their public configurations, and what can be known without weights or a network."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.builders.teacher import fresh_network
from ladd_dist.recipe import SCALES, Recipe, load_recipe, validate
from ladd_dist.stages.table import stage_table

REPO = Path(__file__).parents[2]
PUBLISHED = {
    "sd15": 859.5e6, "pixart": 610e6, "sd3": 2.03e9, "kandinsky31": 3.05e9,
    "flux2": 3.876e9, "qwen_image": 20.43e9, "z_image": 6.155e9,
}  # fmt: skip
"""Parameters of the denoising models: SD 1.5's U-Net, PixArt-XL/2, SD3 medium, Kandinsky 3's 12.2 GB in float32; the
files of FLUX.2 klein 4B, Qwen-Image (20B) and Z-Image (6B) in bfloat16."""
FLOWS = ("sd3", "flux2", "qwen_image", "z_image")
HIGHEST = {"sd15": 14.61, "pixart": 157.4, "kandinsky31": 32.08} | dict.fromkeys(FLOWS, math.inf)
"""Of each schedule; Kandinsky's ends at no signal at all, and its four-call model starts at time 979."""


def recipe_of(name: str) -> Recipe:
    return validate(load_recipe(REPO / "recipes" / f"{name}.py", "paper"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_public_configurations_give_the_published_number_of_parameters(name: str) -> None:
    recipe = recipe_of(name)
    with torch.device("meta"):
        network = fresh_network(recipe)
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(PUBLISHED[name], rel=0.01)


FLUX2 = {  # what differs from klein 4B, and the count
    "klein 4B": ({}, 3_875_544_576),
    "klein 9B": (
        {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        9_078_581_248,
    ),
    "dev": (
        {"num_layers": 8, "num_single_layers": 48, "num_attention_heads": 48, "joint_attention_dim": 15360,
         "guidance_embeds": True},
        32_223_281_152,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLUX2)
def test_every_flux2_has_its_published_number_of_parameters(name: str, tmp_path: Path) -> None:
    recipe, (changes, expected) = recipe_of("flux2"), FLUX2[name]
    shutil.copytree(REPO / "recipes" / "configs" / "flux2", tmp_path / "flux2")
    config = tmp_path / "flux2" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with torch.device("meta"):
        network = fresh_network(replace(recipe, network=replace(recipe.network, config=str(tmp_path / "flux2"))))
    assert sum(weight.numel() for weight in network.parameters()) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_pretrained_teacher_is_checked_and_has_no_figures_of_another_experiment(name: str) -> None:
    recipe = recipe_of(name)
    assert stage_table(recipe)["teacher"].doc == "checking the pretrained teacher"
    assert (recipe.reported.teacher_4, recipe.reported.teacher_50, recipe.reported.student_4) == (None, None, None)
    trained = load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke")
    assert stage_table(trained)["teacher"].doc == "training the diffusion teacher"
    assert trained.reported.teacher_50 == 3.66
    imported = replace(trained, shards=replace(trained.shards, source="others/*.tar"))
    assert stage_table(imported)["shards"].doc == "importing the samples of others"


@pytest.mark.parametrize("name", PUBLISHED)
def test_levels_lie_in_the_checkpoints_own_range(name: str) -> None:
    recipe = recipe_of(name)
    assert 0.9 * min(HIGHEST[name], 200) <= recipe.student_levels()[0] <= HIGHEST[name]
    assert recipe.shards.sampler.sigma_max == recipe.student_levels()[0]  # type: ignore[attr-defined]
    assert recipe.start.rule == "ode"


@pytest.mark.parametrize("name", FLOWS)
def test_the_levels_of_a_flow_are_the_times_of_the_ladd_paper(name: str) -> None:
    times = [sigma / (1 + sigma) for sigma in recipe_of(name).student_levels()]
    assert times == pytest.approx([0.995, 0.75, 0.5, 0.25], abs=1e-4)


def test_kandinskys_levels_are_the_times_of_its_published_four_call_model() -> None:
    recipe = recipe_of("kandinsky31")
    with torch.device("meta"):
        prediction: Any = fresh_network(recipe).prediction
    times = prediction.timestep(torch.tensor(recipe.student_levels()))
    assert times.tolist() == pytest.approx([979, 729, 479, 229], abs=0.01)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_bare_recipe_serves_every_scale(name: str) -> None:
    assert len({load_recipe(REPO / "recipes" / f"{name}.py", scale) for scale in SCALES}) == 1


def test_two_repositories_of_one_architecture_are_two_teachers() -> None:
    one = recipe_of("sd15")
    other = replace(one, network=replace(one.network, source="somebody/a-fine-tuned-model"))
    assert one.teacher_signature() != other.teacher_signature()


def test_where_the_configurations_lie_changes_no_signature() -> None:
    one = recipe_of("sd15")
    moved = replace(one, network=replace(one.network, config=""), codec=replace(one.codec, config=""))
    assert one.distill_signature() == moved.distill_signature()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "sd3", "z_image"])  # each takes half a minute
def test_a_dry_run_needs_neither_weights_nor_a_network(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ladd_dist.launch", str(REPO / "recipes" / f"{name}.py"), "--dry-run", "--json"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["params"]["student"] == pytest.approx(PUBLISHED[name], rel=0.01)
    assert facts["flops"]["teacher_to_last_tap"] < 0.8 * facts["flops"]["student_forward"]
    assert not list(tmp_path.glob("[!h]*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kandinsky31", "flux2"])
def test_the_plan_for_eight_gpus_takes_little_memory_itself(name: str, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from ladd_dist import plan; code = plan.main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, file=sys.stderr); sys.exit(code)"
    )
    recipe = str(REPO / "recipes" / f"{name}.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, recipe, "--gpus", "8", "--json"],
        capture_output=True, text=True, timeout=400, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["cheapest"] and facts["params"]["student"] == pytest.approx(PUBLISHED[name], rel=0.01)
    assert int(done.stderr.split()[-1]) < 3e9  # no weights: they alone would be 2.4 and 12 GB, three times
