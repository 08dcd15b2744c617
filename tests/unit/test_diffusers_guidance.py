"""Guidance of FLUX.2 klein, Qwen-Image and Z-Image: the shards' own is their pipelines', in their units."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from tiny_diffusers import LATENTS, PIPELINES, TOKENS, tiny_model, tiny_table, write_model
from tiny_latents import pack, unpack

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.noise import few_step_sample, guided
from ladd_dist.networks.diffusers import Diffusers

pytest.importorskip("diffusers", minversion="0.39")  # which has the interfaces of these models

SHARES = (0.9, 0.6, 0.3)
LEVELS = tuple(share / (1 - share) for share in SHARES)
SCALE = 4.0


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("flux2", {"guidance_scale": SCALE}),
        ("qwen_image", {"true_cfg_scale": SCALE}),
        ("z_image", {"guidance_scale": SCALE - 1}),  # which counts what is added to the conditional prediction
    ],
)
def test_a_guided_teacher_samples_as_the_librarys_pipeline(family: str, told: dict[str, float], tmp_path: Path) -> None:
    module = Diffusers(source=str(write_model(tmp_path, family)), tokens=TOKENS).load(image=LATENTS)
    table = tiny_table(module.condition_shapes)
    module.attach(Conditions(table))
    teacher = guided(lambda x, s, c: module(x, s, c).denoised, SCALE, LATENTS.num_classes, module.rescaled)
    noise = torch.randn(1, *LATENTS.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = few_step_sample(teacher, noise, torch.tensor([1]), LEVELS, "ode")

    given = {}
    for prefix, row in (("", 1), ("negative_", LATENTS.num_classes)):
        states = table["prompt_embeds"][row : row + 1]
        if family == "z_image":
            given[f"{prefix}prompt_embeds"] = [states[0, : int(table["prompt_attention_mask"][row].sum())]]
        else:
            given[f"{prefix}prompt_embeds"] = states
        if family == "qwen_image":
            given[f"{prefix}prompt_embeds_mask"] = table["prompt_attention_mask"][row : row + 1]
    pipe = PIPELINES[family](tiny_model(family), diffusers.FlowMatchEulerDiscreteScheduler())
    pipe.set_progress_bar_config(disable=True)
    size = {"height": 16, "width": 16, "output_type": "latent", "sigmas": list(SHARES)}
    found = unpack(pipe(latents=pack(0.9 * noise, family), **size, **given, **told)[0], family, noise)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_without_guidance_nothing_is_scaled(tmp_path: Path) -> None:
    module = Diffusers(source=str(write_model(tmp_path, "qwen_image")), tokens=TOKENS).load(image=LATENTS)
    same, x = torch.randn(2, 2, *LATENTS.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module.rescaled(same, same, x, torch.tensor([0.5, 30.0])), same, atol=1e-4, rtol=1e-4)
