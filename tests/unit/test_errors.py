"""What a user sees: one line for a `UserError`, the traceback and a closing line for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ladd_dist.cli.errors import FAILURE, USAGE, run_guarded
from ladd_dist.core.errors import MissingFileError, UnknownTapError, UserError, reading
from ladd_dist.core.failure import tracebacks_kept
from ladd_dist.core.serialize import RecipeError


def ending(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def command() -> int:
        raise error

    return run_guarded(command), capsys.readouterr().err


def test_a_user_error_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(UserError("no run at runs/x: give another"), capsys) == (
        FAILURE,
        "error: no run at runs/x: give another\n",
    )
    assert ending(RecipeError("recipe.seed: must be 0 or more"), capsys)[0] == USAGE


@pytest.mark.parametrize(
    "error", [ValueError("a sentence with blanks in it"), KeyError("a key with blanks"), TypeError("no")]
)
def test_any_other_exception_keeps_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ending(error, capsys)
    assert code == FAILURE
    assert "Traceback (most recent call last)" in text
    assert "test_errors.py" in text
    assert text.rstrip().splitlines()[-1].startswith(f"error: {type(error).__name__}: this is a fault of the program")


def test_the_closing_line_names_the_log_and_the_log_has_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        with tracebacks_kept(tmp_path / "logs"):
            raise ValueError("a sentence with blanks in it")

    assert run_guarded(command) == FAILURE
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in capsys.readouterr().err.rstrip().splitlines()[-1]
    assert "ValueError: a sentence with blanks in it" in log.read_text()


def test_a_users_error_leaves_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError), tracebacks_kept(tmp_path / "logs"):
        raise UserError("an error of the user")
    assert not (tmp_path / "logs").exists()


def test_an_unknown_tap_is_a_sentence_without_quotes() -> None:
    error = UnknownTapError("unknown tap 'down9'; this network has down0, down1")
    assert isinstance(error, KeyError)
    assert str(error) == "unknown tap 'down9'; this network has down0, down1"


def test_a_file_that_the_user_must_put_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = MissingFileError("MNIST is not in data: put the four files there")
    assert isinstance(error, FileNotFoundError)
    assert ending(error, capsys) == (FAILURE, "error: MNIST is not in data: put the four files there\n")


@pytest.mark.parametrize("error", [MemoryError("no memory"), torch.OutOfMemoryError("no memory"), AttributeError("x")])
def test_running_out_of_memory_is_no_reason_to_delete_a_file(error: Exception) -> None:
    with pytest.raises(type(error)), reading(Path("teacher.safetensors"), "does not fit", "delete its folder"):
        raise error


def test_pytorchs_own_failure_to_allocate_is_no_damage_either() -> None:
    file = reading(Path("teacher.safetensors"), "does not fit", "delete its folder")
    with pytest.raises(RuntimeError, match="allocate memory") as caught, file:
        torch.empty(2**60)
    assert not isinstance(caught.value, UserError)


def test_weights_of_another_network_are_damage(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = tmp_path / "teacher.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, path)
    with (
        pytest.raises(UserError, match=r"does not fit .*; delete its folder"),
        reading(path, "does not fit", "delete its folder"),
    ):
        torch.nn.Linear(3, 3).load_state_dict(load_file(path))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="cannot be read"), reading(path, "cannot be read", "delete its folder"):
        load_file(path)
