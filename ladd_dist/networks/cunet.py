"""`CUNet`: the class-conditional U-Net of the report, with named taps and early exit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as functional
from einops import rearrange
from torch import Tensor, nn

from ladd_dist.core.errors import UnknownTapError, UserError
from ladd_dist.core.noise import Precondition, precondition
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, Depth, Positive, Within
from ladd_dist.core.types import Denoiser, ImageSpec, NetOutput, TapSpec
from ladd_dist.networks import Network


@register("cunet")
@dataclass(frozen=True)
class CUNet(Network):
    """Class-conditional U-Net: residual down blocks, middle with attention, up blocks with skips."""

    widths: tuple[Annotated[int, Within("[8, 65536]")], ...] = (32, 64, 64)
    """Channels of each level, from the finest; the image is halved between levels."""
    blocks: Depth = 1
    """Residual blocks per level."""
    patch: Count = 2
    """Space-to-depth factor at the input: 2 quarters the work of the finest level."""
    embed_dim: Annotated[int, Within("[8, 65536]")] = 128
    """Size of the embedding of noise level and class."""
    attention_heads: Count = 4
    """Heads of the self-attention in the middle block."""
    precondition: Precondition = "edm"
    """Preconditioning of the network: EDM's, or `ddpm`, prediction of the noise."""
    sigma_data: Positive = 0.5
    """Standard deviation of the data, for the preconditioning."""
    class_table = "embed.classes.weight"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or any(width % 8 for width in self.widths):
            raise UserError(f"cunet.widths must be multiples of 8, one a level, got {self.widths}")
        if self.embed_dim % 2:
            raise UserError(f"cunet.embed_dim must be even, got {self.embed_dim}")
        if self.attention_heads and self.widths[-1] % self.attention_heads:
            raise UserError(f"cunet.widths[-1] = {self.widths[-1]} is not divisible by {self.attention_heads} heads")

    def build(self, *, image: ImageSpec) -> Denoiser:
        factor = self.patch * 2 ** (len(self.widths) - 1)
        if not image.divides(factor):
            raise UserError(
                f"image size {image.size_text} is not divisible by {factor} = patch {self.patch} x 2^(levels - 1) with "
                f"{len(self.widths)} levels; change dataset.size, network.patch or network.widths"
            )
        return UNet(
            image=image, widths=self.widths, blocks=self.blocks, patch=self.patch, embed_dim=self.embed_dim,
            attention_heads=self.attention_heads, kind=self.precondition, sigma_data=self.sigma_data,
        ).to(memory_format=torch.channels_last)  # fmt: skip


class UNet(Denoiser):
    """The module behind `CUNet`; see `Denoiser` for the interface."""

    def __init__(
        self,
        *,
        image: ImageSpec,
        widths: tuple[int, ...],
        blocks: int,
        patch: int,
        embed_dim: int,
        attention_heads: int,
        kind: Precondition,
        sigma_data: float,
    ) -> None:
        super().__init__()
        self.image, self.patch, self.kind, self.sigma_data = image, patch, kind, sigma_data
        self.cond_dim = embed_dim
        self.embed = Embedding(embed_dim, image.num_classes)
        planes = image.channels * patch**2
        self.input = nn.Conv2d(planes, widths[0], 3, padding=1)
        self.downs = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            self.downs.append(DownBlock(before, width, embed_dim, blocks, shrink=level > 0))
            before = width
        self.middle = MiddleBlock(before, embed_dim, attention_heads)
        self.ups = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            self.ups.append(UpBlock(before, width, width, embed_dim, blocks, grow=level < len(widths) - 1))
            before = width
        self.output = nn.Sequential(_norm(before), nn.SiLU(), _zero(nn.Conv2d(before, planes, 3, padding=1)))
        self.taps = self._catalog(widths)

    def _catalog(self, widths: tuple[int, ...]) -> Mapping[str, TapSpec]:
        strides = [self.patch * 2**level for level in range(len(widths))]
        taps = {"input": TapSpec(widths[0], self.patch)}
        taps |= {f"down{i}": TapSpec(width, strides[i]) for i, width in enumerate(widths)}
        taps["middle"] = TapSpec(widths[-1], strides[-1])
        pairs = reversed(list(zip(widths, strides, strict=True)))
        return taps | {f"up{i}": TapSpec(width, stride) for i, (width, stride) in enumerate(pairs)}

    def blocks(self) -> list[nn.Module]:
        return [*self.downs, self.middle, *self.ups]

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown:
            raise UnknownTapError(f"unknown tap {unknown[0]!r}; this network has {', '.join(self.taps)}")
        scale = precondition(sigma.float(), self.kind, self.sigma_data)
        cond_vec = self.embed(scale.noise, cond)
        wanted = set(taps)
        features: dict[str, Tensor] = {}
        hidden = _bchw(scale.in_, x) * x
        if self.patch > 1:
            hidden = rearrange(hidden, "b c (h p) (w q) -> b (p q c) h w", p=self.patch, q=self.patch)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        stages: list[tuple[str, nn.Module]] = [("input", self.input)]
        stages += [(f"down{i}", block) for i, block in enumerate(self.downs)]
        stages += [("middle", self.middle)]
        stages += [(f"up{i}", block) for i, block in enumerate(self.ups)]
        for name, block in stages:
            if not denoise and not wanted:
                break  # everything after the last tap would be computed for nothing
            if name == "input":
                hidden = block(hidden)
            elif name.startswith("up"):
                hidden = block(hidden, skips.pop(), cond_vec)
            else:
                hidden = block(hidden, cond_vec)
            if name.startswith("down"):
                skips.append(hidden)
            if name in wanted:
                features[name] = hidden
                wanted.remove(name)
        if not denoise:
            return NetOutput(None, features, cond_vec)
        raw = self.output(hidden)
        if self.patch > 1:
            raw = rearrange(raw, "b (p q c) h w -> b c (h p) (w q)", p=self.patch, q=self.patch)
        return NetOutput(_bchw(scale.skip, x) * x + _bchw(scale.out, x) * raw, features, cond_vec)


class Embedding(nn.Module):
    """Embedding of noise level and class as one vector [B,E]; the last class id is "no class" (guidance)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.linspace(math.log(0.5), math.log(64.0), dim // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.level = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.classes = nn.Embedding(num_classes + 1, dim)

    def forward(self, noise: Tensor, cond: Tensor) -> Tensor:
        angles = noise[:, None] * self.get_buffer("frequencies")
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedded: Tensor = self.level(waves.to(self.classes.weight.dtype)) + self.classes(cond)
        return functional.silu(embedded)


class ResBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice; the embedding shifts and scales in between; zero-initialised branch."""

    def __init__(self, inputs: int, outputs: int, embed_dim: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.modulate = nn.Linear(embed_dim, 2 * outputs)
        self.norm = _norm(outputs)
        self.second = _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, cond_vec: Tensor) -> Tensor:
        scale, shift = self.modulate(cond_vec)[:, :, None, None].chunk(2, dim=1)
        hidden = functional.silu(torch.addcmul(shift, self.norm(self.first(x)), scale + 1))
        out: Tensor = self.skip(x) + self.second(hidden)
        return out


class DownBlock(nn.Module):
    """Residual blocks, after halving the map (2x2 mean) if `shrink`."""

    def __init__(self, inputs: int, outputs: int, embed_dim: int, blocks: int, *, shrink: bool) -> None:
        super().__init__()
        self.shrink = shrink
        sizes = [inputs] + [outputs] * blocks
        self.blocks = nn.ModuleList(ResBlock(a, b, embed_dim) for a, b in itertools.pairwise(sizes))

    def forward(self, x: Tensor, cond_vec: Tensor) -> Tensor:
        if self.shrink:
            x = functional.avg_pool2d(x, 2)
        for block in self.blocks:
            x = block(x, cond_vec)
        return x


class MiddleBlock(nn.Module):
    """Residual block, self-attention over positions, residual block."""

    def __init__(self, channels: int, embed_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = ResBlock(channels, channels, embed_dim)
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = _zero(nn.Conv2d(channels, channels, 1))
        self.after = ResBlock(channels, channels, embed_dim)

    def forward(self, x: Tensor, cond_vec: Tensor) -> Tensor:
        x = self.before(x, cond_vec)
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (t n d) h w -> t b n (h w) d", t=3, n=self.heads)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = rearrange(mixed, "b n (h w) d -> b (n d) h w", h=x.shape[2])
        x = x + self.project(mixed.contiguous(memory_format=torch.channels_last))
        out: Tensor = self.after(x, cond_vec)
        return out


class UpBlock(nn.Module):
    """Residual blocks on the map and its skip, after doubling the map (nearest) if `grow`."""

    def __init__(self, inputs: int, skip: int, outputs: int, embed_dim: int, blocks: int, *, grow: bool) -> None:
        super().__init__()
        self.grow = grow
        sizes = [inputs + skip] + [outputs] * blocks
        self.blocks = nn.ModuleList(ResBlock(a, b, embed_dim) for a, b in itertools.pairwise(sizes))

    def forward(self, x: Tensor, skip: Tensor, cond_vec: Tensor) -> Tensor:
        if self.grow:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = torch.cat([x, skip], dim=1)
        for block in self.blocks:
            x = block(x, cond_vec)
        return x


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, channels // 4), channels)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _bchw(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(-1, 1, 1, 1)
