"""Lowest versions of packages: one table, and one line at the start for what is older."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from ladd_dist.core import compat, versions
from ladd_dist.core.versions import ON_DEMAND, PYTHON, Floor, floors, installed, release
from ladd_dist.preflight.check import Fail, Warn
from ladd_dist.preflight.machine_checks import check_python

REPO = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def package(folder: Path, name: str, version: str) -> None:
    """Metadata of an installed package in a folder, and a module of that name that must not be imported."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n", "utf-8")


def ladd(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command run with the metadata of that folder before every other."""
    path = os.pathsep.join([str(folder), str(REPO)])
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True,
        timeout=300,
    )  # fmt: skip


def test_the_table_is_what_pyproject_says() -> None:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["diffusers"]]
    wanted = {}
    for requirement in map(Requirement, lines):
        (lowest,) = (part.version for part in requirement.specifier if part.operator == ">=")
        wanted[requirement.name] = lowest
    assert {floor.package: floor.lowest for floor in floors()} == wanted
    assert set(wanted) >= ON_DEMAND | {"torch", "torchvision"}


def test_a_wheel_has_the_same_table_in_its_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = {floor.package: floor.lowest for floor in floors()}
    extras = PROJECT["optional-dependencies"]
    lines = [
        *PROJECT["dependencies"],
        *(f'{line}; extra == "{extra}"' for extra, some in extras.items() for line in some),
    ]
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "ladd_dist" / "core" / "versions.py"))
    monkeypatch.setattr(versions.importlib.metadata, "requires", lambda name: lines)
    assert {floor.package: floor.lowest for floor in floors()} == before


def test_the_oldest_python_is_the_one_of_pyproject() -> None:
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, PYTHON))


def test_every_installed_version_is_read_as_its_metadata_has_it() -> None:
    for floor in floors():
        if floor.installed is not None:
            assert Version(floor.installed) >= Version(floor.lowest)
    assert installed("torch") is not None
    assert installed("no-such-package") is None


@pytest.mark.parametrize(
    ("found", "lowest", "is_met"),
    [
        ("2.8.0", "2.8", True),
        ("2.8", "2.8.0", True),
        ("2.10.1", "2.8", True),
        ("2.8.0+cu128", "2.8", True),
        ("2.8.0a0+5228986c39.nv25.06", "2.8", True),
        ("2.7.1", "2.8", False),
        ("2.7.99+cu128", "2.8", False),
        ("1.12", "2.8", False),
        ("0.9.35", "1.0.0", False),
        (None, "2.8", True),
    ],
)
def test_versions_are_compared_by_number(found: str | None, lowest: str, is_met: bool) -> None:
    assert Floor("torch", lowest, found).is_met is is_met


@pytest.mark.parametrize("words", [("-m", "ladd_dist", "plugins"), ("-m", "ladd_dist.launch", "--help")])
def test_a_package_that_every_command_needs_and_is_too_old_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    package(tmp_path, "torch", "2.4.1+cu118")
    package(tmp_path, "tyro", "0.8.3")
    done = ladd(tmp_path, *words)
    lowest = {floor.package: floor.lowest for floor in floors()}
    assert done.stderr == (
        f"error: torch 2.4.1+cu118 is too old, {lowest['torch']} or newer is needed; tyro 0.8.3 is too old, "
        f"{lowest['tyro']} or newer is needed: pip install 'torch>={lowest['torch']}' 'tyro>={lowest['tyro']}'\n"
    )
    assert done.stdout == ""
    assert done.returncode == 1


def test_help_and_version_are_there_beside_every_version(tmp_path: Path) -> None:
    package(tmp_path, "torch", "1.0")
    for words in (["--help"], ["--version"]):
        done = ladd(tmp_path, "-m", "ladd_dist", *words)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_old_package_that_nothing_asks_for_is_a_warning(tmp_path: Path) -> None:
    package(tmp_path, "wandb", "0.12.1")
    done = ladd(tmp_path, "-m", "ladd_dist.launch", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage:")
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: wandb 0.12.1 is too old, ")
    assert "pip install 'wandb>=" in line


def test_a_rank_leaves_the_warning_to_its_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package(tmp_path, "wandb", "0.12.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(versions.PARENT, "1")
    versions.require_versions()
    assert capsys.readouterr().err == ""
    monkeypatch.delenv(versions.PARENT)
    versions.require_versions()
    assert "wandb 0.12.1" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "outcome"), [("torch", Fail), ("wandb", Warn)])
def test_doctor_knows_the_table(
    name: str, outcome: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "packages new enough" in check_python(SimpleNamespace())  # type: ignore[arg-type]
    package(tmp_path, name, "0.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(outcome) as caught:
        check_python(SimpleNamespace())  # type: ignore[arg-type]
    assert f"{name} 0.1 is too old" in str(caught.value)


def test_the_writer_of_checkpoints_takes_the_argument_of_its_version() -> None:
    (argument,) = compat.own_file_a_rank()
    assert argument in inspect.signature(HuggingFaceStorageWriter).parameters


@pytest.mark.parametrize(("version", "argument"), [("0.35.0", "torch_dtype"), ("0.40.0", "dtype"), ("1.2", "dtype")])
def test_diffusers_are_told_the_type_of_weights_by_its_name(
    version: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "diffusers", version)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(compat.loaded_as(compat.torch.float32)) == [argument]


def test_numbers_of_a_version() -> None:
    assert release("2.8.0+cu128") == release("2.8") == (2, 8)
    assert release("") == ()
