"""Metrics against closed forms, an independent implementation, and collapses made by hand."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ladd_dist.core import features as features_module
from ladd_dist.core.features import CARD_NAME, FEATURE_DIM, WEIGHTS_NAME, load_features, read_card
from ladd_dist.datasets.color import hsv_to_rgb, paint
from ladd_dist.datasets.digits import Digits
from ladd_dist.metrics import Metric, References, Samples
from ladd_dist.metrics.color import Color, hue, hue_entropy, mean_colour, saturation
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.extract import read_images
from ladd_dist.metrics.frechet import frechet_distance, moments


def random_rows(num: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, dtype=torch.float64, generator=generator)
    return torch.randn(num, dim, dtype=torch.float64, generator=generator) @ mix + seed


def flat_hues(num: int, *, strength: float = 0.8) -> Tensor:
    """Colours [num,3] whose hues are evenly spread, none on the edge of a bin."""
    hues = (torch.arange(num) + 0.5) / num
    return hsv_to_rgb(torch.stack([hues, torch.full_like(hues, strength), torch.full_like(hues, 0.9)], 1))


@pytest.fixture(scope="module")
def real() -> Samples:
    images = Digits().build(split="test")
    return Samples(*images.batch(torch.arange(0, len(images), 2)))


# Frechet distance


def test_the_distance_of_diagonal_gaussians_has_its_closed_form() -> None:
    mean1, mean2 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.5, -1.0])
    deviation1, deviation2 = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.1, 0.0])
    expected = float((mean1 - mean2).square().sum() + (deviation1 - deviation2).square().sum())
    distance = frechet_distance(mean1, deviation1.square().diag(), mean2, deviation2.square().diag())
    assert distance == pytest.approx(expected, rel=1e-6)


def test_a_shift_adds_its_squared_length() -> None:
    rows = random_rows(300, 8, 1)
    shift = torch.arange(8.0).double()
    distance = frechet_distance(*moments(rows), *moments(rows + shift))
    assert distance == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_the_distance_is_symmetric() -> None:
    one, two = moments(random_rows(300, 16, 1)), moments(random_rows(300, 16, 2))
    assert frechet_distance(*one, *two) == pytest.approx(frechet_distance(*two, *one), rel=1e-9)


@pytest.mark.parametrize("num", [300, 10])
def test_the_distance_to_itself_is_zero_even_with_fewer_samples_than_features(num: int) -> None:
    one = moments(random_rows(num, 64, 1))
    assert 0.0 <= frechet_distance(*one, *one) < 1e-6 * float(one.cov.trace())


@pytest.mark.skipif(importlib.util.find_spec("cleanfid") is None, reason="clean-fid is not installed (extra 'dev')")
def test_the_distance_agrees_with_clean_fid() -> None:
    from cleanfid.fid import frechet_distance as reference

    for seed in range(3):
        one, two = moments(random_rows(1000, 64, seed)), moments(random_rows(500, 64, seed + 10))
        expected = reference(one.mean.numpy(), one.cov.numpy(), two.mean.numpy(), two.cov.numpy())
        assert frechet_distance(*one, *two) == pytest.approx(float(expected), rel=1e-6)


def test_moments_are_those_of_torch() -> None:
    rows = random_rows(50, 5, 3)
    torch.testing.assert_close(moments(rows).mean, rows.mean(0))
    torch.testing.assert_close(moments(rows).cov, torch.cov(rows.T))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments(torch.zeros(1, 4)), "at least 2 samples"),
        (lambda: moments(torch.tensor([[0.0], [math.nan], [math.inf]])), "2 of 3 samples are NaN"),
        (lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(3), torch.eye(3)), "of one D"),
        (lambda: frechet_distance(torch.zeros(2), -torch.eye(2), torch.zeros(2), torch.eye(2)), "cov1 is no cov"),
        (lambda: frechet_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), -torch.eye(2)), "cov2 is no cov"),
    ],
)
def test_what_has_no_distance_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Colour


def test_hue_and_saturation_undo_hsv_to_rgb() -> None:
    hsv = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    torch.testing.assert_close(hue(hsv_to_rgb(hsv)), hsv[:, 0])
    torch.testing.assert_close(saturation(hsv_to_rgb(hsv)), hsv[:, 1])


def test_hues_stay_below_one_turn() -> None:
    almost_red = torch.tensor([[1.0, 0.0, 1e-9], [1.0, 0.0, 0.0], [1.0, 0.5, 0.5]])
    assert (hue(almost_red) >= 0).all() and (hue(almost_red) < 1).all()


def test_the_ink_gives_the_colour_whatever_the_stroke() -> None:
    colours = flat_hues(12)
    strokes = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)).square()
    strokes[:, :, :4] = 0.0
    expected = colours / colours.amax(1, keepdim=True)
    torch.testing.assert_close(mean_colour(paint(strokes, colours)), expected)
    torch.testing.assert_close(mean_colour(paint(strokes * 0.5, colours)), expected)


def test_values_beyond_the_display_count_as_the_display_shows_them() -> None:
    image = torch.full((1, 3, 4, 4), -1.7)
    image[:, 0, 1] = 1.8
    torch.testing.assert_close(mean_colour(image), torch.tensor([[1.0, 0.0, 0.0]]))


def test_nearly_black_noise_has_no_colour() -> None:
    noise = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1 - 1.0
    assert (mean_colour(noise) == 0.0).all() and hue_entropy(mean_colour(noise)) == 0.0


def test_uniform_hues_have_entropy_one() -> None:
    assert hue_entropy(flat_hues(1200)) == pytest.approx(1.0, abs=1e-9)


def test_two_hues_in_equal_shares_have_the_entropy_of_a_coin() -> None:
    assert hue_entropy(flat_hues(2).repeat(50, 1)) == pytest.approx(math.log(2) / math.log(12))


def test_one_hue_has_entropy_zero() -> None:
    assert hue_entropy(flat_hues(1).expand(100, 3)) == 0.0


def test_grey_has_entropy_zero_whatever_its_faint_tint() -> None:
    assert hue_entropy(torch.rand(100, 1).expand(100, 3)) == 0.0
    assert hue_entropy(flat_hues(1200, strength=0.05)) == 0.0


def test_half_grey_halves_the_entropy() -> None:
    assert hue_entropy(torch.cat([flat_hues(1200), torch.full((1200, 3), 0.5)])) == pytest.approx(0.5)


def test_the_colour_metric_sees_diversity_in_digits_and_none_in_grey_ones(real: Samples) -> None:
    measure = Color().build(references=References(real, real))
    colourful = measure(real)
    grey = measure(replace(real, images=real.images.mean(1, keepdim=True).expand(-1, 3, -1, -1)))
    assert colourful["hue_entropy"] > 0.99
    assert colourful["colour_variance"] == pytest.approx(0.13, abs=0.01)
    assert colourful["saturation"] == pytest.approx(0.8, abs=0.01)
    assert grey["hue_entropy"] == 0.0 and grey["colour_variance"] == pytest.approx(0.0, abs=1e-9)


def test_the_collapse_to_class_means_shows_in_every_colour_figure(real: Samples) -> None:
    means = torch.stack([real.images[real.cond == digit].mean(0) for digit in range(10)])
    figures = Color().build(references=References(real, real))(replace(real, images=means[real.cond]))
    assert figures["hue_entropy"] == 0.0 and figures["colour_variance"] < 0.01 and figures["saturation"] < 0.15


def test_samples_with_nan_are_refused(real: Samples) -> None:
    images = real.images[:10].clone()
    images[3, 0, 0, 0] = math.nan
    broken = Samples(images, real.cond[:10])
    references = References(real, real)
    with pytest.raises(ValueError, match="1 of 10 images hold NaN"):
        Color().build(references=references)(broken)
    with pytest.raises(ValueError, match="1 of 10 samples are NaN"):
        DigitColor().build(references=references)(broken)


@pytest.mark.parametrize("metric", [Color(), DigitColor()])
def test_images_that_are_not_rgb_are_refused(metric: Metric) -> None:
    grey = Samples(torch.zeros(4, 1, 16, 16), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"needs RGB images .* got \[4, 1, 16, 16\]"):
        metric.build(references=References(grey, grey))


@pytest.mark.parametrize(("bins", "min_saturation"), [(1, 0.1), (12, -0.1), (12, 1.5)])
def test_impossible_histograms_are_refused(bins: int, min_saturation: float) -> None:
    with pytest.raises(
        ValueError, match=r"Color\.(bins: must be at least 2|min_saturation: must be at least 0 and at most 1)"
    ):
        Color(bins=bins, min_saturation=min_saturation)


# Digit and colour network


@pytest.mark.parametrize("size", [16, 32])
def test_the_shipped_network_reads_held_out_digits(size: int) -> None:
    images = Digits(size=size, repeat=3, seed=11).build(split="test")
    batch, labels = images.batch(torch.arange(len(images)))
    net = load_features()
    _, seen = read_images(net, batch)
    bins = (hue(images.colours) * 12).long()
    assert float((seen == labels).double().mean()) >= 0.97
    assert float((net(batch).hue.argmax(1) == bins).double().mean()) >= 0.95


@pytest.mark.mnist
@pytest.mark.parametrize("size", [16, 32])
def test_the_shipped_network_reads_held_out_mnist(mnist_root: Path, size: int) -> None:
    from ladd_dist.datasets.mnist import Mnist

    images = Mnist(root=str(mnist_root), size=size, seed=11, download=False).build(split="test")
    batch, labels = images.batch(torch.arange(0, len(images), 4))
    assert float((read_images(load_features(), batch)[1] == labels).double().mean()) >= 0.98


def test_the_card_describes_the_shipped_weights() -> None:
    card = read_card()
    net = load_features()
    assert card["feature_dim"] == FEATURE_DIM
    assert card["parameters"] == sum(parameter.numel() for parameter in net.parameters()) < 150_000
    assert min(row["digit"] for row in card["accuracies"].values()) >= 0.98
    assert card["command"].startswith("python -m ladd_dist.metrics.train_features")
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())


def test_features_do_not_depend_on_the_company_of_an_image(real: Samples) -> None:
    net = load_features()
    together, _ = read_images(net, real.images[:600])
    alone, _ = read_images(net, real.images[550:551])
    torch.testing.assert_close(together[550:551], alone, atol=1e-4, rtol=1e-4)


def copy_weights(folder: Path) -> Path:
    shipped = Path(features_module.__file__).parent.parent / "metrics"
    for name in (WEIGHTS_NAME, CARD_NAME):
        shutil.copy(shipped / name, folder / name)
    return folder / WEIGHTS_NAME


def test_weights_with_one_flipped_bit_are_refused(tmp_path: Path) -> None:
    path = copy_weights(tmp_path)
    load_features(tmp_path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"digit_color.safetensors is damaged .*sha256.*train_features"):
        load_features(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME])
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    copy_weights(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; install"):
        load_features(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_card_is_refused(tmp_path: Path, text: str) -> None:
    copy_weights(tmp_path)
    (tmp_path / CARD_NAME).write_text(text)
    with pytest.raises(ValueError, match=CARD_NAME):
        load_features(tmp_path)


def test_the_real_set_is_at_distance_zero_of_itself_and_all_right(real: Samples) -> None:
    figures = DigitColor().build(references=References(real, real))(real)
    assert figures["fd_real"] < 1e-6 and figures["fd_teacher"] < 1e-6 and figures["accuracy"] >= 0.97


def test_the_distance_grows_with_the_collapse_towards_class_means(real: Samples) -> None:
    measure = DigitColor().build(references=References(real, real))
    means = torch.stack([real.images[real.cond == digit].mean(0) for digit in range(10)])[real.cond]
    distances = [
        measure(replace(real, images=real.images.lerp(means, part)))["fd_real"] for part in (0.0, 0.25, 0.5, 1.0)
    ]
    assert distances == sorted(distances) and distances[-1] > 20 * distances[1]


def test_accuracy_is_about_the_class_that_was_asked(real: Samples) -> None:
    figures = DigitColor().build(references=References(real, real))(replace(real, cond=(real.cond + 1) % 10))
    assert figures["accuracy"] < 0.02


def test_fd_and_fd_teacher_are_measured_to_their_own_reference(real: Samples) -> None:
    teacher = replace(real, images=real.images.flip(1))
    figures = DigitColor().build(references=References(real=teacher, teacher=real))(real)
    assert figures["fd_teacher"] < 1e-6 < figures["fd_real"]


def test_a_class_the_network_does_not_know_is_refused(real: Samples) -> None:
    measure = DigitColor().build(references=References(real, real))
    with pytest.raises(ValueError, match="classes 0 to 9"):
        measure(replace(real, cond=real.cond + 1))


@pytest.mark.slow
def test_training_writes_weights_that_load_and_is_deterministic(tmp_path: Path) -> None:
    from benchmarks.train_features import Options, main

    for name in ("one", "two"):
        main(Options(out=tmp_path / name, steps=3, batch_size=16))
        load_features(tmp_path / name)
    assert (tmp_path / "one" / WEIGHTS_NAME).read_bytes() == (tmp_path / "two" / WEIGHTS_NAME).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [CARD_NAME, WEIGHTS_NAME]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_metrics_work_where_the_samples_lie(real: Samples) -> None:
    references = References(real, real)
    there = Samples(real.images.cuda(), real.cond.cuda())
    for metric in (Color(), DigitColor()):
        assert metric.build(references=references)(there) == pytest.approx(
            metric.build(references=references)(real), abs=1e-2
        )
