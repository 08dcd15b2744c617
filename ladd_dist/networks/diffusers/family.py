"""What differs between the model classes of diffusers: how each is called and where its parts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from einops import rearrange
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec


@dataclass(frozen=True)
class Family:
    """One model class: `config` is the checkpoint's configuration, `image` the latents that it works on."""

    config: Mapping[str, Any]
    image: ImageSpec
    tokens: int
    """Length of a text; 0: the family's own."""
    embedded_guidance: float
    """The guidance that a guidance-distilled model is told."""

    own_tokens: ClassVar[int] = 0
    pools_text: ClassVar[bool] = False
    """Whether the model's own embedding of the noise level holds the text as well."""

    def channels(self) -> int:
        """Of the latents."""
        return int(self.config["in_channels"])

    def stride(self) -> int:
        """The sizes that the model takes are multiples of it."""
        return int(self.config["patch_size"])

    def check(self) -> None:
        """Refuse what this adapter cannot call.

        Raises:
            UserError: a model of this class that needs other inputs, or latents of a shape that it does not take.
        """
        if self.channels() != self.image.channels:
            raise UserError(f"the model works on {self.channels()} channels, the dataset has {self.image.channels}")
        if self.image.size % self.stride():
            raise UserError(f"the model takes sizes divisible by {self.stride()}, the dataset has {self.image.size}")

    def has_null(self) -> bool:
        """Whether the model knows a null condition."""
        return True

    def refuse(self, **allowed: tuple[Any, ...]) -> None:
        """Refuse a configuration with another value than these.

        Raises:
            UserError: it names the setting, its value and those that work.
        """
        for name, values in allowed.items():
            if self.config.get(name) not in values:
                known = ", ".join(map(repr, values))
                raise UserError(f"{name} = {self.config[name]!r} is not supported; supported: {known}")

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """A row of the table of conditions, named as the pipelines of diffusers name them; empty: class ids."""
        return {}

    def text_shape(self, dim: int) -> tuple[int, int]:
        """Encoder states of one text [T,E]."""
        return (self.tokens or self.own_tokens, dim)

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        """The model's blocks by the name of their tap, in order of execution."""
        return {f"block{i:02d}": block for i, block in enumerate(model.transformer_blocks)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        """The modules whose outputs [B,E] (the last of a tuple) add up to the embedding of level and condition."""
        raise NotImplementedError

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """The model's prediction [B,C,H,W].

        Args:
            x: as the model's own training had it [B,C,H,W].
            timestep: [B].
            cond: class ids [B].
            rows: of the table of conditions, as `condition_shapes` has them.
        """
        raise NotImplementedError

    def feature(self, out: Any) -> Tensor:
        """The map [B,c,h,w] in what a block returned."""
        side = self.image.size // self.stride()
        tokens: Tensor = out[-1] if isinstance(out, tuple) else out
        return rearrange(tokens, "b (h w) c -> b c h w", h=side)


def like(rows: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """One entry of the rows, in x's dtype."""
    return rows[name].to(x.dtype)
