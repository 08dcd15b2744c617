"""Training images that lie on the device, whole: a step fetches its batch there, and the host sends places alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.core.transfer import sent
from ladd_dist.datasets import ImageSet

_PIECE = 1_000


class ResidentImages:
    """An `ImageSet` whose images and classes are copied to a device once; batches are the same numbers, on it."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        """Copy all images, float32: 12 KB each at 3 x 32 x 32."""
        self.image, self.device = images.image, device
        pieces = [images.batch(places) for places in torch.split(torch.arange(len(images)), _PIECE)]
        self.x0 = torch.cat([x0.to(device) for x0, _ in pieces])
        self.cond = torch.cat([cond.to(device) for _, cond in pieces])

    def __len__(self) -> int:
        return len(self.x0)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,C,H,W] and class ids [B], on the device, for indices [B] int64 on the CPU."""
        places = sent(indices, self.device)
        return self.x0[places], self.cond[places]
