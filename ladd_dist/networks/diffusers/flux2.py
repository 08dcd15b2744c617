"""Adapter to FLUX.2 (`Flux2Transformer2DModel`): dev takes its guidance as an input, klein does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ladd_dist.networks.diffusers.family import Family, like


class Flux2(Family):
    """Adapter to `Flux2Transformer2DModel`: double-stream blocks, then single-stream ones.

    Its latents are those of `AutoencoderKLFlux2` in patches of 2x2, and one pixel of them is one token. A position has
    four numbers: time, row, column, place in the text (diffusers' `Flux2Pipeline`).
    """

    own_tokens = 512
    lowest = "0.37"  # the first that knows models without an input for guidance

    def check(self) -> None:
        super().check()
        self.refuse(patch_size=(1,))

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"prompt_embeds": self.text_shape(int(self.config["joint_attention_dim"]))}

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        double = {f"double{i:02d}": block for i, block in enumerate(model.transformer_blocks)}
        return double | {f"single{i:02d}": block for i, block in enumerate(model.single_transformer_blocks)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.time_guidance_embed]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        height, width = x.shape[2:]
        text = like(rows, "prompt_embeds", x)
        zero = torch.zeros(1, dtype=torch.int64, device=x.device)
        row, column, place = (torch.arange(number, device=x.device) for number in (height, width, text.shape[1]))
        guidance = torch.full_like(timestep, self.embedded_guidance) if self.config.get("guidance_embeds") else None
        found: Tensor = model(
            rearrange(x, "b c h w -> b (h w) c"), encoder_hidden_states=text,
            timestep=timestep / 1000,  # the model itself multiplies by 1000
            img_ids=torch.cartesian_prod(zero, row, column, zero),
            txt_ids=torch.cartesian_prod(zero, zero, zero, place), guidance=guidance, return_dict=False,
        )[0]  # fmt: skip
        return rearrange(found, "b (h w) c -> b c h w", h=height)

    def feature(self, out: Any) -> Tensor:
        """Feature map [B,c,h,w]; a single-stream block returns the text's tokens before those of the image."""
        tokens: Tensor = out[-1] if isinstance(out, tuple) else out
        height, width = self.grid()
        return rearrange(tokens[:, -height * width :], "b (h w) c -> b c h w", h=height)
