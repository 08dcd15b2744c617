"""`ladd tune`: a student, its base and new pictures become a run that learns them; what cannot work is one message."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import REPO, Done, rows
from safetensors.torch import load_file
from tuned import write_pictures, write_student

from ladd_dist.builders.student_file import load_student
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import RunDir
from ladd_dist.engine.checkpoint import Checkpoints, replicated
from ladd_dist.export import main as export
from ladd_dist.exporting.student import finished_student, student_at
from ladd_dist.recipe import load_recipe
from ladd_dist.tune import Options, _tell_result, main
from ladd_dist.workspace.config import read_config
from ladd_dist.workspace.opening import open_run

TINY = (
    "--scale", "smoke", "--updates", "6", "--train.batch-size", "8", "--train.log-every", "1",
    "--train.dump-every", "6",
    "--train.early-stop.every", "2", "--train.early-stop.num-samples", "8", "--train.old.num-samples", "16",
    "--evaluate.num-samples", "8", "--evaluate.num-references", "16", "--evaluate.batch-size", "8",
    "--shards.sampler.steps", "4", "--guard.samples", "8", "--device", "cpu", "--threads", "1",
)  # fmt: skip
ASK = ("runs/student", "--images", "pictures", "--classes", "3", *TINY)
Tune = Callable[..., Done]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student's run, its cache, and twenty pictures without classes."""
    folder = tmp_path_factory.mktemp("given")
    write_student(folder).rename(folder / "runs" / "student")
    write_pictures(folder / "pictures", 20)
    return folder


def tune_in(folder: Path, *words: object) -> Done:
    """The command within this process, in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit_:
            code = int(str(exit_.code))
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def tune(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None) -> Tune:
    """The command in a folder of its own with what was given."""
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(tune_in, tmp_path)


@pytest.fixture(scope="module")
def tuned(given: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The folder of a finished tuning, and what it said."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copytree(given, folder, dirs_exist_ok=True)
    return folder, tune_in(folder, *ASK)


def run_folder(folder: Path, name: str = "tune") -> Path:
    (found,) = folder.glob(f"runs/{name}-*")
    return found


def test_new_pictures_become_a_student_of_the_same_four_steps_with_a_page(tuned: tuple[Path, Done]) -> None:
    folder, done = tuned
    assert done.code == 0, done.stderr
    run = run_folder(folder)
    first, line = done.stdout.splitlines()[:2]
    assert first.startswith("20 pictures, 6 updates of 8 samples at most, ") and "parameters trained, about" in first
    assert line.startswith("the same as a recipe: ladd launch tune_folder ")
    assert line.count(" --distill-weight.value 32") == line.count("distill-weight") == 1, "these are few pictures"
    assert not {"--out", "--cache"} & set(line.split()), "other commands take the line too, such as plan"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "A few-step student that learned new pictures" in page and "a good student repeats it" not in page
    said = f"pictures of it: ladd sample {run.relative_to(folder)} --steps 4 --classes 0"
    assert done.stdout.splitlines()[-1] == said
    before, card_before = load_student(folder / "runs" / "student", torch.device("cpu"))
    after, card = load_student(run, torch.device("cpu"))
    assert (card["levels"]["4"], card["rule"]) == (card_before["levels"]["4"], card_before["rule"])
    assert after.image == before.image
    old, new = before.state_dict(), after.state_dict()
    order = [3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10]  # the new pictures' class first, none last
    assert torch.equal(new["embed.classes.weight"], old["embed.classes.weight"][order])
    assert any(not torch.equal(new[name], old[name]) for name in old if name != "embed.classes.weight")
    shown = str(Image.open(run / "samples" / "final.png").info)
    assert all(row in shown for row in ("untrained@4, old", "student@4, old"))
    logged = rows(run / "metrics.jsonl")
    measured = [row["step"] for row in logged if "held_out/kid" in row and "held_out/nearest_train_share" in row]
    assert measured == [2, 4, 6], "each measurement is in the row of its step, the last one too"
    assert "trained by this recipe" not in page and "teacher.safetensors" in page
    figures = json.loads((run / "eval.json").read_text())
    assert all(
        {"kid_old", "kid_old_low", "kid_held_out"} <= set(figures[name]) for name in ("student@4", "untrained@4")
    )
    assert "kid_held_out" in figures["teacher@4"] and "kid_old" not in figures["teacher@4"]
    assert figures["student@4"]["features"]["kid_old"] == figures["student@4"]["features"]["kid"]
    columns = json.loads((run / "eval_classes.json").read_text())["shown"]
    assert columns["new"] == ["0 (before: 3)"] * 8 and len(columns["old"]) == 8
    assert "0 (before: 3) in every column" in page and "; ".join(columns["old"]) in page
    assert "Look closer: scale smoke trains for seconds" in done.stdout and "; kid_old of student@4 " in done.stdout
    assert "Distance to held-out pictures" in page and "Nearness to the training pictures" in page


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (["--old-weight", "4"], ["--distill-weight.value 4.0"]),
        (["--old-share", "0"], ["--distill-weight.value 0"]),
        (["--swap", "distill_weight=linear_warmup"], ["distill_weight=linear_warmup"]),
        (["--swap", "target=old_or_denoised"], []),  # its pull on new pictures would have the weight too
    ],
)
def test_a_weight_of_old_conditions_that_the_user_chose_is_kept(
    tune: Tune, words: list[str], weights: list[str]
) -> None:
    done = tune(*ASK, *words, "--dry-run")
    assert done.code == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("the same as a recipe"))
    assert re.findall(r"(?:--)?distill[-_]weight\S+(?: [\d.]+)?", line) == weights
    assert "--old-weight sets it" not in done.stderr


def test_the_student_of_the_best_step_is_kept(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = ("--train.lr-student", "0.5", "--train.early-stop.patience", "1", "--train.ema.half-life", "0")
    done = tune(*ASK, *worse, "--updates", "40")
    assert done.code == 0, done.stderr
    run = run_folder(tmp_path)
    told = json.loads((run / "early_stop.json").read_text())
    distances = dict(told["measured"])
    assert told["kept"] == min(distances, key=lambda step: distances[step]) < told["last"] < 40
    assert f"kept step {told['kept']} of {told['last']}" in done.stderr
    config = json.loads((run / "config.json").read_text())
    saved = Checkpoints(run / "checkpoints", identity=config["signature"], keep=1).at(told["kept"])
    held = load_file(run / "student.safetensors")
    adapter = {name: torch.empty_like(value) for name, value in held.items() if name.startswith("adapter.")}
    assert adapter
    own = {name: name.removeprefix("adapter.").replace(".weight", ".default.weight") for name in adapter}
    saved.fill({f"average/{own[name]}": replicated(value) for name, value in adapter.items()})
    assert all(torch.equal(value, held[name]) for name, value in adapter.items())
    assert f"step {told['kept']} of {told['last']} is kept" in (run / "report.html").read_text()
    monkeypatch.chdir(tmp_path)
    finished, at_step = finished_student(RunDir(run), read_config(RunDir(run))), student_at(run, told["kept"])
    assert finished.card.step == at_step.card.step == told["kept"]
    weights = at_step.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in finished.network.state_dict().items())
    assert export([str(run), "--step", "40"]) == 1, "no checkpoint of it"


def test_a_tuning_that_was_stopped_goes_on_to_the_same_student(tuned: tuple[Path, Done], tmp_path: Path) -> None:
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    run = run_folder(tmp_path)
    whole, told = (run / "student.safetensors").read_bytes(), (run / "early_stop.json").read_text()
    for name in ("student.safetensors", "distill.done.json", "early_stop.json"):
        (run / name).unlink()
    *_, last = sorted((run / "checkpoints").glob("step-*"))
    shutil.rmtree(last)
    again = tune_in(tmp_path, *ASK)
    assert again.code == 0 and "[shards] done before, skipped" in again.stdout, again.stderr
    assert (run / "student.safetensors").read_bytes() == whole
    assert (run / "early_stop.json").read_text() == told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing", "--images", "pictures"), "missing does not exist: give a finished run's folder"),
        (("runs/mistyped", "--images", "pictures"), "runs/mistyped does not exist: give a finished run's folder"),
        (("pictures", "--images", "pictures"), "pictures holds no student.safetensors and no checkpoint"),
        (("runs/student/student.safetensors", "--images", "pictures"), "name the teacher's weights with --base"),
        (("runs/student", "--images", "nowhere"), "--images '"),
        (
            ("runs/student", "--images", "bad", "--classes", "3"),
            "--images bad: 12 of 32 pictures cannot be used: bad-0",
        ),
        (("runs/student", "--images", "one", "--classes", "3"), "holds one picture that can be read"),
        (("runs/student", "--images", "pictures"), "say which of the student's classes, 0 to 9, its pictures take"),
        (("runs/student", "--images", "pictures", "--classes", "10"), "knows the classes 0 to 9, got 10"),
        (("runs/student", "--images", "pictures", "--classes", "1", "2"), "with --classes and a number"),
        (("runs/student", "--images", "pictures", "--old-texts", "x.txt"), "for a student that reads texts"),
        (
            ("runs/student", "--images", "pictures", "--base", "runs/student/student.safetensors"),
            "is itself a few-step student",
        ),
        (("a/turbo", "--images", "pictures"), "name the base that it was distilled from with --base"),
        (("a/turbo", "--images", "pictures", "--base", "a/turbo"), "is the student itself, a few-step model"),
        (
            ("runs/student", "--images", "pictures", "--classes", "3", "--dataset.pictures.size", "24"),
            "makes ImageSpec(channels=3, height=16",
        ),
    ],
)
def test_what_cannot_be_tuned_is_one_message(tune: Tune, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    write_pictures(tmp_path / "one", 1)
    write_pictures(tmp_path / "bad", 20)
    for number in range(12):
        (tmp_path / "bad" / f"bad-{number}.png").write_bytes(b"no picture")
    done = tune(*words, *TINY)
    assert done.code in (1, 2) and message in done.stderr.replace("\n", " "), done.stderr
    assert done.stderr.count("error:") == 1
    assert not list(tmp_path.glob("runs/tune-*"))


def test_a_student_of_another_architecture_is_one_message(tune: Tune, tmp_path: Path) -> None:
    from tuned import base_recipe, write_teacher

    from ladd_dist.networks.cunet import CUNet

    other = dataclasses.replace(base_recipe(), network=CUNet(widths=(16, 16), embed_dim=32))
    base = write_teacher(tmp_path / "other", other)
    done = tune("runs/student", "--images", "pictures", "--classes", "3", "--base", str(base), *TINY)
    assert done.code == 1 and "is of another architecture" in done.stderr
    assert not list(tmp_path.glob("runs/tune-*"))


def test_no_share_of_old_conditions_asks_for_no_distance_either(tune: Tune) -> None:
    done = tune(*ASK, "--old-share", "0", "--full", "--dry-run")
    assert done.code == 0, done.stderr
    assert "--train.old.share 0.0 --distill-weight.value 0" in done.stdout and "student=full" in done.stdout


def test_without_its_base_a_tuned_run_names_the_file_and_still_samples(
    tuned: tuple[Path, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run, config = run_folder(tmp_path), run_folder(tmp_path) / "config.json"
    base = json.loads(config.read_text())["recipe"]["network"]["weights"]
    config.write_text(config.read_text().replace(base, "gone.safetensors"))
    with pytest.raises(UserError, match=r"network\.weights: 'gone\.safetensors' is no file"):
        open_run(run, device=torch.device("cpu"))
    load_student(run, torch.device("cpu"))


def test_the_adapter_of_a_student_that_no_pipeline_opens_is_not_offered_alone(
    given: Path, capsys: pytest.CaptureFixture[str], own_tables: None
) -> None:
    recipe = load_recipe(REPO / "recipes" / "tune_folder.py", "smoke")
    _tell_result(Options(str(given / "runs" / "student")), recipe, reads_texts=True)
    assert "--to diffusers" in capsys.readouterr().out
    _tell_result(Options("someone/turbo"), recipe, reads_texts=True)
    assert "--to lora" in capsys.readouterr().out


def test_folders_that_are_named_like_classes_need_no_flag(tune: Tune, tmp_path: Path) -> None:
    write_pictures(tmp_path / "named", 8, classes=("7", "2"))
    done = tune("runs/student", "--images", "named", "--dry-run", *TINY)
    assert done.code == 0, done.stderr
    assert "--network.classes 2 7 0 1 3 4 5 6 8 9 --dataset.old-classes 8" in done.stdout
