"""The last layers, which the heads share."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2  # of every LeakyReLU in the heads


class ProjectionClassifier(nn.Module):
    """Pooled features [B,F] -> one logit [B,1] a sample, through a hidden layer of `width`.

    If `conditioned`, <V e, h> / sqrt(width) is added for the embedding e [B,E] (noise level and class) and the hidden
    features h: the projection discriminator of Miyato and Koyama 2018 (arXiv 1802.05637). The division keeps the
    added term near the size of the plain logit at any width. `spectral` puts spectral norm on every layer.
    """

    def __init__(self, features: int, width: int, cond_dim: int, *, conditioned: bool, spectral: bool = False) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Module:
            layer = nn.Linear(inputs, outputs)
            return spectral_norm(layer) if spectral else layer

        self.hidden = linear(features, width)
        self.logit = linear(width, 1)
        self.project = linear(cond_dim, width) if conditioned else None
        self.scale = 1 / math.sqrt(width)

    def forward(self, pooled: Tensor, cond_vec: Tensor) -> Tensor:
        """Logits [B,1] of pooled features [B,F] and cond_vec [B,E]."""
        hidden = functional.leaky_relu(self.hidden(pooled), SLOPE)
        logits: Tensor = self.logit(hidden)
        if self.project is not None:
            logits = logits + self.scale * (self.project(cond_vec) * hidden).sum(dim=1, keepdim=True)
        return logits
