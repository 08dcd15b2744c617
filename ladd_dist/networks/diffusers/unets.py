"""Adapters to the U-Nets: `UNet2DModel`, `UNet2DConditionModel`, `Kandinsky3UNet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.networks.diffusers.family import Family, like

SDXL_TIME_IDS = 6  # original height and width, crop top and left, target height and width


class UNet(Family):
    """Base of the U-Nets' adapters: down blocks (each ends with its down-sampling), a middle, up blocks."""

    def stride(self) -> int:
        return int(2 ** (len(self.config["block_out_channels"]) - 1))

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        found = {f"down{i}": block for i, block in enumerate(model.down_blocks)}
        if getattr(model, "mid_block", None) is not None:
            found["middle"] = model.mid_block
        return found | {f"up{i}": block for i, block in enumerate(model.up_blocks)}

    def feature(self, out: Any) -> Tensor:
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found


class ClassUNet(UNet):
    """Adapter to `UNet2DModel`, with or without classes."""

    def check(self) -> None:
        super().check()
        self.refuse(class_embed_type=(None,), time_embedding_type=(None, "positional"))
        classes, known = self.image.num_classes, self.config.get("num_class_embeds")
        if known not in (None, classes, classes + 1):
            raise UserError(
                f"the model knows {known} classes, the dataset has {classes} (and one more is the null class)"
            )

    def has_null(self) -> bool:
        return self.config.get("num_class_embeds") != self.image.num_classes

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [part for part in (model.time_embedding, model.class_embedding) if part is not None]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        classes = None if self.config.get("num_class_embeds") is None else cond
        found: Tensor = model(x, timestep, class_labels=classes, return_dict=False)[0]
        return found


class TextUNet(UNet):
    """Adapter to `UNet2DConditionModel`, as in Stable Diffusion 1, 2 and XL."""

    own_tokens = 77  # of CLIP

    def check(self) -> None:
        super().check()
        self.refuse(
            addition_embed_type=(None, "text_time"), class_embed_type=(None,), num_class_embeds=(None,),
            encoder_hid_dim_type=(None, "text_proj"), time_embedding_type=(None, "positional"),
        )  # fmt: skip

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        dim = self.config.get("encoder_hid_dim") or self.config["cross_attention_dim"]
        shapes: dict[str, tuple[int, ...]] = {"prompt_embeds": self.text_shape(dim if isinstance(dim, int) else dim[0])}
        if self.config.get("addition_embed_type") == "text_time":
            times = SDXL_TIME_IDS * int(self.config["addition_time_embed_dim"])
            shapes["pooled_prompt_embeds"] = (int(self.config["projection_class_embeddings_input_dim"]) - times,)
            shapes["time_ids"] = (SDXL_TIME_IDS,)
        return shapes

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [part for part in (model.time_embedding, getattr(model, "add_embedding", None)) if part is not None]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        added = None
        if "time_ids" in rows:
            added = {"text_embeds": like(rows, "pooled_prompt_embeds", x), "time_ids": like(rows, "time_ids", x)}
        found: Tensor = model(
            x, timestep, like(rows, "prompt_embeds", x), added_cond_kwargs=added, return_dict=False
        )[0]  # fmt: skip
        return found


class Kandinsky3(UNet):
    """Adapter to `Kandinsky3UNet`."""

    own_tokens = 128
    pools_text = True  # its query is the mean over all tokens: padding counts in spite of the mask

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        text = self.text_shape(int(self.config["encoder_hid_dim"]))
        return {"prompt_embeds": text, "prompt_attention_mask": text[:1]}

    def embeddings(self, model: Any) -> list[nn.Module]:
        return [model.add_time_condition]

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = model(
            x, timestep, encoder_hidden_states=like(rows, "prompt_embeds", x),
            encoder_attention_mask=like(rows, "prompt_attention_mask", x), return_dict=False,
        )[0]  # fmt: skip
        return found
