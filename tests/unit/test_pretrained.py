"""What identifies a checkpoint, and what of it is never read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_texts import autoencoder, write_pipeline

from ladd_dist.codecs.vae import Vae
from ladd_dist.core import pretrained
from ladd_dist.core.errors import ConsentError
from ladd_dist.core.pretrained import digest, locate, require_safetensors
from ladd_dist.core.serialize import signature
from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.diffusers import Diffusers

IMAGE = ImageSpec(3, 16, 16, 2)


def weights(path: Path, **tensors: torch.Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def test_the_same_content_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    a = weights(tmp_path / "a" / "w.safetensors", x=torch.ones(3000), y=torch.zeros(5))
    b = weights(tmp_path / "b" / "w.safetensors", x=torch.ones(3000), y=torch.zeros(5))
    assert digest([a]) == digest([b])


@pytest.mark.parametrize("changed", ["value", "name", "shape", "last tensor"])
def test_other_weights_have_another_digest(changed: str, tmp_path: Path) -> None:
    plain = {"x": torch.ones(3000), "y": torch.zeros(3000)}
    other = {
        "value": {**plain, "x": plain["x"] * 1.001},
        "name": {"x": plain["x"], "z": plain["y"]},
        "shape": {**plain, "y": torch.zeros(3001)},
        "last tensor": {**plain, "y": torch.full((3000,), 1e-6)},
    }[changed]
    found = [digest([weights(tmp_path / f"{n}.safetensors", **held)]) for n, held in enumerate((plain, other))]
    assert found[0] != found[1]


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = weights(tmp_path / "w.safetensors", x=torch.ones(9))
    before = digest([path])
    weights(path, x=torch.zeros(9))
    os.utime(path, ns=(1, 1))
    assert digest([path]) != before


def test_notes_of_the_library_in_a_configuration_do_not_count(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{n}.json" for n in range(3))
    one.write_text(json.dumps({"_class_name": "A", "_diffusers_version": "1", "size": 3}))
    two.write_text(json.dumps({"size": 3, "_class_name": "A", "_diffusers_version": "2"}, indent=2))
    three.write_text(json.dumps({"size": 3, "_class_name": "B"}))
    assert digest([one]) == digest([two]) != digest([three])


def test_a_checkpoint_is_itself_in_another_folder_and_without_its_text_encoder(tmp_path: Path) -> None:
    first, second = (write_pipeline(tmp_path / name, "sd") for name in ("one", "two"))
    for part in ("text_encoder", "tokenizer"):
        (second / part).rename(tmp_path / part)
    assert signature(Diffusers(source=str(first))) == signature(Diffusers(source=str(second)))
    assert signature(Vae(source=str(first))) == signature(Vae(source=str(second)))
    other = write_pipeline(tmp_path / "three", "sd", seed=1)
    assert signature(Diffusers(source=str(first))) != signature(Diffusers(source=str(other)))
    assert signature(Vae(source=str(first))) != signature(Vae(source=str(other)))
    assert signature(Diffusers(source="org/model")) != signature(Diffusers(source="org/model", revision="v2"))


def test_a_pickle_is_never_an_alternative(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ValueError, match=r"only as a pickle \(diffusion_pytorch_model\.bin\).*save_pretrained"):
        require_safetensors(tmp_path, "diffusion_pytorch_model")


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codec\.source is empty"):
        locate("", field="codec.source")
    with pytest.raises(ValueError, match=r"network\.source: .* is no folder"):
        locate(str(tmp_path / "none"), field="network.source")


@pytest.mark.parametrize("family", ["sd", "kandinsky3", "sana"])
def test_an_autoencoder_decodes_as_the_library_does(family: str, tmp_path: Path) -> None:
    codec = Vae(source=str(write_pipeline(tmp_path, family)))
    assert codec.latent(IMAGE) == ImageSpec(4, 8, 8, 2)
    built = codec.build(image=IMAGE)
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model, more = built.model, {"force_not_quantize": True} if family == "kandinsky3" else {}  # type: ignore[attr-defined]
    scale = 1.0 if family == "kandinsky3" else model.config.scaling_factor
    assert scale != 1.0 or family == "kandinsky3"
    with torch.no_grad():
        expected = model.decode(latents / scale, **more).sample
        torch.testing.assert_close(built.decode(latents), expected)
    assert built.encode(torch.zeros(6, 3, 16, 16)).shape == (6, 4, 8, 8)


def test_shift_and_scale_are_those_of_the_configuration(tmp_path: Path) -> None:
    model = autoencoder("sd")
    model.register_to_config(shift_factor=0.25, scaling_factor=2.0)
    model.save_pretrained(tmp_path / "vae")
    built = Vae(source=str(tmp_path)).build(image=IMAGE)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = built.encode(images)
        plain = built.model.encode(images).latent_dist.mode()  # type: ignore[attr-defined]
        torch.testing.assert_close(latents, (plain - 0.25) * 2.0)
        torch.testing.assert_close(built.decode(latents), built.model.decode(plain).sample)  # type: ignore[attr-defined]


def test_a_decoded_picture_has_a_gradient_in_its_latent(tmp_path: Path) -> None:
    built = Vae(source=str(write_pipeline(tmp_path, "sd"))).build(image=IMAGE)
    latents = torch.zeros(6, 4, 8, 8, requires_grad=True)
    built.decode(latents).square().sum().backward()
    assert latents.grad is not None and latents.grad.abs().sum() > 0


def test_pictures_that_an_autoencoder_does_not_take_are_refused(tmp_path: Path) -> None:
    codec = Vae(source=str(write_pipeline(tmp_path, "sd")))
    with pytest.raises(ValueError, match="encodes pictures of 3 channels, the dataset has 1"):
        codec.latent(ImageSpec(1, 16, 16, 2))
    with pytest.raises(ValueError, match="a size divisible by 2, the dataset has 15"):
        codec.latent(ImageSpec(3, 15, 15, 2))
    with pytest.raises(ValueError, match="holds no autoencoder"):
        Vae(source=str(tmp_path), subfolder="unet").latent(IMAGE)


def test_a_repository_that_a_file_from_outside_names_is_read_from_its_local_copy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def snapshot(repo: str, *, local_files_only: bool = False, **more: object) -> str:
        asked.append(not local_files_only)
        if not (tmp_path / "copy").is_dir():
            raise OSError("not here")
        return str(tmp_path / "copy")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    pretrained.from_outside({"network": {"parts": [{"source": "theirs/model"}]}, "seed": 3}, "RUN/config.json")
    with pytest.raises(ConsentError, match=r"RUN/config.json names 'theirs/model'.*--hub theirs/model"):
        locate("theirs/model", field="network.source", patterns=["unet/*.safetensors"])
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.json").write_text("{}")
    with pytest.raises(ConsentError):  # the copy lacks what is looked for
        locate("theirs/model", field="network.source", patterns=["unet/*.safetensors"])
    assert locate("theirs/model", field="network.source", patterns=["*.json"]) == tmp_path / "copy"
    assert asked and not any(asked)
    pretrained.allow(["theirs/model"])
    assert locate("theirs/model", field="network.source", patterns=["unet/*.safetensors"]) == tmp_path / "copy"
    assert locate("mine/model", field="network.source") == tmp_path / "copy"
    assert asked[-2:] == [True, True]
