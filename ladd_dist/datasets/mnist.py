"""Colour MNIST, and the base of sets in its files' format: found in a folder, or downloaded by torchvision."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import MissingFileError, UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.pretrained import named_outside
from ladd_dist.core.serialize import NEUTRAL
from ladd_dist.core.sizes import PictureSize, height_width
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, Split
from ladd_dist.datasets.color import NUM_CLASSES, SHOWS, ColorDigits, ColourSeed

if TYPE_CHECKING:
    from torchvision.datasets import MNIST

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


def resize(grey: Tensor, size: int | tuple[int, int], *, crop: bool = True) -> Tensor:
    """Digits uint8 [N,1,28,28] resized to uint8 [N,1,H,W].

    32: two pixels of ground on each side. 16: the central 24x24 (digits fill 20x20), then antialiased bicubic.
    28: as they are. Other sizes: padded to 32, then antialiased bicubic, which stretches what is no square.

    Args:
        size: height and width, or one number for both.
        crop: whether 16 takes the centre; False for subjects that fill the frame, which are padded to 32 instead.
    """
    if size == 28:
        return grey
    framed = grey[:, :, 2:26, 2:26] if size == 16 and crop else F.pad(grey, (2, 2, 2, 2))
    if (sides := height_width(size)) == framed.shape[2:]:
        return framed
    parts = [
        # Bicubic overshoots at edges: clip before rounding.
        F.interpolate(part.float(), size=sides, mode="bicubic", antialias=True).clamp(0.0, 255.0).round().byte()
        for part in torch.split(framed, _CHUNK)
    ]
    return torch.cat(parts)


@dataclass(frozen=True)
class MnistFiles(Dataset):
    """Base of sets of 60,000 training and 10,000 test images in MNIST's four files, which torchvision can download."""

    root: str = field(default=ROOT, metadata=NEUTRAL)
    """Folder above the folder of the set."""
    size: PictureSize = 32
    """Size of the images in pixels, a side or height and width."""
    download: bool = field(default=True, metadata=NEUTRAL)
    """Whether to download missing files."""
    seed: ColourSeed = 0
    """Seed of the colours."""

    collection: ClassVar[str] = "MNIST"
    """Class of torchvision that reads the files; its folder has this name, too."""
    usual_root: ClassVar[str] = ROOT
    """Default of `root`, where downloads go whoever names it."""
    crops: ClassVar[bool] = True
    """Whether 16 px show the central 24x24 of the 28x28."""
    without: ClassVar[str] = "`--swap dataset=digits` (or `--scale laptop`) needs no such files"
    """What needs none of the files, for messages."""

    def spec(self) -> ImageSpec:
        return ImageSpec(3, *height_width(self.size), NUM_CLASSES)

    def build(self, *, split: Split) -> ColorDigits:
        """Open a split; the first use may download the files (torchvision shows the progress).

        Raises:
            FileNotFoundError: the files are missing and cannot be fetched.
            UserError: a file is damaged.
        """
        grey, labels = self._read(split)
        dyed = self.spec().channels == 3
        return ColorDigits(resize(grey, self.size, crop=self.crops), labels, seed=self.seed, split=split, dyed=dyed)

    def _folder(self) -> Path:
        return Path(self.root).expanduser().resolve() / self.collection / "raw"

    def _torchvision(self) -> type[MNIST]:
        import torchvision.datasets

        found: type[MNIST] = getattr(torchvision.datasets, self.collection)
        return found

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Ink uint8 [N,1,28,28] and labels int64 [N]."""
        folder = self._folder()
        self._check_sizes()
        if any(not (folder / name).is_file() for name in FILES):
            self._fetch()
            self._check_sizes()
        try:
            files = self._torchvision()(root=str(folder.parent.parent), train=split == "train", download=False)
        except Exception as error:  # torchvision's reader has many ways to fail on damaged bytes
            raise UserError(
                f"the {self.collection} files in {folder} are damaged ({type(error).__name__}: {error}): "
                f"delete the folder to download them again, or put good ones there; {self.without}"
            ) from error
        labels = FILES[f"{'train' if split == 'train' else 't10k'}-labels-idx1-ubyte"] - _LABELS_HEADER
        if files.data.shape != (labels, 28, 28) or files.targets.shape != (labels,) or int(files.targets.max()) > 9:
            raise UserError(
                f"the {self.collection} files in {folder} are damaged: {list(files.data.shape)} images with "
                f"{len(files.targets)} labels up to {int(files.targets.max())}; delete the folder to "
                f"download them again; {self.without}"
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
                    f"the {self.collection} file {path} is damaged: {path.stat().st_size:,} bytes, not {size:,}. "
                    f"Delete it to download it again, or put a good one there; {self.without}"
                )

    def _fetch(self) -> None:
        reason = "download is off"
        if (file := named_outside(self.root)) and self.root != self.usual_root:
            reason = f"{file} names this folder, and nothing is written where a file from outside says"
        elif self.download:
            try:
                self._torchvision()(root=str(self._folder().parent.parent), train=True, download=True)
                return
            except (RuntimeError, OSError) as error:
                reason = f"the download failed: {' '.join(str(error).split())}"
            except Exception as error:  # it reads the files too: an archive of good checksum holds good files
                reason = f"the download gave bad files: {type(error).__name__}: {error}"
        names = ", ".join(FILES)
        raise MissingFileError(
            f"{self.collection} is not in {self._folder()} ({reason}). Put the four files {names} there"
            f"{' (or their .gz)' if self.download else ''}, name the folder above {self.collection}/raw with "
            f"`--dataset.root`, or do without: {self.without}"
        )


@register("mnist")
@dataclass(frozen=True)
class Mnist(MnistFiles):
    """Colour MNIST: 60,000 training and 10,000 test digits, from `root`/MNIST/raw or downloaded there on first use."""

    root: str = field(default=ROOT, metadata=NEUTRAL)
    """Folder above MNIST/raw."""

    shows: ClassVar[tuple[str, ...]] = SHOWS
