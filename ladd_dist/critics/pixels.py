"""Critic `pixels`: a frozen feature network on images without noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ladd_dist.core.errors import UnknownTapError, UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.sizes import SizeOrZero
from ladd_dist.core.types import Autoencoder, Denoiser, ImageSpec, NetOutput, TapSpec
from ladd_dist.critics import Critic
from ladd_dist.critics.networks import Body, DigitColor, Timm, TorchVision


class PixelCritic(Denoiser):
    """Feature network with a teacher's interface: named taps, but no noise levels and no denoised output."""

    def __init__(self, codec: Autoencoder, body: Body, image: ImageSpec) -> None:
        super().__init__()
        self.codec, self.body, self.image = codec, body.eval(), image
        self.cond_dim = image.num_classes + 1
        with torch.no_grad():
            seen = body(torch.zeros(1, *image.shape, device="cpu"), body.names)
        maps = {name: value for name, value in seen.items() if value.ndim == 4}
        self.taps = {
            name: TapSpec(value.shape[1], max(1, image.height // value.shape[2])) for name, value in maps.items()
        }

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        """Features of the decoded latents x [B,c,h,w]; sigma [B] is ignored; cond_vec is the class, one-hot.

        Raises:
            KeyError: a tap is unknown; the message lists the catalog.
        """
        for tap in taps:
            if tap not in self.taps:
                raise UnknownTapError(f"unknown tap {tap!r}; the critic has: {', '.join(self.taps)}")
        cond_vec = functional.one_hot(cond, self.cond_dim).float()
        return NetOutput(None, self.body(self.codec.decode(x), taps) if taps else {}, cond_vec)


@register("pixels")
@dataclass(frozen=True)
class Pixels(Critic):
    """ADD's critic (Sauer et al. 2023, arXiv 2311.17042): a frozen feature network on decoded samples without noise.

    The shipped network `digit_color` has the taps conv0 .. conv3 and serves colour digits only. The taps of a model of
    `torchvision` are its top-level modules with a feature map, those of `timm` its stages; both see RGB normalised for
    ImageNet. Heads that are `conditioned` see the class, not a noise level.
    """

    source: Literal["digit_color", "torchvision", "timm"] = "digit_color"
    """Origin of the network: shipped with the package, or a library."""
    model: str = ""
    """Name of the library's model."""
    weights: str = ""
    """Weights of the model: empty for the library's pretrained ones (downloaded), `random`, or a .safetensors file."""
    size: SizeOrZero = 0
    """Size in pixels to which a library's model has images resized, a side or height and width; 0: unchanged."""
    renoises = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.source == "digit_color") != (self.model == ""):
            raise UserError(
                f"pixels: a model is named by source and model together, got {self.source!r} and {self.model!r}; "
                "like --critic.source torchvision --critic.model resnet18"
            )
        if self.source == "digit_color" and (self.weights or self.size):
            raise UserError("pixels: the shipped digit_color has weights and a size of its own; leave both out")

    def build(self, *, teacher: Denoiser, image: ImageSpec, codec: Callable[[], Autoencoder]) -> Denoiser:
        with torch.device("cpu"):  # also where a recipe is planned on the device "meta": weights are read, or random
            body = self.body(image)
        return PixelCritic(codec(), body, image).eval().requires_grad_(False)

    def body(self, image: ImageSpec) -> Body:
        """Feature network for images of this specification."""
        if self.source == "torchvision":
            return TorchVision(self.model, self.weights, self.size)
        if self.source == "timm":
            return Timm(self.model, self.weights, self.size)
        if image.channels != 3:
            raise UserError(f"critic 'pixels' with digit_color reads RGB images, these have {image.channels} channels")
        return DigitColor()
