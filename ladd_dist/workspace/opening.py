"""Opens a run that is there: its recipe, its workspace and its config.json. Its folder may be from somebody else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ladd_dist.core.consent import NOTHING, Consent, Named, asking
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import PluginError
from ladd_dist.core.pretrained import from_outside
from ladd_dist.core.run_forms import RunConfig
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.serialize import from_data
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.config import read_config
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace


@dataclass(frozen=True)
class OpenedRun:
    """A run as it was found on disk."""

    run: Run
    folder: RunDir
    """Where it was found; it may have been renamed, so `run.folder` need not be the same."""
    config: RunConfig


def open_run(folder: Path, *, consent: Consent = NOTHING, cache: Path | None = None, device: torch.device) -> OpenedRun:
    """Open the run in a folder. What its config.json names is neither imported nor run.

    Args:
        consent: what the command line asks for: modules and a recipe file that define the run's plug-ins.
        cache: the folder with the run's teacher and shards, in place of the one that the run used.

    Raises:
        UserError: no run's folder, or its recipe has another signature with this version.
        ConsentError: one of its plug-ins is unknown; the message says which line asks for what the run names.
    """
    found = RunDir(folder)
    config = read_config(found)
    consent.load()
    workspace = Workspace(folder.parent, cache or cache_folder(config), device)
    return OpenedRun(Run(_recipe_of(found, config), workspace), found, config)


def recipe_from(data: Mapping[str, Any], where: str, named: Named) -> Recipe:
    """The recipe in the data of a config.json or recipe.lock.

    Args:
        where: the file, for errors.
        named: what that file names to define its plug-ins, for errors.

    Raises:
        RecipeError: a field is missing, unknown or wrong.
        ConsentError: one of its plug-ins is unknown.
    """
    from_outside(data, where)
    try:
        recipe: Recipe = from_data(Recipe, data, where)
    except PluginError as error:
        raise asking(error, where, named) from error
    return recipe


def _recipe_of(run: RunDir, config: RunConfig) -> Recipe:
    recipe = recipe_from(config.recipe, str(run.config), Named(config.plugins, config.recipe_path))
    if recipe.distill_signature() != config.signature:
        raise UserError(
            f"{run.path} has signature {config.signature}, but with this version (the run's: {config.version}) "
            f"its recipe gives {recipe.distill_signature()}: {_why_not_the_same(recipe)}"
        )
    return recipe


def _why_not_the_same(recipe: Recipe) -> str:
    if recipe.dataset.identity() or recipe.dataset.fingerprint():  # it reads files
        return "use the version that made it, and the data as they were then"
    return "use the version that made it"


def cache_folder(config: RunConfig) -> Path:
    """The folder of what the run shares with others.

    That of its config.json; where the project has been moved, or the run is older than that key, the one that its
    command names, seen from here.
    """
    recorded = Path(config.cache)
    return recorded if config.cache and recorded.is_dir() else _cache_of_command(config.command)


def _cache_of_command(command: str) -> Path:
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that nothing closes: no command that ran
        return Path("cache")
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--cache":
            return Path(following)
        if word.startswith("--cache="):
            return Path(word.removeprefix("--cache="))
    return Path("cache")
