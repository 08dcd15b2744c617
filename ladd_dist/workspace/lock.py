"""`recipe.lock`: what a finished run depended on, and what of it has drifted since."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ladd_dist import __version__
from ladd_dist.core.door import decode, fit, read_bytes
from ladd_dist.core.errors import UserError
from ladd_dist.core.failure import has_parent, rank_here
from ladd_dist.core.method import method_of
from ladd_dist.core.printable import one_line
from ladd_dist.core.run_forms import Evaluation, evaluation_now, require_format, require_paths
from ladd_dist.core.rundir import write_json
from ladd_dist.core.serialize import RecipeError, has_effect, to_data
from ladd_dist.recipe.plugin_sources import PluginSource, describe_plugins
from ladd_dist.workspace.config import environment
from ladd_dist.workspace.run import Run
from ladd_dist.zoo import ships

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe

FORMAT = 1
FILE = "recipe.lock"
"""In the run's folder."""
SIGNATURES = ("teacher", "shards", "distill", "reference", "evaluate")
ABSENT = "(absent)"
NEEDED = {"format", "recipe", "signatures", "plugin_classes", "version", "environment", "data"}
_FIELDS = {"class": "qualname"}
"""Keys of a plug-in's class in the file that are no names of fields in Python."""
AGAIN = f"every finished run has one in its folder, RUN/{FILE}; launch the run again and it is written anew"


@dataclass(frozen=True)
class Lock:
    """The content of a recipe.lock. Those of older versions lack what has a default here."""

    version: str
    environment: dict[str, str | int]
    recipe: dict[str, Any]
    """As in config.json."""
    signatures: dict[str, str]
    plugin_classes: dict[str, PluginSource]
    """By the recipe's field."""
    data: dict[str, str | None]
    """As `data_identity` gives it."""
    run: str = ""
    recipe_path: str = ""
    scale: str = ""
    command: str = ""
    commit: str = ""
    dirty: bool = False
    """Whether files differed from the commit."""
    plugins: tuple[str, ...] = ()
    student: dict[str, str] = dataclasses.field(default_factory=dict)
    """`file_sha256`, and `weights_sha256`, which does not hang on the file's format."""
    eval: Evaluation | None = None
    """The content of eval.json."""
    hashed_version: str = ""
    """Of ladd_dist, whose plug-ins' sources were hashed."""
    hashed_commit: str = ""

    def __post_init__(self) -> None:
        require_paths(self.recipe_path)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        classes = {}
        for name, used in self.plugin_classes.items():
            data = asdict(used)
            classes[name] = {"class" if key == "qualname" else key: value for key, value in data.items()}
        write_json(path, {"format": FORMAT, **asdict(self), "plugin_classes": classes})


class Drift(NamedTuple):
    """A field whose value is no longer the locked one."""

    field: str
    locked: Any
    now: Any

    def __str__(self) -> str:
        return one_line(f"{self.field}: locked {_short(self.locked)}, now {_short(self.now)}")


def _short(value: Any) -> str:
    if isinstance(value, dict) and "plugin" in value:
        return str(value["plugin"])
    return value if isinstance(value, str) else json.dumps(value)


def signatures(recipe: Recipe) -> dict[str, str]:
    """The signature of every stage that has one."""
    return {name: getattr(recipe, f"{name}_signature")() for name in SIGNATURES}


def tensors_sha256(path: Path) -> str | None:
    """The sha256 of the weights in a safetensors file, whatever stands on its card; None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    from ladd_dist.core.tensor_file import load_tensors, weights_sha256

    return weights_sha256(load_tensors(path, remedy="delete its folder and make it again"))


def data_identity(run: Run) -> dict[str, str | None]:
    """What a run learned from: the teacher's weights, and the shards by their index, which has the sha256 of each."""
    index, data = run.shards_folder / "index.json", run.recipe.dataset.fingerprint()
    own: dict[str, str | None] = {"dataset_fingerprint": data} if data else {}
    return own | {
        "teacher_weights_sha256": tensors_sha256(run.teacher_folder / "teacher.safetensors"),
        "shards_index_sha256": hashlib.sha256(index.read_bytes()).hexdigest() if index.is_file() else None,
    }


def warnings_of(lock: Lock) -> list[str]:
    """What a lock cannot vouch for, a sentence each."""
    found = []
    if lock.dirty:
        found.append(f"the run was made with changes that were not committed (on {lock.commit})")
    if lock.hashed_version and lock.version != lock.hashed_version:
        found.append(
            f"the run was made with version {lock.version}, the sources are hashed as of {lock.hashed_version}"
        )
    elif lock.hashed_commit and lock.commit != lock.hashed_commit.removesuffix("-dirty"):
        found.append(f"the run was made at commit {lock.commit}, the sources are hashed as of {lock.hashed_commit}")
    missing = [name for name, value in lock.data.items() if value is None]
    if missing:
        found.append(f"{', '.join(missing)}: not in the cache when the lock was written, so not locked")
    if lock.eval is None:
        found.append("the run had no figures yet")
    return found


# --- a lock against what is here now ---


def read_lock(path: Path) -> Lock:
    """The lock in a file, or in a run's folder.

    Raises:
        RecipeError: no such file, or one that is no lock of this version.
    """
    path = path / FILE if path.is_dir() else path
    what = f"--locked {path}"
    if not path.exists():
        raise RecipeError(f"{what}: no such file; {AGAIN}")
    try:
        content = read_bytes(path)
        require_format(content, FORMAT, what, AGAIN)
        data = decode(content, dict[str, Any], what, AGAIN)
        if missing := sorted(NEEDED - data.keys()):
            raise RecipeError(f"{what}: lacks {', '.join(missing)}; {AGAIN}")
        classes = fit(data["plugin_classes"], dict[str, dict[str, Any]], f"{what}: plugin_classes", AGAIN)
        renamed = {name: {_FIELDS.get(key, key): item for key, item in used.items()} for name, used in classes.items()}
        lock = fit({**data, "plugin_classes": renamed}, Lock, what, AGAIN)
        return lock if lock.eval is None else dataclasses.replace(lock, eval=evaluation_now(lock.eval))
    except UserError as error:
        raise RecipeError(str(error)) from error


def fields_drift(locked: Any, now: Any, where: str = "recipe") -> list[Drift]:
    """Fields of a recipe (or a part) that differ from the locked data, but for those that change no result."""
    data = to_data(now)
    if not (dataclasses.is_dataclass(now) and isinstance(locked, dict)):
        return [] if locked == data else [Drift(where, locked, data)]
    if locked.get("plugin") != data.get("plugin"):
        return [Drift(where, locked, data)]
    found: list[Drift] = []
    fields = {field.name: field for field in dataclasses.fields(now)}
    effective = to_data(now, neutral=False)  # without neutral fields, and without added ones at their default
    for name, field in fields.items():
        inner = f"{where}.{name}"
        if field.metadata.get("neutral") or not has_effect(getattr(now, name)):
            continue  # from an effect to none is a drift too: the signatures say so
        if name in locked:
            found += fields_drift(locked[name], getattr(now, name), inner)
        elif name in effective:
            found.append(Drift(inner, ABSENT, effective[name]))
    gone = [name for name in locked if name not in fields and name != "plugin"]
    return found + [Drift(f"{where}.{name}", locked[name], ABSENT) for name in gone]


def plugins_drift(locked: dict[str, PluginSource], now: dict[str, PluginSource]) -> list[Drift]:
    """Plug-in classes that are not those of the lock; those swapped for others are named by `fields_drift`."""
    found = []
    for field, before in locked.items():
        after = now.get(field)
        if before.neutral or after is None or before.name != after.name:
            continue
        who = f"plug-in {field} ({before.name})"
        for key in ("module", "qualname", "package", "version"):
            pair = getattr(before, key), getattr(after, key)
            if pair[0] != pair[1]:
                found.append(Drift(f"{who} {'class' if key == 'qualname' else key}", *pair))
        for module in sorted(before.sources.keys() | after.sources.keys()):
            hashes = [side.sources.get(module) for side in (before, after)]
            if hashes[0] is None and ships(module):
                continue  # wheels before this one did not write them down
            if hashes[0] != hashes[1]:
                shown = [f"sha256 {text[:12]}" if text else ABSENT for text in hashes]
                found.append(Drift(f"{who} source of {module}", *shown))
    return found


def values_drift(locked: dict[str, Any], now: dict[str, Any]) -> list[Drift]:
    """Values that are other ones now; those that the lock does not know are left out."""
    return [Drift(name, value, now[name]) for name, value in locked.items() if value and now.get(name, value) != value]


def compare(lock: Lock, run: Run, scale: str) -> tuple[list[Drift], list[Drift]]:
    """What changes results, and what may change them in the last digits."""
    recipe = run.recipe
    found = fields_drift(lock.recipe, recipe)
    if found and lock.scale != scale:  # one recipe may serve every scale, so by itself it is no difference
        found.insert(0, Drift("scale", lock.scale or None, scale))
    found += [Drift(f"signature of {name}", lock.signatures.get(name), now) for name, now in signatures(recipe).items()
              if lock.signatures.get(name) != now]  # fmt: skip
    found += plugins_drift(lock.plugin_classes, describe_plugins(recipe))
    found += [Drift("version of ladd_dist", lock.version, __version__)] if lock.version != __version__ else []
    named = {name: value for name, value in lock.environment.items() if name != "busy"}  # of that day alone
    milder = values_drift(named, environment(run.device))
    spread = method_of(lock.recipe, ("parallel",)).get("parallel", recipe.parallel.name)
    milder += [Drift("parallel", spread, recipe.parallel.name)] if spread != recipe.parallel.name else []
    data = values_drift(lock.data, data_identity(run))
    data = [Drift(f"data {drift.field}", drift.locked, drift.now) for drift in data if drift.now is not None]
    # Made again on another machine they cannot be the same bits; on the same one they are, unless something drifted.
    return (found, [*milder, *data]) if {d.field for d in milder} - {"commit"} else ([*found, *data], milder)


def enforce(path: Path | None, run: Run, scale: str) -> None:
    """Hold a launch to a lock: one warning line for what differs in the environment, a note for what it lacks.

    Args:
        path: the lock, or a run's folder that has one; None: there is nothing to hold it to.

    Raises:
        RecipeError: something that changes results has drifted; names every such field with both values.
    """
    if path is None or has_parent():  # the launch that started this rank has looked
        return
    lock = read_lock(path)
    drifted, milder = compare(lock, run, scale)
    if drifted:
        lines = "".join(f"\n  {drift}" for drift in drifted)
        raise RecipeError(
            f"--locked {path}: what changes results has drifted, nothing was run:{lines}\n"
            f"Undo that, or launch without --locked: the new run writes a {FILE} of its own."
        )
    if rank_here() != 0:
        return
    for line in warnings_of(lock):
        print(one_line(f"note: --locked {path}: {line}"), file=sys.stderr)
    if milder:
        text = "; ".join(map(str, milder))
        print(f"warning: --locked {path}: another environment, figures may differ slightly: {text}", file=sys.stderr)
