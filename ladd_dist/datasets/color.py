"""Colour digits: grey digits on a black background, each dyed with a colour drawn from (seed, index) alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.ranges import CountOrZero
from ladd_dist.core.types import COLOUR_DIGITS, INK_ON_BLACK, ImageSpec
from ladd_dist.datasets import Split

NUM_CLASSES = 10
SHOWS = (COLOUR_DIGITS, INK_ON_BLACK)
SATURATION = (0.6, 1.0)
VALUE = (0.8, 1.0)
ColourSeed = CountOrZero
"""Seed of colours: 0 or more."""
# One stream of colours per split: a test digit must not repeat the colour of the training digit of its index.
_STREAMS: dict[Split, int] = {"train": 0, "test": 1}


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Colours [N,3] (hue, saturation, value), each in [0,1], as [N,3] (red, green, blue) in [0,1].

    Piecewise linear form: channel = v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for
    red, green, blue (Smith 1978, "Color gamut transform pairs").
    """
    hue, saturation, value = hsv.unsqueeze(-1).unbind(1)
    k = (torch.tensor([5.0, 3.0, 1.0], dtype=hsv.dtype, device=hsv.device) + 6.0 * hue) % 6.0
    return value - value * saturation * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)


def draw_colours(num: int, *, seed: int, stream: int = 0) -> Tensor:
    """`num` colours [N,3], RGB in [0,1]: hue U(0,1), saturation U(.6,1), value U(.8,1).

    Row i depends on (seed, stream, i) alone, never on `num`. The source is the raw output of Philox (Salmon et al.
    2011) and not a numpy distribution, because numpy promises stable streams for raw output only.
    """
    raw = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(3 * num)
    uniform = torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(num, 3)
    low = torch.tensor([0.0, SATURATION[0], VALUE[0]], dtype=torch.float64)
    high = torch.tensor([1.0, SATURATION[1], VALUE[1]], dtype=torch.float64)
    return hsv_to_rgb(low + (high - low) * uniform).float()


def paint(grey: Tensor, rgb: Tensor) -> Tensor:
    """Images [N,3,H,W] in [-1,1] from ink [N,1,H,W] in [0,1] and colours [N,3] in [0,1]; no ink is black (-1)."""
    return grey * rgb[:, :, None, None] * 2.0 - 1.0


class ColorDigits:
    """`ImageSet` of grey digits, coloured when a batch is requested.

    With `repeat` > 1 the set is `repeat` times as long: index i shows digit i mod N in colour i, and a small set of
    digits still fills the space of colours.

    Args:
        grey: ink, uint8 [N,1,H,W], 255 is full ink.
        labels: classes 0 to 9, int64 [N].
        seed: seed of the colours, 0 or more.
        split: split that chooses the stream of colours; train and test share none.
        repeat: number of times that each digit appears, 1 or more.
        dyed: whether images have colours; without, they are the ink alone, in one channel.

    Raises:
        UserError: a shape or dtype is wrong.
    """

    def __init__(
        self,
        grey: Tensor,
        labels: Tensor,
        *,
        seed: int,
        split: Split = "train",
        repeat: int = 1,
        dyed: bool = True,
    ) -> None:
        if grey.dtype != torch.uint8 or grey.ndim != 4 or grey.shape[1] != 1:
            raise UserError(f"grey digits must be uint8 [N,1,H,W], got {grey.dtype} {list(grey.shape)}")
        if labels.dtype != torch.int64 or labels.shape != grey.shape[:1]:
            raise UserError(f"labels must be int64 [{len(grey)}], got {labels.dtype} {list(labels.shape)}")
        if repeat < 1 or seed < 0:
            raise UserError(f"repeat must be 1 or more and seed 0 or more, got repeat={repeat}, seed={seed}")
        self.image = ImageSpec(3 if dyed else 1, grey.shape[2], grey.shape[3], NUM_CLASSES)
        self.grey = grey
        self.labels = labels
        self.colours = draw_colours(len(grey) * repeat, seed=seed, stream=_STREAMS[split])

    def __len__(self) -> int:
        return len(self.colours)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,3,H,W] (or [B,1,H,W], not dyed) in [-1,1] and classes [B] int64 for indices [B] in [0, len).

        Raises:
            IndexError: an index is outside the set.
        """
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= len(self)):
            raise IndexError(f"indices must lie in 0..{len(self) - 1}, got {int(indices.min())}..{int(indices.max())}")
        digit = indices % len(self.grey)
        ink = self.grey[digit].float() / 255.0
        images = paint(ink, self.colours[indices]) if self.image.channels == 3 else ink * 2.0 - 1.0
        return images, self.labels[digit]
