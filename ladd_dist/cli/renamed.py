"""Commands of the version before, which answer with the line to type now."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ladd_dist.cli.errors import USAGE, say
from ladd_dist.core.errors import UserError
from ladd_dist.core.run_forms import read_run_config


def _jobs(arguments: list[str]) -> list[str]:
    first = int(bool(arguments) and not arguments[0].startswith("-"))  # the sweep; --run takes all that follows it
    return ["ladd", "jobs", *arguments[:first], "--cancel", *arguments[first:]]


def _sweep(arguments: list[str]) -> list[str]:
    is_trial = any(word.partition("=")[0] == "--trial" for word in arguments)
    return ["ladd", "sweep", *arguments, *([] if is_trial else ["--on", "wandb"])]


def _launch(arguments: list[str]) -> list[str]:
    """A launch that is held to the run's own lock, with the recipe and scale that the run's config.json names."""
    run = Path(next((word for word in arguments if not word.startswith("-")), "RUN"))
    recipe = ["RECIPE"]
    with contextlib.suppress(OSError, UserError):
        config = read_run_config(run / "config.json")
        recipe = [config.recipe_path or "RECIPE", *(["--scale", config.scale] if config.scale else [])]
    return ["ladd", "launch", *recipe, "--locked", str(run / "recipe.lock")]


RENAMED: dict[str, tuple[str, Callable[[list[str]], list[str]]]] = {
    "cancel": ("`ladd cancel` is `ladd jobs --cancel` now", _jobs),
    "wandb-sweep": ("`ladd wandb-sweep` is `ladd sweep --on wandb` now, also for a sweep's agents", _sweep),
    "promote": (
        "`ladd promote` is no longer needed: every finished run writes its own recipe.lock (launch one of an older "
        "version again, and it has one)",
        _launch,
    ),
}
"""Old name -> what became of it, and the line to type, from the arguments that were given."""


def answer(name: str, arguments: Sequence[str]) -> int:
    """Print what became of a command, and the line to type in place of it; returns the exit code."""
    why, new_line = RENAMED[name]
    return say(f"{why}; type: {shlex.join(new_line(list(arguments)))}", USAGE)
