"""The contract of kind `critic`; see `ladd_dist/testing/checks.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.core.errors import UnknownTapError
from ladd_dist.core.types import Autoencoder, Denoiser, ImageSpec, NetOutput, TapSpec
from ladd_dist.critics import Critic
from ladd_dist.testing.basics import call, check_basics, label, require, seeded

IMAGE = ImageSpec(channels=3, height=16, width=16, num_classes=4)


class _Teacher(Denoiser):
    """The smallest teacher that a critic can be built on."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.cond_dim, self.taps = IMAGE, 2, {"only": TapSpec(3, 1)}

    def forward(
        self, x: Tensor, sigma: Tensor, cond: Tensor, *, taps: tuple[str, ...] = (), denoise: bool = True
    ) -> NetOutput:
        for tap in taps:
            if tap not in self.taps:
                raise UnknownTapError(f"unknown tap {tap!r}; the network has: {', '.join(self.taps)}")
        return NetOutput(None, {tap: x.square() for tap in taps}, torch.stack([sigma, cond.float()], dim=1))


class _Same(Autoencoder):
    def decode(self, latents: Tensor) -> Tensor:
        return latents


def check_critic(critic: Critic) -> None:
    """Check features against the catalog, gradients to every sample and no weight, and a KeyError for a foreign tap.

    Raises:
        ContractError: one of these does not hold.
    """
    check_basics(critic)
    who = label(critic)
    network: Denoiser = call(who, "to be built", critic.build, teacher=_Teacher(), image=IMAGE, codec=_Same)
    taps = tuple(network.taps)
    require(bool(taps), f"{who} must have at least one tap")
    with seeded():
        x = torch.randn(2, 3, 16, 16).requires_grad_()
    out = call(who, "on [2,3,16,16]", network, x, torch.ones(2), torch.tensor([0, 3]), taps=taps, denoise=False)
    require(out.cond_vec.shape == (2, network.cond_dim), f"{who}: cond_vec must be [B, {network.cond_dim}]")
    for tap, value in out.features.items():
        spec = network.taps[tap]
        require(value.shape[:2] == (2, spec.channels), f"{who}: tap {tap!r} has {list(value.shape)}, said {spec}")
        (gradient,) = torch.autograd.grad(value.square().sum(), x, retain_graph=True)
        require(bool(gradient.flatten(1).any(dim=1).all()), f"{who}: tap {tap!r} passes no gradient to some sample")
    loose = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    require(not loose, f"{who}: the weight {loose[:1]} requires a gradient")
    try:
        network(x, torch.ones(2), torch.tensor([0, 3]), taps=("no such tap",), denoise=False)
    except KeyError as error:
        require(taps[0] in str(error), f"{who}: its KeyError must list the catalog, it says {error}")
    else:
        require(False, f"{who} must raise KeyError for an unknown tap")
