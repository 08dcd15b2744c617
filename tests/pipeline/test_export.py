"""`ladd export`: one file and a readable card; `ladd sample --from` needs nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import Done, Ladd, error_of, half_written, read_json, run_command, snapshot
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ladd_dist.builders.student_file import load_student
from ladd_dist.core.rundir import weights_sha256
from ladd_dist.export import main


@pytest.fixture
def smoke_run(smoke: tuple[Done, Ladd]) -> Path:
    return smoke[0].run


@pytest.fixture
def own_run(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(smoke_run, tmp_path / smoke_run.name))


def export(run: Path, out: Path) -> Path:
    assert main([str(run), "--to", "safetensors", "--out", str(out)]) == 0
    return out


def card_in(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["ladd_dist"]))


def test_the_exported_file_holds_the_students_weights_and_its_whole_card(smoke_run: Path, tmp_path: Path) -> None:
    file = export(smoke_run, tmp_path / "deep" / "student-of-mine.safetensors")
    weights, config = load_file(file), read_json(smoke_run / "config.json")
    expected = load_file(smoke_run / "student.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    card = card_in(file)
    assert card.items() >= card_in(smoke_run / "student.safetensors").items()
    assert card["signature"] == config["signature"]
    assert card["parameters"] == config["params"]["student"]
    assert card["precision"] == "float32"
    assert card["step"] == config["recipe"]["train"]["steps"]
    assert card["versions"] == {
        "ladd_dist": config["version"],
        "torch": config["environment"]["torch"],
        "commit": config["environment"]["commit"],
    }
    assert card["weights_sha256"] == weights_sha256(expected)


def test_the_json_beside_it_is_the_card_and_the_sum_that_sha256sum_prints(smoke_run: Path, tmp_path: Path) -> None:
    file = export(smoke_run, tmp_path / "mine.safetensors")
    readable = read_json(tmp_path / "mine.json")
    assert readable.pop("file") == "mine.safetensors"
    assert readable.pop("file_sha256") == hashlib.sha256(file.read_bytes()).hexdigest()
    assert readable == card_in(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine.safetensors"]


def test_the_run_is_left_as_it_was_and_a_second_export_is_the_same(own_run: Path, tmp_path: Path) -> None:
    before = snapshot(own_run)
    first, again = (export(own_run, tmp_path / f"{name}.safetensors") for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()
    assert snapshot(own_run) == before


def test_the_file_alone_makes_the_same_pictures_as_the_run_in_a_folder_of_its_own(
    smoke_run: Path, tmp_path: Path
) -> None:
    """As on a machine that has the package but neither recipe nor run."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    done = run_command(sys.executable, "-m", "ladd_dist.export", smoke_run, "--to", "safetensors", cwd=here)
    assert done.code == 0, done.stderr
    (file,) = here.glob("*.safetensors")
    assert done.stdout.splitlines()[-1] == file.name == f"{smoke_run.name}.safetensors"
    shutil.copy(file, there / "student.safetensors")
    sample = (sys.executable, "-m", "ladd_dist.sample")
    theirs = run_command(*sample, "--from", "student.safetensors", "--out", "theirs.png", cwd=there)
    ours = run_command(*sample, smoke_run, "--out", "ours.png", cwd=here)
    assert (theirs.code, ours.code) == (0, 0), theirs.stderr + ours.stderr
    assert (there / "theirs.png").read_bytes() == (here / "ours.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onnx"], "--to onnx: no such format; formats: safetensors"),
        (["--out", "student.pt"], "must end in .safetensors"),
        (["--out", "RUN/other.safetensors"], "lies in the run's own folder"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_writes_nothing(
    own_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    assert main([str(own_run), *(word.replace("RUN", str(own_run)) for word in arguments)]) == 2
    printed = error_of(Done(2, *capsys.readouterr()))
    assert message in printed
    assert "\n" not in printed
    assert snapshot(tmp_path) == before


# Checkpoints


def stop_early(run: Path) -> Path:
    """What is there before the last step is done."""
    for name in ("student.safetensors", "distill.done.json", "evaluate.done.json", "eval.json"):
        (run / name).unlink()
    return run


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def test_of_an_unfinished_run_the_newest_checkpoints_average_is_taken(
    smoke_run: Path, own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The copy's newest checkpoint is that of the last step, so the student must be the finished one."""
    whole = export(smoke_run, tmp_path / "whole.safetensors")
    assert capsys.readouterr().err == ""
    file = export(stop_early(own_run), tmp_path / "early.safetensors")
    assert file.read_bytes() == whole.read_bytes()
    student, last = own_run / "student.safetensors", steps_of(own_run)[-1]
    assert capsys.readouterr().err == f"note: {student} does not exist: these are the weights of step {last}\n"


def test_a_step_that_was_kept_can_be_asked_for(own_run: Path, tmp_path: Path) -> None:
    early, last = steps_of(own_run)
    file = tmp_path / "early.safetensors"
    assert main([str(own_run), "--step", str(early), "--out", str(file)]) == 0
    assert card_in(file)["step"] == early < last
    weights, finished = load_file(file), load_file(own_run / "student.safetensors")
    assert weights.keys() == finished.keys()
    assert any(not torch.equal(weights[name], finished[name]) for name in weights)
    load_student(file, torch.device("cpu"))


def lose_checkpoints(run: Path) -> None:
    shutil.rmtree(stop_early(run) / "checkpoints")


def swap_checkpoint(run: Path) -> None:
    meta = max((stop_early(run) / "checkpoints").glob("*/meta.json"))
    facts = {key: value for key, value in read_json(meta).items() if key not in ("files", "sha256")}
    meta.write_text(json.dumps(facts | {"identity": "0123456789"}))


def cut_checkpoint(run: Path) -> None:
    file = max((stop_early(run) / "checkpoints").glob("*/*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100_000])


@pytest.mark.parametrize(
    ("harm", "arguments", "message"),
    [
        (lose_checkpoints, (), "is not finished and has no checkpoint yet; go on with: python -m ladd_dist.launch"),
        (stop_early, ("--step", "7"), "--step 7: no checkpoint of it in"),
        (swap_checkpoint, (), "belongs to another recipe (signature 0123456789, this one is"),
        (cut_checkpoint, (), "does not have the size and sha256 in meta.json); take another step, by --step"),
    ],
)
def test_a_checkpoint_that_cannot_be_taken_is_refused_in_one_line(
    own_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    harm(own_run)
    assert main([str(own_run), *arguments, "--out", str(tmp_path / "out.safetensors")]) == 1
    printed = error_of(Done(1, *capsys.readouterr()))
    assert message in printed
    assert "\n" not in printed
    assert not list(tmp_path.glob("out.*"))


# Damage


def spoil_bytes(run: Path) -> None:
    file = run / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def spoil_weights(run: Path) -> None:
    weights = load_file(run / "student.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, run / "student.safetensors", {"ladd_dist": json.dumps(card_in(run / "student.safetensors"))})


def spoil_card(run: Path) -> None:
    card = {name: value for name, value in card_in(run / "student.safetensors").items() if name != "levels"}
    save_file(load_file(run / "student.safetensors"), run / "student.safetensors", {"ladd_dist": json.dumps(card)})


def spoil_signature(run: Path) -> None:
    card = card_in(run / "student.safetensors") | {"signature": "0123456789"}
    save_file(load_file(run / "student.safetensors"), run / "student.safetensors", {"ladd_dist": json.dumps(card)})


def lose_config(run: Path) -> None:
    (run / "config.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (spoil_bytes, "is damaged, or no student that ladd_dist wrote"),
        (spoil_weights, "holds NaN or infinity"),
        (spoil_card, "levels"),
        (spoil_signature, "has signature 0123456789, its run has"),
        (lose_config, "is no run's folder"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], message: str
) -> None:
    harm(own_run)
    out = tmp_path / "out.safetensors"
    assert main([str(own_run), "--out", str(out)]) == 1
    printed = error_of(Done(1, *capsys.readouterr()))
    assert message in printed
    assert "\n" not in printed
    assert not list(tmp_path.glob("out.*"))


def test_a_full_disk_leaves_neither_file_nor_an_older_card(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(smoke_run, tmp_path / "out.safetensors")
    before = out.read_bytes()

    def full(file: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([str(smoke_run), "--out", str(out)]) == 1
    assert "no room to write" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert not (tmp_path / "out.json").exists()
    assert not half_written(tmp_path)


def test_a_flipped_bit_in_an_exported_file_is_noticed(smoke_run: Path, tmp_path: Path) -> None:
    file = export(smoke_run, tmp_path / "out.safetensors")
    data = bytearray(file.read_bytes())
    data[-500] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: .*sha256"):
        load_student(file, torch.device("cpu"))
