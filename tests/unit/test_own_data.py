"""A data set of one's own: wrong images train nothing, a changed folder is another data set, metrics that do not fit
are left out by name."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import lookup, register
from ladd_dist.core.types import INK_ON_BLACK, ImageSpec
from ladd_dist.datasets import Dataset, ImageSet, Split
from ladd_dist.datasets import folder as folder_module
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.folder import folder_fingerprint
from ladd_dist.datasets.mnist import Mnist
from ladd_dist.datasets.opening import NUM_LOOKED_AT, open_images, spread
from ladd_dist.metrics.color import Color
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.metrics.kid import Kid
from ladd_dist.metrics.matched import Matched
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.recipe.fitting import fitting_metrics, unfit_metrics, what_is_left_out
from ladd_dist.stages.autoencoder import train_autoencoder
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.testing import ContractError, check_dataset, check_plugin
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_tables")
REPO = Path(__file__).resolve().parents[2]
SPEC = ImageSpec(channels=3, height=16, width=16, num_classes=4)
Change = Callable[[Tensor, Tensor], Any]


class Toy:
    """Coloured noise, and labels that go round; `change` spoils a batch."""

    def __init__(self, change: Change = lambda images, labels: (images, labels), num: int = 200) -> None:
        self.image, self.change, self.num = SPEC, change, num

    def __len__(self) -> int:
        return self.num

    def batch(self, indices: Tensor) -> Any:
        phase = indices[:, None, None, None] + torch.arange(3 * 16 * 16).view(1, 3, 16, 16)
        return self.change(torch.sin(phase.float()), indices % SPEC.num_classes)


def toy(change: Change | None = None, num: int = 200, shows: tuple[str, ...] = ()) -> Dataset:
    """A registered data set of `Toy` images."""

    def build(self: Dataset, *, split: Split) -> ImageSet:
        return Toy(num=num) if change is None else Toy(change, num)

    body = {"__doc__": "Toy.", "__module__": __name__, "spec": lambda self: SPEC, "build": build, "shows": shows}
    return register("toy")(dataclass(frozen=True)(type("ToyData", (Dataset,), body)))()


def narrow(images: Tensor, labels: Tensor) -> Any:
    return torch.cat([images, images], dim=3)[..., :24], labels


FAULTS: list[tuple[Change, str]] = [
    (narrow, r"64 images must be \[64, 3, 16, 16\] \(as spec\(\) says\), got \[64, 3, 16, 24\]"),
    (lambda x, y: ((x + 1) * 127.5, y), r"must lie in \[-1, 1\], these reach from .* to 2\d\d.*; scale bytes by"),
    (lambda x, y: (1.2 * x, y), r"these reach from -1\.2 to 1\.2; scale or clamp them"),
    (lambda x, y: (((x + 1) * 127.5).byte(), y), r"images must be float32 in \[-1, 1\], got torch\.uint8"),
    (lambda x, y: (x.double(), y), "got torch.float64"),
    (lambda x, y: (torch.where(y.view(-1, 1, 1, 1) == 3, torch.nan, x), y), "images hold NaN"),
    (lambda x, y: (x, y + 1), r"labels must be 0 to 3 \(4 classes, as spec\(\) says\), these reach from 1 to 4"),
    (lambda x, y: (x, -y), "these reach from -3 to 0"),
    (lambda x, y: (x, y.int()), r"labels must be int64 \[64\], got torch\.int32"),
    (lambda x, y: (x, torch.nn.functional.one_hot(y)), r"labels must be int64 \[64\], got torch\.int64 \[64, "),
    (lambda x, y: x, "must return a pair of tensors"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_wrong_images_or_labels_are_refused_by_the_check_and_before_training(
    change: Change, message: str, tmp_path: Path
) -> None:
    dataset = toy(change)
    with pytest.raises(ContractError, match=message):
        check_dataset(dataset)
    with pytest.raises(UserError, match=message):
        train_teacher(run_of(dataset, tmp_path))
    assert not list(tmp_path.rglob("*.safetensors"))


def run_of(dataset: Dataset, folder: Path, file: str = "exp4_specnorm", **changed: Any) -> Run:
    recipe = dataclasses.replace(load_recipe(REPO / "recipes" / f"{file}.py", "smoke"), dataset=dataset, **changed)
    return Run(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")))


def test_a_codec_is_not_trained_on_wrong_images_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must lie in \[-1, 1\]"):
        train_autoencoder(run_of(toy(FAULTS[1][0]), tmp_path, "latent_digits"))


def test_images_are_looked_at_from_the_first_to_the_last() -> None:
    assert spread(5, 64).tolist() == [0, 1, 2, 3, 4]
    rows = spread(1000, NUM_LOOKED_AT).tolist()
    assert (len(set(rows)), rows[0], rows[-1]) == (NUM_LOOKED_AT, 0, 999)
    last = toy(lambda x, y: (x, y), num=199)
    open_images(last, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: ((x + 1) / 2, y), r"lie in \[0, 1\], black is -1: scale them by 2 \* images - 1"),
        (lambda x, y: (x * torch.linspace(0.5, 1, len(x)).view(-1, 1, 1, 1), y), "depend on their index alone"),
        (lambda x, y: (x * torch.rand(()), y), "opened twice gives other images|depend on their index alone"),
    ],
)
def test_the_check_finds_what_a_first_look_cannot(change: Change, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_dataset(toy(change))


def test_an_empty_set_and_a_spec_that_lies_are_refused() -> None:
    with pytest.raises(UserError, match="it holds no image"):
        open_images(toy(num=0), "train")

    class Lies(Digits):
        def spec(self) -> ImageSpec:
            return ImageSpec(3, 16, 16, 12)

    with pytest.raises(UserError, match="they must agree"):
        open_images(Lies(), "train")


def test_an_exception_while_the_data_are_read_shows_the_authors_line() -> None:
    def raises(images: Tensor, labels: Tensor) -> Any:
        return images / labels[:2], labels

    with pytest.raises(ContractError, match=rf"RuntimeError: .*, at .*{Path(__file__).name}:\d+: `return images / lab"):
        check_dataset(toy(raises))


def test_the_shipped_datasets_keep_the_contract(mnist_root: Path) -> None:
    check_plugin(Digits(size=32))
    check_plugin(Mnist(root=str(mnist_root), size=16, download=False))


# --- metrics that fit ---


def exp7(dataset: Dataset) -> Recipe:
    return dataclasses.replace(load_recipe(REPO / "recipes" / "exp7_stored_smooth_l1.py", "smoke"), dataset=dataset)


def test_metrics_made_for_digits_are_left_out_and_named_for_other_data() -> None:
    recipe = exp7(toy())
    assert fitting_metrics(recipe) == (Matched(),)
    unfit = unfit_metrics(recipe)
    assert set(unfit) == {"digit_color", "color", "kid", "manifold", "diversity", "memorising"}
    said = "\n".join(what_is_left_out(recipe))
    assert all(name in said for name in unfit) and "dataset 'toy'" in said and "features='pixels'" in said


def test_every_metric_of_the_recipes_fits_the_shipped_digits() -> None:
    for dataset in (Digits(), Mnist()):
        assert fitting_metrics(exp7(dataset)) == exp7(dataset).evaluate.metrics
        assert what_is_left_out(exp7(dataset)) == []


def test_a_dataset_says_what_it_shows_and_metrics_on_pixels_fit_anything() -> None:
    recipe = exp7(toy(shows=(INK_ON_BLACK,)))
    metrics = (DigitColor(), Color(), Kid(features="pixels"), Kid())
    recipe = dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, metrics=metrics[:3]))
    assert fitting_metrics(recipe) == (Color(), Kid(features="pixels"))
    grey = ImageSpec(1, 16, 16, 4)
    assert Color().misfit(grey, (INK_ON_BLACK,)) and not Kid(features="pixels").misfit(grey, ())


# --- fingerprints ---


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("b/2.png", "a/1.png", "a/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def anew(folder: Path, **given: Any) -> str:
    """The fingerprint as another process sees it."""
    folder_module._fingerprint.cache_clear()
    return folder_fingerprint(folder, **given)


def test_a_fingerprint_follows_names_and_contents_and_no_time_or_place(pictures: Path, tmp_path: Path) -> None:
    before = anew(pictures)
    assert re.fullmatch(r"[0-9a-f]{16}", before)
    os.utime(pictures / "a" / "1.png", (1, 1))
    (pictures / ".DS_Store").write_text("x")
    assert anew(pictures) == before
    shutil.copytree(pictures, tmp_path / "elsewhere")
    assert anew(tmp_path / "elsewhere") == before
    seen = {before}
    (pictures / "a" / "1.png").write_bytes(b"A/1.png")  # as long as before
    seen.add(anew(pictures))
    (pictures / "a" / "3.png").rename(pictures / "b" / "3.png")
    seen.add(anew(pictures))
    (pictures / "b" / "2.png").unlink()
    seen.add(anew(pictures))
    assert len(seen) == 4
    assert anew(tmp_path / "nowhere") == ""


def test_a_fingerprint_without_contents_follows_times(pictures: Path) -> None:
    before = anew(pictures, contents=False)
    assert anew(pictures, contents=False) == before
    os.utime(pictures / "a" / "1.png", (1, 1))
    assert anew(pictures, contents=False) != before


def test_a_run_keeps_its_signature_while_its_folder_changes(pictures: Path) -> None:
    before = anew(pictures)
    (pictures / "new.png").write_bytes(b"new")
    assert folder_fingerprint(pictures) == before


# --- the example of the page ---


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's example as the module it says, and a folder of pictures for it."""
    from PIL import Image

    blocks = re.findall(r"^```python\n(.*?)^```", (REPO / "docs" / "plugins.md").read_text(), re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if '@register("shapes")' in block]
    (tmp_path / "shapes.py").write_text(code)
    for number in range(24):
        folder = tmp_path / "shapes" / ("train", "test")[number % 2] / ("circle", "square", "star")[number // 2 % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), (number * 10, 20, 200)).save(folder / f"{number:03d}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("shapes", None)
    yield tmp_path / "shapes"
    sys.modules.pop("shapes", None)


def test_the_page_s_dataset_keeps_the_contract_and_a_changed_folder_is_another_teacher(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ladd_dist import plugins as cli

    assert cli.main(["--check", "dataset:shapes", "--plugins", "shapes"]) == 0, capsys.readouterr().out
    recipe = exp7(lookup("dataset", "shapes")())  # type: ignore[arg-type]
    before = (recipe.teacher_signature(), recipe.shards_signature(), recipe.distill_signature())
    next(shapes.rglob("star/*.png")).unlink()
    folder_module._fingerprint.cache_clear()
    after = (recipe.teacher_signature(), recipe.shards_signature(), recipe.distill_signature())
    assert not set(before) & set(after)
    assert "fingerprint" not in json.dumps(dataclasses.asdict(recipe.dataset))


def test_doctor_opens_no_data_which_may_be_a_download(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from ladd_dist.preflight.teacher_checks import check_plugins

    dataset = Mnist(root=str(tmp_path / "nowhere"))
    assert check_plugins(SimpleNamespace(recipe=dataset)) == "1 keep their contracts"  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
