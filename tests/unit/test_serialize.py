"""Recipes as data: round trips, type checks with paths, signatures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ladd_dist.core.plugin import PluginError
from ladd_dist.core.serialize import ADDED, NEUTRAL, RecipeError, check, from_data, signature, to_data
from ladd_dist.heads import Head
from ladd_dist.schedules import Schedule
from plugins.heads import MaxPool, SmallConv
from plugins.schedules import Constant, Piecewise
from plugins.taps import Named


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-4
    mode: Literal["fused", "alternate"] = "fused"
    limit: int | None = None


@dataclass(frozen=True)
class Outer:
    head: Head = SmallConv()
    weight: Schedule = Constant(value=0.1)
    betas: tuple[float, float] = (0.5, 0.99)
    schedules: tuple[Schedule, ...] = ()
    inner: Inner = Inner()
    label: str = field(default="x", metadata=NEUTRAL)
    on: bool = True


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(to_data(value)))


def test_a_tree_of_dataclasses_and_plugins_survives_json() -> None:
    tree = Outer(
        head=MaxPool(width=7, conditioned=True),
        weight=Piecewise(points=((0, 0.0), (5, 1.5))),
        schedules=(Constant(value=2.0), Piecewise()),
        inner=Inner(rate=0.5, mode="alternate", limit=3),
        on=False,
    )
    back = from_data(Outer, through_json(tree))
    assert back == tree
    assert isinstance(back.head, MaxPool)
    assert isinstance(back.schedules[1], Piecewise)


def test_a_plugin_is_stored_by_name_with_its_fields() -> None:
    assert to_data(Named(names=("a", "b"))) == {"plugin": "named", "names": ["a", "b"]}


def test_missing_fields_take_their_defaults() -> None:
    assert from_data(Outer, {"betas": [0.0, 0.9]}) == Outer(betas=(0.0, 0.9))


def test_an_integer_becomes_a_float_where_one_is_expected() -> None:
    rate = from_data(Inner, {"rate": 1}).rate
    assert type(rate) is float
    assert rate == 1.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"rate": "fast"}}, r"recipe\.inner\.rate: expected float, got str 'fast'"),
        ({"inner": {"mode": "both"}}, r"recipe\.inner\.mode: expected one of 'fused', 'alternate', got 'both'"),
        ({"inner": {"limit": 1.5}}, r"recipe\.inner\.limit: expected int \| None, got 1\.5"),
        ({"inner": 3}, r"recipe\.inner: expected an object with the fields of Inner, got 3"),
        ({"inner": {"rat": 1.0}}, r"recipe\.inner: Inner has no field 'rat'; fields: rate, limit, mode"),
        ({"betas": [0.5]}, r"recipe\.betas: expected 2 values, got 1"),
        ({"betas": [0.5, None]}, r"recipe\.betas\[1\]: expected float, got NoneType None"),
        ({"betas": 0.5}, r"recipe\.betas: expected a list, got 0\.5"),
        ({"schedules": [{"plugin": "constant", "value": "x"}]}, r"recipe\.schedules\[0\]\.value: expected float"),
        ({"head": "small_conv"}, r"recipe\.head: expected \{'plugin': NAME, \.\.\.\}"),
        ({"head": {"width": 3}}, r"recipe\.head: expected \{'plugin': NAME, \.\.\.\}"),
        ({"head": {"plugin": "small_conv", "width": 2.5}}, r"recipe\.head\.width: expected int, got float 2\.5"),
        ({"head": {"plugin": "small_conv", "width": True}}, r"recipe\.head\.width: expected int, got bool True"),
        (
            {"head": {"plugin": "small_conv", "width": 0}},
            r"recipe\.head\.width: must be at least 1 and at most 65536, got 0",
        ),
        ({"on": 1}, r"recipe\.on: expected bool, got int 1"),
    ],
)
def test_wrong_data_is_refused_with_the_path_and_what_was_expected(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_data(Outer, data)


def test_a_missing_required_field_is_named() -> None:
    @dataclass(frozen=True)
    class Needs:
        steps: int

    with pytest.raises(RecipeError, match=r"recipe: .*'steps'"):
        from_data(Needs, {})


def test_a_plugin_of_another_kind_is_not_accepted_for_a_field() -> None:
    with pytest.raises(PluginError, match="unknown head 'constant'; valid:"):
        from_data(Outer, {"head": {"plugin": "constant"}})
    with pytest.raises(RecipeError, match=r"recipe\.head: expected a head plug-in, got Constant"):
        check(Outer, Outer(head=Constant()))  # type: ignore[arg-type]


def test_check_looks_all_the_way_down() -> None:
    check(Outer, Outer())
    with pytest.raises(RecipeError, match=r"recipe\.head\.width: expected int, got str '64'"):
        check(Outer, Outer(head=_with_width("64")))


def _with_width(width: Any) -> SmallConv:
    head = SmallConv()
    object.__setattr__(head, "width", width)
    return head


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, object(), {1}])
def test_what_json_or_a_frozen_tree_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(RecipeError, match=f"not {type(value).__name__}"):
        to_data(value)


def test_equal_trees_have_equal_signatures_and_any_change_alters_it() -> None:
    base = signature(Outer())
    assert base == signature(Outer())
    assert len(base) == 10
    changed = [
        Outer(head=SmallConv(width=65)),
        Outer(head=MaxPool()),
        Outer(inner=Inner(rate=2e-4)),
        Outer(betas=(0.5, 0.9)),
    ]
    assert len({base, *(signature(tree) for tree in changed)}) == 5


def test_a_neutral_field_does_not_alter_the_signature_but_is_kept_as_data() -> None:
    assert signature(Outer(label="y")) == signature(Outer())
    assert to_data(Outer(label="y"))["label"] == "y"


@dataclass(frozen=True)
class Settings:
    precision: str = "fp32"
    parts: int = field(default=1, metadata=NEUTRAL)


@dataclass(frozen=True)
class Before:
    rate: float = 1e-4


@dataclass(frozen=True)
class After:
    rate: float = 1e-4
    settings: Settings = field(default=Settings(), metadata=ADDED)
    schedules: tuple[Schedule, ...] = field(default=(), metadata=ADDED)


def test_a_field_that_came_later_leaves_signatures_alone_at_its_default_and_counts_elsewhere() -> None:
    assert signature(After()) == signature(Before())
    assert signature(After(rate=2e-4)) == signature(Before(rate=2e-4))
    others = [After(settings=Settings("bf16")), After(schedules=(Constant(value=1.0),))]
    assert len({signature(tree) for tree in (After(), *others)}) == 3


def test_a_neutral_field_inside_one_that_came_later_never_counts() -> None:
    assert signature(After(settings=Settings(parts=4))) == signature(Before())
    assert signature(After(settings=Settings("bf16", parts=4))) == signature(After(settings=Settings("bf16")))


def test_a_field_that_came_later_is_kept_as_data_also_at_its_default() -> None:
    assert through_json(After())["settings"] == {"precision": "fp32", "parts": 1}
    assert from_data(After, through_json(Before())) == After()  # a config from before is read


def test_a_signature_is_stable_across_processes_and_versions() -> None:
    """A constant: caches on disk are found by it. Changing it throws away every trained teacher."""
    assert signature("part", {"b": 1, "a": [1.5, None]}) == "a3d74ddd87"


def test_the_signature_of_data_does_not_depend_on_the_order_of_keys() -> None:
    assert signature({"a": 1, "b": 2}) == signature({"b": 2, "a": 1})
