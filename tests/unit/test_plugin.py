"""The registry: names, kinds, discovery, and errors that say what would have worked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import ladd_dist.recipe  # registers the core's plug-ins before the tables are copied
import plugins
from ladd_dist import plugins as cli
from ladd_dist.core import plugin as registry
from ladd_dist.core.plugin import Plugin, PluginError, create, load_modules, lookup, origin, register
from ladd_dist.core.serialize import describe
from ladd_dist.heads import Head
from ladd_dist.schedules import Schedule
from plugins.heads import SmallConv

assert plugins and ladd_dist.recipe  # imported for their registration


@pytest.fixture(autouse=True)
def no_entry_points(own_tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry point of the environment is seen, and what a test registers is gone after it."""
    monkeypatch.setattr(registry, "_broken_entry_points", {})
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    monkeypatch.setattr(registry, "_installed_entry_points", list)


def entry_points(monkeypatch: pytest.MonkeyPatch, **loaders: object) -> list[str]:
    """Install fake entry points; returns the list of names in the order they were loaded."""
    loaded: list[str] = []

    def make(name: str, load: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, value=f"their_{name}:X", load=lambda: (loaded.append(name), load())[1])

    points = [make(name, load) for name, load in loaders.items()]
    monkeypatch.setattr(registry, "_installed_entry_points", lambda: points)
    return loaded


def raise_import_error() -> None:
    raise ImportError("no module named 'cuda_magic'")


def test_a_registered_class_is_found_by_kind_and_name() -> None:
    assert lookup("head", "small_conv") is SmallConv
    assert create("head", "small_conv") == SmallConv()
    assert (SmallConv.kind, SmallConv.name) == ("head", "small_conv")


def test_the_same_name_may_stand_in_two_kinds_but_not_twice_in_one() -> None:
    @register("twin")
    @dataclass(frozen=True)
    class TwinHead(Head):
        pass

    @register("twin")
    @dataclass(frozen=True)
    class TwinSchedule(Schedule):
        pass

    assert lookup("head", "twin") is TwinHead
    assert lookup("schedule", "twin") is TwinSchedule
    with pytest.raises(PluginError, match=r"'twin' is taken by .*TwinHead"):

        @register("twin")
        @dataclass(frozen=True)
        class Other(Head):
            pass


def test_registering_the_same_class_again_after_a_reload_is_fine() -> None:
    def define() -> type[Head]:
        @register("reloaded")
        @dataclass(frozen=True)
        class Reloaded(Head):
            pass

        return Reloaded

    first, second = define(), define()
    assert first is not second
    assert lookup("head", "reloaded") is second


@pytest.mark.parametrize("name", ["SmallConv", "small-conv", "1st", "", "a b"])
def test_a_name_that_is_not_snake_case_is_refused(name: str) -> None:
    @dataclass(frozen=True)
    class Anything(Head):
        pass

    with pytest.raises(PluginError, match="snake_case"):
        register(name)(Anything)


def test_a_class_without_kind_is_refused_with_advice() -> None:
    @dataclass(frozen=True)
    class Kindless(Plugin):
        pass

    with pytest.raises(PluginError, match="base class of a kind"):
        register("kindless")(Kindless)


def test_a_class_that_is_no_frozen_dataclass_is_refused_with_advice() -> None:
    class Plain(Head):
        pass

    @dataclass
    class Mutable(Head):
        pass

    for cls in (Plain, Mutable):
        with pytest.raises(PluginError, match=r"@dataclass\(frozen=True\) under @register"):
            register("mutable")(cls)


@pytest.mark.parametrize("field", ["name", "kind", "plugin"])
def test_reserved_field_names_are_refused(field: str) -> None:
    cls = dataclass(frozen=True)(type("Reserved", (Head,), {"__annotations__": {field: str}, field: "x"}))
    with pytest.raises(PluginError, match=f"{field}.* is reserved"):
        register("reserved")(cls)


def test_an_unknown_name_or_kind_lists_the_valid_ones() -> None:
    with pytest.raises(PluginError, match=r"unknown head 'resnet'; valid: max_pool, small_conv, spectral_norm"):
        lookup("head", "resnet")
    with pytest.raises(PluginError, match=r"unknown kind 'haed'; kinds: .*head.*taps"):
        lookup("haed", "small_conv")


def test_create_names_the_fields_that_have_no_default() -> None:
    @register("needs_width")
    @dataclass(frozen=True)
    class NeedsWidth(Head):
        width: int

    with pytest.raises(PluginError, match="no default for width"):
        create("head", "needs_width")
    assert describe(NeedsWidth)["fields"]["width"] == {"type": "int", "default": None, "required": True}


def test_a_missing_or_failing_module_says_which_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_broken_heads.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"'their_broken_heads' cannot be imported \(ZeroDivisionError"):
        load_modules(["their_broken_heads"])
    with pytest.raises(PluginError, match=r"'no_such_heads' cannot be imported \(ModuleNotFoundError"):
        load_modules(["no_such_heads"])


def test_a_module_given_by_name_registers_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_heads.py").write_text(
        "from dataclasses import dataclass\n"
        "from ladd_dist.core.plugin import register\n"
        "from ladd_dist.heads import Head\n"
        "@register('theirs')\n@dataclass(frozen=True)\nclass Theirs(Head):\n    '''Their head.'''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    load_modules(["their_heads"])
    found = lookup("head", "theirs")
    assert origin(found) == "their_heads.py"
    assert describe(found)["doc"] == "Their head."
    del sys.modules["their_heads"]


def test_entry_points_are_loaded_only_when_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        @register("from_package")
        @dataclass(frozen=True)
        class FromPackage(Head):
            pass

    loaded = entry_points(monkeypatch, from_package=load)
    lookup("head", "small_conv")
    assert loaded == []
    assert lookup("head", "from_package").name == "from_package"
    assert loaded == ["from_package"]


def test_a_broken_entry_point_never_stops_the_others_and_is_reported_for_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load() -> None:
        @register("healthy")
        @dataclass(frozen=True)
        class Healthy(Head):
            pass

    entry_points(monkeypatch, sick=raise_import_error, healthy=load)
    assert lookup("head", "healthy").name == "healthy"
    with pytest.raises(PluginError, match=r"the package that offers head 'sick' is broken: their_sick:X: ImportError"):
        lookup("head", "sick")
    with pytest.raises(PluginError, match=r"failed to load: sick"):
        lookup("head", "other")


def test_origin_tells_core_from_the_plugins_folder() -> None:
    assert origin(SmallConv) == "plugins/"
    assert origin(lookup("adversarial", "hinge")) == "core"


def test_an_installed_package_is_named_as_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed_packages", lambda: {"acme": ["acme-heads"]})
    cls = type("Acme", (Head,), {"__module__": "acme.heads"})
    assert origin(cls) == "package acme-heads"


def test_the_list_shows_every_plugin_and_the_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert cli.main(["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["plugins"]
    names = {(kind, name) for kind, table in registry.registered().items() for name in table}
    assert {(entry["kind"], entry["name"]) for entry in listed} == names
    assert all(f" {name} " in text for _, name in names)
    (head,) = [entry for entry in listed if (entry["kind"], entry["name"]) == ("head", "small_conv")]
    assert head["fields"]["width"]["default"] == 64
    assert head["origin"] == "plugins/"


def test_the_list_can_be_limited_to_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--kind", "head"]) == 0
    text = capsys.readouterr().out
    assert "spectral_norm" in text
    assert "hinge" not in text


@pytest.mark.parametrize("wanted", ["small_conv", "head:small_conv", "head=small_conv"])
def test_check_passes_for_a_good_head(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--check", wanted]) == 0
    assert capsys.readouterr().out == "head small_conv: ok\n"


def test_check_returns_1_and_says_why_when_the_contract_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    @register("undocumented")
    @dataclass(frozen=True)
    class Undocumented(Schedule):
        def __call__(self, step: int) -> float:
            return 1.0

    assert cli.main(["--check", "undocumented"]) == 1
    assert "FAILED: schedule 'undocumented' has no docstring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--check", "resnet"], "unknown plug-in 'resnet'.*`ladd plugins` lists all"),
        (["--check", "head:resnet"], "of kind head there are max_pool, small_conv, spectral_norm"),
        (["--check", "haed:small_conv"], "unknown kind 'haed'.*head"),
        (["--kind", "haed"], "unknown kind 'haed'.*head"),
        (["--plugins", "no_such_heads"], "cannot be imported"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_a_wrong_command_line_returns_2_and_says_what_would_work(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert cli.main(argv) == 2
    assert re.search(message, capsys.readouterr().err, re.DOTALL)


def test_an_ambiguous_name_asks_for_the_kind(capsys: pytest.CaptureFixture[str]) -> None:
    @register("small_conv")
    @dataclass(frozen=True)
    class Clash(Schedule):
        """Same name, other kind."""

    assert cli.main(["--check", "small_conv"]) == 2
    assert "head:small_conv, schedule:small_conv" in capsys.readouterr().err


def test_a_broken_entry_point_is_a_warning_in_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry_points(monkeypatch, sick=raise_import_error)
    assert cli.main(["--kind", "head"]) == 0
    assert "entry point 'sick' is broken" in capsys.readouterr().err
    assert cli.main(["--check", "sick"]) == 2
    assert "the package that offers 'sick' is broken" in capsys.readouterr().err
