"""The commit of the code, where it runs from a checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
"""The commit of an installed package."""
DIRTY = "-dirty"
CODE = (":(top)", ":(top,exclude)docs", ":(top,exclude)*.md", ":(top,exclude)benchmarks/*.json")
"""Pathspec of the files that can change what a run computes: all but texts and figures that were measured before."""


def current_commit() -> str:
    """The commit of the code that runs, with `-dirty` behind it if code differs from it; `unknown` off a checkout."""
    here = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    tracked = ["git", "ls-files", "--error-unmatch", "../__init__.py"]  # not so in a user's .venv in their checkout
    commit = ["git", "describe", "--always", "--abbrev=10"]
    changed = ["git", "status", "--porcelain", "--untracked-files=no", "--", *CODE]
    said = []
    for command in (tracked, commit, changed):
        try:
            found = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return UNKNOWN
        if found.returncode:
            return UNKNOWN
        said.append(found.stdout.strip())
    return f"{said[1]}{DIRTY if said[2] else ''}" if said[1] else UNKNOWN
