"""The documentation's examples run, and what it lists exists."""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ladd_dist.recipe
import plugins
from ladd_dist import plugins as cli
from ladd_dist.core import plugin as registry
from ladd_dist.core.plugin import lookup, registered
from ladd_dist.testing import check_head, check_plugin

assert ladd_dist.recipe and plugins  # imported for their registration
PLUGINS = Path(__file__).parent.parent / "docs" / "plugins.md"


def python_blocks(path: Path) -> list[str]:
    """Contents of the ```python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def my_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's first example as the module it says, importable."""
    monkeypatch.setattr(registry, "_tables", copy.deepcopy(registry._tables))
    (tmp_path / "my_heads.py").write_text(python_blocks(PLUGINS)[0], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_heads", None)


def test_the_head_of_the_plugin_page_keeps_the_contract(my_heads: None) -> None:
    module = importlib.import_module("my_heads")
    check_head(module.MyHead())
    assert lookup("head", "my_head") is module.MyHead


def test_the_check_command_of_the_plugin_page_works_as_printed(
    my_heads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "python -m ladd_dist.plugins --check my_head --plugins my_heads"
    assert command in PLUGINS.read_text(encoding="utf-8")
    assert cli.main(command.split()[3:]) == 0
    assert capsys.readouterr().out == "head my_head: ok\n"


def test_the_head_of_the_plugin_page_is_short() -> None:
    lines = [line for line in python_blocks(PLUGINS)[0].splitlines() if line.strip()]
    assert len(lines) <= 22


def test_the_other_example_of_the_plugin_page_keeps_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_tables", copy.deepcopy(registry._tables))
    namespace = {"__name__": __name__}
    exec(python_blocks(PLUGINS)[1], namespace)
    check_plugin(lookup("schedule", "switch_on"))


def test_the_plugin_page_lists_every_kind_with_its_base_class() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|", PLUGINS.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(registered())
    for kind, path in rows.items():
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name).kind == kind
