"""The head of the report's experiments 4 to 6: convolutions with spectral norm, and feature aggregation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Depth, Width
from ladd_dist.heads import Head
from ladd_dist.zoo.plugins.heads._classifier import SLOPE, ProjectionClassifier
from ladd_dist.zoo.plugins.heads._pooling import mean_and_max_over_space


class SpectralNormHead(nn.Module):
    """`blocks` times (3x3 convolution with spectral norm, LeakyReLU), mean and max over space, fully connected.

    The first block keeps the map's size and the later ones halve it: most of the cost stays at one convolution.
    """

    def __init__(
        self, channels: int, cond_dim: int, width: int, blocks: int, conditioned: bool, spectral_classifier: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            inputs, stride = (width, 2) if block else (channels, 1)
            conv = nn.Conv2d(inputs, width, 3, stride=stride, padding=1)
            layers += [parametrizations.spectral_norm(conv), nn.LeakyReLU(SLOPE, inplace=True)]
        self.body = nn.Sequential(*layers)
        self.classifier = ProjectionClassifier(
            2 * width, width, cond_dim, conditioned=conditioned, spectral=spectral_classifier
        )

    def forward(self, features: Tensor, cond_vec: Tensor) -> Tensor:
        """Logits [B,1] of features [B,c,h,w] and cond_vec [B,E]."""
        logits: Tensor = self.classifier(mean_and_max_over_space(self.body(features)), cond_vec)
        return logits


@register("spectral_norm")
@dataclass(frozen=True)
class SpectralNorm(Head):
    """Convolutions with spectral norm and LeakyReLU, mean and max over space, a fully connected classifier.

    Spectral norm: Miyato et al. 2018 (arXiv 1802.05957). Its power iteration moves two buffers per layer in every
    training-mode forward, so a head that must not change is put into eval mode. Parameters for c channels and width w:
    9 c w + (9 blocks - 7) w^2 + (blocks + 2) w + 1, without the projection.
    """

    width: Width = 64
    """Channels of every block and of the hidden layer, 1 or more."""
    blocks: Depth = 1
    """Number of blocks, 1 or more."""
    conditioned: bool = False
    """Whether to add the projection on noise level and class."""
    spectral_classifier: bool = True
    """Whether the fully connected layers have spectral norm too."""

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        """Build a module `(features [B,c,h,w], cond_vec [B,E]) -> logits [B,1]`."""
        return SpectralNormHead(channels, cond_dim, self.width, self.blocks, self.conditioned, self.spectral_classifier)
