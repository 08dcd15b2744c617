"""Metrics `clean_fid` and `clean_clip`: FID and KID as clean-fid computes them (Parmar et al. 2022, arXiv 2104.11222).

clean-fid's resizing and its network give the features. The distances are this package's own formulas, which agree with
clean-fid's to 1e-6 on the same features, and come with intervals. The weights are neither shipped nor downloaded: they
are a local file whose sha256 is known, because such a file holds code (TorchScript).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import Within
from ladd_dist.core.types import ImageSpec
from ladd_dist.metrics import Measure, Metric, Read, Reader, References, Samples
from ladd_dist.metrics.frechet import frechet_estimate, frechet_reference
from ladd_dist.metrics.interval import with_intervals
from ladd_dist.metrics.kernel import kernel_estimate, kernel_reference, subset_kernel_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
CLIP_FILE = "ViT-B-32.pt"
CLIP_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
CLIP_URL = f"https://openaipublic.azureedge.net/clip/models/{CLIP_SHA256}/{CLIP_FILE}"
WITHOUT = "the metrics 'digit_color' and 'kid' are the same formulas and need no such file"
_CHUNK = 64


class Keys(NamedTuple):
    """Names of a network's two figures."""

    frechet: str
    kernel: str


def to_bytes(images: Tensor) -> NDArray[Any]:
    """Convert images [N,C,H,W] in [-1, 1], C = 1 or 3, to the bytes of a PNG: uint8 [N,H,W,3].

    Raises:
        UserError: the images are not [N,C,H,W] with C = 1 or 3.
    """
    import numpy as np

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"clean-fid reads images [N,C,H,W] with C = 1 or 3, got {list(images.shape)}")
    array = (images.detach().float().cpu().clamp(-1.0, 1.0) * 127.5 + 128.0).clamp(0.0, 255.0).to(torch.uint8)
    return np.ascontiguousarray(array.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy())


def reader_of(resize: Callable[[Any], Any], network: Callable[[Tensor], Tensor]) -> Reader:
    """Make a reader that resizes images one by one on the CPU, as clean-fid does, and runs the network in batches.

    clean-fid squeezes what is no square into one (299 x 299 for Inception), and cuts nothing off.
    """
    import numpy as np

    @torch.inference_mode()
    def reader(images: Tensor) -> Read:
        found = []
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            for part in torch.split(images, _CHUNK):
                resized = np.stack(list(pool.map(resize, to_bytes(part)))).transpose(0, 3, 1, 2)
                batch = torch.from_numpy(np.ascontiguousarray(resized, dtype=np.float32))
                found.append(network(batch.to(images.device)).float().cpu())
        return {"features": torch.cat(found)}

    return reader


@functools.lru_cache(maxsize=2)
def inception_reader(folder: str, sha256: str, device: torch.device) -> Reader:
    """Reader of clean-fid's Inception in mode "clean", with features [N,2048].

    Raises:
        UserError: clean-fid or the weights are missing, or the file has another sha256.
    """
    _require("cleanfid", "clean_fid", "pip install clean-fid 'scipy<1.18'")
    path = _weights(Path(folder or tempfile.gettempdir()) / INCEPTION_FILE, sha256, INCEPTION_URL, "clean_fid")
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    network = InceptionV3W(str(path.parent), download=False, resize_inside=False).to(device).eval()
    return reader_of(build_resizer("clean"), network)


@functools.lru_cache(maxsize=2)
def clip_reader(folder: str, sha256: str, device: torch.device) -> Reader:
    """Reader of clean-fid's CLIP ViT-B/32, with features [N,512].

    Raises:
        UserError: clean-fid, `clip` or the weights are missing, or the file has another sha256.
    """
    _require("cleanfid", "clean_clip", "pip install clean-fid 'scipy<1.18'")
    _require("clip", "clean_clip", "pip install git+https://github.com/openai/CLIP.git")
    path = _weights(Path(folder or Path.home() / ".cache" / "clip") / CLIP_FILE, sha256, CLIP_URL, "clean_clip")
    from cleanfid.clip_features import CLIP_fx, img_preprocess_clip

    return reader_of(img_preprocess_clip, CLIP_fx(str(path), device=str(device)))


def _require(module: str, metric: str, remedy: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"the metric {metric!r} needs the package {module!r} ({remedy}); {WITHOUT}")


def _weights(path: Path, sha256: str, url: str, metric: str) -> Path:
    if not path.is_file():
        raise UserError(
            f"the metric {metric!r} needs the file {path}, which is not there: put it there from {url} (sha256 "
            f"{sha256}), or set the metric's 'folder' to where it is; {WITHOUT}"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise UserError(
            f"{path} is damaged or another file: its sha256 is {found}, expected {sha256}; get it again from {url}"
        )
    return path


@dataclass(frozen=True)
class _FidAndKid(Metric):
    """FID and KID by either network."""

    folder: str = ""
    """Folder of the weights file; empty: where clean-fid itself looks for it."""
    sha256: str = ""
    """Expected sha256 of the weights file; empty: that of the published file."""
    subsets: Annotated[int, Within("[1, 10000]")] = 100
    """Number of random subsets that KID is the mean over, as in clean-fid."""
    subset_size: Annotated[int, Within("[2, inf)")] = 1_000
    """Number of samples in a subset."""
    seed: Annotated[int, Within("[0, 4294967295]")] = 0
    """Seed of the subsets."""
    by_class: bool = False
    """Whether to measure each class too: a covariance of 2,048 features needs some thousand samples of each."""
    keys: ClassVar[Keys]
    published: ClassVar[str]

    def misfit(self, image: ImageSpec, shows: tuple[str, ...]) -> str:
        return "" if image.channels in (1, 3) else "clean-fid reads grey and RGB images"

    def of_real(self) -> tuple[str, ...]:
        return tuple(self.keys)

    def space(self, samples: Samples) -> str:
        return f"{self.name}-{(self.sha256 or self.published)[:6]}"

    def needs(self) -> int:
        return 2 if self.by_class else 0

    def require(self, device: torch.device) -> None:
        self.reader(device)

    def reader(self, device: torch.device) -> Reader:
        raise NotImplementedError

    def build(self, *, references: References) -> Measure:
        def features(samples: Samples) -> Tensor:
            what = f"{self.name} {self.sha256 or self.published}"
            return samples.read(what, lambda images: self.reader(images.device)(images))["features"]

        self.require(references.real.images.device)  # fails now, also where a cache has all features of the references
        sets = {"": features(references.real), "_teacher": features(references.teacher)}
        gaussians = {name: frechet_reference(rows) for name, rows in sets.items()}
        kernels = {name: kernel_reference(rows) for name, rows in sets.items()}

        def measure(samples: Samples) -> dict[str, float]:
            own = features(samples)
            figures: dict[str, float] = {}
            for name, rows in sets.items():
                distance = frechet_estimate(own, gaussians[name])
                figures |= with_intervals({self.keys.frechet + name: distance}, at_least=0.0)
                kid = subset_kernel_distance(
                    own, rows, num_subsets=self.subsets, subset_size=self.subset_size, seed=self.seed
                )
                figures |= with_intervals(
                    {self.keys.kernel + name: kernel_estimate(own, kernels[name])._replace(value=kid)}
                )
            return figures

        return measure


@register("clean_fid")
@dataclass(frozen=True)
class CleanFid(_FidAndKid):
    """clean-fid's FID and KID (`fid`, `inception_kid`), to the real set and to the teacher's samples (`..._teacher`).

    These figures can be compared with published ones. Both depend on the number of samples and of real images
    (`evaluate.num_samples`, `evaluate.num_references`), FID strongly. Needs clean-fid's weights.
    """

    keys: ClassVar[Keys] = Keys("fid", "inception_kid")
    published: ClassVar[str] = INCEPTION_SHA256

    def reader(self, device: torch.device) -> Reader:
        return inception_reader(self.folder, self.sha256 or self.published, device)


@register("clean_clip")
@dataclass(frozen=True)
class CleanClip(_FidAndKid):
    """clean-fid's variant on CLIP ViT-B/32 features: `clip_fd` and `clip_kid`, to the real set and to the teacher's.

    Needs the package `clip` and its weights. CLIP's features see content that Inception's, made for ImageNet's classes,
    do not (Kynkaanniemi et al. 2023, arXiv 2203.06026).
    """

    keys: ClassVar[Keys] = Keys("clip_fd", "clip_kid")
    published: ClassVar[str] = CLIP_SHA256

    def reader(self, device: torch.device) -> Reader:
        return clip_reader(self.folder, self.sha256 or self.published, device)
