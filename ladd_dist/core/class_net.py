"""A small feature network for any pictures, trained on a data set's own: their classes or turns, and colours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.features import FEATURE_DIM, shrink

NAME = "class_features"
NUM_TURNS = 4
"""The groups of a data set without classes: pictures turned by 0, 90, 180 and 270 degrees."""
COLOUR_CELLS = 2
"""The network reads the mean colours of so many cells in each direction."""
_CHUNK = 512  # as in `metrics/extract.py`: shares of an evaluation run in the same batches


class Seen(NamedTuple):
    """Outputs of the network for N pictures."""

    features: Tensor  # [N,64] zero mean, unit variance over the pictures of its training
    groups: Tensor  # [N,G] logits of the class, or of the turn where there are no classes
    colours: Tensor  # [N,C*4] mean values of the cells, as `cell_colours` gives them


class ClassNet(nn.Module):
    """Four convolutions, 64 features, and two linear readers on them: of the group and of the coarse colours.

    Groups alone would leave out what classes do not depend on, such as the colour of a digit; samples that lost all
    colours would then count as good. Batch norm without scale standardises the features, so that a Frechet distance is
    in units of the spread of real pictures, 64 in all.

    Attributes:
        colour_mean, colour_std: [C*4] of the cells' colours in the data.

    Args:
        channels: channels of the pictures.
        num_groups: classes, or `NUM_TURNS`.
        size: side length in pixels to which pictures of any shape are resized; finer detail is not seen.
    """

    colour_mean: Tensor
    colour_std: Tensor

    def __init__(self, channels: int, num_groups: int, size: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.body = nn.Sequential(
            *_block(channels, 32, stride=2),
            *_block(32, 48, stride=2),
            *_block(48, 64, stride=1),
            *_block(64, 64, stride=2),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 16, FEATURE_DIM),
            nn.BatchNorm1d(FEATURE_DIM, affine=False),
        )
        self.groups = nn.Linear(FEATURE_DIM, num_groups)
        self.colours = nn.Linear(FEATURE_DIM, channels * COLOUR_CELLS**2)
        self.register_buffer("colour_mean", torch.zeros(channels * COLOUR_CELLS**2))
        self.register_buffer("colour_std", torch.ones(channels * COLOUR_CELLS**2))

    def knows_colours(self, colours: Tensor) -> None:
        """Set the scale in which the colours are read, by those [N,C*4] of the data."""
        self.colour_mean.copy_(colours.mean(dim=0))
        self.colour_std.copy_(colours.std(dim=0, correction=0) + 1e-3)

    def forward(self, images: Tensor) -> Seen:
        """Features and readings of pictures [N,C,H,W] in [-1, 1] of any height and width.

        Raises:
            UserError: the pictures have another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise UserError(
                f"{NAME}: the network was trained on pictures of {self.channels} channels, got {list(images.shape)}"
            )
        features = self.body(shrink(images, self.size))
        return Seen(features, self.groups(features), self.colour_mean + self.colour_std * self.colours(features))


def _block(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels_out), nn.SiLU()]


def cell_colours(images: Tensor) -> Tensor:
    """Mean values [N,C*4] in [-1, 1] of the four quarters of pictures [N,C,H,W]."""
    return nn.functional.adaptive_avg_pool2d(images, COLOUR_CELLS).flatten(1)


class TrainedFeatures(NamedTuple):
    """A trained network, and what a report says of it."""

    network: ClassNet
    """Frozen, in eval mode."""
    label: str
    """`class_features-` and six digits of the sha256 of its weights: figures of other labels do not compare."""
    sha256: str
    """Of its weights."""
    by_classes: bool
    """Whether it was trained on classes, and so can say which class a picture shows."""
    told: str
    """A sentence: what it was trained on, and its accuracy on pictures that were held out."""

    @torch.inference_mode()
    def read(self, images: Tensor) -> dict[str, Tensor]:
        """`features` [N,64] and `group` [N] int64, the class (or turn) it sees, of pictures [N,C,H,W]."""
        self.network.to(images.device)
        seen = [self.network(part) for part in torch.split(images, _CHUNK)]
        return {
            "features": torch.cat([part.features for part in seen]),
            "group": torch.cat([part.groups.argmax(dim=1) for part in seen]),
        }
