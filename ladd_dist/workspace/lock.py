"""`recipe.lock`: what a promoted run depended on, and what of it has drifted since."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ladd_dist import __version__
from ladd_dist.core.errors import UserError
from ladd_dist.core.failure import has_parent, rank_here
from ladd_dist.core.serialize import RecipeError, has_effect, to_data
from ladd_dist.recipe.plugin_sources import describe_plugins
from ladd_dist.workspace.run import Run

if TYPE_CHECKING:
    from ladd_dist.recipe import Recipe

FORMAT = 1
SIGNATURES = ("teacher", "shards", "distill", "reference", "evaluate")
ABSENT = "(absent)"


class Drift(NamedTuple):
    """A field whose value is no longer the locked one."""

    field: str
    locked: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field}: locked {_short(self.locked)}, now {_short(self.now)}"


def _short(value: Any) -> str:
    if isinstance(value, dict) and "plugin" in value:
        return str(value["plugin"])
    return value if isinstance(value, str) else json.dumps(value)


def signatures(recipe: Recipe) -> dict[str, str]:
    """The signature of every stage that has one."""
    return {name: getattr(recipe, f"{name}_signature")() for name in SIGNATURES}


def tensors_sha256(path: Path) -> str | None:
    """Of the weights in a safetensors file, whatever stands on its card; None where there is no such file."""
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ladd_dist.core.rundir import weights_sha256

    try:
        return weights_sha256(load_file(path))
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder and make it again") from error


def data_identity(teacher: Path, shards: Path) -> dict[str, str | None]:
    """What a run learned from: the teacher's weights, and the shards by their index, which has the sha256 of each."""
    index = shards / "index.json"
    return {
        "teacher_weights_sha256": tensors_sha256(teacher / "teacher.safetensors"),
        "shards_index_sha256": hashlib.sha256(index.read_bytes()).hexdigest() if index.is_file() else None,
    }


# --- a lock against what is here now ---


def read_lock(path: Path) -> dict[str, Any]:
    """The lock.

    Raises:
        RecipeError: no such file, or not one that `promote` wrote.
    """
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"--locked {path}: no such file; `ladd promote RUN --out {path}` writes one") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"--locked {path}: not valid JSON ({error}); write it again with `ladd promote RUN`"
        ) from error
    found = lock.get("format") if isinstance(lock, dict) else None
    if found != FORMAT:
        raise RecipeError(f"--locked {path}: format {found!r}, this version reads {FORMAT}; use `ladd promote RUN`")
    missing = {"recipe", "signatures", "plugin_classes", "version", "environment", "data"} - lock.keys()
    if missing:
        raise RecipeError(
            f"--locked {path}: lacks {', '.join(sorted(missing))}; write it again with `ladd promote RUN`"
        )
    return dict(lock)


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


def plugins_drift(locked: dict[str, Any], now: dict[str, Any]) -> list[Drift]:
    """Plug-in classes that are not those of the lock; those swapped for others are named by `fields_drift`."""
    found = []
    for field, before in locked.items():
        after = now.get(field)
        if before["neutral"] or after is None or before["name"] != after["name"]:
            continue
        who = f"plug-in {field} ({before['name']})"
        for key in ("module", "class", "package", "version"):
            if before[key] != after[key]:
                found.append(Drift(f"{who} {key}", before[key], after[key]))
        for module in sorted(before["sources"].keys() | after["sources"].keys()):
            pair = [side["sources"].get(module) for side in (before, after)]
            if pair[0] != pair[1]:
                shown = [f"sha256 {text[:12]}" if text else ABSENT for text in pair]
                found.append(Drift(f"{who} source of {module}", *shown))
    return found


def environment_drift(locked: dict[str, Any], now: dict[str, Any]) -> list[Drift]:
    """What the machine has otherwise; values the lock does not know are left out."""
    return [Drift(name, value, now[name]) for name, value in locked.items() if value and now.get(name, value) != value]


def compare(lock: dict[str, Any], run: Run, scale: str) -> tuple[list[Drift], list[Drift]]:
    """What changes results, and what may change them in the last digits."""
    recipe = run.recipe
    from ladd_dist.workspace.config import environment

    found = fields_drift(lock["recipe"], recipe)
    if found and lock.get("scale") != scale:  # one recipe may serve every scale, so by itself it is no difference
        found.insert(0, Drift("scale", lock.get("scale"), scale))
    known = signatures(recipe).items()
    found += [Drift(f"signature of {name}", lock["signatures"].get(name), now) for name, now in known
              if lock["signatures"].get(name) != now]  # fmt: skip
    found += plugins_drift(lock["plugin_classes"], describe_plugins(recipe))
    found += [Drift("version of ladd_dist", lock["version"], __version__)] if lock["version"] != __version__ else []
    milder = environment_drift(lock["environment"], environment(run.device))
    spread = lock["recipe"].get("parallel", {}).get("plugin")
    milder += [Drift("parallel", spread, recipe.parallel.name)] if spread not in (None, recipe.parallel.name) else []
    data = environment_drift(lock["data"], data_identity(run.teacher_folder, run.shards_folder))
    data = [Drift(f"data {drift.field}", drift.locked, drift.now) for drift in data if drift.now is not None]
    # Made again on another machine they cannot be the same bits; on the same one they are, unless something drifted.
    return (found, [*milder, *data]) if {d.field for d in milder} - {"commit"} else ([*found, *data], milder)


def obey(path: Path | None, run: Run, scale: str) -> None:
    """Hold a launch to a lock: one warning line for what differs in the environment.

    Raises:
        RecipeError: something that changes results has drifted; names every such field with both values.
    """
    if path is None or has_parent():  # the launch that started this rank has looked
        return
    drifted, milder = compare(read_lock(path), run, scale)
    if drifted:
        lines = "".join(f"\n  {drift}" for drift in drifted)
        raise RecipeError(
            f"--locked {path}: what changes results has drifted, nothing was run:{lines}\n"
            "Undo that, or launch without --locked and promote the new run."
        )
    if milder and rank_here() == 0:
        text = "; ".join(map(str, milder))
        print(f"warning: --locked {path}: another environment, figures may differ slightly: {text}", file=sys.stderr)
