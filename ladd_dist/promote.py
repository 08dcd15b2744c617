"""`python -m ladd_dist.promote RUN`: write down all that a finished run depended on, for `launch --locked`."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ladd_dist.cli.errors import run_guarded
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import plugin_modules

if TYPE_CHECKING:
    from ladd_dist.core.rundir import RunDir
    from ladd_dist.recipe import Recipe

PROG = "python -m ladd_dist.promote"


@dataclass(frozen=True)
class Options:
    """Write recipe.lock: every field, signature, plug-in source, version and figure of a finished run."""

    run: tyro.conf.Positional[Path]
    """A finished run's folder."""
    out: Path = Path("recipe.lock")
    """The file to write."""
    cache: Path | None = None
    """The folder with the run's teacher and shards; unless given, the one its command named."""
    plugins: tuple[str, ...] = ()
    """Modules that register plug-ins, besides those with which the run was started."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return run_guarded(lambda: _main(tyro.cli(Options, args=arguments, prog=PROG)))


def _main(options: Options) -> int:
    from ladd_dist.core.plugin import load_modules
    from ladd_dist.core.rundir import RunDir, read_json, write_json
    from ladd_dist.workspace.config import cache_of, recipe_of

    run = RunDir(options.run)
    if not run.config.is_file():
        raise UserError(f"{run.path} is no run's folder (it has no {run.config.name}); it is what `launch` prints last")
    config = read_json(run.config)
    if config.get("format") != 1:
        raise UserError(f"{run.config} has format {config.get('format')!r}, this version reads 1")
    load_modules(plugin_modules((*config["plugins"], *options.plugins)))
    recipe = recipe_of(run, config)
    cache = options.cache or cache_of(config["command"])
    lock = describe(run, config, recipe, cache)
    write_json(options.out, lock)
    for line in doubts(lock, cache):
        print(f"warning: {line}", file=sys.stderr)
    print(options.out)
    return 0


def describe(run: RunDir, config: dict[str, Any], recipe: Recipe, cache: Path) -> dict[str, Any]:
    """The lock's content.

    Raises:
        UserError: the run is not finished, or its student is damaged.
    """
    import torch

    from ladd_dist.builders.student_file import load_student
    from ladd_dist.core.rundir import read_json, weights_sha256
    from ladd_dist.core.serialize import to_data
    from ladd_dist.recipe.plugin_sources import describe_plugins
    from ladd_dist.workspace.lock import FORMAT, data_identity, signatures
    from ladd_dist.workspace.run import Run
    from ladd_dist.workspace.workspace import Workspace, is_done

    workspace = Workspace(run.path.parent, cache, torch.device("cpu"))
    if not run.student.is_file() or not is_done(run.path / "distill.done.json", config["signature"]):
        raise UserError(f"{run.path} is not finished; go on with: {config['command']}")
    network, card = load_student(run.path, torch.device("cpu"))
    if card["signature"] != config["signature"]:
        raise UserError(f"{run.student} has signature {card['signature']}, its run has {config['signature']}")
    commit = config["environment"].get("commit", "unknown")
    return {
        "format": FORMAT,
        "run": run.path.resolve().name,
        "recipe_path": config["recipe_path"],
        "scale": config["scale"],
        "command": config["command"],
        "version": config["version"],
        "commit": commit.removesuffix("-dirty"),
        "dirty": commit.endswith("-dirty"),
        "environment": config["environment"],
        "recipe": to_data(recipe),
        "signatures": signatures(recipe),
        "plugins": config["plugins"],
        "plugin_classes": describe_plugins(recipe),
        "data": data_identity(Run(recipe, workspace).teacher_folder, Run(recipe, workspace).shards_folder),
        "student": {
            "file_sha256": hashlib.sha256(run.student.read_bytes()).hexdigest(),
            "weights_sha256": weights_sha256(network.state_dict()),
        },
        "eval": read_json(run.eval) if run.eval.exists() else None,
    }


def doubts(lock: dict[str, Any], cache: Path) -> list[str]:
    """What the lock cannot vouch for."""
    from ladd_dist import __version__
    from ladd_dist.workspace.config import current_commit

    found, now = [], current_commit()
    if lock["dirty"]:
        found.append(f"the run was made with changes that were not committed (on {lock['commit']})")
    if lock["version"] != __version__:
        found.append(f"the run was made with version {lock['version']}, the sources are hashed as of {__version__}")
    elif lock["commit"] != now:
        found.append(f"the run was made at commit {lock['commit']}, the plug-ins' sources are hashed as of {now}")
    missing = [name for name, value in lock["data"].items() if value is None]
    if missing:
        found.append(f"{', '.join(missing)}: not in {cache}, so not locked; give the folder with --cache")
    if lock["eval"] is None:
        found.append("the run has no figures yet; launch it with --stages evaluate first")
    return found


if __name__ == "__main__":
    sys.exit(main())
