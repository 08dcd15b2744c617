"""The version: of the last tag in a checkout, and the release of it that locks are held to."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import ladd_dist
from ladd_dist.core import checkout

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ladd_dist" / "core").mkdir(parents=True)
    (tmp_path / "ladd_dist" / "__init__.py").touch()
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "ladd_dist" / "core" / "checkout.py"))
    monkeypatch.setattr(checkout, "version", checkout.version.__wrapped__)
    return tmp_path


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, timeout=60)


def test_the_release_without_a_tag_is_the_one_in_pyproject(own_checkout: Path) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    assert checkout.RELEASE == project["tool"]["setuptools_scm"]["fallback_version"] == checkout.version()
    git(own_checkout, "init", "-q")
    git(own_checkout, "add", ".")
    git(own_checkout, "commit", "-qm", "a")
    assert checkout.version() == checkout.RELEASE


def test_a_tag_of_a_release_counts_and_no_other_and_the_commit_stays_a_hash(own_checkout: Path) -> None:
    git(own_checkout, "init", "-q")
    git(own_checkout, "add", ".")
    git(own_checkout, "commit", "-qm", "a")
    before = checkout.current_commit()
    git(own_checkout, "tag", "-am", "a", "v0.7.1rc2")
    git(own_checkout, "tag", "-am", "a", "fast")
    assert (checkout.version(), checkout.release()) == ("0.7.1rc2", "0.7.1rc2")
    assert checkout.current_commit() == before and len(before) == 10


@pytest.mark.parametrize(
    ("built", "release", "commit"),
    [
        ("0.1.0", "0.1.0", "unknown"),
        ("0.1.0.post1.dev609+ge6e537a97", "0.1.0", "e6e537a97"),
        ("1.2rc1.post1.dev0+ge6e537a97.d20261126", "1.2rc1", "e6e537a97-dirty"),
    ],
)
def test_an_installed_package_was_built_from_a_version(
    built: str, release: str, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "IS_INSTALLED", True)
    monkeypatch.setattr(checkout, "version", lambda: built)
    assert (checkout.release(), checkout.current_commit()) == (release, commit)


def test_the_lock_file_of_uv_is_of_these_dependencies() -> None:
    """`uv lock` writes it anew after a change of pyproject.toml."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = tomllib.loads((REPO / "uv.lock").read_text(encoding="utf-8"))["package"]
    (own,) = (package for package in packages if package["name"] == "ladd-dist")
    locked = {
        (wanted["name"], str(SpecifierSet(wanted.get("specifier", "")))) for wanted in own["metadata"]["requires-dist"]
    }
    asked = [
        Requirement(text)
        for texts in (project["dependencies"], *project["optional-dependencies"].values())
        for text in texts
    ]
    assert locked == {(canonicalize_name(wanted.name), str(wanted.specifier)) for wanted in asked}
    assert {source for package in packages for source in package["source"].values()} == {"https://pypi.org/simple", "."}


def test_the_package_knows_no_other_name_by_itself() -> None:
    assert ladd_dist.__version__ == checkout.release()
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = ladd_dist.no_such  # type: ignore[attr-defined]
