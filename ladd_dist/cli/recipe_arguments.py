"""A command line that names a recipe: its file, scale, swaps and fields, as one validated `Recipe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from ladd_dist.core.plugin import plugin_modules

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe, Scale


@dataclass(frozen=True)
class RecipeOptions:
    """The flags of every command that reads a recipe file."""

    recipe: tyro.conf.Positional[Path]
    """A recipe file, like recipes/exp4_specnorm.py; with it, --help also lists every field of the recipe."""
    scale: Literal["auto", "smoke", "laptop", "paper"] = "auto"
    """smoke: seconds; laptop: minutes on two cores; paper: the report's; auto: paper on an accelerator, else laptop."""
    swap: tuple[str, ...] = ()
    """Replace plug-ins by name: FIELD=NAME ..., like head=max_pool adv_weight=cosine."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides the package `plugins`."""


AnyOptions = TypeVar("AnyOptions", bound=RecipeOptions)


def pick_scale(asked: str) -> Scale:
    """The named scale; for `auto`, the one that suits this machine."""
    if asked != "auto":
        return asked  # type: ignore[return-value]  # tyro lets nothing else through
    import torch

    return "paper" if torch.accelerator.is_available() else "laptop"


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
        if not recipe and argument.endswith(".py") and not argument.startswith("-") and before != "--plugins":
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
    scale_of: Callable[[AnyOptions], Scale] = lambda options: pick_scale(options.scale),
    adapt: Callable[[AnyOptions, Recipe], Recipe] = lambda options, recipe: recipe,
) -> tuple[AnyOptions, Recipe]:
    """Options and the recipe with swaps and overrides applied, validated. Exits with 2 on a wrong command line.

    Args:
        adapt: what the command's own flags change in the recipe, after swaps and before fields are overridden.
    """
    arguments = tidy(arguments)
    helpless = [argument for argument in arguments if argument not in ("-h", "--help")]
    if helpless != arguments and not any(argument.endswith(".py") for argument in helpless):
        tyro.cli(options_type, args=["--help"], prog=prog)
    # Twice: which fields there are to override is known only when the recipe is read and its plug-ins are swapped.
    options, _ = tyro.cli(options_type, args=helpless, return_unknown_args=True, prog=prog)

    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.serialize import RecipeError, check
    from ladd_dist.recipe import Recipe, load_recipe, validate
    from ladd_dist.recipe.swap import apply_swaps

    load_modules(plugin_modules(options.plugins))
    recipe = load_recipe(options.recipe, scale_of(options))
    check(Recipe, recipe, f"{options.recipe}: RECIPE")
    recipe = apply_swaps(recipe, options.swap)
    recipe = adapt(options, recipe)
    bare: Any = tyro.conf.arg(name="")
    fields = [("options", Annotated[options_type, bare]), ("fields", Annotated[Recipe, bare])]
    both = dataclasses.make_dataclass("Launch", fields)
    both.__doc__ = options_type.__doc__
    parsed: Any = tyro.cli(both, args=arguments, default=both(options_type(options.recipe), recipe), prog=prog)
    try:
        return options, validate(parsed.fields)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from error
