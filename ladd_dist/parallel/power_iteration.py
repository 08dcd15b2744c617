"""What moves in the forward pass moves once an update, however many micro-batches and penalties that takes."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.utils.parametrize import is_parametrized


class Parametrizations:
    """The parametrizations of a network: spectral norm's power iteration is one step of its vectors a forward.

    Without this, an update of four micro-batches would iterate four times and one of a single batch once, and they
    would have different gradients. In eval mode a parametrization gives the weight of the iteration before.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = [layer for layer in module.modules() if is_parametrized(layer)]
        self.layers = [cast(nn.Module, layer.parametrizations) for layer in layers]

    def hold(self) -> None:
        """From now on nothing moves."""
        for layer in self.layers:
            layer.eval()

    def release(self, training: bool) -> None:
        """Move again, if the network is in training mode."""
        for layer in self.layers:
            layer.train(training)
