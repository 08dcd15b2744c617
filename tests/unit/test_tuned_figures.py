"""`kid_old` and `kid_held_out`, the figures of tunings alone, and what their conditions are called."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tuned import base_recipe, tune_recipe, write_pictures, write_student

from ladd_dist.builders.codec import load_codec
from ladd_dist.builders.condition_names import class_names, condition_names
from ladd_dist.builders.data import images_of
from ladd_dist.builders.sampling import SampleFn, sample_student
from ladd_dist.builders.student_start import student_at_start
from ladd_dist.core.rng import NoiseSource
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.folder_inventory import forget
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.engine.loop import StopFlag
from ladd_dist.engine.shard_index import ShardError
from ladd_dist.evaluation.measurement import Figures, Measured
from ladd_dist.evaluation.student_evaluation import Student, signature_of
from ladd_dist.evaluation.tuned import Tuned, asked_old, draw_old, tuned_of
from ladd_dist.metrics import Samples, here
from ladd_dist.metrics.memorising import Memorising
from ladd_dist.networks.given import Given
from ladd_dist.recipe import Old, Recipe
from ladd_dist.stages.old_samples import make_old_samples
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tuning with its old samples made, that has not begun to train."""
    folder = tmp_path_factory.mktemp("tuned")
    write_student(folder)
    write_pictures(folder / "pictures", 20)
    recipe = tune_recipe(folder, old=Old(share=0.25, num_samples=64))
    settings = dataclasses.replace(recipe.evaluate, num_samples=48, num_references=64)
    found = Run(
        dataclasses.replace(recipe, evaluate=settings),
        Workspace(folder / "runs", folder / "cache", torch.device("cpu")),
    )
    make_old_samples(found)
    return found


def changed(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **changes))  # type: ignore[arg-type]


def measures(run: Run) -> Tuned | None:
    return tuned_of(run, load_codec(run), here, None)


def figures(run: Run, samplers: dict[str, SampleFn]) -> dict[str, Figures]:
    """What is measured of a student that makes the training's pictures of new conditions, and of one that does not."""
    tuned, old = measures(run), draw_old(run, samplers, load_codec(run), StopFlag(), None)
    assert tuned is not None
    learned = Samples(*images_of(run).batch(torch.arange(15)))
    new = {"student@4": learned, "untrained@4": old["untrained@4"]}
    found = tuned.added(Measured({name: {"kid": 1.0} for name in samplers}, {}, {}), new, old)
    assert set(found.features) == {"kid_held_out", "kid_old"} and set(found.features.values()) == {"pixels"}
    return found.figures


def as_before(run: Run) -> SampleFn:
    network = student_at_start(run)

    def sample(noise: torch.Tensor, cond: torch.Tensor, source: NoiseSource) -> torch.Tensor:
        return sample_student(run.recipe, network, noise, cond, 4, source)

    return sample


def white(noise: torch.Tensor, cond: torch.Tensor, source: NoiseSource) -> torch.Tensor:
    return torch.ones_like(noise)


def test_the_student_before_is_at_its_floor_and_one_that_forgot_is_far_above(run: Run) -> None:
    found = figures(run, {"student@4": white, "untrained@4": as_before(run)})
    before, after = found["untrained@4"], found["student@4"]
    assert abs(before["kid_old"]) < 0.01 < 0.1 < after["kid_old"]
    assert after["kid_old_low"] <= after["kid_old"] <= after["kid_old_high"]
    assert after["kid"] == 1.0, "the figures of every run stay"
    assert after["kid_held_out"] < 0.2 * before["kid_held_out"], "the student before has never seen such pictures"


def test_old_samples_are_of_old_conditions_by_students_alone_and_by_other_noises(run: Run) -> None:
    drawn = draw_old(run, {"student@4": white, "hybrid@4:1": white}, load_codec(run), StopFlag(), None)
    assert set(drawn) == {"student@4"}
    assert torch.equal(drawn["student@4"].cond, asked_old(run)) and int(asked_old(run).min()) >= 1
    assert run.recipe.evaluate.seed != run.recipe.train.old.seed


def test_without_old_conditions_the_figure_is_absent_with_the_reason(run: Run) -> None:
    none = changed(run, train=dataclasses.replace(run.recipe.train, old=Old(share=0.0)))
    tuned = measures(none)
    assert tuned is not None and set(tuned.references) == {"kid_held_out"}
    assert tuned.left_out == {"kid_old": "the tuning asked for no old conditions (train.old.share)"}
    assert draw_old(none, {"student@4": white}, load_codec(none), StopFlag(), None) == {}


def test_one_held_out_picture_or_no_kid_leaves_figures_out_with_the_reason(run: Run, tmp_path: Path) -> None:
    few = WithOld(pictures=Folder(root=str(write_pictures(tmp_path, 4)), size=16, classes="none", held_out=0.2))
    train = dataclasses.replace(run.recipe.train, old=Old(share=0.0))
    tuned = measures(changed(run, dataset=dataclasses.replace(few, old_classes=9), train=train))
    assert tuned is not None and "there is one" in tuned.left_out["kid_held_out"]
    settings = dataclasses.replace(run.recipe.evaluate, metrics=(Memorising(features="pixels"),))
    tuned = measures(changed(run, evaluate=settings))
    assert tuned is not None and set(tuned.left_out) == {"kid_held_out", "kid_old"} and not tuned.references
    empty = Measured({"student@4": {}}, {}, {})
    samples = Samples(torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64))
    assert tuned.added(empty, {"student@4": samples}, {}).figures == empty.figures


def test_missing_old_samples_are_one_message_and_other_runs_measure_nothing_more(run: Run) -> None:
    other = changed(run, train=dataclasses.replace(run.recipe.train, old=Old(share=0.25, num_samples=65)))
    with pytest.raises(ShardError, match=r"no samples of old conditions .*--stages shards"):
        measures(other)
    plain = Run(base_recipe(), run.workspace)
    assert measures(plain) is None


def test_the_signature_of_a_tunings_figures_has_its_old_samples_and_that_of_other_runs_stays(run: Run) -> None:
    def name(recipe: Recipe) -> str:
        card = {"levels": {key: [80.0] for key in "421"}, "rule": "ode"}
        return signature_of(Student(student_at_start(run), card, recipe, "0" * 64, ()))  # type: ignore[arg-type]

    other = changed(run, train=dataclasses.replace(run.recipe.train, old=Old(share=0.25, num_samples=65))).recipe
    assert name(run.recipe) != name(other)
    plain = base_recipe()
    old = dataclasses.replace(plain, train=dataclasses.replace(plain.train, old=Old(num_samples=7)))
    assert name(plain) == name(old)


def test_conditions_are_called_by_their_number_name_and_number_before(tmp_path: Path) -> None:
    write_pictures(tmp_path / "old", 12, classes=("cat", "cow", "dog"))
    student = write_student(tmp_path, dataset=Folder(root=str(tmp_path / "old"), size=16))
    write_pictures(tmp_path / "pictures", 8, classes=("fox",))
    dataset = WithOld(pictures=Folder(root=str(tmp_path / "pictures"), size=16, held_out=0.2), old_classes=2)
    given = Given(network=base_recipe().network, classes=(1, 0, 2))
    recipe = dataclasses.replace(tune_recipe(tmp_path), dataset=dataset, network=given)
    recipe = dataclasses.replace(recipe, student=dataclasses.replace(recipe.student, init=str(student)))
    assert condition_names(recipe) == ["0 fox (before: 1)", "1 cat (before: 0)", "2 dog"]
    assert class_names(recipe) == ("fox", "cat", "dog"), "of the student that comes of it, for its card"
    alone = Folder(root=str(tmp_path / "old"), size=16)
    assert class_names(dataclasses.replace(recipe, dataset=alone)) == ("cat", "cow", "dog"), "those of its own folders"
    (tmp_path / "pictures" / "fox").rename(tmp_path / "pictures" / "dog")
    forget()
    assert class_names(recipe) == (), "two are called dog"
    (tmp_path / "pictures" / "dog").rename(tmp_path / "pictures" / "fox")
    forget()
    (student / "student.safetensors").unlink()
    assert class_names(recipe) == (), "nobody knows those of the old ones"
    assert condition_names(recipe) == ["0 fox (before: 1)", "1 (before: 0)", "2"]
    (tmp_path / "pictures" / "fox").rename(tmp_path / "pictures" / "fo\udcff\x1b[2J")  # no UTF-8
    forget()
    assert condition_names(recipe)[0].encode().startswith(b"0 fo")
    assert "fox" not in condition_names(recipe)[0]
