"""The command line: lists, flags with an old name, and --help of a recipe's fields."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from ladd_dist import (
    compare,
    control,
    diagnose,
    doctor,
    evaluate,
    export,
    jobs,
    launch,
    new,
    plan,
    plugins,
    sample,
    search_levels,
    sweep,
)
from ladd_dist.cli.arguments import new_names, path_first, read, split_words
from ladd_dist.cli.recipe_arguments import RecipeOptions, parse, split_help, tidy
from ladd_dist.cli.recipe_help import field_texts, groups
from ladd_dist.core.plugin import load_modules, registered
from ladd_dist.core.serialize import RecipeError
from ladd_dist.recipe import load_recipe

REPO = Path(__file__).parent.parent.parent
EXP4 = str(REPO / "recipes" / "exp4_specnorm.py")
RECIPES = sorted(path for path in (REPO / "recipes").glob("[!_]*.py") if not path.name.startswith("sweep"))
COMMANDS = (
    compare.Options, control.Train, control.Apply, control.Transfer, diagnose.Options, doctor.Options,
    evaluate.Options, export.Options, jobs.Options, launch.Options, new.Options, plan.Options, plugins.Options,
    sample.Options, search_levels.Options, sweep.Options,
)  # fmt: skip


@dataclass(frozen=True)
class Lists:
    """Every sort of list."""

    whole: tuple[int, ...] = ()
    numbers: tuple[float, ...] = ()
    pair: tuple[float, float] = (0.5, 0.9)
    names: tuple[str, ...] = ()
    choice: tuple[Literal["student", "heads"], ...] = ()
    points: tuple[tuple[int, float], ...] = ()


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("--whole 4 2 1", "whole", (4, 2, 1)),
        ("--whole 4,2,1", "whole", (4, 2, 1)),
        ("--whole 4, 2, 1", "whole", (4, 2, 1)),
        ("--whole=4,2", "whole", (4, 2)),
        ("--whole 0..2", "whole", (0, 1, 2)),
        ("--whole 0..2,7 9", "whole", (0, 1, 2, 7, 9)),
        ("--numbers -1,0,1.5", "numbers", (-1.0, 0.0, 1.5)),
        ("--numbers -1 0 1e3", "numbers", (-1.0, 0.0, 1e3)),
        ("--pair .1,.2", "pair", (0.1, 0.2)),
        ("--pair .1 .2", "pair", (0.1, 0.2)),
        ("--names a=b,c=d", "names", ("a=b", "c=d")),
        ("--names a=b c=d", "names", ("a=b", "c=d")),
        ("--names ^a{1,2}$,b(c,d)", "names", ("^a{1,2}$", "b(c,d)")),
        ("--choice student,heads", "choice", ("student", "heads")),
        ("--points 0,0.5 10,1", "points", ((0, 0.5), (10, 1.0))),
        ("--points 0 .5 10 1", "points", ((0, 0.5), (10, 1.0))),
    ],
)
def test_a_list_is_the_same_however_it_is_written(words: str, field: str, value: tuple[Any, ...]) -> None:
    assert getattr(read(Lists, words.split(), prog="ladd"), field) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--whole 1,x", "takes whole numbers, like 4,2,1 or 4 2 1 or 0..2, got 1,x"),
        ("--whole 1.5", "takes whole numbers"),
        ("--whole 2..1", "the range 2..1 falls"),
        ("--numbers 0..2", "takes numbers"),
        ("--pair .5", "takes 2 values, got .5"),
        ("--pair 1,2,3", "takes 2 values"),
        ("--choice student,teacher", "'teacher' is none of student, heads"),
    ],
)
def test_a_list_that_is_none_ends_with_two_and_says_what_it_takes(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        read(Lists, words.split(), prog="ladd")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_text_with_spaces_is_one_value() -> None:
    assert split_words(["head=max_pool seed=1"]) == ["head=max_pool seed=1"]
    assert split_words(["4 2"], int) == ["4", "2"]


@pytest.mark.parametrize("words", [["--evaluate.steps", "2,1"], ["--evaluate.steps", "2", "1"]])
def test_fields_of_a_recipe_and_swaps_take_commas_too(words: list[str]) -> None:
    swaps = ["--swap", "head=max_pool,adv-weight=cosine", "--swap", "start=stored"]
    more = ["--train.betas-student", ".1,.2", "--levels.two", "80,2"]
    _, recipe = parse(RecipeOptions, [EXP4, "--scale", "smoke", *words, *swaps, *more], prog="ladd")
    assert recipe.evaluate.steps == (2, 1)
    assert (recipe.head.name, recipe.adv_weight.name, recipe.start.name) == ("max_pool", "cosine", "stored")
    assert recipe.train.betas_student == (0.1, 0.2)
    assert recipe.levels(2) == (80.0, 2.0)


def test_commands_read_their_lists_alike() -> None:
    options = read(evaluate.Options, ["RUN", "--steps", "4", "2", "--hybrid", "0..2", "--metrics", "a,b"], prog="ladd")
    assert (options.steps, options.hybrid, options.metrics) == ((4, 2), (0, 1, 2), ("a", "b"))
    options = read(launch.Options, ["x.py", "--stages", "teacher,shards"], prog="ladd")
    assert options == read(launch.Options, ["x.py", "--stages", "teacher", "shards"], prog="ladd")


def test_the_path_after_a_list_is_the_positional_one(tmp_path: Path) -> None:
    run = str(tmp_path)
    for words in (["--steps", "1,2", run, "--json"], ["--metrics", "color", run], [run, "--steps", "1,2"]):
        assert read(evaluate.Options, path_first(evaluate.Options, words), prog="ladd").source == tmp_path
    assert path_first(evaluate.Options, ["RUN", "--cache", run]) == ["RUN", "--cache", run]


def test_an_old_name_of_a_flag_works_with_a_note_and_help_is_silent_about_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert new_names(["train", "--on=student", "x"], {"--on": "--network"}) == ["train", "--network=student", "x"]
    assert capsys.readouterr().err == "note: --on is called --network now\n"
    for words, network in (
        (["train", "RUN", "--on", "student"], "student"),
        (["apply", "R", "--to", "teacher"], "teacher"),
    ):
        assert control._read(words).network == network
        assert "is called --network now" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        control._read(["train", "--help"])
    said = capsys.readouterr()
    assert "--network" in said.out and "--on" not in said.out and not said.err


def test_a_profile_before_the_recipe_is_not_taken_for_it() -> None:
    assert tidy(["--on", "slurm/laptop.py", "recipes/exp4.py"])[0] == "recipes/exp4.py"


# --- help ---


def test_help_names_a_group_wherever_it_stands() -> None:
    assert split_help(["x.py", "--help"]) == (["x.py"], "")
    assert split_help(["x.py", "--help", "head", "--seed", "1"]) == (["x.py", "--seed", "1"], "head")
    assert split_help(["-h", "x.py"]) == (["x.py"], "")
    assert split_help(["x.py"]) == (["x.py"], None)


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(launch.Options, [EXP4, "--scale", "smoke", *words], prog=launch.PROG)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_of_a_group_shows_its_plug_in_what_it_may_be_swapped_for_and_its_flags_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = help_of("--help", "head", capsys=capsys)
    assert re.match(
        r"head: spectral_norm \(--swap head=NAME: .*max_pool, .*small_conv.*\)\n", out
    )  # other tests add some
    assert "--head.width" in out and "--train" not in out and "--scale" not in out
    out = help_of("--swap", "head=max_pool", "--help", "head", capsys=capsys)
    assert re.match(r"head: max_pool \(--swap head=NAME: .*small_conv, .*spectral_norm.*\)\n", out)
    out = help_of("--help", "teacher", capsys=capsys)
    assert re.search(r"teacher\.sigma: log_normal \(--swap teacher\.sigma=NAME: .*fixed_set, .*timesteps.*\)", out)


def test_help_without_a_group_is_short_and_names_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    out = help_of("--help", capsys=capsys)
    assert "--from-scratch" in out and "--head.width" not in out
    assert all(f"\n{group.name} " in out for group in groups(load_recipe(Path(EXP4), "smoke")))
    assert "--head.width" in help_of("--help", "all", capsys=capsys)


def test_help_of_an_unknown_group_names_the_groups() -> None:
    with pytest.raises(RecipeError, match="no such group of fields; groups: recipe, dataset, network"):
        parse(launch.Options, [EXP4, "--scale", "smoke", "--help", "heads"], prog=launch.PROG)
    with pytest.raises(RecipeError, match="name its file too"):
        parse(launch.Options, ["--help", "head"], prog=launch.PROG)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_flag_of_a_recipe_has_a_text(path: Path) -> None:
    load_modules(("plugins",))
    recipe = load_recipe(path, "smoke")
    found = groups(recipe)
    assert not [flag.name for group in found for flag in group.flags if not flag.text]
    assert not [group.name for group in found if not group.text]


def test_the_flags_that_help_names_are_those_that_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    found = groups(load_recipe(Path(EXP4), "smoke"))
    words: list[str] = []
    for flag in (flag for group in found for flag in group.flags):
        if "[no-]" in flag.name:
            words.append(flag.name.replace("[no-]", "" if flag.value == "on" else "no-"))
        elif flag.value not in ("none", "None"):
            words.append(f"{flag.name}={flag.value.strip(chr(39))}")
    _, recipe = parse(RecipeOptions, [EXP4, "--scale", "smoke", *words], prog="ladd")
    assert recipe == load_recipe(Path(EXP4), "smoke")


@pytest.mark.parametrize("options", COMMANDS, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_flag_of_a_command_has_a_text(options: type) -> None:
    texts = field_texts(options)
    assert not [field.name for field in dataclasses.fields(options) if not texts.get(field.name)]


def test_every_setting_of_a_plug_in_has_a_text() -> None:
    load_modules(("plugins",))
    lacking = [
        f"{kind} {name}.{field.name}"
        for kind, table in registered().items()
        for name, cls in table.items()
        if cls.__module__.startswith(("ladd_dist.", "plugins."))
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if not field_texts(cls).get(field.name)
    ]
    assert not lacking
