"""Adapters to the transformers: PixArt, Stable Diffusion 3, Flux, Sana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.networks.diffusers.family import Family, like

_PACK = 2  # Flux takes 2x2 latent pixels as one token


class PixArt(Family):
    """Adapter to `PixArtTransformer2DModel` (alpha and sigma)."""

    own_tokens = 120
    reads_padding = False

    def is_sized(self) -> bool:
        """Whether the image's resolution and aspect ratio are inputs of the model."""
        use = self.config.get("use_additional_conditions")
        return bool(self.config["sample_size"] == 128 if use is None else use)

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config.get("caption_channels") or self.config["cross_attention_dim"]))
        shapes: dict[str, tuple[int, ...]] = {"prompt_embeds": text, "prompt_attention_mask": text[:1]}
        return shapes | ({"resolution": (2,), "aspect_ratio": (1,)} if self.is_sized() else {})

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.adaln_single]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        names = ("resolution", "aspect_ratio")
        found: Tensor = model(
            x, encoder_hidden_states=like(rows, "prompt_embeds", x), timestep=timestep,
            added_cond_kwargs={name: like(rows, name, x) if self.is_sized() else None for name in names},
            encoder_attention_mask=like(rows, "prompt_attention_mask", x), return_dict=False,
        )[0]  # fmt: skip
        return found


class SD3(Family):
    """Adapter to `SD3Transformer2DModel` (Stable Diffusion 3 and 3.5)."""

    own_tokens = 77 + 256  # of CLIP and T5
    pools_text = True

    def check(self) -> None:
        super().check()
        largest = self.stride() * int(self.config["pos_embed_max_size"])
        if max(self.image.height, self.image.width) > largest:
            raise UserError(f"the model takes sizes up to {largest}, the dataset has {self.image.size_text}")

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["joint_attention_dim"]))
        return {"prompt_embeds": text, "pooled_prompt_embeds": (int(self.config["pooled_projection_dim"]),)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.time_text_embed]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = model(
            x, encoder_hidden_states=like(rows, "prompt_embeds", x),
            pooled_projections=like(rows, "pooled_prompt_embeds", x), timestep=timestep, return_dict=False,
        )[0]  # fmt: skip
        return found


class Flux(Family):
    """Adapter to `FluxTransformer2DModel`: double-stream blocks, then single-stream ones."""

    own_tokens = 512
    pools_text = True

    def channels(self) -> int:
        return int(self.config["in_channels"]) // _PACK**2

    def stride(self) -> int:
        return _PACK

    def check(self) -> None:
        super().check()
        self.refuse(patch_size=(1,))

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["joint_attention_dim"]))
        return {"prompt_embeds": text, "pooled_prompt_embeds": (int(self.config["pooled_projection_dim"]),)}

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        double = {f"double{i:02d}": block for i, block in enumerate(model.transformer_blocks)}
        return double | {f"single{i:02d}": block for i, block in enumerate(model.single_transformer_blocks)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.time_text_embed]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        sides = [torch.arange(side // _PACK, device=x.device, dtype=x.dtype) for side in x.shape[2:]]
        text = like(rows, "prompt_embeds", x)
        row, column = torch.meshgrid(*sides, indexing="ij")
        guidance = torch.full_like(timestep, self.embedded_guidance) if self.config.get("guidance_embeds") else None
        found: Tensor = model(
            rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=_PACK, q=_PACK), encoder_hidden_states=text,
            pooled_projections=like(rows, "pooled_prompt_embeds", x),
            timestep=timestep / 1000,  # the model itself multiplies by 1000
            img_ids=torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1),
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype), guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
        return rearrange(found, "b (h w) (c p q) -> b c (h p) (w q)", h=len(sides[0]), p=_PACK, q=_PACK)


class Sana(Family):
    """Adapter to `SanaTransformer2DModel`."""

    own_tokens = 300
    reads_padding = False

    def check(self) -> None:
        super().check()
        self.refuse(guidance_embeds=(None, False))  # only Sana Sprint has them, and its TrigFlow is not supported

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["caption_channels"]))
        return {"prompt_embeds": text, "prompt_attention_mask": text[:1]}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.time_embed]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = model(
            x, encoder_hidden_states=like(rows, "prompt_embeds", x),
            timestep=timestep * float(self.config.get("timestep_scale", 1.0)),
            encoder_attention_mask=like(rows, "prompt_attention_mask", x), return_dict=False,
        )[0]  # fmt: skip
        return found
