"""Opens a run that is there: its recipe, its workspace and its config.json, from its folder alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import PluginError, load_modules, plugin_modules
from ladd_dist.core.run_forms import RunConfig
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.serialize import from_data
from ladd_dist.recipe import Recipe, load_module
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


def open_run(
    folder: Path, *, plugins: tuple[str, ...] = (), cache: Path | None = None, device: torch.device
) -> OpenedRun:
    """Open the run in a folder; its plug-ins are loaded.

    Args:
        plugins: modules that register plug-ins, besides those that the run was started with.
        cache: the folder with the run's teacher and shards, in place of the one that the run used.

    Raises:
        UserError: no run's folder, or its recipe has another signature with this version.
        PluginError: one of its plug-ins cannot be found.
    """
    found = RunDir(folder)
    config = read_config(found)
    load_modules(plugin_modules((*config.plugins, *plugins)))
    workspace = Workspace(folder.parent, cache or cache_folder(config), device)
    return OpenedRun(Run(_recipe_of(found, config), workspace), found, config)


def recipe_from(data: Mapping[str, Any], path: Path, where: str) -> Recipe:
    """The recipe in the data of a config.json or recipe.lock.

    Args:
        path: the file that the recipe came from, which may define plug-ins itself.
        where: names the data in errors.

    Raises:
        RecipeError: a field is missing, unknown or wrong.
        PluginError: one of its plug-ins cannot be found.
    """
    try:
        recipe: Recipe = from_data(Recipe, data, where)
    except PluginError:
        if not path.is_file():
            raise
        load_module(path)
        recipe = from_data(Recipe, data, where)
    return recipe


def _recipe_of(run: RunDir, config: RunConfig) -> Recipe:
    recipe = recipe_from(config.recipe, Path(config.recipe_path), str(run.config))
    if recipe.distill_signature() != config.signature:
        raise UserError(
            f"{run.path} has signature {config.signature}, but with this version (the run's: {config.version}) "
            f"its recipe gives {recipe.distill_signature()}: {_why_not_the_same(recipe)}"
        )
    return recipe


def _why_not_the_same(recipe: Recipe) -> str:
    if recipe.dataset.identity():  # it reads files
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
