"""The version and the commit of the code: git says them in a checkout, else the installed package's metadata."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

from ladd_dist.zoo import IS_INSTALLED

RELEASE = "0.1.0"
"""The release before the first tag; the same as `fallback_version` in pyproject.toml."""
UNKNOWN = "unknown"
"""The commit of a package that was not built from a checkout, or from a tag."""
DIRTY = "-dirty"
CODE = (":(top)", ":(top,exclude)docs", ":(top,exclude)*.md", ":(top,exclude)benchmarks/*.json")
"""Pathspec of the files that can change what a run computes: all but texts and figures that were measured before."""


@functools.cache
def version() -> str:
    """The version: of an installed package as it was built, like `0.1.0.post1.dev3+g8fa5f06ab`; else the release."""
    if IS_INSTALLED:
        return importlib.metadata.version("ladd_dist")
    said = _git(["git", "describe", "--tags", "--match", "v[0-9]*", "--abbrev=0"])
    return said[0].removeprefix("v") if said else RELEASE


def release() -> str:
    """The release that the code belongs to, like `0.1.0`: the version without what came after the tag.

    Locks hold a launch to it; what came after is the commit's affair.
    """
    found = re.match(r"\d+(\.\d+)*((a|b|rc)\d+)?", version())
    return found[0] if found else RELEASE


def current_commit() -> str:
    """The commit of the code that runs, with `-dirty` behind it if code differs; `unknown` where nothing says it."""
    if IS_INSTALLED:
        built = re.search(r"\+g([0-9a-f]+)(\.d\d+)?$", version())
        return f"{built[1]}{DIRTY if built[2] else ''}" if built else UNKNOWN
    said = _git(
        ["git", "describe", "--always", "--exclude=*", "--abbrev=10"],
        ["git", "status", "--porcelain", "--untracked-files=no", "--", *CODE],
    )
    return f"{said[0]}{DIRTY if said[1] else ''}" if said and said[0] else UNKNOWN


def _git(*commands: list[str]) -> list[str]:
    """What git says to each command in this checkout; empty where this is none, or one of them fails."""
    here = Path(__file__).parent
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    tracked = ["git", "ls-files", "--error-unmatch", "../__init__.py"]  # not so in a user's .venv in their checkout
    said = []
    for command in (tracked, *commands):
        try:
            found = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return []
        if found.returncode:
            return []
        said.append(found.stdout.strip())
    return said[1:]
