"""The autoencoders of FLUX.2, Qwen-Image and Z-Image decode and encode as their pipelines do, at any size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from tiny_diffusers import PIPELINES, tiny_model
from tiny_latents import pack, unguided, unpack
from torch import Tensor

from ladd_dist.codecs.vae import Vae
from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec

pytest.importorskip("diffusers", minversion="0.39")  # which has the interfaces of these models

FAMILIES = ("flux2", "flux2_guided", "qwen_image", "z_image")
WIDE = ImageSpec(3, 16, 24, 2)


def pictures(num: int) -> Tensor:
    return torch.rand(num, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_latents_become_the_pictures_of_the_pipeline(family: str, tmp_path: Path) -> None:
    pipe = PIPELINES[family](tiny_model(family), diffusers.FlowMatchEulerDiscreteScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.save_pretrained(tmp_path / "vae")
    codec = Vae(source=str(tmp_path))
    assert codec.latent(WIDE) == ImageSpec(4, 8, 12, 2)
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    told = {"prompt": "a cat", "max_sequence_length": 16, "num_inference_steps": 1, "height": 16, "width": 24}
    latents, expected = (
        pipe(latents=pack(noise.clone(), family), output_type=kind, **told, **unguided(family))[0]
        for kind in ("latent", "pt")
    )
    found = codec.build(image=WIDE).decode(unpack(latents, family, noise))
    torch.testing.assert_close((found / 2 + 0.5).clamp(0, 1), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("family", ["flux2", "qwen_image"])
def test_pictures_become_the_latents_of_the_pipelines_that_take_pictures(family: str, tmp_path: Path) -> None:
    vae = PIPELINES[family](tiny_model(family), None).vae
    vae.save_pretrained(tmp_path / "vae")
    built, given = Vae(source=str(tmp_path)).build(image=WIDE), pictures(5)
    library: Any = diffusers.Flux2Pipeline if family == "flux2" else diffusers.QwenImageEditPipeline
    holder = SimpleNamespace(vae=vae, latent_channels=4, _patchify_latents=diffusers.Flux2Pipeline._patchify_latents)
    with torch.no_grad():
        shown = given if family == "flux2" else given.unsqueeze(2)
        expected = library._encode_vae_image(holder, shown, None).reshape(5, 4, 8, 12)
        torch.testing.assert_close(built.encode(given), expected)


@pytest.mark.parametrize("family", ["flux2", "qwen_image"])
def test_a_decoded_picture_has_a_gradient_in_its_latent_and_leaves_the_weights_alone(
    family: str, tmp_path: Path
) -> None:
    PIPELINES[family](tiny_model(family), None).vae.save_pretrained(tmp_path / "vae")
    built = Vae(source=str(tmp_path)).build(image=WIDE)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    latents = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    built.decode(0.1 * latents).square().mean().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


def test_a_size_that_cannot_be_cut_into_patches_is_refused(tmp_path: Path) -> None:
    PIPELINES["flux2"](tiny_model("flux2"), None).vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"needs a size divisible by 2, the dataset has 16 x 23"):
        Vae(source=str(tmp_path)).latent(ImageSpec(3, 16, 23, 2))
