"""One smoke run that the pipeline's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Done, Ladd


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
