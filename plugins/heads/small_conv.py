"""The small convolutional head of the report's experiments 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Count, Width
from ladd_dist.heads import Head
from ladd_dist.zoo.plugins.heads._classifier import SLOPE, ProjectionClassifier
from ladd_dist.zoo.plugins.heads._pooling import mean_over_space


class SmallConvHead(nn.Module):
    """1x1 convolution, LeakyReLU, average pooling to `pool` x `pool`, fully connected."""

    def __init__(self, channels: int, cond_dim: int, width: int, pool: int, conditioned: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 1), nn.LeakyReLU(SLOPE, inplace=True))
        self.pool = pool
        self.classifier = ProjectionClassifier(width * pool**2, width, cond_dim, conditioned=conditioned)

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        """Logits [B,1] of features [B,c,h,w] and cond_vec [B,E]."""
        maps = self.body(features)
        pooled = mean_over_space(maps) if self.pool == 1 else functional.adaptive_avg_pool2d(maps, self.pool).flatten(1)
        logits: Tensor = self.classifier(pooled, cond_vec)
        return logits


@register("small_conv")
@dataclass(frozen=True)
class SmallConv(Head):
    """1x1 convolution, LeakyReLU, adaptive average pooling, fully connected layers.

    Parameters for c channels and width w: c w + pool^2 w^2 + 3 w + 1, without the projection.
    """

    width: Width = 64
    """Channels of the convolution and of the hidden layer, 1 or more."""
    pool: Count = 1
    """Side length of the pooled map, 1 or more; smaller maps are repeated up to it."""
    conditioned: bool = False
    """Whether to add the projection on noise level and class."""

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        """Build a module `(features [B,c,h,w], cond_vec [B,E]) -> logits [B,1]`."""
        return SmallConvHead(channels, cond_dim, self.width, self.pool, self.conditioned)
