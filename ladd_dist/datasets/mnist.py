"""Colour MNIST: LeCun's handwritten digits (28x28), found in a folder or downloaded by torchvision."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import MissingFileError, UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import named_outside
from ladd_dist.core.ranges import Within
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, Split
from ladd_dist.datasets.color import NUM_CLASSES, SHOWS, ColorDigits, ColourSeed

# The four files and their sizes in bytes. An interrupted download or extraction leaves a shorter file, which
# torchvision takes for a good one.
FILES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
ROOT = "data/mnist"
_LABELS_HEADER = 8
_CHUNK = 10_000
_WITHOUT = "`--swap dataset=digits` (or `--scale laptop`) needs no such files"


def resize(grey: Tensor, size: int) -> Tensor:
    """Digits uint8 [N,1,28,28] resized to uint8 [N,1,size,size].

    32: two pixels of ground on each side. 16: the central 24x24 (digits fill 20x20), then antialiased bicubic.
    28: as they are. Other sizes: padded to 32, then antialiased bicubic.
    """
    if size == 28:
        return grey
    framed = grey[:, :, 2:26, 2:26] if size == 16 else F.pad(grey, (2, 2, 2, 2))
    if size == framed.shape[-1]:
        return framed
    parts = [
        # Bicubic overshoots at edges: clip before rounding.
        F.interpolate(part.float(), size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 255.0).round().byte()
        for part in torch.split(framed, _CHUNK)
    ]
    return torch.cat(parts)


@register("mnist")
@dataclass(frozen=True)
class Mnist(Dataset):
    """Colour MNIST: 60,000 training and 10,000 test digits, from `root`/MNIST/raw or downloaded there on first use."""

    root: str = field(default=ROOT, metadata=NEUTRAL)
    """Folder above MNIST/raw."""
    size: Annotated[int, Within("[8, 65536]")] = 32
    """Side length of the images in pixels."""
    download: bool = field(default=True, metadata=NEUTRAL)
    """Whether to download missing files."""
    seed: ColourSeed = 0
    """Seed of the colours."""

    shows: ClassVar[tuple[str, ...]] = SHOWS

    def spec(self) -> ImageSpec:
        return ImageSpec(channels=3, size=self.size, num_classes=NUM_CLASSES)

    def build(self, *, split: Split) -> ColorDigits:
        """Open a split; the first use may download the files (torchvision shows the progress).

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched.
            UserError: a file is damaged.
        """
        grey, labels = self._read(split)
        return ColorDigits(resize(grey, self.size), labels, seed=self.seed, split=split)

    def _folder(self) -> Path:
        return Path(self.root).expanduser().resolve() / "MNIST" / "raw"

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Ink uint8 [N,1,28,28] and labels int64 [N]."""
        from torchvision.datasets import MNIST

        folder = self._folder()
        self._check_sizes()
        if any(not (folder / name).is_file() for name in FILES):
            self._fetch()
            self._check_sizes()
        try:
            files = MNIST(root=str(folder.parent.parent), train=split == "train", download=False)
        except Exception as error:  # torchvision's reader has many ways to fail on damaged bytes
            raise UserError(
                f"the MNIST files in {folder} are damaged ({type(error).__name__}: {error}): delete the folder to "
                f"download them again, or put good ones there; {_WITHOUT}"
            ) from error
        labels = FILES[f"{'train' if split == 'train' else 't10k'}-labels-idx1-ubyte"] - _LABELS_HEADER
        if files.data.shape != (labels, 28, 28) or files.targets.shape != (labels,) or int(files.targets.max()) > 9:
            raise UserError(
                f"the MNIST files in {folder} are damaged: {list(files.data.shape)} digits with {len(files.targets)} "
                f"labels up to {int(files.targets.max())}; delete the folder to download them again; {_WITHOUT}"
            )
        return files.data.unsqueeze(1), files.targets.long()

    def _check_sizes(self) -> None:
        for name, size in FILES.items():
            path = self._folder() / name
            for found in (path, path.with_name(f"{name}.gz")):
                if found.exists():  # torchvision would wait for a pipe, or write to a device
                    require_regular(found)
            if path.is_file() and path.stat().st_size != size:
                raise UserError(
                    f"the MNIST file {path} is damaged: {path.stat().st_size:,} bytes, not {size:,}. Delete it to "
                    f"download it again, or put a good one there; {_WITHOUT}"
                )

    def _fetch(self) -> None:
        from torchvision.datasets import MNIST

        reason = "download is off"
        if (file := named_outside(self.root)) and self.root != ROOT:
            reason = f"{file} names this folder, and nothing is written where a file from outside says"
        elif self.download:
            try:
                MNIST(root=str(self._folder().parent.parent), train=True, download=True)
                return
            except (RuntimeError, OSError) as error:
                reason = f"the download failed: {' '.join(str(error).split())}"
            except Exception as error:  # it reads the files too: an archive of good checksum holds good files
                reason = f"the download gave bad files: {type(error).__name__}: {error}"
        names = ", ".join(FILES)
        raise MissingFileError(
            f"MNIST is not in {self._folder()} ({reason}). Put the four files {names} there"
            f"{' (or their .gz)' if self.download else ''}, name the folder above MNIST/raw with `--dataset.root`, "
            f"or do without: {_WITHOUT}"
        )
