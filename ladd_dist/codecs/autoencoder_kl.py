"""Small autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752), trained by a stage of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ladd_dist.codecs import CodecTraining, TrainableAutoencoder, TrainedCodec
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Depth, NonNegative, Width, Within
from ladd_dist.core.types import ImageSpec

SIGMA_DATA = 0.5
"""Standard deviation of the latents, which the networks' preconditioning expects of data (`sigma_data`)."""


@register("autoencoder_kl")
@dataclass(frozen=True)
class AutoencoderKL(TrainedCodec):
    """diffusers' `AutoencoderKL`: a convolutional encoder and decoder with a weak KL penalty on the latents."""

    channels: Width = 4
    """Number of latent channels."""
    widths: tuple[Annotated[int, Within("[8, 65536]")], ...] = (16, 32)
    """Channels of each level of the encoder, from the finest; the image is halved between levels."""
    blocks: Depth = 1
    """Residual blocks per level."""
    kl_weight: NonNegative = 1e-4
    """Weight of the mean KL divergence of a latent number against the mean squared error of a pixel."""
    training: CodecTraining = CodecTraining()
    """Training of the codec."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths or any(width % 8 for width in self.widths):
            raise UserError(f"autoencoder_kl.widths must be multiples of 8, one a level, got {self.widths}")

    def latent(self, image: ImageSpec) -> ImageSpec:
        factor = 2 ** (len(self.widths) - 1)
        if not image.divides(factor):
            raise UserError(
                f"image size {image.size_text} is not divisible by {factor} = 2^(levels - 1) of a codec with "
                f"{len(self.widths)} levels; change dataset.size or codec.widths"
            )
        return ImageSpec(self.channels, image.height // factor, image.width // factor, image.num_classes)

    def build(self, *, image: ImageSpec) -> TrainableAutoencoder:
        self.latent(image)
        try:
            import diffusers
        except ImportError as error:
            raise UserError(
                f"codec 'autoencoder_kl' needs the package diffusers ({error}); install it with: "
                "pip install 'ladd_dist[diffusers]'"
            ) from error
        levels = len(self.widths)
        groups = math.gcd(*self.widths) // 8  # groups of fewer channels would normalise brightness and colour away
        library: Any = diffusers.AutoencoderKL  # it has no types
        network = library(
            in_channels=image.channels, out_channels=image.channels, latent_channels=self.channels,
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=self.widths, layers_per_block=self.blocks, norm_num_groups=groups,
            sample_size=max(image.height, image.width), mid_block_add_attention=False,
        )  # fmt: skip
        return KLAutoencoder(network, self.kl_weight).eval().requires_grad_(False)


class KLAutoencoder(TrainableAutoencoder):
    """Module behind `AutoencoderKL`. Its latents are the means, with the shift and scale that `calibrate` measured."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Any, kl_weight: float) -> None:
        super().__init__()
        self.network, self.kl_weight = network, kl_weight
        self.register_buffer("shift", torch.zeros(1, network.config.latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(()))

    def encode(self, images: Tensor) -> Tensor:
        latents: Tensor = (self.network.encode(images).latent_dist.mean - self.shift) * self.scale
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        images: Tensor = self.network.decode(latents / self.scale + self.shift).sample
        return images

    def forward(self, images: Tensor, eps: Tensor) -> dict[str, Tensor]:
        found = self.network.encode(images).latent_dist
        decoded = self.network.decode(found.mean + found.std * eps).sample
        error = (decoded - images).square().mean()
        divergence = 0.5 * (found.mean.square() + found.var - 1 - found.logvar).mean()
        return {"loss": error + self.kl_weight * divergence, "error": error, "kl": divergence}

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        means = self.network.encode(images).latent_dist.mean
        self.shift.copy_(means.mean(dim=(0, 2, 3), keepdim=True))
        spread = float((means - self.shift).std())
        if not spread > 0:
            raise UserError("the codec's latents are all alike: lower --codec.kl-weight, or train it longer")
        self.scale.fill_(SIGMA_DATA / spread)
