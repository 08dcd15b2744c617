"""The wheel alone, installed where no checkout is: what it puts there, and the whole way from an empty folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from processes import REPO, Done, read_json, run_command

from ladd_dist.core.checkout import RELEASE

pytestmark = pytest.mark.slow


class Installed(NamedTuple):
    """Environments that see this one's packages, but not this checkout."""

    python: Path
    wheel: Path
    sdist: Path

    def ladd(self, cwd: Path, *words: object, code: int = 0) -> Done:
        """Run a command of the wheel in a folder."""
        done = run_command(self.python, "-m", "ladd_dist", *words, cwd=cwd)
        assert done.code == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done


def hook(call: str, folder: Path, out: Path) -> str:
    """Call a hook of the build backend in the folder of the sources; returns the name of the file that it made."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{call}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, out], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel that is built from the sdist of the files here, in an environment of its own."""
    pytest.importorskip("setuptools_scm", reason="setuptools-scm is not in this environment: `make setup` installs it")
    pytest.importorskip("pip", reason="pip is not in this environment: install it to test the wheel")
    base = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("the files of the project are those that git knows, and this is no checkout")
    for name in tracked.rstrip("\0").split("\0"):
        if (REPO / name).is_file():
            (base / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, base / "source" / name)
    tagged(base / "source")
    sdist = base / hook("build_sdist", base / "source", base)
    with tarfile.open(sdist) as archive:
        archive.extractall(base, filter="data")
    wheel = base / hook("build_wheel", base / sdist.name.removesuffix(".tar.gz"), base)
    return Installed(environment(base / "venv", wheel), wheel, sdist)


def tagged(folder: Path) -> None:
    """Make a folder a checkout with a commit after its tag v9.8.7."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commit = [*who, "commit", "-q", "--allow-empty", "-m", "a"]
    for words in (["init", "-q"], ["add", "-f", "."], commit, [*who, "tag", "v9.8.7"], commit):
        subprocess.run(["git", *words], cwd=folder, check=True, timeout=60)


def environment(folder: Path, wheel: Path) -> Path:
    """The interpreter of a new environment with the wheel; it sees the packages here, but not what is editable."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    outer = [path for path in sys.path if path.endswith("-packages")]
    (site / "outer.pth").write_text("\n".join(outer), encoding="utf-8")  # a path: its own .pth files are not read
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--force-reinstall", wheel], check=True, timeout=300)
    return python


@pytest.fixture(autouse=True)
def no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_the_wheel_puts_one_folder_at_the_top_of_site_packages(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"ladd_dist"}
    assert {"ladd_dist/zoo/plugins/heads/max_pool.py", "ladd_dist/zoo/slurm/laptop.py"} <= set(names)
    data = [name for name in names if name.startswith("ladd_dist/zoo/recipes/") and not name.endswith(".py")]
    for folder in ("recipes", "plugins", "slurm"):
        ours = {str(path.relative_to(REPO)) for path in (REPO / folder).rglob("*.py")}
        assert {f"ladd_dist/zoo/{name}" for name in ours} <= set(names)
    assert "ladd_dist/zoo/recipes/prompts.txt" in data
    assert len([name for name in data if "/configs/" in name]) == len([*(REPO / "recipes/configs").rglob("*.json")])


def test_the_version_is_that_of_the_last_tag_and_says_the_commit(installed: Installed, tmp_path: Path) -> None:
    name = r"ladd_dist-9\.8\.7\.post1\.dev1\+g[0-9a-f]{7,}"
    assert re.fullmatch(name + r"-py3-none-any\.whl", installed.wheel.name)
    assert re.fullmatch(name + r"\.tar\.gz", installed.sdist.name)
    built = installed.wheel.name.split("-")[1]
    said = installed.ladd(tmp_path, "--version").stdout
    assert said.startswith(f"ladd_dist {built} (commit {built.rpartition('+g')[2]}), python 3.")
    assert f"torch {torch.__version__}, device " in said
    code = "import ladd_dist; print(ladd_dist.__version__)"  # what locks are held to
    assert run_command(installed.python, "-c", code, cwd=tmp_path).stdout == "9.8.7\n"


def test_sources_without_git_have_the_release_that_is_written_down(tmp_path: Path) -> None:
    pytest.importorskip("setuptools_scm")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "ladd_dist/__init__.py"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, tmp_path / "source" / name)
    assert hook("prepare_metadata_for_build_wheel", tmp_path / "source", tmp_path) == f"ladd_dist-{RELEASE}.dist-info"


OWN_PLUGINS = """
from dataclasses import dataclass
from torch import nn
from ladd_dist.core.plugin import register
from ladd_dist.heads import Head
from plugins.blocks import WIDTH

@register("own_head")
@dataclass(frozen=True)
class OwnHead(Head):
    '''A head in a folder that is called as ours is.'''

    def build(self, *, channels, cond_dim):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(WIDTH))
"""
OWN_RECIPE = """
from plugins.blocks import WIDTH
from plugins.heads.max_pool import MaxPool
from recipes._base import BASE
from recipes.numbers import SEED

RECIPE = BASE.replace(name="own", head=MaxPool(width=WIDTH), seed=SEED)
"""


@pytest.mark.parametrize("with_init", [True, False], ids=["package", "folder"])
def test_a_users_own_folders_and_ours_do_not_shadow_each_other(
    installed: Installed, tmp_path: Path, with_init: bool
) -> None:
    """A folder `plugins` in the current folder, as many projects have one, beside the plug-ins of the wheel."""
    files = {
        "plugins/blocks.py": "WIDTH = 16\n",
        "plugins/own.py": OWN_PLUGINS,
        "plugins/taps/__init__.py": "raise ValueError('never asked for')\n",  # a name of ours too
        "recipes/numbers.py": "SEED = 7\n",
        "recipes/own.py": OWN_RECIPE,
    }
    files |= {"plugins/__init__.py": "from plugins import own\n", "recipes/__init__.py": ""} if with_init else {}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    shown = ("--scale", "smoke", "--dry-run", "--json")
    ours = installed.ladd(tmp_path, "launch", "exp4_specnorm", *shown)
    assert '"recipe": "exp4_specnorm"' in ours.stdout
    assert '"recipe": "own"' in installed.ladd(tmp_path, "launch", "recipes/own.py", *shown).stdout
    module = "plugins" if with_init else "plugins.own"
    listed = installed.ladd(tmp_path, "plugins", "--json", "--plugins", module).stdout
    assert '"own_head"' in listed
    assert '"max_pool"' in listed
    assert '"own_head"' not in installed.ladd(tmp_path, "plugins", "--json").stdout
    code = f"import {module}, ladd_dist, {module} as mine; print(mine.__spec__.name, ladd_dist.__file__)"
    said = run_command(installed.python, "-c", code, cwd=tmp_path).stdout.split()
    assert said[0] == module
    assert not Path(said[1]).is_relative_to(REPO)


def test_from_an_empty_folder_to_a_page_a_head_of_ones_own_and_a_sweep(installed: Installed, tmp_path: Path) -> None:
    place = ("--scale", "smoke")
    run = tmp_path / installed.ladd(tmp_path, "launch", "exp4_specnorm", *place).run
    assert (run / "report.html").is_file()
    config = read_json(run / "config.json")
    assert (config["recipe_path"], config["plugins"]) == ("exp4_specnorm", ["plugins"])
    lock = read_json(run / "recipe.lock")
    assert {"plugins.heads.spectral_norm", "plugins.heads._classifier"} <= set(
        lock["plugin_classes"]["head"]["sources"]
    )
    installed.ladd(tmp_path, "launch", "--locked", run, "--dry-run")
    assert (
        "exp4_specnrom does not exist; did you mean exp4_specnorm"
        in installed.ladd(tmp_path, "launch", "exp4_specnrom", code=2).stderr
    )

    said = installed.ladd(tmp_path, "new", "mine").stdout
    assert "ladd sweep mine.py --on mine_cluster.py" in said
    installed.ladd(tmp_path, "plugins", "--check", "mine_head", "--plugins", "mine_head")
    recipe = tmp_path / "mine.py"
    recipe.write_text(recipe.read_text().replace("seeds=(0, 1)", "seeds=(0,)"))
    installed.ladd(tmp_path, "sweep", "mine.py", "--on", "laptop", *place)
    runs = [path for path in (tmp_path / "runs").glob("mine-*") if path.is_dir()]
    heads = {read_json(path / "config.json")["recipe"]["head"]["plugin"] for path in runs}
    assert heads == {"mine_head", "spectral_norm"}
    assert all((path / "report.html").is_file() for path in runs)
