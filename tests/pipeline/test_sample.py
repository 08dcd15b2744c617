"""`ladd sample`: a student's file is enough to make its pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import Done, Ladd, read_json
from safetensors.torch import load_file, save_file

from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.sampling import sample_class
from ladd_dist.builders.student_file import levels_of, load_student
from ladd_dist.builders.teacher import guided_teacher, load_teacher
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import SampleSource, added_noise, derive_seed, sample_noise
from ladd_dist.core.serialize import RecipeError
from ladd_dist.sample import main
from ladd_dist.workspace.opening import open_run


@pytest.fixture
def smoke_run(smoke: tuple[Done, Ladd]) -> Path:
    return smoke[0].run


@pytest.fixture
def student(smoke_run: Path, tmp_path: Path) -> Path:
    """The file alone, as somebody else would get it."""
    return Path(shutil.copy(smoke_run / "student.safetensors", tmp_path / "theirs.safetensors"))


def test_the_file_alone_makes_the_pictures_that_the_run_dumped(smoke_run: Path, student: Path) -> None:
    network, card = load_student(student, torch.device("cpu"))
    dump = load_file(max((smoke_run / "dumps").glob("*.safetensors")))
    seed = read_json(smoke_run / "config.json")["recipe"]["evaluate"]["seed"]
    new_noise = added_noise(seed, range(len(dump["noise"])))
    levels = tuple(card["levels"]["4"])
    with torch.inference_mode():
        again = few_step_sample(denoiser(network), dump["noise"], dump["cond"], levels, card["rule"], new_noise)
    torch.testing.assert_close(again, dump["student"], rtol=1e-4, atol=1e-5)


def test_a_grid_is_written_and_named(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "grid.png"
    assert main([str(student), "--classes", "3", "7", "--columns", "4", "--steps", "2", "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_folder_gets_a_png_a_picture_with_the_pixels_of_the_sample(student: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    levels = ["--levels", "80", "10", "1"]
    assert main([str(student), "--classes", "3", "7", "--columns", "2", *levels, "--folder", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"class-{number}-{workspace:05d}.png" for number in (3, 7) for workspace in (0, 1)
    ]
    network, card = load_student(student, torch.device("cpu"))
    sample = sample_class(network, (80.0, 10.0, 1.0), card["rule"], 7, 2, 0)[1].clamp(-1, 1)
    pixels = torch.from_numpy(np.array(Image.open(folder / "class-7-00001.png"))).permute(2, 0, 1)
    assert float((pixels / 127.5 - 1 - sample).abs().max()) < 0.01


def test_any_number_of_steps_that_the_law_of_levels_knows(student: Path) -> None:
    _, card = load_student(student, torch.device("cpu"))
    assert levels_of(card, 2) == tuple(card["levels"]["2"])
    assert len(levels_of({**card, "law": {"plugin": "karras"}}, 7)) == 7
    with pytest.raises(RecipeError, match=r"--steps 7.*levels for .* steps.*'good' levels are known for"):
        levels_of({**card, "law": {"plugin": "good"}}, 7)
    del card["law"]  # an older version's card
    with pytest.raises(RecipeError, match="give your own with --levels"):
        levels_of(card, 7)


def test_the_teacher_takes_the_first_steps_of_a_picture(
    smoke: tuple[Done, Ladd], smoke_run: Path, student: Path, tmp_path: Path
) -> None:
    words = ["--classes", "3", "--columns", "2"]
    names = {name: tmp_path / f"{name}.png" for name in ("none", "one", "file", "all")}
    assert main([str(smoke_run), *words, "--out", str(names["none"])]) == 0
    assert main([str(smoke_run), *words, "--teacher-steps", "1", "--out", str(names["one"])]) == 0
    elsewhere = ["--like", str(smoke_run), "--cache", str(smoke[1].cache)]
    assert main([str(student), *words, "--teacher-steps", "1", *elsewhere, "--out", str(names["file"])]) == 0
    assert main([str(smoke_run), *words, "--teacher-steps", "4", "--out", str(names["all"])]) == 0
    pictures = {name: path.read_bytes() for name, path in names.items()}
    assert pictures["file"] == pictures["one"]
    assert len(set(pictures.values())) == 3

    network, card = load_student(student, torch.device("cpu"))
    run = open_run(smoke_run, device=torch.device("cpu")).run  # it knows its cache
    assert run.workspace.cache == smoke[1].cache.resolve()
    teacher = guided_teacher(run.recipe, load_teacher(run))
    levels = tuple(card["levels"]["4"])
    sampled = sample_class(network, levels, card["rule"], 3, 2, 0, teacher=teacher, teacher_steps=4)
    noise = sample_noise(derive_seed("sample", 0, 3), range(2), (3, 16, 16))
    new_noise = SampleSource(range(2), "sample-sde", derive_seed("sample", 0, 3))
    alone = few_step_sample(teacher, noise, torch.full((2,), 3), levels, card["rule"], new_noise)
    torch.testing.assert_close(sampled, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--teacher-steps", "1"], 2, "has no teacher for --teacher-steps: give a run's folder"),
        (["--teacher-steps", "5", "--like", "RUN"], 2, "--teacher-steps can be 0 to 4"),
        (["--teacher-steps", "-1", "--like", "RUN"], 2, "--teacher-steps: must be at least 0"),
        (["--like", "RUN"], 2, "give --teacher-steps too"),
        (["--teacher-steps", "1", "--like", "RUN", "--cache", "nowhere"], 1, "or name the run's folder with --cache"),
    ],
)
def test_a_teacher_that_is_not_there_is_said(
    student: Path,
    smoke_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    words = [str(smoke_run) if word == "RUN" else word for word in arguments]
    assert main([str(student), *words, "--out", str(tmp_path / "grid.png")]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "grid.png").exists()


def test_a_picture_depends_on_seed_class_and_place_alone(student: Path) -> None:
    network, card = load_student(student, torch.device("cpu"))
    levels = tuple(card["levels"]["4"])
    for rule in ("ode", "sde"):
        many, few = (sample_class(network, levels, rule, 3, count, 0) for count in (6, 2))
        torch.testing.assert_close(many[:2], few, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(few, sample_class(network, levels, rule, 3, 2, 1))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--steps", "3"], 2, "levels for"),
        (["--levels", "1", "2"], 2, "descending"),
        (["--levels", "80", "1", "--steps", "4"], 2, "contradict"),
        (["--classes", "10"], 2, "0 to 9"),
        (["--columns", "0"], 2, "at least 1"),
    ],
)
def test_what_the_student_cannot_do_is_said(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    out = tmp_path / "grid.png"
    assert main([str(student), *arguments, "--out", str(out)]) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_file_that_is_no_student_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    broken.write_bytes(b"\x80\x04pickle")
    for path in (foreign, broken, tmp_path / "missing.safetensors"):
        assert main([str(path)]) == 1
        assert path.name in capsys.readouterr().err


def test_the_flag_from_is_the_same_as_the_place(student: Path, tmp_path: Path) -> None:
    workspace, flag = tmp_path / "place.png", tmp_path / "flag.png"
    assert main([str(student), "--columns", "2", "--out", str(workspace)]) == 0
    assert main(["--from", str(student), "--columns", "2", "--out", str(flag)]) == 0
    assert workspace.read_bytes() == flag.read_bytes()


def test_exactly_one_student_must_be_given(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], [str(student), "--from", str(student)]):
        assert main(arguments) == 2
        assert "give one student" in capsys.readouterr().err
