"""Spectral norm's power iteration, run once an update and not once a forward."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.nn.utils.parametrize import is_parametrized


class Parametrizations:
    """The parametrizations of a network, each of which moves its vectors by one step in every training-mode forward.

    An update of four micro-batches would therefore move them four times, and one of a single batch once, and the two
    would have different gradients. In eval mode a parametrization returns the weight of its last step.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = [layer for layer in module.modules() if is_parametrized(layer)]
        self.layers = [cast(nn.Module, layer.parametrizations) for layer in layers]

    def freeze(self) -> None:
        """Keep the vectors as they are, until `resume`."""
        for layer in self.layers:
            layer.eval()

    def resume(self, training: bool) -> None:
        """Let the vectors move again if the network is in training mode (`training`)."""
        for layer in self.layers:
            layer.train(training)
