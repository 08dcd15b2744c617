"""A head from somebody else's package: built, installed into an environment of its own, and trained with."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from processes import RECIPE, Done, Ladd, error_of, read_json, run_command

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "shiny-heads"
version = "1.2"

[tool.setuptools]
py-modules = ["shiny_heads"]

[project.entry-points."ladd_dist.plugins"]
shiny = "shiny_heads"
rusty = "module_that_was_never_shipped"
"""

MODULE = '''
from dataclasses import dataclass

from torch import nn

from ladd_dist.core.plugin import register
from ladd_dist.heads import Head


class Shiny(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Conv2d(width, 1, 1), nn.Flatten())

    def forward(self, features, cond_vec):
        return self.body(features)


@register("shiny")
@dataclass(frozen=True)
class ShinyHead(Head):
    """A head from another package."""

    width: int = 8

    def build(self, *, channels, cond_dim):
        return Shiny(channels, self.width)
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that sees this one's packages and has `shiny-heads` installed."""
    pytest.importorskip("pip", reason="pip is not in this environment: install it to test packages with plug-ins")
    base = tmp_path_factory.mktemp("entry-point")
    package = base / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "shiny_heads.py").write_text(MODULE, encoding="utf-8")
    environment = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    paths = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    outer = sysconfig.get_path("purelib")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n", encoding="utf-8")
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-build-isolation", package], check=True, timeout=300)
    return python


def launch(python: Path, ladd: Ladd, *words: object) -> Done:
    place = ["--scale", "smoke", "--out", ladd.runs, "--cache", ladd.cache]
    return run_command(python, "-m", "ladd_dist.launch", RECIPE, *place, *words, cwd=ladd.cwd)


@pytest.mark.slow
def test_a_head_from_an_installed_package_trains_by_its_name_beside_a_broken_one(python: Path, ladd: Ladd) -> None:
    done = launch(python, ladd, "--swap", "head=shiny", "--head.width", 4, "--train.steps", 5)
    assert done.code == 0, done.stderr
    assert read_json(done.run / "config.json")["recipe"]["head"] == {"plugin": "shiny", "width": 4}
    assert "student@4" in read_json(done.run / "eval.json")


@pytest.mark.slow
def test_a_broken_package_is_reported_when_its_name_is_asked_for(python: Path, ladd: Ladd) -> None:
    done = launch(python, ladd, "--swap", "head=rusty")
    assert done.code == 2
    message = error_of(done)
    assert "the package that offers head 'rusty' is broken: module_that_was_never_shipped" in message
    assert "ModuleNotFoundError" in message


@pytest.mark.slow
def test_the_list_shows_the_package_and_warns_of_the_broken_one(python: Path, tmp_path: Path) -> None:
    done = run_command(python, "-m", "ladd_dist.plugins", "--kind", "head", cwd=tmp_path)
    assert done.code == 0
    assert "package shiny-heads" in done.stdout
    assert "entry point 'rusty' is broken" in done.stderr
