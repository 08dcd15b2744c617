"""Metrics `clean_fid` and `clean_clip`: from pictures to figures, with a small network in Inception's place."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.metrics import References, Samples
from ladd_dist.metrics.clean_fid import CLIP_FILE, INCEPTION_FILE, CleanClip, CleanFid, to_bytes

HAS_CLEAN_FID = importlib.util.find_spec("cleanfid") is not None
needs_clean_fid = pytest.mark.skipif(not HAS_CLEAN_FID, reason="clean-fid is not installed (extra 'dev')")


class StandIn(nn.Module):
    """Reads 2,048 numbers off a picture of 299 pixels, and has the `layers` that clean-fid calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AvgPool2d(23), nn.Flatten(), nn.Linear(3 * 13 * 13, 32), nn.Tanh(), nn.Linear(32, 2048)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.jit.script(StandIn().eval())
    path = tmp_path_factory.mktemp("inception") / INCEPTION_FILE
    torch.jit.save(network, str(path))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pictures(num: int, seed: int) -> Samples:
    images = torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Samples(images, torch.arange(num) % 10)


def write_pngs(folder: Path, samples: Samples) -> Path:
    from PIL import Image

    folder.mkdir()
    for index, picture in enumerate(to_bytes(samples.images)):
        Image.fromarray(picture).save(folder / f"{index:05d}.png")
    return folder


@needs_clean_fid
@pytest.mark.slow
def test_fid_and_kid_are_those_of_clean_fid_on_folders_of_the_same_pictures(weights: Path, tmp_path: Path) -> None:
    """Its own functions read the PNGs; the distance itself has its own test (its root takes a minute here)."""
    import numpy as np
    from cleanfid.fid import get_folder_features, kernel_distance
    from cleanfid.inception_torchscript import InceptionV3W

    real, own = pictures(40, 1), pictures(32, 2)
    network = InceptionV3W(str(weights.parent), download=False)
    theirs = [
        get_folder_features(
            str(write_pngs(tmp_path / name, part)), network, num_workers=0, device="cpu", mode="clean", verbose=False
        )
        for name, part in (("real", real), ("own", own))
    ]
    metric = CleanFid(folder=str(weights.parent), sha256=digest(weights), subsets=5, subset_size=20, seed=3)
    reader = metric.reader(torch.device("cpu"))
    for part, expected in zip((real, own), theirs, strict=True):
        torch.testing.assert_close(reader(part.images)["features"], torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    figures = metric.build(references=References(real, own))(own)
    np.random.seed(3)
    kid = kernel_distance(*theirs, num_subsets=5, max_subset_size=20)
    assert figures["inception_kid"] == pytest.approx(kid, abs=1e-6)
    assert figures["fid_teacher"] == pytest.approx(0.0, abs=1e-6) and figures["fid"] > 0.01
    assert figures["fid_low"] <= figures["fid"] <= figures["fid_high"]


@needs_clean_fid
def test_features_do_not_depend_on_how_many_pictures_are_read_together(weights: Path) -> None:
    reader = CleanFid(folder=str(weights.parent), sha256=digest(weights)).reader(torch.device("cpu"))
    images = pictures(70, 1).images  # more than one portion
    together = reader(images)["features"]
    assert together.shape == (70, 2048)
    torch.testing.assert_close(together[66:68], reader(images[66:68])["features"], rtol=1e-4, atol=1e-5)


@needs_clean_fid
def test_missing_weights_are_named_with_their_place_and_what_works_without(tmp_path: Path) -> None:
    real = pictures(10, 1)
    with pytest.raises(ValueError) as error:
        CleanFid(folder=str(tmp_path)).build(references=References(real, real))
    message = str(error.value)
    assert str(tmp_path / INCEPTION_FILE) in message and "https://" in message and "'digit_color'" in message


@needs_clean_fid
def test_another_file_under_the_weights_name_is_not_loaded(weights: Path) -> None:
    real = pictures(10, 1)
    with pytest.raises(ValueError, match=rf"{re.escape(str(weights))} is damaged or another file.*{digest(weights)}"):
        CleanFid(folder=str(weights.parent)).build(references=References(real, real))


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    real = pictures(10, 1)
    for metric in (CleanFid(folder="nowhere"), CleanClip(folder="nowhere")):
        with pytest.raises(ValueError, match=r"needs the package 'cleanfid' \(pip install clean-fid.*'digit_color'"):
            metric.build(references=References(real, real))


@needs_clean_fid
def test_clip_is_asked_for_by_name_where_it_is_missing(tmp_path: Path) -> None:
    real = pictures(10, 1)
    if importlib.util.find_spec("clip") is None:
        with pytest.raises(ValueError, match=r"needs the package 'clip' \(pip install"):
            CleanClip().build(references=References(real, real))
    else:
        with pytest.raises(ValueError, match=CLIP_FILE):
            CleanClip(folder=str(tmp_path)).build(references=References(real, real))


@needs_clean_fid
def test_the_clip_variant_runs_from_pictures_to_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a package `clip` whose network is small: clean-fid's own preparation of pictures, and our figures."""

    class Small(nn.Module):
        def encode_image(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == (3, 224, 224)
            return nn.functional.avg_pool2d(x, 56).flatten(1)

    stand_in = types.ModuleType("clip")
    stand_in.__spec__ = importlib.util.spec_from_loader("clip", loader=None)
    stand_in.load = lambda name, device: (Small(), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clip", stand_in)
    monkeypatch.delitem(sys.modules, "cleanfid.clip_features", raising=False)
    path = tmp_path / CLIP_FILE
    path.write_bytes(b"weights")
    metric = CleanClip(folder=str(tmp_path), sha256=digest(path), subsets=3, subset_size=8)
    real, own = pictures(20, 1), pictures(20, 2)
    figures = metric.build(references=References(real, own))(own)
    assert figures["clip_fd"] > 1e-6 > figures["clip_fd_teacher"] and "clip_kid_high" in figures
    sys.modules.pop("cleanfid.clip_features", None)


def test_pictures_of_one_channel_are_read_as_grey_ones() -> None:
    grey = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    found = to_bytes(grey)
    assert found.shape == (1, 4, 4, 3) and found.min() == 0 and found.max() == 255
    assert (found[..., 0] == found[..., 2]).all()
