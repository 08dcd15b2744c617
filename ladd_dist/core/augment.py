"""The same flips and shifts for real and fake samples before a critic looks at them: few pictures are learned less by
heart (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.ranges import Ranged, Within
from ladd_dist.core.rng import RowSource


class Moves(NamedTuple):
    """What becomes of each of R samples."""

    flipped: Tensor  # [R] bool: mirrored, left and right
    down: Tensor  # [R] int64 pixels
    right: Tensor  # [R] int64 pixels

    def __call__(self, x: Tensor) -> Tensor:
        """Samples x [R,C,H,W], moved; the edge's pixels fill what comes in. Differentiable in x."""
        height, width = x.shape[2:]
        rows = (torch.arange(height, device=x.device) - self.down[:, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=x.device) - self.right[:, None]).clamp(0, width - 1)
        columns = torch.where(self.flipped[:, None], width - 1 - columns, columns)
        x = x.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, width))
        x = x.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], height, -1))
        return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Augment(Ranged):
    """Random moves of what the critic sees; a real sample and the fake of its row move alike."""

    flip: Annotated[float, Within("[0, 0.5)")] = 0.0
    """Share of the samples that are mirrored. Below one half the heads still see which side is which (Karras et al.
    2020, arXiv 2006.06676, section 2.2)."""
    shift: Annotated[float, Within("[0, 0.5]")] = 0.0
    """Largest shift, as a share of height and width; 0: none."""

    def moves(self) -> bool:
        """Whether anything moves."""
        return self.flip > 0 or self.shift > 0

    def draw(self, source: RowSource, height: int, width: int) -> Moves:
        """The moves of a source's rows."""
        flipped, down, right = source.uniform(3).unbind(1)
        return Moves(flipped < self.flip, _pixels(down, self.shift * height), _pixels(right, self.shift * width))


def _pixels(uniform: Tensor, most: float) -> Tensor:
    """Whole numbers [R], uniform from -floor(most) to floor(most), of numbers [R] in [0, 1)."""
    limit = int(most)
    return (uniform * (2 * limit + 1)).long() - limit
