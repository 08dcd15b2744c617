"""Finding and reading the parts of a diffusers checkpoint: JSON and safetensors, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ladd_dist.core.budget import MOST_ELEMENTS, within
from ladd_dist.core.compat import loaded_as
from ladd_dist.core.errors import UserError
from ladd_dist.core.pretrained import locate, read_config, require_safetensors, weight_bytes
from ladd_dist.networks.diffusers.family import Family
from ladd_dist.networks.diffusers.flux2 import Flux2
from ladd_dist.networks.diffusers.qwen_image import QwenImage
from ladd_dist.networks.diffusers.transformers import SD3, Flux, PixArt, Sana
from ladd_dist.networks.diffusers.unets import ClassUNet, Kandinsky3, TextUNet
from ladd_dist.networks.diffusers.z_image import ZImage

FAMILIES: Mapping[str, type[Family]] = {
    "UNet2DModel": ClassUNet,
    "UNet2DConditionModel": TextUNet,
    "Kandinsky3UNet": Kandinsky3,
    "PixArtTransformer2DModel": PixArt,
    "SD3Transformer2DModel": SD3,
    "FluxTransformer2DModel": Flux,
    "SanaTransformer2DModel": Sana,
    "Flux2Transformer2DModel": Flux2,
    "QwenImageTransformer2DModel": QwenImage,
    "ZImageTransformer2DModel": ZImage,
}
_SPLIT = {"ada_norm_single": "PixArtTransformer2DModel"}
_COMPONENTS = ("unet", "transformer")
_SCHEDULER = "scheduler_config.json"
_WEIGHTS = "diffusion_pytorch_model"
_FILES = (f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}-*.safetensors")


class Checkpoint(NamedTuple):
    """Configuration of a model and its scheduler."""

    folder: Path
    """Folder of the model; its weights may be missing."""
    config: dict[str, object]
    """Contents of the model's `config.json`."""
    scheduler: dict[str, object]
    """Contents of the scheduler's `scheduler_config.json`."""


def open_checkpoint(source: str, *, subfolder: str, revision: str, weights: bool) -> Checkpoint:
    """Open a checkpoint in a local folder or a hub repository; without `weights`, fetch only its configuration.

    Raises:
        UserError: there is no such folder or repository, no supported model, no scheduler, or no safetensors.
    """
    root = locate(source, field="network.source", revision=revision, patterns=["*.json"])
    folder = _model_folder(root, subfolder)
    config = read_config(folder / "config.json")
    if config.get("_class_name") == "Transformer2DModel":
        # PixArt's published checkpoints say so; diffusers has split the class since, and reads them in this way.
        config["_class_name"] = _SPLIT.get(str(config.get("norm_type")), "Transformer2DModel")
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(f"{folder}: the model is a {name}; supported are {', '.join(FAMILIES)}")
    scheduler = read_config(_scheduler_file(root, folder))
    if weights:
        files = [str(folder.relative_to(root) / name) for name in _FILES]
        commit = root.name  # of the hub's configuration: a branch may have moved since
        locate(source, field="network.source", revision=commit, patterns=files)
        require_safetensors(folder, _WEIGHTS)
    return Checkpoint(folder, config, scheduler)


def checkpoint_files(source: str, subfolder: str) -> list[Path]:
    """Files that identify a local checkpoint: configuration, scheduler, weights; empty if there is no such folder."""
    root = Path(source).expanduser()
    if not source or not root.is_dir():
        return []
    folder = _model_folder(root, subfolder)
    weights = sorted(path for name in _FILES for path in folder.glob(name))
    return [folder / "config.json", _scheduler_file(root, folder), *weights]


def build_model(checkpoint: Checkpoint) -> nn.Module:
    """Build a model of the checkpoint's configuration with random weights, on the current default device.

    Raises:
        UserError: diffusers does not accept the configuration.
    """
    try:
        with within(str(checkpoint.folder / "config.json"), elements=weight_bytes(checkpoint.folder) or MOST_ELEMENTS):
            model: nn.Module = _model_class(checkpoint).from_config(dict(checkpoint.config))
    except (TypeError, ValueError, NotImplementedError, AssertionError) as error:
        raise UserError(f"{checkpoint.folder / 'config.json'}: diffusers refuses it: {error}") from error
    return model.eval()


def load_model(checkpoint: Checkpoint) -> nn.Module:
    """Load the model with the checkpoint's weights, in float32.

    Raises:
        UserError: the weights are damaged, or of another configuration.
    """
    import safetensors
    import torch

    try:
        with within(str(checkpoint.folder / "config.json"), elements=weight_bytes(checkpoint.folder)):
            model, info = _model_class(checkpoint).from_pretrained(
                checkpoint.folder, use_safetensors=True, local_files_only=True, output_loading_info=True,
                **loaded_as(torch.float32),
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(f"{checkpoint.folder}: the weights cannot be read: {error}") from error
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UserError(
            f"{checkpoint.folder}: the weights do not fit config.json: {names[0]} and {len(names) - 1} more are missing"
        )
    found: nn.Module = model
    return found.eval()


def _model_class(checkpoint: Checkpoint) -> Any:
    import diffusers

    return getattr(diffusers, str(checkpoint.config["_class_name"]))


def _model_folder(root: Path, subfolder: str) -> Path:
    candidates = [subfolder] if subfolder else [*_COMPONENTS, ""]
    for name in candidates:
        if (root / name / "config.json").is_file():
            return root / name
    where = f"{subfolder}/config.json" if subfolder else "unet/config.json, transformer/config.json or config.json"
    raise UserError(f"{root} is no diffusers checkpoint: there is no {where}")


def _scheduler_file(root: Path, folder: Path) -> Path:
    places = [base / name for base in (root, folder, folder.parent) for name in (f"scheduler/{_SCHEDULER}", _SCHEDULER)]
    for path in places:
        if path.is_file():
            return path
    raise UserError(
        f"{folder} has no scheduler beside it ({root}/scheduler/{_SCHEDULER}); it says what the model predicts and "
        "with which noise schedule: copy the one with which the model was trained"
    )
