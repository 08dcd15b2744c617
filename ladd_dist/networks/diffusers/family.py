"""Base of the adapters to the model classes of diffusers: how to call each, and where its parts are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from einops import rearrange
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.types import ImageSpec
from ladd_dist.core.versions import installed, release


@dataclass(frozen=True)
class Family:
    """Adapter to one model class."""

    config: Mapping[str, Any]
    """Configuration of the checkpoint; each adapter knows the types of the settings it reads."""
    image: ImageSpec
    """Shape of the latents that the model works on."""
    tokens: int
    """Length of a text in tokens; 0: the family's default."""
    embedded_guidance: float
    """Guidance scale given as an input to a guidance-distilled model."""

    own_tokens: ClassVar[int] = 0
    """Default length of a text in tokens."""
    pools_text: ClassVar[bool] = False
    """Whether the model's own embedding of the noise level holds the text as well."""
    lowest: ClassVar[str] = ""
    """Lowest version of diffusers with the interface that this adapter calls; empty: every version that is allowed."""
    rescales: ClassVar[bool] = False
    """Whether the family's pipeline scales its guided predictions."""
    guidance_off: ClassVar[tuple[str, float]] = ("guidance_scale", 1.0)
    """Argument of the family's pipeline for guidance, and the value with which it does not guide."""

    reads_padding: ClassVar[bool] = True
    """Whether the model's numbers depend on the encoder's states of tokens that only fill a text up. A model with a
    mask reads none of them, unless it averages over all; the table of conditions is then stored without them."""

    def channels(self) -> int:
        """Number of latent channels."""
        return int(self.config["in_channels"])

    def stride(self) -> int:
        """Number that latent sizes must be divisible by."""
        return int(self.config["patch_size"])

    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature maps, which are those of the model's tokens."""
        return self.image.height // self.stride(), self.image.width // self.stride()

    def check(self) -> None:
        """Refuse a model that this adapter cannot call.

        Raises:
            UserError: the model needs other inputs or a newer diffusers, or does not take latents of this shape.
        """
        version = installed("diffusers") or ""
        if release(version) < release(self.lowest):
            raise UserError(
                f"{self.config['_class_name']} needs diffusers {self.lowest} or newer, this is {version}: "
                f"pip install 'diffusers>={self.lowest}'"
            )
        if self.channels() != self.image.channels:
            raise UserError(f"the model works on {self.channels()} channels, the dataset has {self.image.channels}")
        if not self.image.divides(self.stride()):
            raise UserError(
                f"the model takes sizes divisible by {self.stride()}, the dataset has {self.image.size_text}"
            )

    def has_null(self) -> bool:
        """Whether the model knows a null condition."""
        return True

    def refuse(self, **allowed: tuple[Any, ...]) -> None:
        """Refuse a configuration with other values of settings than the allowed ones.

        Raises:
            UserError: a value is not allowed; the message names the setting, its value and those that work.
        """
        for name, values in allowed.items():
            if self.config.get(name) not in values:
                known = ", ".join(map(repr, values))
                raise UserError(f"{name} = {self.config[name]!r} is not supported; supported: {known}")

    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row of the table of conditions, by the names of diffusers' pipelines; empty: class ids."""
        return {}

    def text_shape(self, dim: int) -> tuple[int, int]:
        """Shape (T, E) of the encoder states of one text."""
        return (self.tokens or self.own_tokens, dim)

    def blocks(self, model: Any) -> dict[str, nn.Module]:
        """Blocks of the model by the name of their tap, in order of execution."""
        return {f"block{i:02d}": block for i, block in enumerate(model.transformer_blocks)}

    def embeddings(self, model: Any) -> list[nn.Module]:
        """Modules whose outputs [B,E] (the last of a tuple) add up to the embedding of level and condition."""
        raise NotImplementedError

    def complete(self, model: Any) -> None:
        """Add to a model, once, what training it needs and diffusers' own forward does not have."""

    def call(self, model: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """Prediction [B,C,H,W] of the model.

        Args:
            x: the model's own input [B,C,H,W], as `Prediction.noised` gives it.
            timestep: the model's own timesteps [B].
            cond: class ids [B].
            rows: rows [B,...] of the table of conditions, by the names in `condition_shapes`.
        """
        raise NotImplementedError

    def rescaled(self, guided: Tensor, conditional: Tensor) -> Tensor:
        """Guided prediction [B,C,H,W] as the pipeline scales it; asked only if the family `rescales`.

        Both are in the model's own units, like the result.
        """
        raise NotImplementedError

    def feature(self, out: Any) -> Tensor:
        """Feature map [B,c,h,w] in the output of a block."""
        tokens: Tensor = out[-1] if isinstance(out, tuple) else out
        return rearrange(tokens, "b (h w) c -> b c h w", h=self.grid()[0])


def like(rows: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Entry `name` of the rows, in x's dtype."""
    return rows[name].to(x.dtype)
