"""What `ladd tune` refuses before it works: flags that say two things, steps without levels, foreign bases."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tuned import base_recipe, write_pictures, write_student, write_teacher

from ladd_dist.builders.origin import origin_beside, origin_of
from ladd_dist.cli.classes import class_numbers
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.rundir import RunDir, save_tensors
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.core.types import ImageSpec
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.folder import Folder
from ladd_dist.networks.cunet import CUNet
from ladd_dist.networks.diffusers.checkpoint import Checkpoint
from ladd_dist.recipe import Recipe
from ladd_dist.tune import main
from ladd_dist.tuning.base import require_own_base
from ladd_dist.tuning.checkpoints import require_base
from ladd_dist.tuning.contradictions import OWN, require_sense, require_steps
from ladd_dist.tuning.found import Student
from ladd_dist.tuning.given import student_of
from ladd_dist.tuning.parts import require_same_parts
from ladd_dist.workspace.config import RunFacts, write_config
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace, mark_done

NAMES = ("cat", "cow", "red fox", "7")


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["3"], (3,)),
        (["2", "0"], (2, 0)),
        (["0..2"], (0, 1, 2)),
        (["1 2"], (1, 2)),
        (["cow", "red fox", "cat"], (1, 2, 0)),
        (["0", "cow"], (0, 1)),
        ([], ()),
    ],
)
def test_classes_are_numbers_or_names(words: list[str], numbers: tuple[int, ...]) -> None:
    assert class_numbers(words, NAMES, 4) == numbers


@pytest.mark.parametrize(
    ("words", "names", "message"),
    [
        (["cot"], NAMES, "no class of this name; near it are cat, cow"),
        (["zebra"], NAMES, "no class of this name; it has cat, cow, red fox, 7"),
        (["zebra"], tuple(f"c{number}" for number in range(20)), "c7 and 12 more"),
        (["7"], NAMES, "knows the classes 0 to 3, got 7"),
        (["cat"], (), "has no names of classes; give numbers, 0 to 3"),
        (["-1"], NAMES, "no class of this name"),
        (["9" * 5000], NAMES, "no class of this name"),
        (["2..0"], NAMES, "the range 2..0 falls"),
    ],
)
def test_a_class_that_is_none_is_one_message(words: list[str], names: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=f"^--classes.*{re.escape(message)}"):
        class_numbers(words, names, 4)


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ({"--full": True, "--rank": 4}, [], "--rank is of the adapter, and --full trains all weights"),
        ({"--old-share": 0.0, "--old-weight": 2.0}, [], "--old-weight says how old conditions are kept"),
        ({"--old-share": 0.0, "--old-texts": Path("x")}, [], "--old-texts says how old conditions are kept"),
        ({"--updates": 10}, ["--train.steps", "20"], "--train.steps and --updates say the same"),
        ({"--rank": 10}, ["--student.rank=20"], "--student.rank and --rank say the same"),
        ({"--old-share": 0.5}, ["--train.old.share", ".2"], "--train.old.share and --old-share say the same"),
        ({"--classes": ("1",)}, ["--network.classes", "2"], "--network.classes and --classes say the same"),
        ({}, ["--student_steps", "2"], "--student-steps and --steps say the same"),
        ({}, ["--student.init", "x"], "--student.init and STUDENT say the same"),
    ],
)
def test_a_flag_that_makes_another_meaningless_is_refused(given: dict[str, Any], more: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        require_sense(given, more)


def test_a_field_of_the_recipe_stands_where_its_own_flag_is_not_given() -> None:
    require_sense({"--full": True}, ["--train.steps", "20", "--distill-weight.value=1", "--train.old.share", "0.5"])
    require_sense({"--old-share": 0.0, "--old-weight": 0.0}, [])
    assert "--rank" in OWN.values()


def test_a_number_of_steps_without_levels_is_refused_with_those_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    good = Student("tune_folder", [], False, (16, 16), 1, steps=(1, 2, 4), measured=(1, 2, 4))
    with pytest.raises(RecipeError, match=r"--steps 3: .* known for 1, 2 and 4 steps, not 3.*; give 1, 2 or 4$"):
        require_steps(3, good, [])
    require_steps(3, good, ["--swap", "levels=karras"])
    require_steps(2, good, [])
    assert capsys.readouterr().err == ""
    require_steps(3, dataclasses.replace(good, steps=()), [])
    assert "note: --steps 3: the student was measured in 1, 2 and 4 steps" in capsys.readouterr().err


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a student, and its file elsewhere."""
    folder = tmp_path_factory.mktemp("learned")
    write_student(folder).rename(folder / "runs" / "student")
    return folder


def run_of(folder: Path, recipe: Recipe, seed: int = 0) -> Path:
    """The folder of a run with its teacher, which its folder in the cache tells of."""
    run = Run(recipe, Workspace(folder / "runs", folder / "cache", torch.device("cpu")))
    write_teacher(run.teacher_folder, recipe, seed)
    mark_done(run.teacher_folder / "done.json", recipe.teacher_signature(), origin=origin_of(recipe))
    RunDir(run.folder.path).create()
    facts = RunFacts(recipe.name, "smoke", recipe.distill_signature(), {}, (), {}, ())
    write_config(run, facts, path=Path("r.py"), plugins=(), command="ladd launch r.py")
    return run.folder.path


def network(**changes: Any) -> CUNet:
    found = base_recipe().network
    assert isinstance(found, CUNet)
    return dataclasses.replace(found, **changes)


FOREIGN = [
    ({"network": network(widths=(16, 16))}, r"its network\.widths is \[16, 16\], the student's \[8, 8\]"),
    ({"network": network(sigma_data=0.25)}, r"its network\.sigma_data is 0\.25, the student's 0\.5"),
    ({"network": network(precondition="ddpm")}, r"its network\.precondition is 'ddpm', the student's 'edm'"),
    ({"dataset": Digits(size=24)}, r"it makes 3 channels of 24 x 24, the student 3 channels of 16 x 16"),
    ({"dataset": Folder(root="photos", size=16)}, r"it learned from dataset 'folder', the student from 'digits'"),
]


@pytest.mark.parametrize("by", ["run", "file", "cache folder"])
@pytest.mark.parametrize(("changes", "message"), FOREIGN)
def test_a_base_that_learned_something_else_is_refused_with_the_difference(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str, by: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "photos", 10, classes=tuple("abcdefghij"))
    run = run_of(tmp_path, dataclasses.replace(base_recipe(), **changes))
    (weights,) = tmp_path.glob("cache/teacher-*/teacher.safetensors")
    base = {"run": run, "file": weights, "cache folder": weights.parent}[by]
    for source in (learned / "runs" / "student", learned / "runs" / "student" / "student.safetensors"):
        with pytest.raises(
            UserError, match=rf"--base .* is not what the student was distilled from: .*{message}"
        ) as told:
            student_of(str(source), str(base), None)
        own = f"cache/teacher-{base_recipe().teacher_signature()}/teacher.safetensors"
        assert own in str(told.value), "it says which one is the student's"


def test_another_teacher_of_the_same_kind_is_noted_and_the_students_own_is_not(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = base_recipe()
    other = dataclasses.replace(recipe, teacher=dataclasses.replace(recipe.teacher, seed=1))
    student_of(str(learned / "runs" / "student"), str(run_of(tmp_path, other)), None)
    assert f"is another teacher ({other.teacher_signature()})" in capsys.readouterr().err
    student_of(str(learned / "runs" / "student"), str(run_of(tmp_path / "same", recipe)), None)
    assert capsys.readouterr().err == ""
    require_own_base({"signature": "own"}, {"signature": "old"}, "cache")
    assert "the student's (own), and nothing says what it learned;" in capsys.readouterr().err


def test_a_bare_file_of_weights_is_refused_by_its_number_of_classes(learned: Path, tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "base", base_recipe())
    tensors = load_tensors(weights)
    assert origin_beside(weights) == {}
    table = tensors["embed.classes.weight"]
    save_tensors(tmp_path / "five.safetensors", {**tensors, "embed.classes.weight": table[:6].contiguous()})
    with pytest.raises(UserError, match="it knows 5 classes, the student 10"):
        student_of(str(learned / "runs" / "student"), str(tmp_path / "five.safetensors"), None)
    (tmp_path / "README.md").write_text("# no weights")
    with pytest.raises(UserError, match=r"README.md holds no weights .*; give another --base"):
        student_of(str(learned / "runs" / "student"), str(tmp_path / "README.md"), None)


def test_names_of_classes_decide_where_both_are_known() -> None:
    student: Any = {"class_names": ["cat", "dog"], "dataset": "folder"}
    with pytest.raises(UserError, match="its class 1 is 'cow', the student's 'dog'"):
        require_own_base(student, {"class_names": ["cat", "cow"], "dataset": "folder"}, "x")
    require_own_base(student, {"class_names": ["cat", "dog"], "dataset": "webdataset"}, "x")
    with pytest.raises(UserError, match="it learned from dataset 'digits', the student from 'folder'"):
        require_own_base(student, {"class_names": [], "dataset": "digits"}, "x")


def checkpoint(folder: Path, model: str = "UNet2DConditionModel", **parts: dict[str, Any]) -> Checkpoint:
    for name, config in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    return Checkpoint(folder, {"_class_name": model}, {})


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            {"text_encoder": {"hidden_size": 16}},
            "text encoder (text_encoder) is another: hidden_size is 16 instead of 8",
        ),
        ({"vae": {"scaling_factor": 0.13}}, "autoencoder (vae) is another: scaling_factor is 0.13 instead of 0.18"),
        ({"model": "SD3Transformer2DModel"}, "model is of another architecture, 'SD3Transformer2DModel' instead of"),
    ],
)
def test_a_checkpoint_with_other_parts_than_its_base_is_refused(
    tmp_path: Path, base: dict[str, Any], message: str
) -> None:
    own = {"text_encoder": {"hidden_size": 8}, "vae": {"scaling_factor": 0.18}}
    roots = tmp_path / "fast", tmp_path / "base"
    student, other = checkpoint(roots[0], **own), checkpoint(roots[1], **{**own, **base})
    with pytest.raises(UserError, match=re.escape(message)):
        require_same_parts(student, other, roots, ("fast", "base"))
    require_same_parts(student, student, (roots[0], roots[0]), ("fast", "base"))
    older = checkpoint(tmp_path / "older", **{**own, "vae": {"latent_channels": 4}})
    require_same_parts(student, older, (roots[0], tmp_path / "older"), ("fast", "a library that wrote fewer fields"))
    alone = checkpoint(tmp_path / "alone")
    require_same_parts(alone, student, (tmp_path / "alone", roots[0]), ("alone", "fast"))


@pytest.mark.parametrize(
    ("scheduler", "index", "where"),
    [
        ({"_class_name": "LCMScheduler"}, {}, "'LCM' in its scheduler"),
        (
            {"_class_name": "DDIMScheduler"},
            {"_name_or_path": "stabilityai/sd-turbo"},
            "'turbo' in its model_index.json",
        ),
    ],
)
def test_a_base_that_is_a_few_step_model_is_said_plainly(
    tmp_path: Path, scheduler: dict[str, str], index: dict[str, str], where: str
) -> None:
    checkpoint(tmp_path / "base", unet={"_class_name": "UNet2DConditionModel"})
    (tmp_path / "base" / "scheduler").mkdir()
    (tmp_path / "base" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (tmp_path / "base" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"is itself a few-step model, by {where}; name the many-step model"):
        require_base(str(tmp_path / "base"))


def test_the_command_refuses_steps_and_flags_before_it_looks_at_a_picture(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_tables: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    write_pictures(tmp_path / "pictures", 4)
    words = [str(learned / "runs" / "student"), "--images", "pictures", "--classes", "3", "--scale", "smoke"]
    for more, message in (
        (["--steps", "3"], "--steps 3: the student's noise levels are known for 1, 2 and 4 steps"),
        (["--full", "--rank", "16"], "--rank is of the adapter"),
        (["--classes", "three"], "--classes 'three': this student's file has no names of classes"),
    ):
        assert main([*words, *more]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("error:") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_origins_name_what_a_teacher_is() -> None:
    found = origin_of(base_recipe())
    assert found["image"] == dataclasses.asdict(ImageSpec(3, 16, 16, 10))
    assert (found["dataset"], found["signature"]) == ("digits", base_recipe().teacher_signature())
