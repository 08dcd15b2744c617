"""Reading `metrics.jsonl`, whatever a killed run left of it. One reader for trackers, report and comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The logged steps in order, a step logged twice (a resumed run) as last logged; and the number of broken lines.

    A half-written last line is what a killed run leaves, and is not counted. A missing file has no rows.
    """
    if not path.exists():
        return [], 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows: dict[float, dict[str, Any]] = {}
    broken = 0
    for index, line in enumerate(lines):
        try:
            row = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError:
            broken += index != len(lines) - 1
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(step, int | float) and not isinstance(step, bool) and math.isfinite(step):
            rows[step] = row
    return [rows[step] for step in sorted(rows)], broken
