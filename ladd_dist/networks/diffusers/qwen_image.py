"""Adapter to Qwen-Image (`QwenImageTransformer2DModel`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ladd_dist.networks.diffusers.family import Family, like

_PACK = 2  # 2x2 latent pixels are one token


class QwenImage(Family):
    """Adapter to `QwenImageTransformer2DModel`: text and image are two streams in every block."""

    own_tokens = 512
    reads_padding = False
    lowest = "0.37"  # before, it takes the lengths of texts in place of their mask, and attends to the padding
    rescales = True
    guidance_off = ("true_cfg_scale", 1.0)

    def channels(self) -> int:
        return int(self.config["in_channels"]) // _PACK**2

    def stride(self) -> int:
        return _PACK

    def check(self) -> None:
        super().check()
        never = (None, False)  # set by the models that edit pictures or draw them in layers
        self.refuse(
            patch_size=(_PACK,), guidance_embeds=never, zero_cond_t=never, use_additional_t_cond=never,
            use_layer3d_rope=never,
        )  # fmt: skip

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["joint_attention_dim"]))
        return {"prompt_embeds": text, "prompt_attention_mask": text[:1]}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.time_text_embed]  # of the noise level alone, whatever its name says

    def complete(self, model: Any) -> None:
        model.transformer_blocks[-1].register_forward_hook(_keep_text)

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        height, width = self.grid()
        found: Tensor = model(
            rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=_PACK, q=_PACK),
            encoder_hidden_states=like(rows, "prompt_embeds", x),
            encoder_hidden_states_mask=rows["prompt_attention_mask"].bool(),
            timestep=timestep / 1000,  # the model itself multiplies by 1000
            img_shapes=[[(1, height, width)]] * len(x), return_dict=False,
        )[0]  # fmt: skip
        return rearrange(found, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=_PACK, q=_PACK)

    def rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """Guided prediction [B,C,H,W] whose tokens are as long as those of the conditional one."""
        found, shape = (
            rearrange(part, "b c (h p) (w q) -> b h p w q c", p=_PACK, q=_PACK) for part in (guided, conditional)
        )
        lengths = [torch.linalg.vector_norm(part, dim=(2, 4, 5), keepdim=True) for part in (found, shape)]
        rescaled: Tensor = rearrange(found * lengths[1] / lengths[0], "b h p w q c -> b c (h p) (w q)")
        return rescaled


def _keep_text(block: nn.Module, args: Any, out: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Let the text's last state, which the model drops, take part in the result with the weight 0.

    Otherwise the last block's text weights get no gradient, and DistributedDataParallel waits for it in vain.
    """
    text, image = out
    return text, image + 0 * text[:, :1, :1]
