"""A run's config.json: written before the run, and read back by every command that opens a run."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ladd_dist import __version__
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import plugin_modules
from ladd_dist.core.rundir import RunDir, read_json, write_json
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import Recipe


def read_recipe(config: dict[str, Any]) -> Recipe:
    """The recipe of a config.json, with the plug-ins that it names.

    Raises:
        PluginError: one cannot be found, not in the recipe's own file either.
    """
    from ladd_dist.core.plugin import PluginError, load_modules
    from ladd_dist.core.serialize import from_data
    from ladd_dist.recipe import Recipe, load_module

    load_modules(config["plugins"])
    try:
        recipe: Recipe = from_data(Recipe, config["recipe"])
    except PluginError:  # perhaps defined in the file itself
        load_module(Path(config["recipe_path"]))
        recipe = from_data(Recipe, config["recipe"])
    return recipe


def open_run(run: RunDir, plugins: tuple[str, ...], cache: Path | None) -> tuple[Recipe, Path]:
    """The recipe and the cache of a run's folder that has its config.json; the run's plug-ins and these are loaded.

    Raises:
        UserError: its fields give another signature today.
    """
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.rundir import read_json

    config = read_json(run.config)
    load_modules(plugin_modules((*config["plugins"], *plugins)))
    return recipe_of(run, config), cache or cache_of(config["command"])


def recipe_of(run: RunDir, config: dict[str, Any]) -> Recipe:
    """The run's recipe, as this version understands it.

    Raises:
        UserError: its fields give another signature today.
    """
    from ladd_dist.core.plugin import PluginError
    from ladd_dist.core.serialize import from_data
    from ladd_dist.recipe import Recipe, load_recipe

    try:
        recipe: Recipe = from_data(Recipe, config["recipe"], str(run.config))
    except PluginError:  # a recipe's file may define plug-ins itself
        path = Path(config["recipe_path"])
        if not path.is_file():
            raise
        load_recipe(path, config["scale"])
        recipe = from_data(Recipe, config["recipe"], str(run.config))
    if recipe.distill_signature() != config["signature"]:
        raise UserError(
            f"{run.path} has signature {config['signature']}, but with this version (the run's: {config['version']}) "
            f"its recipe gives {recipe.distill_signature()}: use the version that made it"
        )
    return recipe


def cache_of(command: str) -> Path:
    """The cache folder that a launch command names, else the default one."""
    words = shlex.split(command)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--cache":
            return Path(following)
        if word.startswith("--cache="):
            return Path(word.removeprefix("--cache="))
    return Path("cache")


def tracked_config(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """What a tracker is told about a run: its config.json, and the place it has in a sweep (LADD_SWEEP, LADD_AXES)."""
    known = read_json(run.config) if run.config.exists() else {}
    own = {"name": run.path.name, "signature": recipe.distill_signature(), "seed": recipe.seed}
    sweep = {"sweep": os.environ.get("LADD_SWEEP", ""), "axes": json.loads(os.environ.get("LADD_AXES") or "{}")}
    return {**known, **own, **sweep, "recipe": to_data(recipe)}


def write_config(
    recipe: Recipe,
    run: RunDir,
    facts: dict[str, Any],
    *,
    path: Path,
    plugins: tuple[str, ...],
    device: torch.device,
    command: str,
) -> None:
    """Write config.json: all a worker needs to rebuild the recipe, and what the run ran on.

    A launch that finds the figures made, and has at most the page to write, leaves the command, version and environment
    that made them: the new ones would claim another's work.

    Args:
        facts: what `describe_run` gave.
    """
    config: dict[str, Any] = {
        "format": 1,
        "version": __version__,
        "command": command,
        "recipe_path": str(path),
        "scale": facts["scale"],
        "signature": recipe.distill_signature(),
        "plugins": list(plugins),
        "recipe": to_data(recipe),
        "environment": environment(device),
        **{name: facts[name] for name in ("params", "taps", "flops", "shards") if name in facts},
    }
    before = read_json(run.config) if run.config.exists() else None
    if before is not None and run.eval.exists() and all(s["cached"] for s in facts["stages"] if s["name"] != "report"):
        config |= {name: before[name] for name in ("version", "command", "environment") if name in before}
    if config != before:
        write_json(run.config, config)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and commit."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "commit": current_commit(),
    }


def current_commit() -> str:
    """The commit of the code that runs, with `-dirty` behind it if files differ from it."""
    here = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def add_timing(run: RunDir, stage: str, seconds: float) -> None:
    """Record how long a stage took in this run's folder: the pieces of an interrupted one add up.

    A stage that is found done adds nothing, and a piece that was killed is lost.
    """
    timings = read_json(run.timings) if run.timings.exists() else {}
    before = 0.0 if stage == "report" else float(timings.get(stage, 0.0))  # the page is written anew by each launch
    write_json(run.timings, {**timings, stage: round(before + seconds, 2)})
