"""Running a Python file that the user names as a module: a recipe, a sweep, a cluster's profile."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ladd_dist.core.closest import close
from ladd_dist.core.errors import RangeError
from ladd_dist.core.moved import moved
from ladd_dist.core.own_code import with_place
from ladd_dist.core.serialize import RecipeError
from ladd_dist.zoo import file_at, names_in

MOST_GUESSES = 3
"""Most files that are offered for one that does not exist."""


def module_name(path: Path) -> str:
    """The name among Python's modules of a file that `run_file` runs."""
    return f"ladd_file_{path.parent.name}_{path.stem}"


def run_file(path: Path, said: str, *, others: str = "files", shipped: str = "recipes") -> ModuleType:
    """Run a file and return its module. The file can import from its own folder and from that folder's parent.

    Args:
        path: a file, or the name of a shipped one, like `exp4_specnorm`.
        said: beginning of messages, like `recipe recipes/exp4_specnorm.py`.
        others: word in messages for the other files of the folder.
        shipped: the folder of `ladd_dist.zoo` whose files have names.

    Raises:
        RecipeError: the file does not exist or fails (the exception is the cause); one of its own passes unchanged.
    """
    path = file_at(path, shipped)
    if not path.is_file():
        near = sorted(str(file) for file in path.parent.glob("[!_]*.py")) if path.parent.is_dir() else []
        known = {name: name for name in names_in(shipped)} | {Path(file).stem: file for file in near}
        near = near if path.suffix else list(known.values())
        likely = close(path.stem, known)
        hint = f"; {others} there: {', '.join(near)}" if near else ""
        if likely:
            hint = f"; did you mean {' or '.join(known[name] for name in likely[:MOST_GUESSES])}?"
        raise RecipeError(f"{said} does not exist{hint}")
    spec = importlib.util.spec_from_file_location(module_name(path), path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{said} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses defined in the file look their module up
    for folder in (str(path.resolve().parent), str(path.resolve().parent.parent)):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except RangeError as error:
        raise RecipeError(f"{said}: {error}") from error
    except RecipeError:
        raise
    except Exception as error:
        why = moved(error) or with_place(error)
        raise RecipeError(f"{said} failed while it was read: {why}") from error
    return module
