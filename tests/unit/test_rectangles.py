"""Parts that work on pictures which are no squares: networks, codecs, critics, maps, cards, sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_diffusers import write_model

from ladd_dist.builders.card import student_card
from ladd_dist.codecs.autoencoder_kl import AutoencoderKL
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.types import Autoencoder, ImageSpec
from ladd_dist.critics.pixels import Pixels
from ladd_dist.diagnosis.attention import SaliencyMap, upsampled
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.recipe.point import labels_of, put
from recipes._base import BASE

SPEC = ImageSpec(channels=3, height=16, width=24, num_classes=4)


@pytest.mark.parametrize("image", [SPEC, ImageSpec(3, 24, 16, 4), ImageSpec(3, 8, 32, 4)])
def test_cunet_has_maps_of_the_pictures_proportions(image: ImageSpec) -> None:
    network = CUNet(widths=(16, 16), blocks=1, patch=2, embed_dim=16).build(image=image)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, *image.shape, generator=source)
    out = network(x, torch.ones(2), torch.arange(2), taps=tuple(network.taps))
    assert out.denoised is not None and out.denoised.shape == x.shape
    for tap, (channels, stride) in network.taps.items():
        assert out.features[tap].shape == (2, channels, image.height // stride, image.width // stride), tap


@pytest.mark.parametrize("size", [(16, 20), (20, 16)])
def test_a_side_that_cannot_be_halved_is_refused_with_both(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"image size {size[0]} x {size[1]} is not divisible by 8"):
        CUNet(widths=(16, 16, 16), patch=2).build(image=ImageSpec(3, *size, 4))
    with pytest.raises(UserError, match=rf"image size {size[0]} x {size[1]} is not divisible by 8"):
        AutoencoderKL(widths=(8, 8, 8, 8)).latent(ImageSpec(3, *size, 4))


def test_a_codec_s_latents_have_the_proportions_of_its_pictures() -> None:
    codec = AutoencoderKL(channels=2, widths=(8, 8, 8))
    latent = codec.latent(SPEC)
    assert latent == ImageSpec(2, 4, 6, 4)
    with torch.no_grad():
        network = codec.build(image=SPEC)
        latents = network.encode(torch.zeros(1, *SPEC.shape))
        assert latents.shape == (1, *latent.shape) and network.decode(latents).shape == (1, *SPEC.shape)


class Same(Autoencoder):
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


@pytest.mark.parametrize("size", [0, 32, (64, 32)])
def test_a_pixel_critic_sees_pictures_at_the_size_that_it_is_told(size: int | tuple[int, int]) -> None:
    image = ImageSpec(3, 32, 48, 4)
    teacher = CUNet(widths=(8,), blocks=1, patch=2, embed_dim=8, attention_heads=1).build(image=image)
    chosen = Pixels(source="torchvision", model="squeezenet1_1", weights="random", size=size)
    critic = chosen.build(teacher=teacher, image=image, codec=Same)
    seen = critic.body.prepared(torch.zeros(1, *image.shape))  # type: ignore[operator,union-attr]
    assert seen.shape[2:] == {0: (32, 48), 32: (32, 32), (64, 32): (64, 32)}[size]


def test_a_pixel_critic_s_size_may_be_0_alone() -> None:
    with pytest.raises(RecipeError, match=r"Pixels\.size \(width\): must be at least 1, got 0"):
        Pixels(source="torchvision", model="resnet18", size=(16, 0))


def test_heat_over_latents_is_laid_over_the_whole_picture() -> None:
    heat = torch.zeros(2, 4, 6)
    heat[:, 0, 5] = 1.0
    (found,) = upsampled([SaliencyMap("tap", 1.0, heat, torch.zeros(2))], torch.zeros(2, *SPEC.shape))
    assert found.heat.shape == (2, 16, 24)
    assert found.heat[:, :4, 20:].eq(1).all() and found.heat.sum() == 2 * 16


def test_a_table_of_positions_that_is_too_small_on_one_side_is_refused(tmp_path: Path) -> None:
    network = Diffusers(source=str(write_model(tmp_path, "sd3")), tokens=6)
    with pytest.raises(UserError, match="the model takes sizes up to 16, the dataset has 8 x 18"):
        network.build(image=ImageSpec(4, 8, 18, 3))


def test_the_card_of_an_older_version_has_one_side_for_both(tmp_path: Path) -> None:
    image = {"channels": 3, "size": 16, "num_classes": 10}
    card = {
        "network": {"plugin": "cunet"}, "image": image, "levels": {"1": [80.0]}, "rule": "ode", "recipe": "r",
        "signature": "0123456789",
    }  # fmt: skip
    found = student_card(json.dumps(card), tmp_path)
    assert found["image"] == {"channels": 3, "height": 16, "width": 16, "num_classes": 10}


def test_a_sweep_varies_the_size_of_pictures() -> None:
    sizes = (32, (16, 24))
    for size, label in zip(sizes, ("32", "(16, 24)"), strict=True):
        point = {"dataset.size": size}
        recipe = put(BASE.smoke, point)
        assert recipe.latent().shape == (3, *((size, size) if isinstance(size, int) else size))
        assert labels_of(recipe, point, {"dataset.size": list(sizes)}) == (("dataset.size", label),)
