"""The commit of the code, where it runs from a checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

UNKNOWN = "unknown"
"""The commit of an installed package."""


def current_commit() -> str:
    """The commit of the code that runs, with `-dirty` behind it if files differ from it; `unknown` off a checkout."""
    here = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    tracked = ["git", "ls-files", "--error-unmatch", "../__init__.py"]  # not so in a user's .venv in their checkout
    said = ""
    for command in (tracked, ["git", "describe", "--always", "--dirty", "--abbrev=10"]):
        try:
            found = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return UNKNOWN
        if found.returncode:
            return UNKNOWN
        said = found.stdout.strip()
    return said or UNKNOWN
