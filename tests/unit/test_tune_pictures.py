"""Pictures that `ladd tune` cannot use: one line names --images, and what to do, before anything is written."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tuned import tune_recipe, write_pictures, write_student

from ladd_dist.core.errors import MachineError, UserError
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.folder_inventory import forget
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.recipe import EarlyStop
from ladd_dist.tuning import pictures as tuning_pictures
from ladd_dist.tuning.found import CHECKPOINT, FOLDER, Student
from ladd_dist.tuning.pictures import FEW, FEWEST, picture_flags, prepare_pictures, require_pictures
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

KNOWS = Student(FOLDER, [], False, (16, 16), 10)
READS = Student(CHECKPOINT, [], True, (16, 16))


@pytest.fixture(autouse=True)
def own_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    forget()


def nothing(folder: Path) -> None:
    """Make no folder."""


def a_file(folder: Path) -> None:
    folder.write_bytes(b"x")


def folders_of_texts(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "notes.txt").write_text("x")


def of_another_format(folder: Path) -> None:
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.tiff").write_bytes(b"x")


def loose_beside_folders(folder: Path) -> None:
    write_pictures(folder, 8)
    write_pictures(folder, 8, classes=("3",))


def with_a_label_that_is_not_its_folder(folder: Path) -> None:
    write_pictures(folder, 8, classes=("3",))
    (folder / "metadata.jsonl").write_text('{"file_name": "3/000.png", "label": "7"}')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, r"^--images '.*/given' cannot be opened \(No such file.*; name a folder of pictures$"),
        (Path.mkdir, r"^--images .*/given holds no picture, nor do the folders below it; put some dozens there, 4 at"),
        (a_file, r"^--images '.*/given' is no folder; name the folder that the pictures are in$"),
        (lambda folder: write_pictures(folder, 1), r"^--images .*/given holds one picture that .*needed, 4 at least$"),
        (folders_of_texts, r"^--images .*/given holds no picture, nor do the folders below it; put some dozens"),
        (of_another_format, r"^--images .*holds no pictures .*\(0\.tiff: \.tiff is not read; convert it.* are needed"),
        (loose_beside_folders, r"^--images '.*/given': 8 pictures are in no class folder .*: move them into one of 3$"),
        (with_a_label_that_is_not_its_folder, r"^--images .*: .*label '7' .*; move the pictures, correct the labels$"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named_by_the_flag(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "given")
    with pytest.raises(UserError, match=message) as caught:
        picture_flags(tmp_path / "given", KNOWS, (3,), None)
    assert "dataset.root" not in str(caught.value) and "\n" not in str(caught.value)


def test_metadata_without_texts_is_said_of_the_pictures_that_were_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "given", 6, captions=2)
    lines = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(lines.replace('"text"', '"words"'))
    with pytest.raises(
        UserError, match=r"^--images .*: --dataset\.pictures\.captions metadata: none of the 6 pictures"
    ):
        picture_flags(folder, READS, (), None)


def test_a_failure_of_the_machine_is_not_said_of_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: Path) -> None:
        raise MachineError(f"{root} cannot be read now")

    monkeypatch.setattr(tuning_pictures, "listing_of", fail)
    with pytest.raises(MachineError, match=r"^/.*cannot be read now$"):
        picture_flags(tmp_path, KNOWS, (3,), None)


WEIGHT = "--distill-weight.value"


@pytest.mark.parametrize(("num", "held"), [(FEW - 1, True), (FEW, False)])
def test_few_pictures_hold_old_classes_more_firmly(
    tmp_path: Path, num: int, held: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pictures(tmp_path / "given", num)
    flags = picture_flags(folder, KNOWS, ("3",), None)
    assert (flags[-2:] == [WEIGHT, "32"]) is held and (WEIGHT in flags) is held
    assert ("so old classes have a weight of 32; --old-weight sets it" in capsys.readouterr().err) is held
    assert WEIGHT not in picture_flags(folder, KNOWS, ("3",), None, weighs_old=True)
    assert not capsys.readouterr().err


def test_few_pictures_change_no_weight_where_no_old_class_is_kept_or_texts_are(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "given", 12, captions=2)
    flags = picture_flags(folder, dataclasses.replace(KNOWS, num_classes=1), (), None)
    assert flags[flags.index(WEIGHT) + 1] == "0" and flags.count(WEIGHT) == 1
    assert WEIGHT not in picture_flags(folder, READS, (), None), "nobody measured it"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A tuning on twelve pictures, of which nothing is written."""
    write_student(tmp_path)
    write_pictures(tmp_path / "pictures", 12)
    recipe = tune_recipe(tmp_path, early_stop=EarlyStop(every=2))
    return Run(recipe, Workspace(tmp_path / "tuned", tmp_path / "cache", torch.device("cpu")))


def skipping(run: Run) -> Run:
    """The tuning that leaves damaged pictures out."""
    data = run.recipe.dataset
    assert isinstance(data, WithOld) and isinstance(data.pictures, Folder)
    skips = dataclasses.replace(data, pictures=dataclasses.replace(data.pictures, on_bad="skip"))
    return Run(dataclasses.replace(run.recipe, dataset=skips), run.workspace)


@pytest.mark.parametrize(
    ("num", "skip", "message"),
    [
        (12, False, r"^--images .*: none of the 12 pictures can be used: 000\.png: .*; repair or replace them$"),
        (1, False, r"^--images .*: 1 of 12 .*: 000\.png: .*, or take --dataset\.pictures\.on-bad skip, which leaves"),
        (9, True, r"^--images .*pictures holds 3 pictures that can be read; some dozens are needed, 4 at least$"),
    ],
)
def test_damaged_pictures_are_named_before_a_run_is_written(
    run: Run, tmp_path: Path, num: int, skip: bool, message: str
) -> None:
    for number in range(num):
        (tmp_path / "pictures" / f"{number:03d}.png").write_bytes(b"no picture %d" % number)
    given = skipping(run) if skip else run
    require_pictures(tmp_path / "pictures", given)  # names and contents alone do not tell
    with pytest.raises(UserError, match=message):
        prepare_pictures(tmp_path / "pictures", given)
    assert not (tmp_path / "tuned").exists()


def test_copies_of_one_picture_leave_none_to_hold_out(run: Run, tmp_path: Path) -> None:
    first, *others = sorted((tmp_path / "pictures").iterdir())
    for other in others:
        shutil.copy(first, other)
    with pytest.raises(UserError, match=r"^--images .*: none of the pictures is held out.*; add some, raise --dataset"):
        require_pictures(tmp_path / "pictures", run)
    assert not list(tmp_path.glob("cache/pictures-*"))


def test_pictures_that_are_enough_are_decoded_once(run: Run, tmp_path: Path) -> None:
    for path in sorted((tmp_path / "pictures").iterdir())[FEWEST:]:
        path.unlink()
    require_pictures(tmp_path / "pictures", run)
    assert not list(tmp_path.glob("cache/pictures-*"))
    prepare_pictures(tmp_path / "pictures", run)
    (made,) = tmp_path.glob("cache/pictures-*/card.json")
    before = made.stat().st_mtime_ns
    prepare_pictures(tmp_path / "pictures", run)
    assert made.stat().st_mtime_ns == before and not (tmp_path / "tuned").exists()
