"""Names of a student's classes: its file keeps them, so that `ladd tune` knows folders of pictures by their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors import safe_open
from tuned import base_recipe, write_pictures, write_student

from ladd_dist.builders.card import MOST_NAMES
from ladd_dist.builders.condition_names import class_names
from ladd_dist.builders.origin import names_to_keep
from ladd_dist.builders.student_file import read_student
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.tensor_file import load_tensors
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.folder_inventory import forget
from ladd_dist.sample import main as sample
from ladd_dist.tuning.given import student_of
from ladd_dist.tuning.pictures import picture_flags

NAMES = ("cat", "cow", "dog")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a student of three named classes, its pictures, and new ones of two of them."""
    folder = tmp_path_factory.mktemp("learned")
    write_pictures(folder / "old", 12, classes=NAMES)
    write_student(folder, dataset=Folder(root=str(folder / "old"), size=16)).rename(folder / "runs" / "student")
    write_pictures(folder / "new", 8, classes=("dog", "cat"))
    return folder


@pytest.fixture
def given(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with an exported student, in the working directory; its run names the pictures of the first."""
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "runs" / "student" / "student.safetensors", tmp_path / "exported.safetensors")
    monkeypatch.chdir(tmp_path)
    forget()
    return tmp_path


def teacher(folder: Path) -> str:
    (found,) = folder.glob("cache/teacher-*/teacher.safetensors")
    return str(found)


def name_classes(path: Path, names: Sequence[str] | None) -> None:
    """Write a student's file with other names of classes, or as an older version did, without any."""
    with safe_open(path, "pt") as content:
        card = json.loads(content.metadata()["ladd_dist"])
    del card["class_names"]
    card |= {} if names is None else {"class_names": list(names)}
    tensors = load_tensors(path)
    path.unlink()
    save_tensors(path, tensors, {"ladd_dist": json.dumps(card)})


@pytest.mark.parametrize("source", ["runs/student", "exported.safetensors"])
@pytest.mark.parametrize("base", ["teacher", "run"])
@pytest.mark.parametrize("card", ["named", "old"])
def test_folders_named_like_the_students_classes_are_those(given: Path, source: str, base: str, card: str) -> None:
    if card == "old":
        for path in (given / "exported.safetensors", given / "runs" / "student" / "student.safetensors"):
            name_classes(path, None)
    student = student_of(source, teacher(given) if base == "teacher" else "runs/student", None)
    weights = Path(student.flags[student.flags.index("--network.weights") + 1])
    assert weights.parts[-2:] == Path(teacher(given)).parts[-2:] and weights.is_file()
    if (source, base, card) == ("exported.safetensors", "teacher", "old"):
        assert student.class_names == (), "nothing there has the names"
        return
    assert student.class_names == NAMES
    flags = picture_flags(given / "new", student, (), None)
    first = flags.index("--network.classes") + 1
    assert flags[first : first + 3] == ["0", "2", "1"], "cat and dog are learned, cow is kept"


def test_classes_are_named_on_the_command_line_too(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = student_of("exported.safetensors", teacher(given), None)
    flags = picture_flags(given / "new", student, ("cow", "0"), None)
    first = flags.index("--network.classes") + 1
    assert flags[first : first + 3] == ["1", "0", "2"]
    words = ["exported.safetensors", "--columns", "1", "--device", "cpu", "--folder", "pictures"]
    assert sample([*words, "--classes", "dog", "0"]) == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == ["class-0-00000.png", "class-2-00000.png"]
    assert sample([*words, "--classes", "dg"]) == 2
    assert "the student has no class of this name; near it are dog" in " ".join(capsys.readouterr().err.split())
    name_classes(given / "exported.safetensors", None)
    assert sample([*words, "--classes", "dog"]) == 2
    assert "has no names of classes; give numbers, 0 to 2" in " ".join(capsys.readouterr().err.split())


def test_a_students_file_keeps_the_names_when_its_pictures_are_gone(given: Path) -> None:
    config = given / "runs" / "student" / "config.json"
    config.write_text(config.read_text().replace(json.loads(config.read_text())["recipe"]["dataset"]["root"], "gone"))
    assert student_of("runs/student", teacher(given), None).class_names == NAMES
    name_classes(given / "runs" / "student" / "student.safetensors", None)
    assert student_of("runs/student", teacher(given), None).class_names == (), "nobody knows the order of the classes"
    with pytest.raises(UserError, match=r"the base of runs/student cannot be found .*; name it with --base"):
        student_of("runs/student", "", None)


def test_names_of_another_number_of_classes_are_none(given: Path) -> None:
    name_classes(given / "exported.safetensors", ("cat", "dog"))
    assert student_of("exported.safetensors", teacher(given), None).class_names == ()


def test_a_base_that_is_neither_a_file_nor_a_run_is_one_message(given: Path) -> None:
    with pytest.raises(UserError, match=r"^--base nowhere is no file and no run's folder; name the teacher's"):
        student_of("exported.safetensors", "nowhere", None)
    with pytest.raises(UserError, match=r"^the base of new cannot be found"):
        student_of("exported.safetensors", "new", None)


@pytest.mark.parametrize("names", [("a\udcff", "b"), ("a" * MOST_NAMES, "b")])
def test_names_that_a_card_cannot_hold_are_left_out(names: tuple[str, ...]) -> None:
    assert names_to_keep(names) == []
    assert names_to_keep(("a", "b")) == ["a", "b"]
    assert class_names(base_recipe()) == (), "digits have no names"


def test_the_longest_names_that_are_kept_make_a_card_that_is_read(tmp_path: Path) -> None:
    names = tuple("\x01" * 7 for _ in range(MOST_NAMES // 8))  # written as \u0001, six characters each
    folder = write_student(tmp_path)
    path = folder / "student.safetensors"
    with safe_open(path, "pt") as content:
        card = json.loads(content.metadata()["ladd_dist"])
    tensors = load_tensors(path)
    path.unlink()
    save_tensors(path, tensors, {"ladd_dist": json.dumps({**card, "class_names": list(names)})})
    assert tuple(read_student(path)[1]["class_names"]) == names
