"""One smoke run that the pipeline's tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Done, Ladd

import ladd_dist.recipe
import plugins
from ladd_dist.launch import main

assert ladd_dist.recipe and plugins  # registered before a test copies the tables


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Ladd]:
    """The whole pipeline at smoke scale, run once; read what it left, change nothing."""
    ladd = Ladd(tmp_path_factory.mktemp("smoke"), tmp_path_factory.mktemp("smoke-cache"))
    return ladd(), ladd


@pytest.fixture
def ladd(tmp_path: Path, smoke: tuple[Done, Ladd]) -> Ladd:
    """`launch` with runs of its own and the shared trained teacher and shards (change nothing there)."""
    return Ladd(tmp_path, smoke[1].cache)


@pytest.fixture
def cold(tmp_path: Path) -> Ladd:
    """`launch` where nothing was ever run."""
    return Ladd(tmp_path, tmp_path / "cache")


@pytest.fixture
def launch_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], own_tables: None
) -> Callable[..., Done]:
    """`launch` within this process, in the test's folder: saves the seconds of a start where messages are looked at."""

    def launch(*words: str) -> Done:
        capfd.readouterr()
        try:
            code = main(list(words))
        except SystemExit as exit_:
            code = int(str(exit_.code))
        return Done(code, *capfd.readouterr())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    return launch
