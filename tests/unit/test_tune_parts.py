"""The parts of a tuning: a given base with chosen classes, old conditions beside new pictures, when a training ends."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned import base_recipe, moved, write_pictures

from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.opening import open_images
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.engine.loop import StopFlag
from ladd_dist.evaluation import guidance
from ladd_dist.metrics import Samples
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.given import Given
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.recipe import EarlyStop, Old, Recipe, load_recipe, validate
from ladd_dist.stages.held_out import EarlyStopping
from ladd_dist.stages.shards import TeacherSamples
from ladd_dist.starts.couplings import Stored
from ladd_dist.tuning.found import Student
from ladd_dist.tuning.pictures import picture_flags
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "teacher.safetensors"
    save_weights(path, moved(fresh_network(base_recipe()), 0))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 20)


def network() -> CUNet:
    found = base_recipe().network
    assert isinstance(found, CUNet)
    return found


def tune_recipe(pictures: Path, base: Path, **changes: Any) -> Recipe:
    recipe = load_recipe(REPO / "recipes" / "tune_folder.py", "smoke")
    dataset = WithOld(pictures=Folder(root=str(pictures), size=16, classes="none", held_out=0.2), old_classes=9)
    given = Given(network=network(), weights=str(base), classes=(3, 0, 1, 2, 4, 5, 6, 7, 8, 9))
    return dataclasses.replace(recipe, dataset=dataset, network=given, **changes)


def test_a_given_base_answers_for_the_chosen_classes_and_for_none_as_it_did(base: Path) -> None:
    image = ImageSpec(3, 16, 16, 10)
    whole = Given(network=network(), weights=str(base)).load(image=image).eval()
    chosen = Given(network=network(), weights=str(base), classes=(7, 2)).load(image=ImageSpec(3, 16, 16, 2)).eval()
    x, sigma = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((3,), 1.5)
    mine, theirs = (
        net(x, sigma, torch.tensor(cond)).denoised for net, cond in ((chosen, [0, 1, 2]), (whole, [7, 2, 10]))
    )
    assert torch.equal(mine, theirs)
    assert not torch.equal(theirs, whole(x, sigma, torch.tensor([0, 1, 10])).denoised)


def test_a_given_base_is_known_by_its_weights_not_by_their_place(base: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere.safetensors"
    copied.write_bytes(base.read_bytes())
    other = tmp_path / "other.safetensors"
    save_weights(other, moved(fresh_network(base_recipe()), 1))
    first, same, second = (Given(network=network(), weights=str(path)).identity() for path in (base, copied, other))
    assert first == same != second


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": ""}, "name a trained teacher"),
        ({"classes": (3, 10)}, "knows the classes 0 to 9, got 10"),
        ({"network": CUNet(widths=(16, 16), blocks=1, embed_dim=16, attention_heads=1)}, "is of another architecture"),
    ],
)
def test_a_wrong_base_is_one_message(base: Path, changes: dict[str, Any], words: str) -> None:
    given = dataclasses.replace(Given(network=network(), weights=str(base)), **changes)
    with pytest.raises(UserError, match=words):
        given.load(image=ImageSpec(3, 16, 16, len(given.classes) or 10))


def test_a_base_with_weights_of_its_own_is_not_given_others() -> None:
    with pytest.raises(UserError, match="has weights of its own"):
        Given(network=Diffusers(source="a/b"))


def test_old_classes_follow_the_new_and_only_the_new_are_asked_for(pictures: Path, base: Path, tmp_path: Path) -> None:
    recipe = validate(tune_recipe(pictures, base))
    assert (recipe.latent().num_classes, recipe.asked().num_classes) == (10, 1)
    images = open_images(recipe.dataset, "train", tmp_path)
    assert images.image.num_classes == 10 and not images.batch(torch.arange(len(images)))[1].any()


def test_the_base_is_measured_on_the_new_classes_alone(pictures: Path, base: Path) -> None:
    recipe = tune_recipe(pictures, base).with_teacher_samples()
    make = TeacherSamples(recipe, recipe.network.load(image=recipe.latent()), StopFlag())
    assert not make(0, 8).cond.any(), "old classes among the references would make every new sample look far away"


def test_a_search_for_guidance_asks_for_the_classes_that_it_says_it_asks_for(
    pictures: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[torch.Tensor]()

    def noted(images: torch.Tensor, cond: torch.Tensor, **more: Any) -> Samples:
        told.append(cond)
        return Samples(images, cond, **more)

    monkeypatch.setattr(guidance, "Samples", noted)
    run = Run(tune_recipe(pictures, base), Workspace(tmp_path, tmp_path, torch.device("cpu")))
    guidance.measure_guidance(run, [1.0], 4)
    assert len(told) == 1 and not told[0].any(), "the samples are of the new class alone"


def test_a_student_of_one_class_needs_no_flag(pictures: Path) -> None:
    flags = picture_flags(pictures, Student("tune_folder", [], False, (16, 16), 1), (), None)
    assert flags[flags.index("--network.classes") + 1] == "0"


def test_whoever_does_not_name_the_class_is_told_their_names(pictures: Path) -> None:
    student = Student("tune_folder", [], False, (16, 16), 2, ("cat", "dog"))
    with pytest.raises(
        UserError, match=r"classes, 0 to 1 \(cat, dog\), its pictures take, with --classes and a number"
    ):
        picture_flags(pictures, student, (), None)


def test_old_texts_follow_the_captions(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 6, captions=2)
    (tmp_path / "old.txt").write_text("a cat\na dog\na cup\n")
    new = Folder(root=str(folder), size=16, classes="none", captions="metadata")
    dataset = WithOld(pictures=new, old_texts=str(tmp_path / "old.txt"), most_old_texts=2)
    assert dataset.texts() == ("disc 0", "disc 1", "a cat", "a dog")
    assert (dataset.spec().num_classes, dataset.num_asked()) == (4, 2)
    before = dict(dataset.identity())
    (tmp_path / "old.txt").write_text("a cat\na fox\na cup\n")
    assert dict(dataset.identity()) != before, "other old texts are another run"


def test_old_classes_and_old_texts_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave one"):
        WithOld(old_classes=1, old_texts="old.txt")


@pytest.mark.parametrize(
    ("train", "changes", "words"),
    [
        ({"old": Old(share=0.01)}, {}, "0 of 16 rows; use another share"),
        ({"old": Old(share=0.0)}, {}, "no batch asks for any"),
        ({}, {"start": Stored()}, "start=fresh"),
    ],
)
def test_parts_that_do_not_keep_the_old_are_refused(
    pictures: Path, base: Path, train: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    recipe = tune_recipe(pictures, base, **changes)
    with pytest.raises(RecipeError, match=words):
        validate(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **train)))


def test_a_share_of_old_conditions_needs_some(pictures: Path, base: Path) -> None:
    recipe = tune_recipe(pictures, base)
    alone = dataclasses.replace(recipe, dataset=Folder(root=str(pictures), size=16, classes="none"))
    with pytest.raises(RecipeError, match="the dataset has none; use dataset=with_old"):
        validate(alone)


def stopping(recipe: Recipe, folder: Path, measured: list[list[float]]) -> EarlyStopping:
    """The second of two ranks, which measures nothing itself."""
    workspace = Workspace(folder / "runs", folder / "cache", torch.device("cpu"), Ranks(1, 2))
    return EarlyStopping(Run(recipe, workspace), {"measured": measured})


@pytest.mark.parametrize(
    ("distances", "best", "over"),
    [
        ([], None, False),
        ([0.5], 10, False),
        ([0.5, 0.4, 0.6], 20, False),
        ([0.5, 0.4, 0.6, 0.4], 20, True),  # as good is no better
        ([0.5, 0.6, 0.3, 0.4], 30, False),
        ([0.5, 0.6, 0.7], 10, True),
    ],
)
def test_a_training_ends_when_no_measurement_in_a_row_was_better(
    pictures: Path, base: Path, tmp_path: Path, distances: list[float], best: int | None, over: bool
) -> None:
    recipe = tune_recipe(pictures, base)
    train = dataclasses.replace(recipe.train, steps=100, early_stop=EarlyStop(every=10, patience=2))
    rows = [[10 * (number + 1), distance] for number, distance in enumerate(distances)]
    found = stopping(dataclasses.replace(recipe, train=train), tmp_path, rows)
    assert (found.best, found.is_over) == (best, over)
    assert found.to_checkpoint() == {"measured": rows}
    assert json.loads(json.dumps(found.to_checkpoint())) == {"measured": rows}
    assert [step for step in range(1, 101) if found.is_due(step)] == list(range(10, 101, 10))


def test_samples_that_are_not_finite_are_no_measurement(pictures: Path, base: Path, tmp_path: Path) -> None:
    recipe = tune_recipe(pictures, base)
    train = dataclasses.replace(recipe.train, steps=30, early_stop=EarlyStop(every=10, num_samples=4))
    recipe = dataclasses.replace(recipe, train=train)
    found = EarlyStopping(Run(recipe, Workspace(tmp_path, tmp_path, torch.device("cpu"))), None)
    broken = recipe.network.load(image=recipe.latent())
    found.after(10, lambda: broken)
    for weight in broken.parameters():
        weight.data.fill_(float("nan"))
    found.after(20, lambda: broken)
    assert [step for step, _ in found.measured] == [10] and found.best == 10


def test_no_early_stop_measures_and_keeps_nothing(pictures: Path, base: Path, tmp_path: Path) -> None:
    recipe = tune_recipe(pictures, base)
    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, early_stop=EarlyStop()))
    found = EarlyStopping(Run(plain, Workspace(tmp_path, tmp_path, torch.device("cpu"))), None)
    assert not any(map(found.is_due, range(1, 21))) and found.to_checkpoint() is None and not found.is_over


def test_an_early_stop_without_held_out_pictures_says_how_to_get_some(base: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "one", 1)
    run = Run(tune_recipe(folder, base), Workspace(tmp_path, tmp_path, torch.device("cpu")))
    with pytest.raises(UserError, match=r"needs held-out pictures.*raise dataset.pictures.held_out, add pictures"):
        EarlyStopping(run, None)
