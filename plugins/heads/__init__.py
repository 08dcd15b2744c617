"""Heads of the report: small convolution, max-pooling down blocks, spectral norm."""

from ladd_dist.zoo.plugins.heads.max_pool import MaxPool
from ladd_dist.zoo.plugins.heads.small_conv import SmallConv
from ladd_dist.zoo.plugins.heads.spectral_norm import SpectralNorm

__all__ = ["MaxPool", "SmallConv", "SpectralNorm"]
