"""Adapter to Z-Image (`ZImageTransformer2DModel`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.sizes import size_text
from ladd_dist.networks.diffusers.family import Family, like

_PATCH = 2
_MULTIPLE = 32
"""The model fills the tokens of a text, and those of an image, up to a multiple of this number with learned ones."""


class ZImage(Family):
    """Adapter to `ZImageTransformer2DModel`: two blocks for the image alone, then blocks for image and text together.

    Its time runs from 0 (noise) to 1 (data), and its output points from noise to data. Each text has its own length:
    the model attends to every token that it is given (diffusers' `ZImagePipeline`).
    """

    own_tokens = 512
    reads_padding = False
    lowest = "0.39"  # before, its learned tokens start from whatever is in memory, and cannot be planned
    guidance_off = ("guidance_scale", 0.0)  # the scale counts what is added to the conditional prediction

    def stride(self) -> int:
        return _PATCH

    def check(self) -> None:
        super().check()
        patches = self.config["all_patch_size"], self.config["all_f_patch_size"]
        if [list(sizes) for sizes in patches] != [[_PATCH], [1]]:
            raise UserError(f"patches of {patches} are not supported; supported: [[{_PATCH}], [1]]")
        self.refuse(siglip_feat_dim=(None,))
        most_text, *most_image = (int(number) for number in self.config["axes_lens"])
        if any(side > most for side, most in zip(self.grid(), most_image, strict=True)):
            raise UserError(
                f"the model takes sizes up to {size_text(*(_PATCH * most for most in most_image))}, the dataset has "
                f"{self.image.size_text}"
            )
        text = -(-self.text_shape(1)[0] // _MULTIPLE) * _MULTIPLE
        if text + 1 >= most_text:
            raise UserError(f"the model has {most_text} positions for a text, {text + 2} are needed: lower `tokens`")

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["cap_feat_dim"]))
        return {"prompt_embeds": text, "prompt_attention_mask": text[:1]}

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        refiners = {f"refiner{i:02d}": block for i, block in enumerate(model.noise_refiner)}
        return refiners | {f"block{i:02d}": block for i, block in enumerate(model.layers)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.t_embedder]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        states = like(rows, "prompt_embeds", x)
        texts = [row[:length] for row, length in zip(states, _lengths(rows["prompt_attention_mask"]), strict=True)]
        found: list[Tensor] = model(list(x.unsqueeze(2)), 1 - timestep / 1000, texts, return_dict=False)[0]
        return -torch.stack(found).squeeze(2)

    def feature(self, out: Any) -> Tensor:
        """Feature map [B,c,h,w]; the image's tokens come first, and what fills them up and the text after them."""
        height, width = self.grid()
        tokens: Tensor = out[:, : height * width]
        return rearrange(tokens, "b (h w) c -> b c h w", h=height)


def _lengths(mask: Tensor) -> list[int]:
    """Number of tokens that each row of a mask [B,T] keeps, which are the first ones; T where there is no data."""
    if mask.is_meta or isinstance(mask, FakeTensor):
        return [mask.shape[1]] * len(mask)
    found: list[int] = mask.sum(dim=1).tolist()  # the host waits for the device here: these are shapes
    return found
