"""Consent: what this command's own line allows to be imported, run and fetched.

A run's folder, a lock, a sweep or a card may come from anybody. What they name is shown in a message, never imported,
run or fetched because they name it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ladd_dist.core.errors import ConsentError
from ladd_dist.core.plugin import SHIPPED, PluginError, load_plugins
from ladd_dist.core.pretrained import allow
from ladd_dist.core.pyfile import module_name, run_file
from ladd_dist.core.typed_line import again

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
SHOWN_CHARS = 300
"""Length of the longest path that a message offers to type."""


@dataclass(frozen=True, kw_only=True)
class Consent:
    """The flags of every command that opens what may come from somebody else."""

    plugins: tuple[str, ...] = ()
    """Modules to import for the plug-ins that they register; the run itself imports none."""
    recipe: Path | None = None
    """A Python file to run for the plug-ins that it defines, such as the run's own recipe; never run by itself."""
    hub: tuple[str, ...] = ()
    """Repositories of the Hugging Face hub that may be fetched, and `urls` of a dataset whose commands may be run and
    addresses fetched; those that the run or the file names are not by themselves."""

    def load(self) -> None:
        """Import the modules, run the file, and allow the repositories.

        Raises:
            PluginError: a module cannot be imported. RecipeError: the file does not exist or fails.
        """
        load_plugins(self.plugins)
        if self.recipe is not None:
            run_file(self.recipe, f"--recipe {self.recipe}")
        allow(self.hub)


NOTHING = Consent()


@dataclass(frozen=True)
class Named:
    """What a file from outside names for its plug-ins: text for a message."""

    modules: tuple[str, ...] = ()
    recipe: str = ""
    positional: bool = False
    """Whether the command takes a recipe file as its first argument, not by --recipe."""


def asking(error: PluginError, where: str, named: Named) -> ConsentError:
    """The error about a plug-in that is not known, with the line that asks for what may define it.

    What has been imported or run already, and so does not define it, is not offered.

    Args:
        where: the file that names the plug-in.
    """
    modules = [name for name in named.modules if _MODULE.fullmatch(name) and name not in (SHIPPED, *sys.modules)]
    lines = [again({"--plugins": modules})] if modules else []
    if _can_be_offered(named.recipe):
        lines.append(again({}, first=named.recipe) if named.positional else again({"--recipe": [named.recipe]}))
    if lines:
        return ConsentError(
            f"{where}: {error}. What it names to define it is imported or run only if you ask; if you trust it, type: "
            f"{', or: '.join(lines)}"
        )
    return ConsentError(f"{where}: {error}. Name the module that registers it: {again({'--plugins': ['MODULE']})}")


def _can_be_offered(recipe: str) -> bool:
    if len(recipe) > SHOWN_CHARS or not recipe.isprintable() or not recipe.endswith(".py") or recipe.startswith("-"):
        return False
    return Path(recipe).is_file() and module_name(Path(recipe)) not in sys.modules
