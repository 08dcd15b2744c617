"""FLUX.2, Qwen-Image and Z-Image at other shapes than squares: positions, taps and samples are the pipelines' own."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import diffusers
import pytest
import torch
from tiny_diffusers import PIPELINES, TOKENS, tiny_model, tiny_table, write_model
from tiny_latents import pack, unguided, unpack
from torch import Tensor

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.networks.diffusers import Diffusers

pytest.importorskip("diffusers", minversion="0.39")  # which has the interfaces of these models

FAMILIES = ("flux2", "flux2_guided", "qwen_image", "z_image")
SIZES = ((8, 16), (12, 8), (6, 10))  # 1:2, 3:2, and one whose halves are odd
FOLDER = tempfile.TemporaryDirectory(prefix="rectangles-")  # until the tests end
SHARES = (0.9, 0.6, 0.3)


@functools.cache
def source(family: str) -> str:
    return str(write_model(Path(FOLDER.name) / family, family))


def denoiser(family: str, height: int, width: int) -> Denoiser:
    module = Diffusers(source=source(family), tokens=TOKENS).load(image=ImageSpec(4, height, width, 3))
    module.attach(Conditions(tiny_table(module.condition_shapes)))
    return module.requires_grad_(False)


def noise(num: int, height: int, width: int) -> Tensor:
    return torch.randn(num, 4, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_few_steps_give_what_the_librarys_pipeline_gives(family: str, size: tuple[int, int]) -> None:
    module, start, cond = denoiser(family, *size), noise(1, *size), torch.tensor([1])
    levels = tuple(share / (1 - share) for share in SHARES)
    expected = few_step_sample(lambda x, s, c: module(x, s, c).denoised, start, cond, levels, "ode")
    pipe = PIPELINES[family](tiny_model(family), diffusers.FlowMatchEulerDiscreteScheduler())
    pipe.set_progress_bar_config(disable=True)
    rows = {name: tensor[cond] for name, tensor in tiny_table(module.condition_shapes).items()}
    told = {"height": 2 * size[0], "width": 2 * size[1], "output_type": "latent"} | unguided(family)
    told["prompt_embeds"] = rows["prompt_embeds"]
    if family == "z_image":
        told["prompt_embeds"] = [rows["prompt_embeds"][0][rows["prompt_attention_mask"][0].bool()]]
    if family == "qwen_image":
        told["prompt_embeds_mask"] = rows["prompt_attention_mask"]
    found = pipe(latents=pack(0.9 * start, family), sigmas=list(SHARES), **told)[0]
    assert torch.allclose(unpack(found, family, start), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_feature_map_lies_as_the_picture_does(family: str) -> None:
    module, size = denoiser(family, 8, 16), (8, 16)
    level, cond = torch.full((2,), 0.5), torch.zeros(2, dtype=torch.int64)
    x = noise(2, *size)
    x[1] = x[0]
    x[1, :, :4, 10:] += 3.0  # rows 0 to 3, columns 10 to 15
    out = module(x, level, cond, taps=tuple(module.taps))
    for tap, (channels, stride) in module.taps.items():
        feature = out.features[tap]
        assert feature.shape == (2, channels, 8 // stride, 16 // stride)
        change = (feature[1] - feature[0]).square().mean(dim=0)
        inside = change[: 4 // stride, 10 // stride :]
        assert inside.min() > change[4 // stride :, : 10 // stride].mean(), tap
