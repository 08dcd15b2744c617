"""The head of the report's experiment 3: max-pooling in the head's own down blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Depth, Width
from ladd_dist.heads import Head
from ladd_dist.zoo.plugins.heads._classifier import SLOPE, ProjectionClassifier
from ladd_dist.zoo.plugins.heads._pooling import mean_over_space


class MaxPoolHead(nn.Module):
    """`blocks` times (3x3 convolution, LeakyReLU, 2x2 max-pooling), mean over space, fully connected."""

    def __init__(self, channels: int, cond_dim: int, width: int, blocks: int, conditioned: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [
                nn.Conv2d(width if block else channels, width, 3, padding=1),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),  # ceil: a 1x1 map stays one, an odd side loses no border
            ]
        self.body = nn.Sequential(*layers)
        self.classifier = ProjectionClassifier(width, width, cond_dim, conditioned=conditioned)

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        """Logits [B,1] of features [B,c,h,w] and cond_vec [B,E]."""
        logits: Tensor = self.classifier(mean_over_space(self.body(features)), cond_vec)
        return logits


@register("max_pool")
@dataclass(frozen=True)
class MaxPool(Head):
    """Down blocks of 3x3 convolution, LeakyReLU and max-pooling, then a fully connected classifier.

    Parameters for c channels and width w: 9 c w + (9 blocks - 8) w^2 + (blocks + 2) w + 1, without the projection.
    """

    width: Width = 64
    """Channels of every block and of the hidden layer, 1 or more."""
    blocks: Depth = 2
    """Number of blocks, 1 or more."""
    conditioned: bool = False
    """Whether to add the projection on noise level and class."""

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        """Build a module `(features [B,c,h,w], cond_vec [B,E]) -> logits [B,1]`."""
        return MaxPoolHead(channels, cond_dim, self.width, self.blocks, self.conditioned)
