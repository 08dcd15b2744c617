"""Colour digits: what a teacher learns from must be the same everywhere, whole, and as colourful as promised."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ladd_dist.core import pretrained
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.color import ColorDigits, draw_colours, hsv_to_rgb, paint
from ladd_dist.datasets.digits import Digits, held_out
from ladd_dist.datasets.mnist import FILES, Mnist, resize


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST's mirrors on a closed port of this machine: the real download code fails for real, in no time."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])


def grey_set(num: int, *, seed: int = 0, repeat: int = 1) -> ColorDigits:
    grey = torch.randint(0, 256, (num, 1, 4, 4), generator=torch.Generator().manual_seed(1)).byte()
    return ColorDigits(grey, torch.arange(num) % 10, seed=seed, repeat=repeat)


def test_pure_hues_become_their_rgb_colours() -> None:
    hsv = torch.tensor([[0, 1, 1], [1 / 6, 1, 1], [1 / 3, 1, 1], [2 / 3, 1, 0.5], [0.4, 0, 0.7]])
    rgb = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0.5], [0.7, 0.7, 0.7]])
    torch.testing.assert_close(hsv_to_rgb(hsv), rgb)


def test_hsv_to_rgb_agrees_with_the_standard_library() -> None:
    import colorsys

    hsv = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([colorsys.hsv_to_rgb(*row) for row in hsv.tolist()], dtype=torch.float64)
    torch.testing.assert_close(hsv_to_rgb(hsv), expected)


def test_the_colour_of_an_index_does_not_depend_on_the_length_of_the_set() -> None:
    assert torch.equal(draw_colours(10, seed=3), draw_colours(1000, seed=3)[:10])


def test_colours_are_the_same_on_every_machine_and_version() -> None:
    expected = torch.tensor([[0.82229, 0.28915, 0.24947], [0.17029, 0.59069, 0.85552]])
    torch.testing.assert_close(draw_colours(2, seed=0), expected, atol=1e-5, rtol=0)


def test_another_seed_or_split_draws_other_colours() -> None:
    first = draw_colours(100, seed=0)
    assert not torch.isclose(first, draw_colours(100, seed=1)).all(dim=1).any()
    assert not torch.isclose(first, draw_colours(100, seed=0, stream=1)).all(dim=1).any()


def test_hues_are_uniform_and_saturation_and_value_stay_in_their_ranges() -> None:
    from ladd_dist.metrics.color import hue, saturation

    colours = draw_colours(60_000, seed=0)
    counts = torch.bincount((hue(colours) * 12).long(), minlength=12)
    chi_squared = float(((counts - 5000.0).square() / 5000.0).sum())
    assert chi_squared < 31.3  # 99.9 % of chi-squared with 11 degrees of freedom
    assert float(saturation(colours).min()) >= 0.6 - 1e-5 and float(saturation(colours).max()) <= 1.0
    assert float(colours.amax(1).min()) >= 0.8 - 1e-5 and float(colours.amax(1).max()) <= 1.0


def test_an_image_does_not_depend_on_the_batch_it_is_asked_in() -> None:
    images = grey_set(20)
    alone, _ = images.batch(torch.tensor([7]))
    together, _ = images.batch(torch.tensor([3, 7, 7, 19]))
    assert torch.equal(together[1], alone[0]) and torch.equal(together[2], alone[0])


def test_no_ink_is_black_and_full_ink_is_the_colour() -> None:
    grey = torch.zeros(1, 1, 2, 2)
    grey[0, 0, 0, 0] = 1.0
    image = paint(grey, torch.tensor([[1.0, 0.5, 0.0]]))
    assert image[0, :, 0, 0].tolist() == [1.0, 0.0, -1.0]
    assert (image[0, :, 1, :] == -1.0).all()


def test_repeats_show_the_same_digit_in_other_colours() -> None:
    images = grey_set(20, repeat=3)
    assert len(images) == 60
    batch, labels = images.batch(torch.tensor([4, 24, 44]))
    assert labels.tolist() == [4, 4, 4] and labels.dtype == torch.int64
    ink = (batch + 1).amax(dim=1)
    shape = ink / ink.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(shape[0], shape[1])
    assert not torch.allclose(batch[0], batch[1]) and not torch.allclose(batch[1], batch[2])


@pytest.mark.parametrize("index", [-1, 20])
def test_an_index_outside_the_set_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.19"):
        grey_set(20).batch(torch.tensor([index]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ColorDigits(torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), seed=0),
        lambda: ColorDigits(torch.zeros(3, 1, 4, 4).byte(), torch.zeros(2, dtype=torch.int64), seed=0),
        lambda: grey_set(3, repeat=0),
        lambda: grey_set(3, seed=-1),
        lambda: Digits(size=4),
        lambda: Digits(repeat=0),
        lambda: Mnist(size=2),
        lambda: Mnist(seed=-1),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize("size", [8, 16, 32])
def test_digits_are_what_their_spec_says(size: int) -> None:
    dataset = Digits(size=size)
    images = dataset.build(split="train")
    batch, labels = images.batch(torch.arange(0, len(images), 50))
    assert dataset.spec() == images.image
    assert batch.shape[1:] == (3, size, size) and batch.dtype == torch.float32
    assert float(batch.min()) == -1.0 and 0.8 < float(batch.max()) <= 1.0
    assert set(labels.tolist()) == set(range(10))


def test_digits_fill_the_space_of_colours() -> None:
    images = Digits().build(split="train")
    assert len(images) > 20_000
    assert len(images.colours.unique(dim=0)) == len(images)


def test_digits_splits_are_disjoint_complete_and_stratified() -> None:
    train, test = (Digits(size=8, repeat=1).build(split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 1797
    in_train = {bytes(row.flatten().tolist()) for row in train.grey}
    assert not any(bytes(row.flatten().tolist()) in in_train for row in test.grey)
    share = torch.bincount(test.labels) / (torch.bincount(train.labels) + torch.bincount(test.labels))
    assert float((share - 1 / 6).abs().max()) < 0.005


def test_every_sixth_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0, 1] * 12)
    assert held_out(labels).nonzero().flatten().tolist() == [10, 11, 22, 23]


def test_two_builds_of_a_dataset_are_equal() -> None:
    indices = torch.arange(0, 2000, 7)
    first, second = (Digits(seed=5).build(split="train").batch(indices) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


@pytest.mark.parametrize("dataset", [Digits(size=32, repeat=2), Mnist(root="elsewhere", download=False)])
def test_datasets_survive_json(dataset: Dataset) -> None:
    assert from_data(Dataset, to_data(dataset)) == dataset


def test_mnist_is_padded_to_32_and_cropped_for_16() -> None:
    grey = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    grey[:, :, 8:20, 8:20] = 255
    assert torch.equal(resize(grey, 32)[:, :, 2:30, 2:30], grey) and int(resize(grey, 32)[:, :, :2].sum()) == 0
    assert torch.equal(resize(grey, 28), grey)
    small = resize(grey, 16)
    assert small.shape == (1, 1, 16, 16) and small.dtype == torch.uint8
    # 12 of 24 pixels wide before, 8 of 16 after: in the middle, as bright as before.
    assert (small[:, :, 5:11, 5:11] > 240).all() and int(small[:, :, :3].max()) < 10
    assert resize(grey, 64).shape == (1, 1, 64, 64)


def test_an_unreachable_download_names_the_folder_the_files_and_the_way_out(tmp_path: Path, unreachable: None) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Mnist(root=str(tmp_path / "digits")).build(split="train")
    message = str(caught.value)
    assert str(tmp_path / "digits" / "MNIST" / "raw") in message
    assert all(name in message for name in FILES)
    assert "--swap dataset=digits" in message and "--scale laptop" in message


def test_the_message_names_an_absolute_folder(
    tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data" / "mnist" / "MNIST" / "raw")):
        Mnist().build(split="test")


def test_a_folder_that_cannot_be_written_is_the_same_clear_error(tmp_path: Path, unreachable: None) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotFoundError, match="--swap dataset=digits"):
        Mnist(root=str(tmp_path / "file")).build(split="train")


def test_without_download_nothing_is_fetched_or_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="download is off"):
        Mnist(root=str(tmp_path / "digits"), download=False).build(split="train")
    assert not (tmp_path / "digits").exists()


def test_a_cut_mnist_file_is_named_before_anything_is_fetched(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0" * 500)
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged: 500 bytes, not 10,008"):
        Mnist(root=str(tmp_path)).build(split="train")


def test_mnist_files_of_right_size_and_wrong_content_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, size in FILES.items():
        with (raw / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(ValueError, match="are damaged"):
        Mnist(root=str(tmp_path)).build(split="test")


@pytest.mark.mnist
@pytest.mark.parametrize(("split", "num"), [("train", 60_000), ("test", 10_000)])
def test_the_real_mnist_is_read_whole(mnist_root: Path, split: str, num: int) -> None:
    dataset = Mnist(root=str(mnist_root), download=False)
    images = dataset.build(split=split)  # type: ignore[arg-type]
    batch, labels = images.batch(torch.arange(0, num, 100))
    assert len(images) == num and dataset.spec() == images.image
    assert batch.shape[1:] == (3, 32, 32) and float(batch.min()) == -1.0 and float(batch.max()) <= 1.0
    assert (batch[:, :, :2] == -1.0).all() and (batch[:, :, :, -2:] == -1.0).all()
    assert set(labels.tolist()) == set(range(10))


@pytest.mark.mnist
def test_mnist_at_16_pixels_keeps_its_ink(mnist_root: Path) -> None:
    full, small = (Mnist(root=str(mnist_root), size=size).build(split="test") for size in (28, 16))
    ink = full.grey.float().mean(dim=(1, 2, 3)) * 28**2 / 24**2
    assert float((small.grey.float().mean(dim=(1, 2, 3)) / ink - 1).abs().mean()) < 0.02


def write_archives(folder: Path) -> dict[str, str]:
    """Four well-formed MNIST archives without ink, in which image i shows class i mod 10; name -> md5."""
    sums = {}
    for name, size in FILES.items():
        images = "images" in name
        num = (size - 16) // 784 if images else size - 8
        head = struct.pack(">4i", 2051, num, 28, 28) if images else struct.pack(">2i", 2049, num)
        body = bytes(num * 784) if images else bytes(i % 10 for i in range(num))
        archive = gzip.compress(head + body, 1)
        (folder / f"{name}.gz").write_bytes(archive)
        sums[name] = hashlib.md5(archive).hexdigest()
    return sums


def test_archives_in_the_folder_need_no_network(
    tmp_path: Path, unreachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sums = write_archives(raw)
    monkeypatch.setattr(MNIST, "resources", [(f"{name}.gz", md5) for name, md5 in sums.items()])
    images, labels = Mnist(root=str(tmp_path)).build(split="test").batch(torch.arange(12))
    assert labels.tolist() == [*range(10), 0, 1] and (images == -1.0).all()


def test_an_archive_of_wrong_checksum_is_not_taken(tmp_path: Path, unreachable: None) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"cut off"))
    with pytest.raises(FileNotFoundError, match="the download failed"):
        Mnist(root=str(tmp_path)).build(split="test")


def test_mnist_is_not_downloaded_into_a_folder_that_a_file_from_outside_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(root: str, **more: object) -> None:
        asked.append(root)
        raise RuntimeError("no network here")

    monkeypatch.setattr("torchvision.datasets.MNIST", fetch)
    theirs, own = Mnist(root=str(tmp_path / "theirs")), Mnist(root=str(tmp_path / "own"))
    pretrained.from_outside({"dataset": to_data(theirs)}, "RUN/config.json")
    with pytest.raises(FileNotFoundError, match=r"RUN/config.json names this folder"):
        theirs.build(split="train")
    with pytest.raises(FileNotFoundError, match="no network here"):
        own.build(split="train")
    assert asked == [str(tmp_path / "own")]
    assert list(tmp_path.iterdir()) == []
