"""A student of every family, exported for diffusers and sampled by the library's own pipeline."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from ladd_dist.workspace.run import Run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_latents import pack, unguided, unpack
from tiny_texts import PIPELINES, write_pipeline

from ladd_dist.builders.sampling import sample_few
from ladd_dist.builders.student import save_student
from ladd_dist.builders.student_file import load_student
from ladd_dist.codecs.vae import Vae
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.rng import added_noise, sample_noise
from ladd_dist.core.rundir import RunDir, read_json
from ladd_dist.core.types import Denoiser
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.export import main as export
from ladd_dist.levels.named import Good
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.recipe import Recipe, validate
from ladd_dist.starts.couplings import Stored
from ladd_dist.students.lora import Lora
from ladd_dist.workspace.config import RunFacts, write_config
from ladd_dist.workspace.workspace import Workspace
from recipes._base import SMOKE

PROMPTS = ["a cat", "two birds; one cup"]
FAMILIES = [*PIPELINES, "class_unet", "unet"]
TOKENS = 12
FIXED = ("sd", "sdxl", "kandinsky3", "class_unet", "unet")
"""Families whose texts have one length, or which read none."""
GRID = {"kandinsky3": (979, 479), "unet": (900, 400)}
"""Timesteps of the student of pipelines that take no levels: those that DDIM can be made to visit."""


def family_recipe(source: Path, family: str, **changes: Any) -> Recipe:
    (source.parent / "prompts.txt").write_text("\n".join(PROMPTS))
    dataset = Prompts(file=str(source.parent / "prompts.txt"), size=32 if family == "sana" else 16)
    if family not in PIPELINES:
        dataset = Prompts(size=16, num_classes=3 if family == "class_unet" else 1)
    recipe = dataclasses.replace(
        SMOKE,
        dataset=dataset,
        network=Diffusers(source=str(source), tokens=0 if family in FIXED else TOKENS),
        codec=Vae(source=str(source)),
        levels=levels_for(source, family),
        start=Stored(),
        student_steps=2,
        evaluate=dataclasses.replace(SMOKE.evaluate, steps=(2, 1)),
    )
    return validate(dataclasses.replace(recipe, **changes))


def levels_for(source: Path, family: str) -> Good:
    two = (9.0, 1.1)
    if family in GRID:
        times = torch.tensor([float(time) for time in GRID[family]])
        config = read_json(source / "scheduler" / "scheduler_config.json")
        alpha_bar = diffusers.DDPMScheduler.from_config(config).alphas_cumprod.double()[times.long()]
        two = tuple(((1 - alpha_bar) / alpha_bar).sqrt().tolist())
    return Good(two=two, one=two[:1])


def finished_run(tmp_path: Path, family: str, **changes: Any) -> tuple[RunDir, Recipe, Denoiser]:
    """The folder of a run whose student differs from its teacher, as if it had been trained."""
    recipe = family_recipe(write_pipeline(tmp_path / "checkpoint", family), family, **changes)
    workspace = Workspace(tmp_path / "runs", tmp_path / "cache", torch.device("cpu"))
    run = Run(recipe, workspace).folder
    run.create()
    facts = RunFacts(recipe.name, "smoke", recipe.distill_signature(), {}, (), {}, ())
    write_config(Run(recipe, workspace), facts, path=Path("r.py"), plugins=(), command="ladd launch r.py")
    student = recipe.student.prepare(recipe.network.load(image=recipe.latent()))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in (weight for weight in student.parameters() if weight.requires_grad):
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    save_student(run.student, student, Run(recipe, workspace))
    return run, recipe, load_student(run.path, torch.device("cpu"))[0]


def ours(recipe: Recipe, student: Denoiser, noise: Tensor, steps: int) -> Tensor:
    """The student's sample of the first prompt, or class 0."""
    if student.condition_shapes:
        parts = list(recipe.network.encode(PROMPTS, image=recipe.dataset.spec(), device=torch.device("cpu")))
        student.attach(Conditions({name: torch.cat([part[name] for part in parts]) for name in parts[0]}))
    cond = torch.zeros(len(noise), dtype=torch.int64)
    return sample_few(student, noise, cond, recipe.levels(steps), "ode", added_noise(0, range(len(noise))))


def near(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", PIPELINES)
def test_the_exported_pipeline_samples_as_the_student(family: str, tmp_path: Path) -> None:
    run, recipe, student = finished_run(tmp_path, family)
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "diffusers", "--out", str(out)]) == 0
    noise = sample_noise(0, range(1), (4, 8, 8))
    expected = ours(recipe, student, noise, 2)
    shutil.rmtree(tmp_path / "checkpoint")  # the folder stands alone
    pipe = diffusers.DiffusionPipeline.from_pretrained(out)
    assert type(pipe).__name__ == read_json(out / "model_index.json")["_class_name"]
    texts = {"prompt": PROMPTS[0]}
    if family == "kandinsky3":  # its pipeline cuts texts to the longest of a batch, and the model pools over all tokens
        rows = student.conditions.take(torch.tensor([0]))  # type: ignore[union-attr]
        texts = {"prompt_embeds": rows["prompt_embeds"], "attention_mask": rows["prompt_attention_mask"]}
    assert near(from_pipeline(pipe, family, noise, out, texts), expected)
    assert "DiffusionPipeline.from_pretrained" in (out / "README.md").read_text()


LOADABLE = [family for family in PIPELINES if not family.startswith(("kandinsky", "pixart"))]


@pytest.mark.parametrize("family", LOADABLE)
def test_an_exported_adapter_makes_the_teachers_pipeline_the_student(family: str, tmp_path: Path) -> None:
    run, recipe, student = finished_run(tmp_path, family, student=Lora(rank=3, alpha=6.0))
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "lora", "--out", str(out)]) == 0
    noise = sample_noise(0, range(1), (4, 8, 8))
    expected = ours(recipe, student, noise, 2)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "checkpoint")
    pipe.scheduler = opened_scheduler(out)
    texts = {"prompt": PROMPTS[0]}
    assert not near(from_pipeline(pipe, family, noise, out, texts), expected)
    pipe.load_lora_weights(out)
    assert near(from_pipeline(pipe, family, noise, out, texts), expected)


def test_a_student_with_an_adapter_is_also_exported_whole(tmp_path: Path) -> None:
    run, recipe, student = finished_run(tmp_path, "sd", student=Lora(rank=3, alpha=6.0))
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "diffusers", "--out", str(out)]) == 0
    pipe = diffusers.DiffusionPipeline.from_pretrained(out)
    noise = sample_noise(0, range(1), (4, 8, 8))
    expected = ours(recipe, student, noise, 2)
    assert near(from_pipeline(pipe, "sd", noise, out, {"prompt": PROMPTS[0]}), expected)
    card = read_json(out / "student.json")
    assert card["merged"]["plugin"] == "lora" and "student" not in card


@pytest.mark.parametrize(
    ("family", "to", "changes", "message"),
    [
        ("pixart", "lora", {"student": Lora()}, "diffusers cannot load adapters into PixArtTransformer2DModel"),
        ("kandinsky3", "lora", {"student": Lora()}, "--to diffusers writes the whole model"),
        ("sd", "lora", {}, "all of this student's weights were trained, not an adapter; use --to diffusers"),
    ],
)
def test_what_the_library_cannot_load_is_refused(
    family: str, to: str, changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, _ = finished_run(tmp_path, family, **changes)
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", to, "--out", str(out)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def opened_scheduler(out: Path) -> Any:
    config = read_json(out / "scheduler" / "scheduler_config.json")
    return getattr(diffusers, config["_class_name"]).from_pretrained(out / "scheduler")


def from_pipeline(pipe: Any, family: str, noise: Tensor, out: Path, texts: dict[str, Any], steps: int = 2) -> Tensor:
    """What the pipeline makes of the same noise, told what the card in `out` says."""
    card = read_json(out / "student.json")
    size = 32 if family == "sana" else 16
    told = {"height": size, "width": size, "output_type": "latent"} | unguided(family)
    told |= {"use_resolution_binning": False} if "pixart" in family or family == "sana" else {}
    told |= {} if family in FIXED else {"max_sequence_length": TOKENS}
    if family == "sd3":  # CLIP's tokens come before T5's
        told["max_sequence_length"] -= pipe.tokenizer_max_length
    latents = pack(card["initial_noise"][str(steps)] * noise, family)
    pipe.set_progress_bar_config(disable=True)
    found = pipe(latents=latents, **texts, **told, **card["pipeline_arguments"][str(steps)])[0]
    return unpack(found, family, noise)


def test_models_without_a_pipeline_are_sampled_by_their_scheduler(tmp_path: Path) -> None:
    run, recipe, student = finished_run(tmp_path, "unet")
    out = tmp_path / "exported"
    assert export([str(run.path), "--to", "diffusers", "--out", str(out)]) == 0
    model = diffusers.UNet2DModel.from_pretrained(out / "unet")
    scheduler = diffusers.DDIMScheduler.from_pretrained(out / "scheduler")
    noise = sample_noise(0, range(2), (4, 8, 8))
    scheduler.set_timesteps(2)
    assert scheduler.timesteps.tolist() == [900, 400]
    x = read_json(out / "student.json")["initial_noise"]["2"] * noise
    with torch.no_grad():
        for time in scheduler.timesteps:
            x = scheduler.step(model(x, time).sample, time, x).prev_sample
    assert near(x, ours(recipe, student, noise, 2))


def test_a_network_of_ours_says_why_not(smoke: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for to in ("diffusers", "lora"):
        assert export([str(smoke[0].run), "--to", to, "--out", str(tmp_path / "exported")]) == 1
        assert "network is 'cunet', which diffusers does not have; --to safetensors" in capsys.readouterr().err
