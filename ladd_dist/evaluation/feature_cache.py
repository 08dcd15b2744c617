"""Feature extraction for an evaluation: shared among ranks, and cached by content for images that later runs reuse."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from torch import Tensor

from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.metrics import FeatureExtraction, Read, Reader
from ladd_dist.parallel.gather import joined_rows, share_of
from ladd_dist.parallel.ranks import Ranks

BLOCK = 512
"""Rows in a batch: networks then see the same batches, and give the same bits, on any number of ranks."""
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def sharded(ranks: Ranks) -> FeatureExtraction:
    """Extraction in which each rank computes its share and gets the rows of all; a collective call."""

    def work(what: str, reader: Reader, images: Tensor) -> Read:
        shares = share_of(len(images), BLOCK, ranks)
        if ranks.size == 1 or any(first == stop for first, stop in shares):
            return reader(images)  # too few to share: the shape of an empty share's rows would be unknown
        first, stop = shares[ranks.rank]
        own = reader(images[first:stop])
        return {name: joined_rows(rows, shares, ranks).to(images.device) for name, rows in own.items()}

    return work


def cached(folder: Path, ranks: Ranks) -> FeatureExtraction:
    """Extraction with a cache in `folder`, shared by all runs; a collective call.

    A file is named by the sha256 of the network's name and the images' bytes. Other images or weights are another file,
    so nothing becomes stale.
    """
    inner = sharded(ranks)

    def work(what: str, reader: Reader, images: Tensor) -> Read:
        path = folder / f"{content_name(what, images)}.safetensors"
        if ranks.from_rank0(path.exists):
            return {name: rows.to(images.device) for name, rows in load_tensors(path).items()}
        rows = inner(what, reader, images)
        if ranks.is_first:
            _save(path, rows)
        return rows

    return work


def content_name(what: str, images: Tensor) -> str:
    """32 hexadecimal digits that identify a network (by its name `what`) and images [N,C,H,W]."""
    plain = images.detach().cpu().contiguous()
    digest = hashlib.sha256(f"features-1 {what} {plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.numpy().data)
    return digest.hexdigest()[:32]


def _save(path: Path, rows: Read) -> None:
    try:
        save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in rows.items()})
    except OSError as error:
        if error.errno not in READ_ONLY:  # a cache that somebody else owns is read only
            raise
