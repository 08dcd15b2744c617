"""Figures of a training step, computed without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ladd_dist.core.gan import Margins, threshold_margins
from ladd_dist.parallel import Trainable

SKIPPED = "skipped"
"""The key, among a step's figures, that says whether an update was skipped; see `skipped`."""


class Means:
    """Means of figures over micro-batches, computed without waiting for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, figures: dict[str, Tensor]) -> None:
        """Add the figures (0-d) of one micro-batch."""
        for name, value in figures.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, Tensor | float]:
        """The mean of each figure over the micro-batches that had it."""
        return {
            name: value / self.counts[name] if self.counts[name] > 1 else value for name, value in self.sums.items()
        }


@torch.no_grad()
def logit_metrics(
    real: dict[str, Tensor], fake: dict[str, Tensor], margins: Margins = threshold_margins
) -> dict[str, Tensor]:
    """Accuracy (share of logits with a margin above 0) and logit gap E[l_real] - E[l_fake], per head and overall."""
    metrics: dict[str, Tensor] = {}
    rows = []
    for tap in real:
        right_real, right_fake = ((side > 0).float().mean() for side in margins(real[tap], fake[tap]))
        gap = real[tap].mean() - fake[tap].mean()
        rows.append(torch.stack([right_real, right_fake, gap]))
        metrics |= {f"accuracy/real/{tap}": right_real, f"accuracy/fake/{tap}": right_fake, f"logit_gap/{tap}": gap}
    right_real, right_fake, gap = torch.stack(rows).mean(dim=0)
    metrics |= {"accuracy/real": right_real, "accuracy/fake": right_fake, "accuracy": (right_real + right_fake) / 2}
    return {**metrics, "logit_gap": gap}


@torch.no_grad()
def accuracy_mismatched(
    real: dict[str, Tensor], wrong: dict[str, Tensor], margins: Margins = threshold_margins
) -> dict[str, Tensor]:
    """`accuracy/mismatched`: share of logits, over heads, of real samples under a wrong condition that say "fake"."""
    right = [(margins(real[tap], wrong[tap])[1] > 0).float().mean() for tap in real]
    return {"accuracy/mismatched": torch.stack(right).mean()}


def skipped(*networks: Trainable) -> dict[str, Tensor]:
    """`SKIPPED` (0-d, bool): whether the last update of any of these networks was; nothing where no loss is scaled."""
    found = [own for network in networks if (own := getattr(network, "skipped", None)) is not None]
    return {SKIPPED: torch.stack(found).any()} if found else {}


def scaling(networks: Mapping[str, Trainable]) -> dict[str, float]:
    """`loss_scale/NAME` in force, and `skipped/NAME` updates since the start of the run, of networks in fp16.

    Waits for the device.
    """
    found: dict[str, float] = {}
    for name, network in networks.items():
        if skipped(network):
            counters = network.counters()
            found |= {f"skipped/{name}": counters["skipped"], f"loss_scale/{name}": counters["scale"]}
    return found
