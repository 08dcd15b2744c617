"""The shipped recipes, plug-ins and profiles: found under one name of ours, and by names on the command line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ladd_dist import new
from ladd_dist.cli.recipe_arguments import is_recipe, split_help, tidy
from ladd_dist.cluster import load_cluster
from ladd_dist.cluster.profiles import keep, kept
from ladd_dist.core.plugin import PluginError, load_plugins, lookup, register
from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import load_recipe
from ladd_dist.recipe.plugin_sources import sources
from ladd_dist.zoo import ROOT, file_at, names_in, ships

REPO = Path(__file__).resolve().parents[2]


def python(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- imports ---


def test_the_short_name_is_the_same_module_not_a_second_one() -> None:
    long, short = (importlib.import_module(f"{top}plugins.heads.max_pool") for top in ("ladd_dist.zoo.", ""))
    assert long is short
    assert long.__spec__ is not None and long.__spec__.name == long.__name__ == "ladd_dist.zoo.plugins.heads.max_pool"
    assert importlib.import_module("recipes._base") is importlib.import_module("ladd_dist.zoo.recipes._base")


@pytest.mark.parametrize("first", ["import plugins", "import ladd_dist", "from recipes import exp4_specnorm"])
def test_in_a_checkout_either_name_may_come_first(first: str) -> None:
    code = f"{first}\nfrom ladd_dist.core.plugin import load_plugins, lookup, origin\nload_plugins(('plugins',))\n"
    code += "import plugins.heads as heads; print(lookup('head', 'max_pool') is heads.MaxPool, origin(heads.MaxPool))"
    assert python(code, REPO) == "True plugins/"


def test_a_users_own_package_keeps_its_name_and_what_it_lacks_is_ours(tmp_path: Path) -> None:
    (tmp_path / "plugins" / "heads").mkdir(parents=True)
    for name in ("__init__.py", "heads/__init__.py"):
        (tmp_path / "plugins" / name).write_text("MINE = True\n")
    (tmp_path / "plugins" / "heads" / "max_pool.py").write_text("MaxPool = 'mine'\n")
    code = "import ladd_dist, plugins.heads.max_pool as mine; from plugins.heads.small_conv import SmallConv as ours\n"
    code += "from ladd_dist.zoo.recipes.exp4_specnorm import RECIPE\n"
    code += "import plugins; print(plugins.MINE, mine.MaxPool, ours.__module__, RECIPE.smoke.head.name)"
    assert python(code, tmp_path) == "True mine ladd_dist.zoo.plugins.heads.small_conv spectral_norm"


def test_a_plug_in_of_the_users_may_not_take_the_name_of_one_of_ours() -> None:
    load_plugins(())
    with pytest.raises(PluginError, match=r"'max_pool' is taken by ladd_dist\.zoo\.plugins\.heads\.max_pool\.MaxPool"):
        register("max_pool")(type("MaxPool", (lookup("head", "max_pool"),), {"__module__": "plugins.heads.max_pool"}))


def test_a_package_imported_anew_from_another_folder_has_the_only_finder(tmp_path: Path) -> None:
    for folder in ("ladd_dist/zoo", "ladd_dist/core", "plugins"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("ladd_dist/__init__.py", "ladd_dist/zoo/__init__.py"):
        (tmp_path / file).write_bytes((REPO / file).read_bytes())
    (tmp_path / "plugins" / "__init__.py").write_text("COPY = True\n")
    code = "import sys, ladd_dist\nfor name in [name for name in sys.modules if name.startswith('ladd_dist')]:\n"
    code += f"    del sys.modules[name]\nsys.path.insert(0, {str(tmp_path)!r})\nimport ladd_dist, plugins\n"
    code += "print(plugins.COPY, plugins.__name__, [type(f).__name__ for f in sys.meta_path].count('_ShortNames'))"
    assert python(code, tmp_path) == "True ladd_dist.zoo.plugins 1"


def test_nothing_else_of_the_repository_is_in_the_package() -> None:
    """Whoever walks the package, as documentation tools do, meets every module once."""
    assert importlib.util.find_spec("ladd_dist.zoo.slurm") is not None
    for name in ("tests", "benchmarks", "ladd_dist", "setup"):
        assert importlib.util.find_spec(f"ladd_dist.zoo.{name}") is None


def test_other_names_are_not_touched() -> None:
    assert ships("plugins.heads") and ships("recipes._base") and not ships("plugins.no_such") and not ships("json")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'plugins\.no_such'"):
        importlib.import_module("plugins.no_such")


def test_sources_are_hashed_as_before_the_shipped_modules_had_long_names() -> None:
    """The digest of a file that has not changed since commit e6e537a, which locks of that time hold."""
    load_plugins(())
    found = sources(lookup("head", "spectral_norm")) | sources(lookup("taps", "downs"))
    assert found["plugins.taps.downs"].startswith("5f7032281f5607fa")
    assert {"plugins.heads._classifier", "plugins.taps._select", "ladd_dist.heads"} <= set(found)
    helper = (REPO / "plugins" / "heads" / "_classifier.py").read_bytes()
    assert found["plugins.heads._classifier"] == hashlib.sha256(helper).hexdigest()


# --- names on the command line ---


def test_a_name_stands_for_the_shipped_file_whatever_the_current_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exp4_specnorm").mkdir()
    Path("exp4_specnorm.py").write_text("from recipes._base import BASE\nRECIPE = BASE.replace(name='mine')\n")
    assert load_recipe(Path("exp4_specnorm"), "smoke").name == "exp4_specnorm"
    assert load_recipe(Path("exp4_specnorm.py"), "smoke").name == "mine"
    assert file_at("exp4_specnorm", "recipes") == ROOT / "recipes" / "exp4_specnorm.py"
    assert file_at("exp4_specnorm", "slurm") == Path("exp4_specnorm")
    assert load_cluster(Path("laptop")).executor == "local"


@pytest.mark.parametrize("typed", ["exp4_specnrom", "recipes/exp4_specnorm.py", "exp4-specnorm"])
def test_an_unknown_name_lists_near_ones(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=f"recipe {typed} does not exist; did you mean exp4_specnorm"):
        load_recipe(Path(typed), "smoke")
    with pytest.raises(RecipeError, match=r"files there: .*exp4_specnorm, .*z_image$"):
        load_recipe(Path("zzz"), "smoke")
    with pytest.raises(RecipeError, match="does not exist; did you mean laptop"):
        load_cluster(Path("labtop"))


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ("exp4_specnorm --seed 1", True),
        ("--seed 1 exp4_specnorm", True),
        ("--swap head=max_pool exp4_specnorm --scale smoke", True),
        ("--on laptop --plugins mine exp4_specnorm", True),
        ("--name exp4_specnorm", False),
        ("--locked exp4_specnorm", False),
        ("runs/exp4_specnorm", False),
    ],
)
def test_a_name_comes_first_unless_it_is_the_value_of_a_flag(words: str, recipe: bool) -> None:
    found = tidy(words.split())
    assert (found[0] == "exp4_specnorm") == recipe
    assert sorted(found) == sorted(words.split())


def test_help_takes_a_name_for_the_recipe_and_not_for_a_group() -> None:
    assert split_help(["--help", "exp4_specnorm"]) == (["exp4_specnorm"], "")
    assert is_recipe("exp4_specnorm") and is_recipe("any.py") and not is_recipe("_base") and not is_recipe("laptop")
    assert {"exp4_specnorm", "sweep_heads"} <= set(names_in("recipes"))


def test_a_profile_by_name_is_noted_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "sweep", Path("laptop"))
    assert kept(tmp_path / "sweep") == (REPO / "slurm" / "laptop.py").resolve()


# --- ladd new ---


def test_new_writes_three_files_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_tables: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setitem(sys.modules, "my_idea_head", None)  # so that it is gone again when the test ends
    del sys.modules["my_idea_head"]
    assert new.main(["my_idea"]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(written) == {"my_idea.py", "my_idea_head.py", "my_idea_cluster.py"}
    assert not any(word in text for text in written.values() for word in ("NAME", "CLASS"))
    said = capsys.readouterr().out
    assert "ladd launch my_idea.py" in said and "ladd sweep my_idea.py --on my_idea_cluster.py" in said
    recipe = load_recipe(Path("my_idea.py"), "smoke")
    assert (recipe.name, recipe.head.name, load_cluster(Path("my_idea_cluster.py")).executor) == (
        "my_idea",
        "my_idea_head",
        "local",
    )
    Path("my_idea.py").unlink()
    assert new.main(["my_idea"]) == 2
    assert "my_idea_head.py, my_idea_cluster.py: there already" in capsys.readouterr().err
    assert not Path("my_idea.py").exists()
    assert new.main(["my_idea", "--folder", "deep/er"]) == 2  # its own head would be the one that is here
    assert not Path("deep").exists()


@pytest.mark.parametrize("name", ["My", "a-b", "../a", "", "json", "torch", "recipes", "1a", "a" * 61])
def test_new_refuses_a_name_that_is_no_module_or_another_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new.main([name]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
