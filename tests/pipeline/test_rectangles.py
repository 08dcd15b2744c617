"""Pictures that are no squares: every family in the library's own pipelines, and a run from shards to an export."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from processes import RECIPE, Done
from test_export_diffusers import FIXED, PROMPTS, TOKENS, finished_run, near, opened_scheduler, ours
from tiny_latents import pack, unguided, unpack
from tiny_texts import PIPELINES
from torch import Tensor

from ladd_dist.core.rng import sample_noise
from ladd_dist.core.rundir import read_json
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.export import main as export
from ladd_dist.levels.named import Good
from ladd_dist.sample import main as sample
from ladd_dist.students.lora import Lora
from recipes._base import SMOKE

WIDE, TALL = (8, 16), (12, 8)
"""Height and width of latents in the proportions 1:2 and 3:2."""
LARGER = {"kandinsky3": 2, "sana": 4}
"""Pipelines that take some multiples of a size alone."""
STEPS = "4"


def four_steps(family: str) -> Good:
    """Levels of four steps; the pipeline of Kandinsky 3 takes none, so there they are of timesteps that DDIM visits."""
    levels = (9.0, 4.0, 1.1, 0.3)
    if family == "kandinsky3":
        alpha_bar = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
        levels = tuple(((1 - alpha_bar) / alpha_bar).sqrt()[[979, 729, 479, 229]].tolist())
    return Good(four=levels, two=levels[::2], one=levels[:1])


@pytest.mark.parametrize("latents", [WIDE, TALL], ids=["1:2", "3:2"])
@pytest.mark.parametrize("family", PIPELINES)
def test_an_exported_pipeline_samples_as_the_student(family: str, latents: tuple[int, int], tmp_path: Path) -> None:
    height, width = (side * LARGER.get(family, 1) for side in latents)
    dataset = Prompts(file=str(tmp_path / "prompts.txt"), size=(2 * height, 2 * width))
    measured = dataclasses.replace(SMOKE.evaluate, steps=(4,))
    four = {"levels": four_steps(family), "student_steps": 4, "evaluate": measured}
    run, recipe, student = finished_run(tmp_path, family, dataset=dataset, **four)
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "diffusers", "--out", str(out)]) == 0
    card, noise = read_json(out / "student.json"), sample_noise(0, range(1), (4, height, width))
    assert (card["height"], card["width"]) == dataset.size
    assert card["image"] == {"channels": 4, "height": height, "width": width, "num_classes": len(PROMPTS)}
    assert f", height={card['height']}, width={card['width']}" in (out / "README.md").read_text()
    expected = ours(recipe, student, noise, 4)
    shutil.rmtree(tmp_path / "checkpoint")  # the folder stands alone
    found = from_pipeline(diffusers.DiffusionPipeline.from_pretrained(out), family, noise, card, student)
    assert found.shape == (1, 4, height, width) and near(found, expected)


@pytest.mark.parametrize("family", ["sdxl", "flux", "sana"])
def test_an_exported_adapter_makes_the_teachers_pipeline_the_student(family: str, tmp_path: Path) -> None:
    """SDXL is told sizes beside the text, FLUX positions of patches, and Sana takes some sizes alone."""
    height, width = (side * LARGER.get(family, 1) for side in TALL)
    dataset = Prompts(file=str(tmp_path / "prompts.txt"), size=(2 * height, 2 * width))
    measured = dataclasses.replace(SMOKE.evaluate, steps=(4,))
    four = {"levels": four_steps(family), "student_steps": 4, "evaluate": measured, "student": Lora(rank=3, alpha=6.0)}
    run, recipe, student = finished_run(tmp_path, family, dataset=dataset, **four)
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "lora", "--out", str(out)]) == 0
    card, noise = read_json(out / "student.json"), sample_noise(0, range(1), (4, height, width))
    assert (card["height"], card["width"]) == dataset.size
    assert f", height={card['height']}, width={card['width']}" in (out / "README.md").read_text()
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "checkpoint")
    pipe.scheduler = opened_scheduler(out)
    expected = ours(recipe, student, noise, 4)
    assert not near(from_pipeline(pipe, family, noise, card, student), expected)
    pipe.load_lora_weights(out)
    found = from_pipeline(pipe, family, noise, card, student)
    assert found.shape == noise.shape and near(found, expected)


def from_pipeline(pipe: Any, family: str, noise: Tensor, card: dict[str, Any], student: Any) -> Tensor:
    """What a pipeline makes of the first prompt, told what the card says."""
    height, width = noise.shape[2:]
    told = {"prompt": PROMPTS[0], "height": card["height"], "width": card["width"], "output_type": "latent"}
    told |= unguided(family)
    told |= {"use_resolution_binning": False} if "pixart" in family or family == "sana" else {}
    told |= {} if family in FIXED else {"max_sequence_length": TOKENS}
    if family == "sd3":  # CLIP's tokens come before T5's
        told["max_sequence_length"] -= pipe.tokenizer_max_length
    if family == "kandinsky3":  # for its pipeline a latent pixel is eight of the picture, and texts have any length
        rows = student.conditions.take(torch.tensor([0]))
        del told["prompt"]
        told |= {"height": 8 * height, "width": 8 * width}
        told |= {"prompt_embeds": rows["prompt_embeds"], "attention_mask": rows["prompt_attention_mask"]}
    pipe.set_progress_bar_config(disable=True)
    latents = card["initial_noise"][STEPS] * noise
    found: Tensor = pipe(latents=pack(latents, family), **told, **card["pipeline_arguments"][STEPS])[0]
    return unpack(found, family, noise)


def test_a_run_of_rectangles_goes_from_shards_to_an_export(launch_here: Callable[..., Done], tmp_path: Path) -> None:
    few = "--teacher.steps 4 --shards.sampler.steps 4 --train.steps 4 --evaluate.num-samples 16 --evaluate.steps 4"
    done = launch_here(str(RECIPE), "--scale", "smoke", "--dataset.size", "16", "24", *few.split())
    assert done.code == 0, done.stderr
    (index,) = (tmp_path / "cache").glob("shards-*/index.json")
    assert read_json(index)["image"] == {"channels": 3, "height": 16, "width": 24, "num_classes": 10}
    assert read_json(done.run / "config.json")["recipe"]["dataset"]["size"] == [16, 24]
    figures = [value for value in read_json(done.run / "eval.json")["student@4"].values() if isinstance(value, float)]
    assert figures and torch.tensor(figures).isfinite().all()
    assert sample([str(done.run), "--folder", "pictures", "--columns", "1"]) == 0
    with Image.open("pictures/class-3-00000.png") as picture:
        assert (picture.height, picture.width) == (16, 24)
    assert sample([str(done.run), "--out", "grid.png", "--columns", "1"]) == 0
    assert export([str(done.run), "--to", "safetensors", "--out", "student.safetensors"]) == 0
    assert sample(["--from", "student.safetensors", "--out", "again.png", "--columns", "1"]) == 0
    assert Path("again.png").read_bytes() == Path("grid.png").read_bytes()
