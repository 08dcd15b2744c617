"""Modules that users import and that have moved: what to write in place of an import that no longer works."""

from __future__ import annotations

import ast
import sys
import traceback
from pathlib import Path

DOOR = "ladd_dist.recipe"
"""The public door to recipes, whose names are best imported from there."""
MOVED = {
    "ladd_dist.sweeps": "ladd_dist.recipe.sweep",
    "ladd_dist.settings": "ladd_dist.recipe.settings",
    "ladd_dist.checks": "ladd_dist.recipe.consistency",
    "ladd_dist.shipped": "ladd_dist.recipe.builtin",
    "ladd_dist.lock": "ladd_dist.workspace.lock",
    "ladd_dist.machine": "ladd_dist.parallel.devices",
    "ladd_dist.scheduler": "ladd_dist.cluster.scheduler",
    "ladd_dist.status": "ladd_dist.cluster.status",
    "ladd_dist.progress": "ladd_dist.workspace.progress",
    "ladd_dist.stages.space": "ladd_dist.builders.codec",
    "ladd_dist.stages.student": "ladd_dist.builders.student",
    "ladd_dist.stages.conditions": "ladd_dist.builders.texts",
    "ladd_dist.engine.cost": "ladd_dist.costs.flops",
    "ladd_dist.engine.memory": "ladd_dist.costs.memory_model",
    "ladd_dist.engine.measured": "ladd_dist.costs.memory_trace",
    "ladd_dist.metrics.features": "ladd_dist.core.features",
}
"""Old module -> the one that has its names now."""


def moved(error: BaseException) -> str | None:
    """What to write in place of an import that failed; None for every other error.

    Args:
        error: as it was raised; its traceback leads to the import.
    """
    if not (isinstance(error, ModuleNotFoundError) and error.name in MOVED):
        return None
    old, new = error.name, MOVED[error.name]
    public = set(getattr(sys.modules.get(DOOR), "__all__", ()))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        names = _names(Path(frame.filename), frame.lineno or 0, old)
        if names:
            new = DOOR if new.startswith(DOOR) and {name.partition(" ")[0] for name in names} <= public else new
            line = f"from {new} import {', '.join(names)}"
            return f"{old} is {new} now: write `{line}` ({frame.filename}, line {frame.lineno})"
    return f"{old} is {new} now: write `import {new}`"


def _names(path: Path, line: int, module: str) -> list[str]:
    """What is imported from the module in that line, as it stands there."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.lineno == line]
    return [ast.unparse(alias) for node in found if node.module == module for alias in node.names]
