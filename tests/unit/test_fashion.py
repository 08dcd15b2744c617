"""Fashion-MNIST: MNIST's format and rules of consent, colours or grey, and a feature network of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from idx_files import write_idx

from benchmarks.train_features import NO_HUE, draw_images
from ladd_dist.core import pretrained
from ladd_dist.core.errors import UserError
from ladd_dist.core.features import CLOTHES, DIGITS, load_features, network_for, read_card
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.core.types import INK_ON_BLACK, ImageSpec
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.color import ColorDigits
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.fashion_mnist import FashionMnist
from ladd_dist.datasets.mnist import FILES, Mnist
from ladd_dist.metrics import References, Samples
from ladd_dist.metrics.color import Color, hue
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.extract import digit_color, read_images
from ladd_dist.metrics.kid import Kid
from ladd_dist.recipe import load_recipe
from ladd_dist.recipe.fitting import feature_network, fitting_metrics, what_is_left_out
from ladd_dist.testing import check_plugin

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Synthetic files in the place of the real ones."""
    return str(write_idx(tmp_path_factory.mktemp("fashion"), "FashionMNIST"))


# --- the data set ---


def test_its_files_are_read_in_colour_and_in_grey(root: str) -> None:
    coloured, grey = (FashionMnist(root=root, download=False, grey=grey) for grey in (False, True))
    indices = torch.tensor([0, 13, 59_999])
    (images, labels), (plain, same) = (data.build(split="train").batch(indices) for data in (coloured, grey))
    assert labels.tolist() == same.tolist() == [0, 3, 9]
    assert images.shape == (3, 3, 32, 32) and plain.shape == (3, 1, 32, 32)
    assert coloured.spec() == coloured.build(split="test").image == ImageSpec(3, 32, 32, 10)
    assert grey.spec() == grey.build(split="test").image == ImageSpec(1, 32, 32, 10)
    assert set(plain.unique().tolist()) == {-1.0, 1.0}
    inked = plain[:, 0] == 1.0
    assert (images[:, 0][~inked] == -1.0).all() and (images.amax(dim=1)[inked] >= 0.6).all()
    check_plugin(coloured)
    check_plugin(grey)


def test_articles_fill_the_frame_so_that_16_px_show_all_of_it(root: str, tmp_path: Path) -> None:
    """MNIST's 16 px are the central 24x24, which would cut sleeves and soles."""
    digits = Mnist(root=str(write_idx(tmp_path, "MNIST")), size=16, download=False).build(split="test")
    clothes = FashionMnist(root=root, size=16, download=False).build(split="test")
    assert int(digits.grey[0].max(dim=2).values.min()) == 255  # the bar is cut at both ends
    assert int(clothes.grey[0, 0, 0].max()) < 20 and int(clothes.grey[0, 0, 1].max()) > 200


def test_it_is_not_downloaded_into_a_folder_that_a_file_from_outside_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(root: str, **more: object) -> None:
        asked.append(root)
        raise RuntimeError("no network here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fetch)
    theirs, own, usual = FashionMnist(root="theirs"), FashionMnist(root="own"), FashionMnist()
    for dataset in (theirs, usual):
        pretrained.from_outside({"dataset": to_data(dataset)}, "RUN/config.json")
    with pytest.raises(FileNotFoundError, match=r"RUN/config.json names this folder"):
        theirs.build(split="train")
    for dataset in (own, usual):
        with pytest.raises(FileNotFoundError, match="no network here"):
            dataset.build(split="train")
    assert asked == [str(tmp_path / "own"), str(tmp_path / "data" / "fashion-mnist")]
    assert list(tmp_path.iterdir()) == []


def test_missing_or_damaged_files_are_named_as_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        FashionMnist(root=str(tmp_path), download=False).build(split="train")
    message = str(caught.value)
    assert f"FashionMNIST is not in {tmp_path / 'FashionMNIST' / 'raw'} (download is off)" in message
    assert all(name in message for name in FILES) and "above FashionMNIST/raw with `--dataset.root`" in message
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0" * 500)
    with pytest.raises(UserError, match=r"the FashionMNIST file .*t10k-labels-idx1-ubyte is damaged: 500 bytes"):
        FashionMnist(root=str(tmp_path)).build(split="train")


def test_where_it_lies_changes_no_signature_and_its_colours_do() -> None:
    recipe = load_recipe(REPO / "recipes" / "bench_heads.py", "laptop")
    here, there, grey = (
        dataclasses.replace(recipe, dataset=dataset).teacher_signature()
        for dataset in (FashionMnist(), FashionMnist(root="there", download=False), FashionMnist(grey=True))
    )
    assert here == there != grey
    assert from_data(Dataset, to_data(FashionMnist(grey=True))) == FashionMnist(grey=True)


# --- its feature network ---


def test_the_data_choose_the_network_that_reads_them() -> None:
    assert network_for(Digits().spec(), Digits.shows) == DIGITS == network_for(Mnist().spec(), Mnist.shows)
    for grey in (False, True):
        assert network_for(FashionMnist(grey=grey).spec(), FashionMnist.shows) == CLOTHES
    assert (
        network_for(ImageSpec(1, 32, 32, 10), Digits.shows) is None
    )  # the digits' network was trained on colours alone
    assert network_for(ImageSpec(3, 32, 32, 10), (INK_ON_BLACK,)) is None


def test_every_metric_of_the_recipes_fits_colours_and_all_but_colour_itself_fit_grey() -> None:
    recipe = load_recipe(REPO / "recipes" / "bench_heads.py", "laptop")
    assert fitting_metrics(recipe) == recipe.evaluate.metrics and feature_network(recipe) == CLOTHES
    grey = dataclasses.replace(recipe, dataset=FashionMnist(grey=True))
    assert [metric for metric in recipe.evaluate.metrics if metric not in fitting_metrics(grey)] == [Color()]
    (said,) = what_is_left_out(grey)
    assert "color" in said and "colour clothes" in said


def test_a_metric_reads_samples_with_the_network_that_they_name() -> None:
    images, cond = Digits(size=32, repeat=1).build(split="test").batch(torch.arange(60))
    as_digits, as_clothes = (Samples(images, cond, network=name) for name in (DIGITS, CLOTHES))
    for samples in (as_digits, as_clothes, as_clothes.of_class(3)):
        expected = read_images(load_features(name=samples.network), samples.images)[0]
        torch.testing.assert_close(digit_color(samples)["features"], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(digit_color(as_digits)["features"], digit_color(as_clothes)["features"], atol=0.1)
    found = [DigitColor().build(references=References(part, part))(part) for part in (as_digits, as_clothes)]
    assert found[0]["accuracy"] > 0.9 > 0.5 > found[1]["accuracy"] and found[0].keys() == found[1].keys()
    assert Kid().build(references=References(as_clothes, as_clothes))(as_clothes)["kid"] < 1e-3


def test_the_clothes_network_reads_grey_and_the_digits_refuses_it() -> None:
    grey = torch.rand(4, 1, 32, 32) * 2 - 1
    as_rgb = read_images(load_features(name=CLOTHES), grey.expand(-1, 3, -1, -1))
    assert torch.equal(read_images(load_features(name=CLOTHES), grey)[0], as_rgb[0])
    with pytest.raises(UserError, match=r"for colour digits needs RGB images \[N,C,H,W\], got \[4, 1, 32, 32\]"):
        read_images(load_features(), grey)
    with pytest.raises(UserError, match=r"for colour clothes needs RGB or grey images"):
        read_images(load_features(name=CLOTHES), grey.expand(-1, 2, -1, -1))


def test_each_network_has_files_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fashion_color.json is missing; .*--network fashion_color"):
        load_features(tmp_path, CLOTHES)
    card, other = read_card(name=CLOTHES), read_card()
    assert card["sha256"] != other["sha256"] and str(card["command"]).startswith("python benchmarks/train_features.py")
    assert json.dumps(card["accuracies"]).count('"hue"') == 1  # grey articles have none


def test_images_of_of_clothes_are_grey_at_times_and_then_have_no_hue() -> None:
    ink = torch.full((40, 1, 28, 28), 255, dtype=torch.uint8)
    source = ColorDigits(ink, torch.arange(40) % 10, seed=0)
    images, _, bins = draw_images(source, 400, torch.Generator().manual_seed(0), CLOTHES)
    middle = images[:, :, 12:20, 12:20].mean(dim=(2, 3))  # what is left of the noise
    spread = (middle.amax(dim=1) - middle.amin(dim=1)) / 2
    without = bins == NO_HUE
    assert 0.1 < float(without.double().mean()) < 0.3 and images.shape == (400, 3, 32, 32)
    assert float(spread[without].max()) < 0.1 < 0.3 < float(spread[~without].min())
    digits = draw_images(source, 400, torch.Generator().manual_seed(0))[2]
    assert int(digits.min()) >= 0


# --- the real files ---


@pytest.mark.fashion
def test_the_shipped_network_reads_held_out_clothes(fashion_root: Path) -> None:
    net, card = load_features(name=CLOTHES), read_card(name=CLOTHES)
    for grey in (False, True):
        data = FashionMnist(root=str(fashion_root), download=False, seed=11, grey=grey)
        images = data.build(split="test")
        batch, labels = images.batch(torch.arange(0, len(images), 2))
        read = read_images(net, batch)[1]
        stated = card["accuracies"][f"fashion_mnist@32{', grey' if grey else ''}"]["digit"]  # type: ignore[index]
        assert abs(float((read == labels).double().mean()) - stated) < 0.01
    images = FashionMnist(root=str(fashion_root), download=False, seed=11).build(split="test")
    with torch.inference_mode():
        seen = net(images.batch(torch.arange(2_000))[0]).hue.argmax(1)
    assert float((seen == (hue(images.colours[:2_000]) * 12).long()).double().mean()) > 0.95


@pytest.mark.fashion
def test_the_real_files_keep_the_contract(fashion_root: Path) -> None:
    dataset = FashionMnist(root=str(fashion_root), download=False)
    check_plugin(dataset)
    train = dataset.build(split="train")
    assert len(train) == 60_000 and torch.bincount(train.labels).tolist() == [6_000] * 10
