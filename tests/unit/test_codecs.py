"""Codecs: what they make of images, and that latents come back as the images they were."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from ladd_dist.builders.codec import decode, load_codec, packed
from ladd_dist.codecs import CodecTraining, TrainableAutoencoder
from ladd_dist.codecs.autoencoder_kl import SIGMA_DATA, AutoencoderKL
from ladd_dist.codecs.given import Given
from ladd_dist.codecs.pixels import Pixels
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.types import ImageSpec
from ladd_dist.stages.table import stage_table
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from recipes.exp7_stored_smooth_l1 import RECIPE as EXP7
from recipes.latent_digits import RECIPE

IMAGE = ImageSpec(3, 16, 16, 10)
CODEC = AutoencoderKL(channels=5, widths=(8, 8, 16))


def built(seed: int = 0) -> TrainableAutoencoder:
    torch.manual_seed(seed)
    return CODEC.build(image=IMAGE)


def images(num: int = 6) -> torch.Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_are_as_the_codec_says() -> None:
    codec = built()
    latent = CODEC.latent(IMAGE)
    assert latent == ImageSpec(5, 4, 4, 10)
    with torch.no_grad():
        latents = codec.encode(images())
        assert latents.shape == (6, *latent.shape)
        assert codec.decode(latents).shape == (6, 3, 16, 16)
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_a_size_that_cannot_be_halved_so_often_is_refused_with_what_to_change() -> None:
    with pytest.raises(ValueError, match=r"image size 18 is not divisible by 4 .*codec\.widths"):
        CODEC.latent(ImageSpec(3, 18, 18, 10))


def test_a_given_codec_is_the_one_in_a_students_file(tmp_path: Path) -> None:
    codec, path = built(3), tmp_path / "student.safetensors"
    save_tensors(path, {**packed(codec.state_dict()), "stem.weight": torch.ones(2)})
    given = Given(codec=CODEC, weights=str(path))
    assert given.latent(IMAGE) == CODEC.latent(IMAGE) and not given.trained
    with torch.no_grad():
        assert torch.equal(given.build(image=IMAGE).encode(images()), codec.encode(images()))
    moved = Given(codec=CODEC, weights=str(path.rename(tmp_path / "moved.safetensors")))
    named = EXP7.smoke
    before = dataclasses.replace(named, codec=moved).teacher_signature()
    save_tensors(path, packed(built(4).state_dict()))
    assert before != dataclasses.replace(named, codec=given).teacher_signature(), "of other weights"
    with pytest.raises(UserError, match=r"has the weights of an autoencoder that is not codec\.codec"):
        dataclasses.replace(given, codec=AutoencoderKL(channels=4, widths=(8, 8, 16))).build(image=IMAGE)
    with pytest.raises(UserError, match="codec: 'pixels' has no weights of a student's file"):
        Given(codec=Pixels())


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"widths": (12,)}, {"widths": ()}, {"blocks": 0}, {"kl_weight": -1.0}], ids=str
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"(?i)autoencoder_?kl.*{next(iter(wrong))}"):
        AutoencoderKL(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size: must be at least 1"):
        CodecTraining(batch_size=0)


def test_calibrated_latents_have_the_deviation_that_networks_expect_and_decode_to_the_same_images() -> None:
    codec = built()
    with torch.no_grad():
        before = codec.decode(codec.encode(images()))
        codec.calibrate(images())
        latents = codec.encode(images())
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
        assert float(latents.std()) == pytest.approx(SIGMA_DATA, rel=1e-3)
        torch.testing.assert_close(codec.decode(latents), before, rtol=1e-4, atol=1e-5)


def test_latents_that_are_all_alike_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="all alike"):
        built().calibrate(torch.zeros(4, 3, 16, 16).fill_(torch.nan))


def test_training_losses_are_the_closed_forms() -> None:
    codec = built()
    latent = CODEC.latent(IMAGE)
    eps = torch.zeros(6, *latent.shape)
    with torch.no_grad():
        found = codec(images(), eps)
        again = codec.decode(codec.encode(images()))  # without noise: the mean alone
        posterior = codec.network.encode(images()).latent_dist  # type: ignore[union-attr,operator]
    torch.testing.assert_close(found["error"], (again - images()).square().mean())
    torch.testing.assert_close(found["kl"], posterior.kl().sum() / eps.numel())
    torch.testing.assert_close(found["loss"], found["error"] + CODEC.kl_weight * found["kl"])


def test_decoding_in_batches_changes_nothing() -> None:
    codec, latents = built(), torch.randn(5, 5, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(decode(codec, latents, 2), codec.decode(latents), rtol=1e-4, atol=1e-5)


def test_pixels_are_left_alone_and_copied_by_nobody() -> None:
    codec, x = Pixels().build(image=IMAGE), images()
    assert codec.encode(x) is x
    assert decode(codec, x, 2) is x
    assert Pixels().latent(IMAGE) == IMAGE


def test_the_stage_is_there_only_for_recipes_that_need_it() -> None:
    assert next(iter(stage_table(RECIPE.smoke))) == "autoencoder"
    assert "autoencoder" not in stage_table(EXP7.smoke)


def test_without_diffusers_the_recipe_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'ladd_dist\[diffusers\]'"):
        CODEC.build(image=IMAGE)


def test_a_codec_that_was_not_trained_yet_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--stages autoencoder"):
        load_codec(Run(RECIPE.smoke, Workspace(tmp_path, tmp_path, torch.device("cpu"))))


def test_another_codec_is_another_teacher_and_how_often_it_is_saved_is_not() -> None:
    recipe = RECIPE.smoke
    assert isinstance(recipe.codec, AutoencoderKL)
    training = recipe.codec.training
    other = dataclasses.replace(recipe, codec=dataclasses.replace(recipe.codec, kl_weight=0.5))
    training = dataclasses.replace(training, checkpoint_every=7)
    same = dataclasses.replace(recipe, codec=dataclasses.replace(recipe.codec, training=training))
    assert other.autoencoder_signature() != recipe.autoencoder_signature() == same.autoencoder_signature()
    assert other.teacher_signature() != recipe.teacher_signature() == same.teacher_signature()
