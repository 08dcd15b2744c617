"""The peer's network and heads as a denoiser and heads of ours, so that only the training step differs."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.core.types import Denoiser, ImageSpec, NetOutput, TapSpec


class PeerDenoiser(Denoiser):
    """A network of the peer's, with a tap for each feature map that its heads look at: `feature0`, `feature1`, ..."""

    def __init__(self, network: nn.Module, heads: Any) -> None:
        """network: the peer's EDMPrecond; heads: its discriminator, which says where feature maps are."""
        super().__init__()
        self.network, size = network, int(network.img_resolution)  # type: ignore[arg-type]
        self.image = ImageSpec(int(network.img_channels), size, size, int(network.label_dim))  # type: ignore[arg-type]
        self.cond_dim = 1
        self.indices = {f"feature{index}": index for index in sorted(heads.feature_indices)}
        specs = [TapSpec(heads.in_channels, size // side) for side in heads.in_res]
        self.taps = MappingProxyType(dict(zip(self.indices, specs, strict=True)))
        one_hot = torch.cat([torch.eye(self.image.num_classes), torch.zeros(1, self.image.num_classes)])
        self.register_buffer("one_hot", one_hot, persistent=False)

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        """Denoise x, or give its feature maps; see `Denoiser`. The peer's heads take no `cond_vec`: it is zeros."""
        one_hot = self.get_buffer("one_hot")
        indices = {self.indices[tap] for tap in taps}
        # The network normalises in the standard layout and would copy each map of another.
        asked = {"condition": one_hot[cond], "feature_indices": indices, "return_features_early": not denoise}
        out = self.network(x.contiguous(), sigma, **asked)
        denoised, features = (None, out) if not denoise else out if indices else (out, [])
        found = dict(zip(sorted(taps, key=self.indices.__getitem__), features, strict=True))
        return NetOutput(denoised, found, x.new_zeros(len(x), self.cond_dim))


class PeerHeads(nn.Module):
    """The heads of a discriminator of the peer's, by tap."""

    def __init__(self, heads: Any, taps: tuple[str, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(dict(zip(taps, heads.discriminator_heads, strict=True)))

    def forward(self, features: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        """Logits [B,1] of each head."""
        return {tap: head(features[tap]).reshape(-1, 1) for tap, head in self.heads.items()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The weights of each head."""
        return {tap: list(head.parameters()) for tap, head in self.heads.items()}
