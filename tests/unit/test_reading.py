"""What networks see in images is cached by content: the same images and network are read once, anything else anew."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ladd_dist.evaluation import feature_cache as reading
from ladd_dist.evaluation.feature_cache import cached, content_name
from ladd_dist.parallel.ranks import SINGLE


class Counting:
    """Sums each image, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"sum": images.flatten(1).sum(dim=1), "first": images.flatten(1)[:, 0].long()}


def pictures(seed: int) -> Tensor:
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_same_images_are_read_once_also_by_another_run(tmp_path: Path) -> None:
    reader = Counting()
    first = cached(tmp_path, SINGLE)("net 1", reader, pictures(0))
    again = cached(tmp_path, SINGLE)("net 1", reader, pictures(0).contiguous(memory_format=torch.channels_last))
    assert reader.calls == 1
    assert all(torch.equal(first[name], again[name]) for name in ("sum", "first"))


def test_one_other_pixel_shape_type_or_network_is_read_anew(tmp_path: Path) -> None:
    images = pictures(0)
    changed = images.clone()
    changed[4, 2, 3, 3] += 1e-6
    names = {content_name("net 1", images), content_name("net 2", images), content_name("net 1", changed)}
    names |= {content_name("net 1", images.reshape(5, 4, 3, 4)), content_name("net 1", images.double())}
    assert len(names) == 5


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    cached(tmp_path, SINGLE)("net 1", Counting(), pictures(0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read .*delete it"):
        cached(tmp_path, SINGLE)("net 1", Counting(), pictures(0))


@pytest.mark.parametrize(("number", "is_read"), [(errno.EROFS, True), (errno.EACCES, True), (errno.ENOSPC, False)])
def test_a_cache_that_may_only_be_read_is_read_and_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_read: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(reading, "save_tensors", refuse)
    if is_read:
        assert cached(tmp_path, SINGLE)("net 1", Counting(), pictures(0))["sum"].shape == (5,)
    else:
        with pytest.raises(OSError, match="no"):
            cached(tmp_path, SINGLE)("net 1", Counting(), pictures(0))
