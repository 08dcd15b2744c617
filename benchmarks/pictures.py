"""What a folder of pictures costs: `python benchmarks/pictures.py`.

Makes synthetic PNG of 32 px in a temporary folder, opens the data set three times, each in a process of its own (for
the first time, again, and again with 1,000 random batches of 128 read), and prints seconds and the peak memory of that
process; what it imports counts, which is most of it. CPU.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # ladd_dist, wherever it is called from

BATCHES, BATCH = 1_000, 128


def make(root: Path, num: int) -> None:
    """Write `num` PNG of noise, in ten classes."""
    from PIL import Image

    source = np.random.default_rng(0)
    for index in range(num):
        folder = root / str(index % 10)
        folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        Image.fromarray(source.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(data, "PNG", compress_level=1)
        (folder / f"{index:07d}.png").write_bytes(data.getvalue())


def measure(root: Path, *, read: bool) -> dict[str, float]:
    """Seconds and peak bytes of opening the data set in this process."""
    import torch

    from ladd_dist.datasets.folder import Folder

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.monotonic()
    images = Folder(root=str(root / "pictures"), size=32).open(split="train", cache=root / "cache")
    opened = time.monotonic() - started
    if read:
        source = torch.Generator().manual_seed(0)
        for _ in range(BATCHES):
            images.batch(torch.randint(len(images), (BATCH,), generator=source))
    return {
        "seconds_to_open": round(opened, 1),
        "seconds_to_read": round(time.monotonic() - started - opened, 1),
        "imports_bytes": before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Print a JSON object for each opening."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--root", type=Path, help="measure this folder, in this process")
    parser.add_argument("--read", action="store_true", help="read batches too")
    asked = parser.parse_args()
    if asked.root is not None:
        print(json.dumps(measure(asked.root, read=asked.read)))
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name) / "pictures", asked.num)
        environment = {**os.environ, "XDG_CACHE_HOME": f"{name}/home"}
        for what, more in (("first", ()), ("again", ()), ("again, and read", ("--read",))):
            done = subprocess.run(
                [sys.executable, __file__, "--root", name, *more], env=environment, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            print(what, done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
