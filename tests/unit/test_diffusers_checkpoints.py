"""What is no checkpoint, or the wrong one, gets one message that says what to do; usual layouts are found."""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
from tiny_diffusers import LATENTS, SCHEDULERS, tiny_model, write_model

from ladd_dist.codecs.vae import Vae
from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers import Diffusers

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_model(tmp_path / "teacher", "unet")


def load(source: Path | str, image: ImageSpec = LATENTS, **settings: Any) -> dict[str, torch.Tensor]:
    module = Diffusers(source=str(source), **settings).load(image=image)
    return {name.removeprefix("model."): tensor for name, tensor in module.state_dict().items()}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_the_weights_are_the_checkpoints_and_build_draws_its_own(pipeline: Path) -> None:
    expected = tiny_model("unet").state_dict()
    found = load(pipeline)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.manual_seed(0)
    first = Diffusers(source=str(pipeline)).build(image=LATENTS).state_dict()
    assert not torch.equal(first["model.conv_in.weight"], expected["conv_in.weight"])
    torch.manual_seed(0)
    again = Diffusers(source=str(pipeline)).build(image=LATENTS).state_dict()
    assert torch.equal(first["model.conv_in.weight"], again["model.conv_in.weight"])


def test_every_usual_layout_is_found(tmp_path: Path, pipeline: Path) -> None:
    flat = tmp_path / "flat"
    shutil.copytree(pipeline / "unet", flat)
    shutil.copy(pipeline / "scheduler" / "scheduler_config.json", flat)
    inside = tmp_path / "inside"
    shutil.copytree(pipeline / "unet", inside)
    shutil.copytree(pipeline / "scheduler", inside / "scheduler")
    other = tmp_path / "other"
    shutil.copytree(pipeline / "unet", other / "unet_ema")
    shutil.copytree(pipeline / "scheduler", other / "scheduler")
    expected = load(pipeline)
    for source, subfolder in ((flat, ""), (inside, ""), (pipeline / "unet", ""), (other, "unet_ema")):
        found = load(source, subfolder=subfolder)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items()), source


def test_configuration_files_alone_are_enough_to_plan(tmp_path: Path, pipeline: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(pipeline, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with torch.device("meta"):
        planned = Diffusers(source="somebody/far-away", config=str(bare)).build(image=LATENTS)
    assert sum(p.numel() for p in planned.parameters()) == sum(p.numel() for p in tiny_model("unet").parameters())
    with pytest.raises(ValueError, match=rf"has no weights \({WEIGHTS}\)"):
        load(bare)


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    tiny_model("unet").save_pretrained(tmp_path / "unet", max_shard_size="200KB")
    SCHEDULERS["unet"]().save_pretrained(tmp_path / "scheduler")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    assert load(tmp_path).keys() == tiny_model("unet").state_dict().keys()


def test_pixart_as_it_was_named_at_first_is_known(tmp_path: Path) -> None:
    write_model(tmp_path, "pixart")
    edit(tmp_path / "transformer" / "config.json", _class_name="Transformer2DModel")
    assert load(tmp_path).keys() == tiny_model("pixart").state_dict().keys()


def test_weights_are_read_from_safetensors_alone(pipeline: Path) -> None:
    weights = pipeline / "unet" / WEIGHTS
    torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
    expected = load(pipeline)
    weights.unlink()
    with pytest.raises(ValueError, match=r"only as a pickle \(diffusion_pytorch_model.bin\), which could run code"):
        load(pipeline)
    assert expected


@pytest.mark.parametrize("damage", ["cut", "missing", "shape"])
def test_weights_that_do_not_fit_are_refused(pipeline: Path, damage: str) -> None:
    weights = pipeline / "unet" / WEIGHTS
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        tensors = safetensors.torch.load_file(weights)
        if damage == "missing":
            del tensors["conv_in.weight"]
        else:
            tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :2].contiguous()
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    message = r"do not fit config.json: conv_in.weight" if damage == "missing" else r"unet: the weights cannot be read"
    with pytest.raises(ValueError, match=message):
        load(pipeline)


@pytest.mark.parametrize(
    "change",
    [
        {"layers_per_block": 10_000_000},
        {"layers_per_block": 200_000_000},
        {"block_out_channels": [8_000_000, 8_000_000]},
        {"block_out_channels": [32] * 100_000},
        {"block_out_channels": "many"},
        {"block_out_channels": 3},
        {"in_channels": None},
        {"in_channels": []},
        {"_class_name": ["UNet2DConditionModel"]},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_configuration_beyond_its_weights_or_of_wrong_types_is_one_message_soon(
    pipeline: Path, change: dict[str, Any]
) -> None:
    edit(pipeline / "unet" / "config.json", **change)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for make in (load, lambda source: Diffusers(source=str(source)).build(image=LATENTS)):
        with pytest.raises(UserError, match=r"unet"):
            make(pipeline)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000  # kB
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": 3}, {"block_out_channels": []}, {"block_out_channels": [32] * 500},
        {"latent_channels": "4"}, {"latent_channels": 2**40}, {"_class_name": {}},
    ],
    ids=lambda change: str(change)[:50],
)  # fmt: skip
def test_an_autoencoders_configuration_of_wrong_types_is_one_message(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {"_class_name": "AutoencoderKL", "block_out_channels": [32, 32], "latent_channels": 4, "in_channels": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Vae(source=str(tmp_path)).latent(ImageSpec(3, 16, 16, 1)) == ImageSpec(4, 8, 8, 1)
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=str(tmp_path)):
        Vae(source=str(tmp_path)).latent(ImageSpec(3, 16, 16, 1))


def test_a_missing_scheduler_is_named(pipeline: Path) -> None:
    shutil.rmtree(pipeline / "scheduler")
    with pytest.raises(ValueError, match=r"has no scheduler beside it .*scheduler/scheduler_config.json"):
        load(pipeline)


@pytest.mark.parametrize("name", ["UNetSpatioTemporalConditionModel", "AutoencoderKL", None])
def test_an_unknown_model_class_lists_those_that_are_known(pipeline: Path, name: str | None) -> None:
    edit(pipeline / "unet" / "config.json", _class_name=name)
    with pytest.raises(ValueError, match=rf"the model is a {name}; supported are UNet2DModel, .*Sana"):
        load(pipeline)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no diffusers checkpoint: there is no unet/config.json, transformer/"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"there is no prior/config.json"):
        load(tmp_path, subfolder="prior")
    with pytest.raises(ValueError, match=r"network.source: /no/where is no folder"):
        load("/no/where")
    with pytest.raises(ValueError, match=r"network.source is empty"):
        load("")


def test_a_damaged_configuration_is_named(pipeline: Path) -> None:
    edit(pipeline / "unet" / "config.json", block_out_channels=[16, 32, 64])
    with pytest.raises(ValueError, match=r"unet/config.json: diffusers refuses it: .*block_out_channels"):
        load(pipeline)
    (pipeline / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        load(pipeline)


def test_a_repository_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"'nobody/nothing' is no folder here, and the hub does not give it .*hf download"
    ):
        load("nobody/nothing")


def test_a_repository_is_read_from_the_hubs_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pipeline: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--somebody--teacher"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(pipeline, repository / "snapshots" / commit)
    expected, found = load(pipeline), load("somebody/teacher")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("family", "image", "message"),
    [
        ("unet", ImageSpec(3, 8, 8, 3), r"unet: the model works on 4 channels, the dataset has 3"),
        ("unet", ImageSpec(4, 7, 7, 3), r"the model takes sizes divisible by 2, the dataset has 7"),
        ("kandinsky3", ImageSpec(4, 6, 6, 3), r"the model takes sizes divisible by 4, the dataset has 6"),
        ("flux", ImageSpec(16, 8, 8, 3), r"transformer: the model works on 4 channels, the dataset has 16"),
        ("flux", ImageSpec(4, 7, 7, 3), r"sizes divisible by 2"),
        ("sd3", ImageSpec(4, 18, 18, 3), r"the model takes sizes up to 16, the dataset has 18"),
        ("z_image", ImageSpec(4, 8, 130, 3), r"the model takes sizes up to 128, the dataset has 8 x 130"),
        ("class_unet", ImageSpec(4, 8, 8, 10), r"the model knows 4 classes, the dataset has 10"),
    ],
)
def test_latents_that_the_model_does_not_take_are_refused(
    tmp_path: Path, family: str, image: ImageSpec, message: str
) -> None:
    write_model(tmp_path, family)
    for make in (Diffusers(source=str(tmp_path)).load, Diffusers(source=str(tmp_path)).build):
        with pytest.raises(ValueError, match=message):
            make(image=image)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("sd", {"addition_embed_type": "text"}),
        ("sd", {"class_embed_type": "projection"}),
        ("sd", {"encoder_hid_dim_type": "image_proj"}),
        ("unet", {"class_embed_type": "timestep"}),
        ("unet", {"time_embedding_type": "fourier"}),
        ("flux", {"patch_size": 2}),
        ("sana", {"guidance_embeds": True}),
        ("flux2", {"patch_size": 2}),
        ("qwen_image", {"zero_cond_t": True}),
        ("qwen_image", {"guidance_embeds": True}),
        ("z_image", {"siglip_feat_dim": 8}),
    ],
)
def test_a_variant_that_needs_other_inputs_is_refused(tmp_path: Path, family: str, change: dict[str, Any]) -> None:
    write_model(tmp_path, family)
    part = "unet" if (tmp_path / "unet").exists() else "transformer"
    edit(tmp_path / part / "config.json", **change)
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"{part}: {name} = {value!r} is not supported; supported: "):
        load(tmp_path)


def test_what_z_image_has_no_positions_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 128 positions for a text, 130 are needed: lower `tokens`"):
        load(write_model(tmp_path, "z_image"), tokens=100)
    edit(tmp_path / "transformer" / "config.json", all_patch_size=[4])
    with pytest.raises(UserError, match=r"patches of \(\[4\], \[1\]\) are not supported; supported: \[\[2\], \[1\]\]"):
        load(tmp_path, tokens=8)


def test_a_diffusers_too_old_for_a_model_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladd_dist.networks.diffusers.family.installed", lambda package: "0.36.0")
    with pytest.raises(UserError, match=r"needs diffusers 0\.37 or newer, this is 0\.36\.0: pip install 'diffusers>=0"):
        load(write_model(tmp_path, "qwen_image"))


def test_a_network_without_a_checkpoint_says_so() -> None:
    assert Diffusers.pretrained
    assert not CUNet.pretrained
    with pytest.raises(ValueError, match="network 'cunet' has no checkpoint of its own"):
        CUNet().load(image=ImageSpec(3, 16, 16, 10))
    with pytest.raises(ValueError, match=r"Diffusers\.tokens: must be at least 0"):
        Diffusers(tokens=-1)
