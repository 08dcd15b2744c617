"""The dataset's own pictures as the heads' real samples (`shards.samples`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.shards import open_shards
from ladd_dist.core.errors import RecipeError
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.evaluation.assess import references
from ladd_dist.evaluation.feature_cache import cached
from ladd_dist.recipe import Recipe, load_recipe, validate
from ladd_dist.recipe.pairs import require_pairs
from ladd_dist.stages.distill import distill
from ladd_dist.stages.evaluate import evaluate
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.teacher import train_teacher
from ladd_dist.starts.couplings import Fresh, Ot, Stored
from ladd_dist.starts.couplings import Path as PathCoupling
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

BASE = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "ladd_paper.py", "smoke")


def pictured(recipe: Recipe = BASE, **shards: Any) -> Recipe:
    return dataclasses.replace(recipe, shards=dataclasses.replace(recipe.shards, samples="dataset", **shards))


def run_of(recipe: Recipe, folder: Path) -> Run:
    return Run(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")))


def test_the_shards_are_the_datasets_pictures_with_their_classes_each_once(tmp_path: Path) -> None:
    """No teacher is there, and none is asked."""
    run = run_of(validate(pictured()), tmp_path)
    make_shards(run)
    assert [path.name for path in run.workspace.cache.iterdir() if "teacher" in path.name] == []
    reader, images = open_shards(run), BASE.dataset.build(split="train")
    num = min(BASE.shards.num_samples, len(images))
    assert len(reader) == num
    found = reader.take(torch.arange(num).numpy())
    assert found.noise is None and found.path is None
    pictures, classes = images.batch(torch.arange(len(images)))
    places = [(pictures == picture).flatten(1).all(dim=1).nonzero().flatten().tolist() for picture in found.x0]
    assert all(places)
    for cond, same in zip(found.cond.tolist(), places, strict=True):
        assert cond in classes[same].tolist()
    assert len({same[0] for same in places}) > 0.95 * num  # each once; the data may hold a picture twice
    assert len(set(found.cond.tolist())) > 1


def test_more_samples_than_pictures_are_all_of_them_and_another_seed_takes_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = len(BASE.dataset.build(split="train"))
    for num, kept in ((total + 1, total), (total, total)):
        run = run_of(pictured(num_samples=num), tmp_path)
        make_shards(run)
        assert len(open_shards(run)) == kept
        assert ("note: shards.samples: the samples there are" in capsys.readouterr().err) == (num > total)
    first, second = (open_shards(run) for run in _made(tmp_path, pictured(seed=8), pictured(seed=9)))
    rows = torch.arange(16).numpy()
    assert not torch.equal(first.take(rows).x0, second.take(rows).x0)


def _made(folder: Path, *recipes: Recipe) -> list[Run]:
    runs = [run_of(recipe, folder) for recipe in recipes]
    for run in runs:
        make_shards(run)
    return runs


def test_the_shards_depend_on_the_data_and_not_on_the_teacher() -> None:
    own, longer = pictured().shards_signature(), dataclasses.replace(BASE.teacher, steps=BASE.teacher.steps + 1)
    assert own != BASE.shards_signature()
    assert pictured(dataclasses.replace(BASE, teacher=longer)).shards_signature() == own
    assert pictured(guidance=1.25).shards_signature() == own
    for changed in ({"num_samples": 64}, {"seed": 9}, {"dtype": "float16"}):
        assert pictured(**changed).shards_signature() != own
    assert (
        pictured(dataclasses.replace(BASE, dataset=dataclasses.replace(BASE.dataset, size=32))).shards_signature()
        != own
    )
    assert pictured().with_teacher_samples().shards_signature() == BASE.shards_signature()  # shared with its sister
    assert BASE.with_teacher_samples() is BASE


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (dataclasses.replace(BASE, start=Stored()), "start 'stored' needs the noise"),
        (dataclasses.replace(BASE, start=PathCoupling()), "start 'path' needs the noise"),
        (dataclasses.replace(BASE, dataset=Prompts(channels=3, size=8)), "and 'prompts' has none"),
        (dataclasses.replace(BASE, shards=dataclasses.replace(BASE.shards, source="x/*.tar")), "and shards.source"),
    ],
)
def test_pictures_that_are_not_there_or_need_noise_are_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.shards\.samples: 'dataset' takes .*{message}"):
        require_pairs(pictured(recipe))
    for start in (Fresh(), Ot()):
        require_pairs(pictured(dataclasses.replace(BASE, start=start)))


@pytest.mark.slow
def test_a_run_on_pictures_is_still_compared_with_the_teachers_samples(tmp_path: Path) -> None:
    """Never with the pictures under the teacher's name; the stage `evaluate` makes what it lacks."""
    run = run_of(validate(pictured()), tmp_path)
    train_teacher(run)
    make_shards(run)
    run.folder.create()
    distill(run)
    extraction = cached(run.workspace.cache / "features", run.ranks)
    with pytest.raises(ShardError, match=r"no samples of the teacher to compare with .*--stages evaluate"):
        references(run, load_codec(run), None, extraction)
    figures = evaluate(run)
    assert any(name.startswith("student@") for name in figures)
    sister = run_of(BASE, tmp_path)
    made = open_shards(sister)  # a recipe that differs in nothing else finds them too
    against = references(run, load_codec(run), None, extraction)
    count = len(against.teacher.images)
    assert torch.equal(against.teacher.images, made.take(torch.arange(count).numpy()).x0)
    pictures = open_shards(run).take(torch.arange(count).numpy()).x0
    assert not torch.equal(against.teacher.images, pictures)
