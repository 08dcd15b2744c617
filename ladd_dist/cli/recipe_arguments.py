"""A command line that names a recipe: its file, scale, swaps and fields, as one validated `Recipe`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from ladd_dist.cli.arguments import read
from ladd_dist.core.ranges import Threads, checked_later
from ladd_dist.zoo import names_in

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe, Scale


@dataclass(frozen=True)
class RecipeOptions:
    """The flags of every command that reads a recipe file."""

    recipe: tyro.conf.Positional[Path]
    """A recipe file, like recipes/exp4_specnorm.py, or the name of a shipped one, like exp4_specnorm; with it, --help
    also lists its groups of fields, --help GROUP the flags of one, like --help head."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's, for an accelerator; auto: laptop."""
    swap: tuple[str, ...] = ()
    """Replace plug-ins by name: FIELD=NAME ..., like head=max_pool,adv_weight=cosine."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""


@dataclass(frozen=True)
class TeacherOptions(RecipeOptions):
    """The flags of every command that asks a recipe's trained teacher."""

    cache: Path = Path("cache")
    """Folder with the trained teacher."""
    device: str = "auto"
    """As in `launch`."""
    threads: Threads = 0
    """As in `launch`."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout; everything else goes to stderr."""


AnyOptions = TypeVar("AnyOptions", bound=RecipeOptions)
MORE = "--scale paper is the report's own size, for an accelerator"
"""What a command that was given no scale says beside the one that it took."""


def pick_scale(asked: str) -> Scale:
    """The named scale; `laptop` for `auto`, on every machine: no result of the larger one is published yet."""
    return "laptop" if asked == "auto" else asked  # type: ignore[return-value]  # tyro lets nothing else through


def is_recipe(word: str) -> bool:
    """Whether a word of the command line is a recipe: a Python file, or the name of a shipped one."""
    return word.endswith(".py") or word in names_in("recipes")


def tidy(arguments: list[str]) -> list[str]:
    """The recipe file first, then what else there is, each --swap and --plugins gathered into one.

    The file first, because flags that take several values would swallow it; gathered, because repeating a flag would
    silently drop the earlier ones.
    """
    recipe: list[str] = []
    rest: list[str] = []
    gathered: dict[str, list[str]] = {"--swap": [], "--plugins": []}
    flag = ""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.partition("=")
        of_a_flag = argument.startswith("-") or before in ("--plugins", "--on", "--recipe", "--hub")
        if not argument.endswith(".py"):  # a name may also be the value of a flag
            of_a_flag |= before.startswith("--") and "=" not in before
        if not recipe and is_recipe(argument) and not of_a_flag:
            recipe.append(argument)
        elif argument in gathered:
            flag = argument
        elif name in gathered and equals:
            gathered[name].append(value)
            flag = ""
        elif flag and not argument.startswith("-"):
            gathered[flag].append(argument)
        else:
            flag = ""
            rest.append(argument)
    return recipe + rest + [part for name, values in gathered.items() if values for part in (name, *values)]


def split_help(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without --help and the group that it names: empty for none, None where help is not asked for."""
    rest: list[str] = []
    asked: str | None = None
    takes = False
    for argument in arguments:
        if argument in ("-h", "--help"):
            asked, takes = asked or "", True
        elif takes and not argument.startswith("-") and not is_recipe(argument):
            asked, takes = argument, False
        else:
            rest.append(argument)
            takes = False
    return rest, asked


def arguments_for(
    recipe: Path | str, scale: str, rest: list[str], *, swap: tuple[str, ...], plugins: tuple[str, ...]
) -> list[str]:
    """The arguments with which `parse` makes the recipe of a command whose own flags have been read already."""
    lists = {"--plugins": plugins, "--swap": swap}
    more = [part for flag, values in lists.items() if values for part in (flag, *values)]
    return [str(recipe), "--scale", scale, *rest, *more]


def parse(
    options_type: type[AnyOptions],
    arguments: list[str],
    *,
    prog: str,
    adapt: Callable[[AnyOptions, Recipe], Recipe] = lambda options, recipe: recipe,
    load: Callable[[AnyOptions], Recipe] | None = None,
) -> tuple[AnyOptions, Recipe]:
    """Options and the recipe with swaps and overrides applied, validated. Exits with 2 on a wrong command line.

    Args:
        adapt: what the command's own flags change in the recipe, after swaps and before fields are overridden.
        load: gives the recipe before swaps, which may be somebody else's; unless given, the user's own file does.
    """
    helpless, group = split_help(tidy(arguments))
    if group is not None and not any(map(is_recipe, helpless)):
        if group:
            from ladd_dist.core.serialize import RecipeError

            raise RecipeError(f"--help {group}: groups of fields are those of a recipe; name its file too")
        read(options_type, ["--help"], prog=prog)
    # Twice: which fields there are to override is known only when the recipe is read and its plug-ins are swapped.
    options, _ = read(options_type, helpless, prog=prog, return_unknown_args=True)

    from ladd_dist.core.plugin import load_plugins
    from ladd_dist.core.pretrained import allow_own
    from ladd_dist.core.serialize import check
    from ladd_dist.recipe import Recipe, load_recipe
    from ladd_dist.recipe.swap import apply_swaps

    load_plugins(options.plugins)
    recipe = load(options) if load is not None else load_recipe(options.recipe, pick_scale(options.scale))
    check(Recipe, recipe, f"{options.recipe}: RECIPE")
    recipe = apply_swaps(recipe, options.swap)
    recipe = adapt(options, recipe)
    if group is not None:
        _help(options_type, options, recipe, group, prog)
    bare: Any = tyro.conf.arg(name="")
    fields = [("options", Annotated[options_type, bare]), ("recipe", Annotated[Recipe, bare])]
    both = dataclasses.make_dataclass("Launch", fields)
    both.__doc__ = options_type.__doc__
    with checked_later():  # `validate` knows the path of a number that is out of range
        parsed = read(both, helpless, prog=prog, default=both(options_type(options.recipe), recipe))
    if load is None:
        allow_own(parsed.recipe)
    _require_training(parsed.recipe, recipe)
    return options, _validated(parsed.recipe)


def _require_training(asked: Recipe, given: Recipe) -> None:
    """Refuse flags that set the teacher's training where there is none; a recipe's own fields may wait for a swap.

    Raises:
        RecipeError: names the first of them.
    """
    from ladd_dist.core.serialize import RecipeError

    changed = [
        field.name
        for field in dataclasses.fields(given.teacher)
        if getattr(asked.teacher, field.name) != getattr(given.teacher, field.name)
    ]
    if changed and asked.network.pretrained:
        raise RecipeError(
            f"--teacher.{changed[0].replace('_', '-')}: network {asked.network.name!r} is trained already, so no "
            "teacher is trained here; leave it out"
        )


def _validated(recipe: Recipe) -> Recipe:
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.recipe import validate

    try:
        return validate(recipe)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from error


def _help(options_type: type[AnyOptions], options: AnyOptions, recipe: Recipe, group: str, prog: str) -> NoReturn:
    """Print the flags of a group, or those of the command and an overview of all groups; ends the process with 0."""
    from ladd_dist.cli.recipe_help import show_groups, show_overview

    if group:
        show_groups(recipe, group)
    else:
        with contextlib.suppress(SystemExit):
            read(options_type, ["--help"], prog=prog)
        print()
        show_overview(recipe, f"ladd {prog.rpartition('.')[2]} {options.recipe}")
    raise SystemExit(0)
