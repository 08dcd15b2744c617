"""Heads of the report: small convolution, max-pooling down blocks, spectral norm."""

from plugins.heads.max_pool import MaxPool
from plugins.heads.small_conv import SmallConv
from plugins.heads.spectral_norm import SpectralNorm

__all__ = ["MaxPool", "SmallConv", "SpectralNorm"]
