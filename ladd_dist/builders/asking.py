"""What is said when a student's file names a plug-in that is not known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ladd_dist.core.consent import Named, asking
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import PluginError
from ladd_dist.core.rundir import RunDir
from ladd_dist.workspace.config import read_config


@contextlib.contextmanager
def asking_for_plugins(file: Path) -> Iterator[None]:
    """Turn the error about an unknown plug-in of a student's file into one that says what to type.

    Raises:
        ConsentError: names the modules and the recipe file of the run beside it, if there is one.
    """
    try:
        yield
    except PluginError as error:
        raise asking(error, str(file), _named_beside(file)) from error


def _named_beside(file: Path) -> Named:
    try:
        config = read_config(RunDir(file.parent))
    except UserError:  # no run's folder, or a damaged one, and that is not what was asked about
        return Named()
    return Named(config.plugins, config.recipe_path)
