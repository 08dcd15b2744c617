"""The autoencoder of a latent diffusion checkpoint, used as in diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ladd_dist.codecs import Codec
from ladd_dist.core.budget import within
from ladd_dist.core.compat import loaded_as
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import digest, locate, read_config, require_safetensors, weight_bytes
from ladd_dist.core.types import Autoencoder, ImageSpec

_WEIGHTS = "diffusion_pytorch_model"
_FOLDERS = ("vae", "movq")
MOST_RESOLUTIONS = 20


class _Family(NamedTuple):
    """Differences between the autoencoder classes of diffusers."""

    blocks: str
    """Name of the setting with one entry for each resolution."""
    channels: tuple[str, ...]
    """Names of the settings with the number of latent channels; the first that is not empty counts."""
    scales: bool
    """Whether the pipelines scale the latents."""
    encode: Callable[[Any, Tensor], Tensor]
    """Function (model, images [B,C,H,W]) -> unscaled latents [B,c,h,w]."""
    decode: Callable[[Any, Tensor], Tensor]
    """Function (model, unscaled latents [B,c,h,w]) -> images [B,C,H,W]."""
    patch: int = 1
    """Side length of the squares of latent pixels that are one pixel with more channels to the denoising model."""


_PACK = 2


def _packed(latents: Tensor) -> Tensor:
    return rearrange(latents, "b c (h p) (w q) -> b (c p q) h w", p=_PACK, q=_PACK)


def _unpacked(latents: Tensor) -> Tensor:
    return rearrange(latents, "b (c p q) h w -> b c (h p) (w q)", p=_PACK, q=_PACK)


_FAMILIES = {
    "AutoencoderKL": _Family(
        "block_out_channels", ("latent_channels",), True,
        lambda model, images: model.encode(images).latent_dist.mode(),
        lambda model, latents: model.decode(latents).sample,
    ),
    "AutoencoderDC": _Family(
        "encoder_block_out_channels", ("latent_channels",), True,
        lambda model, images: model.encode(images).latent, lambda model, latents: model.decode(latents).sample,
    ),
    # Kandinsky 3 neither scales nor quantises the latents.
    "VQModel": _Family(
        "block_out_channels", ("vq_embed_dim", "latent_channels"), False,
        lambda model, images: model.encode(images).latents,
        lambda model, latents: model.decode(latents, force_not_quantize=True).sample,
    ),
    # FLUX.2 packs 2x2 latent pixels first, and scales with the statistics of a batch norm that it never runs.
    "AutoencoderKLFlux2": _Family(
        "block_out_channels", ("latent_channels",), True,
        lambda model, images: _packed(model.encode(images).latent_dist.mode()),
        lambda model, latents: model.decode(_unpacked(latents)).sample, _PACK,
    ),
    # Qwen-Image's is one for films, of which a picture is the first frame.
    "AutoencoderKLQwenImage": _Family(
        "dim_mult", ("z_dim",), True,
        lambda model, images: model.encode(images.unsqueeze(2)).latent_dist.mode().squeeze(2),
        lambda model, latents: model.decode(latents.unsqueeze(2)).sample.squeeze(2),
    ),
}  # fmt: skip


@register("vae")
@dataclass(frozen=True)
class Vae(Codec):
    """Autoencoder of a diffusers checkpoint (of Stable Diffusion, Flux, FLUX.2, Sana, Kandinsky 3, Qwen-Image)."""

    source: str = ""
    """Folder or hub repository of a pipeline, or of the autoencoder alone."""
    revision: str = ""
    """Branch, tag or commit of the hub repository; empty: the newest."""
    subfolder: str = ""
    """The autoencoder's folder in `source`; empty: `vae`, `movq`, or `source` itself."""
    config: str = ""
    """Folder with the configuration files alone, laid out like `source`: enough to plan without the weights."""

    def identity(self) -> dict[str, str]:
        if not self.source or not Path(self.source).expanduser().is_dir():
            return {"config": ""}
        folder = self._folder(self.source)
        weights = sorted(folder.glob(f"{_WEIGHTS}*.safetensors"))
        return {"source": digest([folder / "config.json", *weights]), "revision": "", "subfolder": "", "config": ""}

    def latent(self, image: ImageSpec) -> ImageSpec:
        folder = self._folder(self.config or self.source)
        config = read_config(folder / "config.json")
        family = _FAMILIES[config["_class_name"]]
        missing = [name for name in (family.blocks, family.channels[-1]) if name not in config]
        if missing:
            raise UserError(f"{folder / 'config.json'} does not say {missing[0]}; is it whole?")
        if (encoded := config.get("in_channels", config.get("input_channels", 3))) != image.channels:
            raise UserError(
                f"codec.source: {folder} encodes pictures of {encoded} channels, the dataset has {image.channels}"
            )
        blocks = config[family.blocks]
        if not isinstance(blocks, list) or not 1 <= len(blocks) <= MOST_RESOLUTIONS:
            raise UserError(f"{folder / 'config.json'}: {family.blocks} must list 1 to {MOST_RESOLUTIONS} resolutions")
        factor = family.patch * 2 ** (len(blocks) - 1)
        if not image.divides(factor):
            raise UserError(
                f"codec.source: {folder} needs a size divisible by {factor}, the dataset has {image.size_text}"
            )
        channels = next((config[name] for name in family.channels if config.get(name)), None)
        if type(channels) is not int or channels < 1:
            raise UserError(
                f"{folder / 'config.json'}: {family.channels[-1]} must be the number of channels, got {channels!r}"
            )
        num_channels = channels * family.patch**2
        return ImageSpec(num_channels, image.height // factor, image.width // factor, image.num_classes)

    def build(self, *, image: ImageSpec) -> Autoencoder:
        import diffusers
        from safetensors import SafetensorError

        folder = self._folder(self.source, weights=True)
        require_safetensors(folder, _WEIGHTS)
        name = read_config(folder / "config.json")["_class_name"]
        try:
            with within(str(folder / "config.json"), elements=weight_bytes(folder)):
                model: Any = getattr(diffusers, name).from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, **loaded_as(torch.float32)
                )
        except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
            raise UserError(f"{folder}: the autoencoder cannot be read: {error}") from error
        return _Pretrained(model, _FAMILIES[name]).eval().requires_grad_(False)

    def _folder(self, source: str, *, weights: bool = False) -> Path:
        names = (self.subfolder,) if self.subfolder else (*_FOLDERS, "")
        files = ("config.json", *((f"{_WEIGHTS}.safetensors", f"{_WEIGHTS}-*.safetensors") if weights else ()))
        patterns = [str(Path(name) / file) for name in names for file in files]
        root = locate(source, field="codec.source", revision=self.revision, patterns=patterns)
        for name in names:
            config = root / name / "config.json"
            if config.is_file() and str(read_config(config).get("_class_name")) in _FAMILIES:
                return config.parent
        raise UserError(
            f"codec.source: {root} holds no autoencoder ({' or '.join(str(Path(n) / 'config.json') for n in names)} of "
            f"{', '.join(_FAMILIES)})"
        )


class _Pretrained(Autoencoder):
    """Autoencoder of diffusers; its latents have about unit variance, as in the pipelines."""

    PIECE = 4
    """Images processed at a time without gradients; each needs much more memory than its latent."""

    def __init__(self, model: Any, family: _Family) -> None:
        super().__init__()
        self.model, self.family, config = model, family, model.config
        scale = torch.tensor(float(config.get("scaling_factor") or 1.0) if family.scales else 1.0)
        shift = torch.tensor(float(config.get("shift_factor") or 0.0))
        if config.get("latents_mean") and config.get("latents_std"):
            scale = scale / torch.tensor(config["latents_std"]).view(1, -1, 1, 1)
            shift = torch.tensor(config["latents_mean"]).view(1, -1, 1, 1)
        if family.patch > 1:
            scale = (model.bn.running_var + config["batch_norm_eps"]).rsqrt().view(1, -1, 1, 1)
            shift = model.bn.running_mean.clone().view(1, -1, 1, 1)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def encode(self, images: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return torch.cat([(self.family.encode(self.model, part) - shift) * scale for part in self._pieces(images)])

    def decode(self, latents: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        return torch.cat([self.family.decode(self.model, part / scale + shift) for part in self._pieces(latents)])

    def _pieces(self, rows: Tensor) -> tuple[Tensor, ...]:
        return (rows,) if torch.is_grad_enabled() and rows.requires_grad else torch.split(rows, self.PIECE)
