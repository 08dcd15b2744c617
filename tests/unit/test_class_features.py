"""Features trained on a data set's own pictures: any shape, with and without classes, and whose figures they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladd_dist.core.class_net import ClassNet, TrainedFeatures, cell_colours
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.rng import generator
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Split
from ladd_dist.evaluation.class_features import FILE, is_trained, trained_features
from ladd_dist.evaluation.figure_cache import figures_signature
from ladd_dist.evaluation.real_images import RealImages
from ladd_dist.metrics import References, Samples
from ladd_dist.metrics.class_features import ClassFeatures
from ladd_dist.metrics.color import Color, picture_colour
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.recipe import Recipe, load_recipe, validate
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parent.parent.parent
SETTINGS = ClassFeatures(steps=60, batch_size=32)
METRICS = (
    SETTINGS,
    Kid(features="pixels"),
    Color(of="picture"),
    Manifold(features="class_features"),
    Memorising(features="class_features"),
)


@dataclass(frozen=True)
class Bars(ImageSet):
    """Pictures of a bar, upright (class 0) or flat (class 1), at a place and in a colour that follow from the index."""

    image: ImageSpec
    split: Split
    num: int
    lonely: bool

    def __len__(self) -> int:
        return self.num

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        shown, labels = [], []
        for index in indices.tolist():
            source = generator("bars", self.split, index)
            picture = torch.full(self.image.shape, -1.0)
            label = int(index == 0) if self.lonely else index % max(self.image.num_classes, 1)
            side = self.image.width if label == 0 else self.image.height
            place, colour = int(torch.randint(side - 3, (1,), generator=source)), torch.rand(3, generator=source)
            bar = picture[:, :, place : place + 3] if label == 0 else picture[:, place : place + 3, :]
            bar += 0.5 + 1.5 * colour[: self.image.channels, None, None]
            shown.append(picture)
            labels.append(label)
        return torch.stack(shown), torch.tensor(labels)


@register("bars_for_features")
@dataclass(frozen=True)
class BarsData(Dataset):
    """Bars, for these tests."""

    num: int = 400
    height: int = 20
    width: int = 32
    channels: int = 3
    classes: int = 2
    lonely: bool = False

    def spec(self) -> ImageSpec:
        return ImageSpec(self.channels, self.height, self.width, self.classes)

    def build(self, *, split: Split) -> Bars:
        return Bars(self.spec(), split, self.num if split == "train" else self.num // 4, self.lonely)


@pytest.fixture(scope="module")
def smoke() -> Recipe:
    recipe = load_recipe(REPO / "recipes" / "exp4_specnorm.py", "smoke")
    return dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, metrics=METRICS))


def of(smoke: Recipe, folder: Path, **settings: Any) -> Run:
    recipe = dataclasses.replace(smoke, dataset=BarsData(**settings))
    return Run(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")))


@pytest.fixture(scope="module")
def bars(smoke: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return of(smoke, tmp_path_factory.mktemp("bars"))


@pytest.fixture(scope="module")
def network(bars: Run) -> Iterator[TrainedFeatures]:
    found = trained_features(bars)
    assert found is not None
    yield found


def pictures(run: Run, network: TrainedFeatures, split: Split, num: int) -> Samples:
    shown, cond = run.recipe.dataset.build(split=split).batch(torch.arange(num))
    return Samples(shown, cond, trained=network)


def test_a_network_of_pictures_that_are_no_squares_tells_their_classes_and_says_how_well(
    bars: Run, network: TrainedFeatures
) -> None:
    held_out = pictures(bars, network, "test", 100)
    right = network.read(held_out.images)["group"] == held_out.cond
    share = float(right.double().mean())
    assert share > 0.9
    assert f"of 100 held-out pictures it reads {share:.3f} right" in network.told
    assert "trained on the 2 classes and the colours of 400 pictures" in network.told


def test_the_network_is_made_once_and_the_same_again_from_its_seed(
    bars: Run, network: TrainedFeatures, smoke: Recipe, tmp_path: Path
) -> None:
    path = bars.features_folder / FILE
    written = path.stat().st_mtime_ns
    again = trained_features(bars)
    assert again is not None and again.label == network.label and path.stat().st_mtime_ns == written
    anew, other = of(smoke, tmp_path), of(smoke, tmp_path, num=300)
    elsewhere = trained_features(anew)
    assert elsewhere is not None and elsewhere.sha256 == network.sha256
    assert other.features_folder != anew.features_folder and not is_trained(other)


def test_a_damaged_network_is_one_message(smoke: Recipe, tmp_path: Path) -> None:
    quick = dataclasses.replace(SETTINGS, steps=1)
    recipe = dataclasses.replace(smoke, evaluate=dataclasses.replace(smoke.evaluate, metrics=(quick,)))
    run = of(recipe, tmp_path)
    trained_features(run)
    path = run.features_folder / FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"class_features\.safetensors is damaged.*delete its folder"):
        trained_features(run)


def test_colours_count_although_no_class_depends_on_them(bars: Run, network: TrainedFeatures) -> None:
    real, other = (pictures(bars, network, split, 100) for split in ("train", "test"))
    grey = Samples(other.images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1), other.cond, trained=network)
    measure = SETTINGS.build(references=References(real, real))
    coloured, dull = measure(other), measure(grey)
    assert dull["fd_real"] > 2 * coloured["fd_real"] > 0
    assert dull["accuracy"] > 0.8


def test_without_classes_the_network_learns_turns_and_gives_no_accuracy(smoke: Recipe, tmp_path: Path) -> None:
    run = of(smoke, tmp_path, classes=1, channels=1, height=16, width=16)
    network = trained_features(run)
    assert network is not None and "trained on the turns and the colours of 400 pictures" in network.told
    real, other = (pictures(run, network, split, 100) for split in ("train", "test"))
    figures = SETTINGS.build(references=References(real, real))(other)
    assert "accuracy" not in figures and figures["fd_real"] >= 0


def test_the_floor_is_of_held_out_pictures(bars: Run, network: TrainedFeatures) -> None:
    real = RealImages(bars, network)
    others = real.others(80, num_references=256, seed=3)
    assert others is not None and len(others) == 80
    held_out = {
        picture.numpy().tobytes() for picture in bars.recipe.dataset.build(split="test").batch(torch.arange(100))[0]
    }
    assert all(picture.numpy().tobytes() in held_out for picture in others.images)
    assert real.num_others(300) == 100 and len(real.others(300, num_references=256, seed=3) or ()) == 100


def test_too_few_held_out_pictures_leave_the_floor_out_with_the_reason(
    smoke: Recipe, network: TrainedFeatures, tmp_path: Path
) -> None:
    real = RealImages(of(smoke, tmp_path, num=100), network)
    assert real.others(500, num_references=64, seed=3) is None
    assert real.too_few(500, 64) == (
        "it needs 64 held-out pictures, which the features were not trained on, and the dataset has 25"
    )


def test_figures_are_cached_by_the_weights_of_the_network(bars: Run, network: TrainedFeatures) -> None:
    other = network._replace(sha256="0" * 64)
    assert len({figures_signature(bars), figures_signature(bars, network), figures_signature(bars, other)}) == 3


def test_every_metric_in_these_features_says_so(bars: Run, network: TrainedFeatures) -> None:
    samples = pictures(bars, network, "test", 40)
    names = [metric.space(samples) for metric in METRICS]
    assert names == [network.label, "pixels", "", network.label, network.label]
    assert DigitColor().space(samples).startswith("digit_color-")
    figures: dict[str, float] = {}
    for metric in METRICS:
        figures |= metric.build(references=References(pictures(bars, network, "train", 60), samples))(samples)
    wanted = {"fd_real", "fd_teacher", "accuracy", "kid", "colour_variance", "precision", "nearest_train_share"}
    assert wanted <= figures.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 63}, "63 training pictures are too few .* needs 64"),
        ({"num": 80, "lonely": True}, "class 1 has 1 training picture, and .* needs two of each class"),
    ],
)
def test_too_few_pictures_are_refused_before_anything_is_written(
    smoke: Recipe, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    run = of(smoke, tmp_path, **settings)
    with pytest.raises(UserError, match=message):
        trained_features(run)
    assert not list(tmp_path.rglob("*.safetensors"))


def with_metrics(recipe: Recipe, *metrics: Any) -> Recipe:
    return dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, metrics=metrics))


def test_recipes_whose_features_nothing_trains_are_refused(smoke: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"kid has features='class_features', whose network the metric"):
        validate(with_metrics(smoke, Kid(features="class_features")))
    with pytest.raises(RecipeError, match="digit_color and class_features both give fd_real"):
        validate(with_metrics(smoke, DigitColor(), SETTINGS))
    with pytest.raises(RecipeError, match="class_features stands there twice"):
        validate(with_metrics(smoke, ClassFeatures(seed=1), SETTINGS))
    prompts = load_recipe(REPO / "recipes" / "sd15.py", "smoke")
    with pytest.raises(RecipeError, match="dataset 'prompts' has none"):
        validate(with_metrics(prompts, SETTINGS))
    validate(dataclasses.replace(with_metrics(smoke, DigitColor(), SETTINGS), dataset=BarsData()))


def test_a_picture_has_the_colour_of_its_colourful_parts_whatever_the_background() -> None:
    red = torch.tensor([0.9, 0.1, 0.1])
    for background in (0.0, 0.5, 1.0):
        picture = torch.full((1, 3, 8, 12), background)
        picture[0, :, :4, :6] = red[:, None, None]
        assert torch.allclose(picture_colour(2 * picture - 1)[0], red, atol=0.06)
    assert torch.allclose(picture_colour(torch.zeros(1, 3, 4, 4)), torch.full((1, 3), 0.5))


def test_cells_are_the_quarters_of_a_picture() -> None:
    picture = torch.zeros(1, 1, 4, 6)
    picture[0, 0, :2, :3] = 1.0
    assert cell_colours(picture).tolist() == [[1.0, 0.0, 0.0, 0.0]]


def test_pictures_of_another_number_of_channels_are_refused() -> None:
    with pytest.raises(UserError, match="trained on pictures of 3 channels"):
        ClassNet(3, 2, 32).eval()(torch.zeros(2, 1, 20, 30))
