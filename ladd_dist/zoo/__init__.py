"""What ships with the package: `ladd_dist.zoo.plugins`, `ladd_dist.zoo.recipes` and `ladd_dist.zoo.slurm`.

In a checkout these folders stand beside `ladd_dist/`, in an installed package inside this one. Shipped code imports by
these names alone, so a package `plugins` of the user's is never taken for ours. A user's code may still write
`plugins.heads` or `recipes._base`, as before there were these names: what no package of the user's has is ours.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

FOLDERS = ("plugins", "recipes", "slurm")
LONG_NAMES = frozenset(f"{__name__}.{folder}" for folder in FOLDERS)
_HERE = Path(__file__).resolve().parent
IS_INSTALLED = (_HERE / FOLDERS[0]).is_dir()
"""Whether this is a package that was built, not a checkout."""
ROOT = _HERE if IS_INSTALLED else _HERE.parents[1]
"""The folder that holds `FOLDERS`."""


def short_name(module: str) -> str:
    """The name by which files, messages and the user's imports know a module: `plugins.heads` for one of ours.

    The name of any other module is returned as it is.
    """
    return module.removeprefix(f"{__name__}.")


def ships(module: str) -> bool:
    """Whether a module of this short name, like `plugins.heads`, is among ours."""
    parts = module.split(".")
    path = ROOT.joinpath(*parts)
    return parts[0] in FOLDERS and (path.is_dir() or path.with_suffix(".py").is_file())


@functools.cache
def names_in(folder: str) -> tuple[str, ...]:
    """Names of the files in one of `FOLDERS` that a command line may give in place of a path: `exp4_specnorm`."""
    return tuple(sorted(path.stem for path in (ROOT / folder).glob("[!_]*.py")))


def file_at(path: Path | str, folder: str) -> Path:
    """The path, or the shipped file that it names, like `exp4_specnorm` for one of `recipes`.

    A bare word without `.py` is a name, whatever the current folder holds; every other path is returned as it is.
    """
    named = Path(path)
    return ROOT / folder / f"{named}.py" if str(path) in names_in(folder) else named


class _Alias:
    """Loads one of our modules under its short name: the same module, not a second one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__name__}.{self.name}")
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the other name's there


class _ShortNames:
    """Finder of `FOLDERS`, and of our modules by their short names, where the user has none of that name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in LONG_NAMES:  # not by `__path__`: in a checkout the tests and a second `ladd_dist` are there too
            return PathFinder.find_spec(name, [str(ROOT)])
        if name.partition(".")[0] not in FOLDERS:
            return None
        found = users_own(name, path)
        if found is not None or not ships(name):
            return found
        return ModuleSpec(name, _Alias(name))  # type: ignore[arg-type]  # a loader by its methods


def users_own(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """The module of this name that Python finds and that is none of ours; None if there is none.

    Args:
        path: where the package above it looks for it; None at the top.
    """
    for finder in sys.meta_path:
        if not isinstance(finder, _ShortNames) and (found := finder.find_spec(name, path)) is not None:
            return None if _is_ours(found) else found
    return None


def _is_ours(spec: ModuleSpec) -> bool:
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    own = [ROOT / folder for folder in FOLDERS]
    return any(Path(place).resolve().is_relative_to(folder) for place in places for folder in own)


_others = [finder for finder in sys.meta_path if type(finder).__name__ != _ShortNames.__name__]
sys.meta_path[:] = [_ShortNames(), *_others]  # one finder, also where the package is imported anew from another folder
