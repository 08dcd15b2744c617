"""Every number of every setting declares its range, and nothing outside it is accepted, wherever it comes from."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import pytest
from torch import nn

import plugins
from ladd_dist import launch
from ladd_dist.cluster import Cluster
from ladd_dist.core.errors import RangeError
from ladd_dist.core.plugin import Plugin, register, registered
from ladd_dist.core.ranges import Count, Ranged, Within
from ladd_dist.core.serialize import RecipeError, describe, from_data, to_data
from ladd_dist.heads import Head
from ladd_dist.recipe import Random, Recipe, validate
from ladd_dist.sigmas.laws import Phase
from ladd_dist.sliders.slider import Training
from recipes._base import BASE

REPO = Path(__file__).resolve().parents[2]
assert plugins  # imported for its registration


class Number(NamedTuple):
    """A number among a class's settings."""

    field: str
    kind: type[int] | type[float]
    within: Within | None
    """None: the field declares no range."""
    put: Callable[[Any], Any]
    """Value of the field with this number in its place."""


def numbers(hint: Any, value: Any) -> Iterator[tuple[type, Within | None, Callable[[Any], Any]]]:
    """Numbers that a field of this annotation holds, in tuples too."""
    within = None
    if get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        within = next((item for item in more if isinstance(item, Within)), None)
    if hint in (int, float):
        yield hint, within, lambda number: number
    elif get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            if get_origin(option) is not tuple or isinstance(value, tuple):
                yield from ((found, own or within, put) for found, own, put in numbers(option, value))
    elif get_origin(hint) is tuple:
        kinds = get_args(hint)
        for place, kind in enumerate(kinds[:1] if kinds[1:] == (Ellipsis,) else kinds):
            for found, its_range, put in numbers(kind, value[place] if value else None):
                yield found, its_range, lambda number, put=put, place=place: (
                    *value[:place], put(number), *value[place + 1 :]
                )  # fmt: skip


def numbers_of(instance: Any) -> list[Number]:
    hints = typing.get_type_hints(type(instance), include_extras=True)
    return [
        Number(field.name, *found)
        for field in dataclasses.fields(instance)
        for found in numbers(hints[field.name], getattr(instance, field.name))
    ]


def inside(node: Any) -> Iterator[Any]:
    """A dataclass and those inside it, in tuples too."""
    if dataclasses.is_dataclass(node):
        yield node
        for field in dataclasses.fields(node):
            yield from inside(getattr(node, field.name))
    elif isinstance(node, tuple):
        for item in node:
            yield from inside(item)


def ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] in ("ladd_dist", "plugins")


def settings() -> dict[str, Any]:
    """An instance of each class of settings: registered plug-ins, a recipe and what is in either, and others."""
    made = [cls() for table in registered().values() for cls in table.values() if ours(cls)]
    made += [BASE.smoke, Phase(0, (1.0,)), Cluster(), Training("hue", "teacher"), Random(3)]
    found = {type(node).__name__ + f" ({type(node).__module__})": node for item in made for node in inside(item)}
    return dict(sorted(found.items()))


SETTINGS = settings()
NUMBERS = [
    pytest.param(instance, number, id=f"{name.split()[0]}.{number.field}-{place}")
    for name, instance in SETTINGS.items()
    for place, number in enumerate(numbers_of(instance))
]


def without_range(instance: Any) -> list[str]:
    return [number.field for number in numbers_of(instance) if number.within is None]


@pytest.mark.parametrize("instance", SETTINGS.values(), ids=SETTINGS)
def test_every_number_of_the_settings_declares_its_range(instance: Any) -> None:
    assert without_range(instance) == [], (
        "annotate the field with a range of ladd_dist.core.ranges: Count, Positive, Annotated[float, Within(...)]"
    )


def test_the_table_covers_the_settings() -> None:
    """A recipe's stages, plug-ins of every kind, dataclasses in plug-ins, numbers in tuples."""
    covered = {f"{name.split()[0]}.{number.field}" for name, it in SETTINGS.items() for number in numbers_of(it)}
    named = {"Recipe.seed", "DistillStage.betas_student", "Ema.half_life", "Compute.accumulate", "CodecTraining.lr"}
    named |= {"Piecewise.points", "CUNet.widths", "Phase.probabilities", "EvaluateStage.steps", "Reported.student_4"}
    assert named <= covered
    assert len(NUMBERS) > 140


def test_a_new_number_without_a_range_would_be_found() -> None:
    @dataclass(frozen=True)
    class Forgetful:
        width: Count = 3
        rate: float = 0.5
        pairs: tuple[tuple[int, Annotated[float, Within("(0, 1)")]], ...] = ((1, 0.5),)
        bound: float | None = None
        on: bool = True
        words: tuple[str, ...] = ()

    hints = {"width": Count, "rate": float, "bound": float | None, "on": bool, "words": tuple[str, ...]}
    hints["pairs"] = tuple[tuple[int, Annotated[float, Within("(0, 1)")]], ...]
    Forgetful.__annotations__ = hints  # a class inside a function: its annotations are text that nobody can read
    assert without_range(Forgetful()) == ["rate", "pairs", "bound"]


def beyond(number: Number) -> list[float]:
    """Numbers just outside the range, and those that no range holds."""
    within, wrong = number.within, list[float]()
    assert within is not None
    for end, closed, away in ((within.low, within.has_low, -math.inf), (within.high, within.has_high, math.inf)):
        if math.isfinite(end):
            step = int(end) + int(math.copysign(1, away)) if number.kind is int else math.nextafter(end, away)
            wrong.append(step if closed else number.kind(end))
    return wrong + ([math.nan, math.inf, -math.inf] if number.kind is float else [])


def ends(number: Number) -> list[float]:
    """The first and the last number of the range, where there are such."""
    within, right = number.within, list[float]()
    assert within is not None
    for end, closed, inward in ((within.low, within.has_low, 1), (within.high, within.has_high, -1)):
        if math.isfinite(end):
            step = int(end) + inward if number.kind is int else math.nextafter(end, inward * math.inf)
            right.append(number.kind(end) if closed else step)
    return right


@pytest.mark.parametrize(("instance", "number"), NUMBERS)
def test_a_number_beyond_its_range_is_refused_where_the_dataclass_is_made(instance: Any, number: Number) -> None:
    for value in beyond(number):
        with pytest.raises(RangeError) as refused:
            dataclasses.replace(instance, **{number.field: number.put(value)})
        said = str(refused.value)
        assert said.startswith(f"{type(instance).__name__}.{number.field}"), said
        assert said.endswith(f", got {value}"), said
        assert all(words in said for words in (number.within.ends if number.within else ())), said


@pytest.mark.parametrize(("instance", "number"), NUMBERS)
def test_both_ends_of_a_range_are_in_it(instance: Any, number: Number) -> None:
    for value in ends(number):
        try:
            made = dataclasses.replace(instance, **{number.field: number.put(value)})
        except RangeError:
            raise
        except ValueError as error:  # right by itself, wrong beside other fields: their order, a sum, a multiple
            assert re.search(number.field.replace("_", "."), str(error)), error
        else:
            assert getattr(made, number.field) == number.put(value)


# --- what an interval is ---


def test_an_interval_holds_its_closed_ends_and_never_nan_or_infinity() -> None:
    unit = Within("[0, 1)")
    assert [value in unit for value in (0, 0.5, math.nextafter(1, 0), 1, -1e-9, math.nan)] == [True] * 3 + [False] * 3
    everything = Within("(-inf, inf)")
    assert [value in everything for value in (-1e300, 0, math.inf, -math.inf, math.nan)] == [True] * 2 + [False] * 3


@pytest.mark.parametrize("text", ["[0,1]", "0, 1", "[1, 0]", "[0, inf]", "[-inf, 3]", "(a, b)"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Within(text)


@pytest.mark.parametrize(
    ("interval", "value", "words"),
    [
        ("[1, inf)", 0, "must be at least 1, got 0"),
        ("(0, inf)", math.inf, "must be finite and above 0, got inf"),
        ("(-inf, inf)", math.nan, "must be finite, got nan"),
        ("[0, 1)", 1.5, "must be at least 0 and below 1, got 1.5"),
        ("(-inf, 2]", 3, "must be at most 2, got 3"),
    ],
)
def test_a_refusal_says_the_range_in_words(interval: str, value: float, words: str) -> None:
    with pytest.raises(RangeError, match=rf"^here: {re.escape(words)}$"):
        Within(interval).require(value, "here")


# --- plug-ins of users ---

Small = Annotated[int, Within("[1, 4]")]


@dataclass(frozen=True)
class Part:
    """Settings inside a plug-in, of a class that knows nothing of ranges."""

    rate: Annotated[float, Within("[0, 1]")] = 0.5


@dataclass(frozen=True)
class MyHead(Head):
    """A user's head: one field with a range, one without, one in a part, one in a tuple."""

    width: Small = 2
    free: int = -7
    part: Part = Part()
    sizes: tuple[Small, ...] = (1,)

    def build(self, *, channels: int, cond_dim: int) -> nn.Module:
        return nn.Identity()


@dataclass(frozen=True)
class MyCheckedHead(MyHead):
    """A user's head with a check of its own, which forgets the one of its base class."""

    def __post_init__(self) -> None:
        if self.free == 0:
            raise ValueError("free must not be 0")


@pytest.fixture
def mine(own_tables: None) -> None:
    register("my_head")(MyHead)
    register("my_checked_head")(MyCheckedHead)


def test_a_users_range_is_checked_without_any_code_of_the_user(mine: None) -> None:
    assert MyHead(width=4, free=-1).free == -1
    for wrong, message in (
        ({"width": 5}, "MyHead.width: must be at least 1 and at most 4, got 5"),
        ({"part": Part(rate=2.0)}, "MyHead.part.rate: must be at least 0 and at most 1, got 2.0"),
        ({"sizes": (1, 9)}, "MyHead.sizes[1]: must be at least 1 and at most 4, got 9"),
    ):
        with pytest.raises(RangeError, match=re.escape(message)):
            MyHead(**wrong)  # type: ignore[arg-type]


def test_a_range_that_a_users_own_check_hides_is_checked_with_the_recipe(mine: None) -> None:
    recipe = dataclasses.replace(BASE.smoke, head=MyCheckedHead(width=5))
    with pytest.raises(RecipeError, match=r"^recipe\.head\.width: must be at least 1 and at most 4, got 5$"):
        validate(recipe)
    data = to_data(recipe)
    with pytest.raises(RecipeError, match=r"^config\.head\.width: must be at least 1 and at most 4, got 5$"):
        from_data(Recipe, data, "config")
    validate(dataclasses.replace(BASE.smoke, head=MyCheckedHead(width=4)))


def test_a_range_changes_neither_the_type_that_is_listed_nor_the_signature(mine: None) -> None:
    fields = describe(MyHead)["fields"]
    assert {name: entry["type"] for name, entry in fields.items()} == {
        "width": "int", "free": "int", "part": "Part", "sizes": "tuple[int, ...]",
    }  # fmt: skip
    assert [entry.get("range") for entry in fields.values()] == ["[1, 4]", None, None, None]
    assert to_data(MyHead()) == {"plugin": "my_head", "width": 2, "free": -7, "part": {"rate": 0.5}, "sizes": [1]}


def test_a_plug_in_is_ranged() -> None:
    assert issubclass(Plugin, Ranged)


# --- the command line ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--train.lr-final -1", "recipe.train.lr_final: must be at least 0 and at most 1, got -1.0"),
        ("--adv-weight.value -5", "recipe.adv_weight.value: must be at least 0, got -5.0"),
        ("--train.ema.half-life -1", "recipe.train.ema.half_life: must be at least 0, got -1"),
        ("--train.ema.ramp -0.1", "recipe.train.ema.ramp: must be at least 0, got -0.1"),
        ("--train.clip -1", "recipe.train.clip: must be at least 0, got -1.0"),
        ("--teacher.label-dropout 1.5", "recipe.teacher.label_dropout: must be at least 0 and below 1, got 1.5"),
        ("--train.betas-student 0.5 1.5", "recipe.train.betas_student[1]: must be at least 0 and below 1, got 1.5"),
        ("--train.lr-student -1e-4", "recipe.train.lr_student: must be at least 0, got -0.0001"),
        ("--shards.guidance nan", "recipe.shards.guidance: must be finite and at least 0, got nan"),
        ("--network.attention-heads 0", "recipe.network.attention_heads: must be at least 1, got 0"),
    ],
)
def test_a_launch_refuses_a_number_out_of_range_before_anything_runs(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = str(REPO / "recipes" / "exp4_specnorm.py")
    assert launch.main([recipe, "--scale", "smoke", *words.split()]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_file_with_a_number_out_of_range_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(REPO)!r})\nfrom plugins.schedules import Constant\n"
        "from recipes._base import BASE\nRECIPE = BASE.replace(distill_weight=Constant(-1.0))\n"
    )
    assert launch.main([str(path), "--scale", "smoke", "--dry-run"]) == 2
    assert capsys.readouterr().err == f"error: recipe {path}: Constant.value: must be at least 0, got -1.0\n"
