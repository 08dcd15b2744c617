"""Two ranks read images in shares and measure them; rank 0 writes the figures beside those of one process.

python -m torch.distributed.run --standalone --nproc-per-node 2 tests/distributed/reading_worker.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from ladd_dist.core.types import ImageSpec  # noqa: F401  the package before the process group
from ladd_dist.evaluation.feature_cache import cached, sharded
from ladd_dist.evaluation.measurement import Measurement
from ladd_dist.metrics import FeatureExtraction, Read, Reader, References, Samples, here
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.parallel.gather import joined_rows, share_of
from ladd_dist.parallel.ranks import Ranks, join

METRICS = (DigitColor(), Kid(), Manifold())


def pictures(num: int, seed: int, work: FeatureExtraction) -> Samples:
    images = torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Samples(images, torch.arange(num) % 10, work)


def figures(work: FeatureExtraction) -> dict[str, float]:
    real, teacher, own = (pictures(num, seed, work) for seed, num in enumerate((1500, 1100, 1300)))
    measured = Measurement(METRICS, References(real, teacher))({"own": own}, num_classes=10)
    return measured.figures["own"] | {f"3/{key}": value for key, value in measured.classes["own"]["3"].items()}


def main(folder: Path) -> None:
    with join("gloo", 60.0) as ranks:
        count = Counting(sharded(ranks))
        shared = figures(count.work)
        store = [figures(cached(folder / "features", ranks)) for _ in range(2)]
        results = {
            "shared": shared,
            "kept": store,
            "files": len(list((folder / "features").glob("*.safetensors"))) if ranks.is_first else 0,
            "alone": figures(here),
            "read": count.rows,
            "joined": joined(ranks),
        }
        if ranks.is_first:
            (folder / "results.json").write_text(json.dumps(results))
        ranks.barrier()


def joined(ranks: Ranks) -> list[list[int]]:
    """Rows of several numbers, one of them too few for both ranks, joined from shares."""
    found = []
    for num in (1, 7, 8):
        shares = share_of(num, 4, ranks)
        own = torch.arange(*shares[ranks.rank])
        found.append(joined_rows(own, shares, ranks).tolist())
    return found


class Counting:
    """Counts the rows that this rank reads itself."""

    def __init__(self, inner: FeatureExtraction) -> None:
        self.inner, self.rows = inner, 0

    def work(self, what: str, reader: Reader, images: Tensor) -> Read:
        def counted(part: Tensor) -> Read:
            self.rows += len(part)
            return reader(part)

        return self.inner(what, counted, images)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
