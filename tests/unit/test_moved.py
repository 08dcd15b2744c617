"""A user's file that imports a module from where it was says, when it is read, what to write now."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ladd_dist.stages.step
from ladd_dist.builders.step import build_step
from ladd_dist.core.moved import MOVED
from ladd_dist.core.plugin import PluginError, load_modules
from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import load_module


def error_of(folder: Path, text: str) -> str:
    """What reading a file with this text says."""
    (folder / "mine.py").write_text(text)
    with pytest.raises(RecipeError) as raised:
        load_module(folder / "mine.py")
    return str(raised.value)


def test_a_sweep_file_of_the_version_before_is_told_its_new_line(tmp_path: Path) -> None:
    said = error_of(tmp_path, "import os\n\nfrom ladd_dist.sweeps import (\n    Axis,\n    Sweep as Many,\n)\n")
    file = tmp_path / "mine.py"
    assert f"write `from ladd_dist.recipe import Axis, Sweep as Many` ({file}, line 3)" in said
    assert "ladd_dist.sweeps is ladd_dist.recipe now" in said


def test_names_that_the_public_door_lacks_are_found_behind_it(tmp_path: Path) -> None:
    said = error_of(tmp_path, "from ladd_dist.settings import neutral\n")
    assert "write `from ladd_dist.recipe.settings import neutral`" in said
    assert "write `import ladd_dist.recipe.sweep`" in error_of(tmp_path, "import ladd_dist.sweeps\n")


def test_a_file_beside_the_recipe_is_named_where_its_line_is(tmp_path: Path) -> None:
    (tmp_path / "my_parts_that_moved.py").write_text("from ladd_dist.engine.cost import count_flops\n")
    said = error_of(tmp_path, "import my_parts_that_moved\n")
    assert f"from ladd_dist.costs.flops import count_flops` ({tmp_path / 'my_parts_that_moved.py'}, line 1)" in said


def test_another_missing_module_is_told_as_python_does(tmp_path: Path) -> None:
    assert "ModuleNotFoundError: No module named 'no_such_thing'" in error_of(tmp_path, "import no_such_thing\n")


def test_a_module_of_plug_ins_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_old_plugins.py").write_text("from ladd_dist.settings import Ema\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"write `from ladd_dist\.recipe import Ema`"):
        load_modules(["my_old_plugins"])
    sys.modules.pop("my_old_plugins", None)


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_what_is_said_to_have_moved_is_gone_and_its_new_place_there(old: str, new: str) -> None:
    package = Path(ladd_dist.__file__).parent
    for name, there in ((old, False), (new, True)):
        base = package.joinpath(*name.split(".")[1:])
        assert (base.with_suffix(".py").exists() or (base / "__init__.py").exists()) == there, name


def test_the_step_can_still_be_imported_from_where_others_do() -> None:
    assert ladd_dist.stages.step.build_step is build_step
