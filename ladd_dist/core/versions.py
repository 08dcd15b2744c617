"""The versions of packages that this one asks for, from pyproject.toml or the installed metadata, and what is here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ladd_dist.core.environment import PARENT

OWN = "ladd_dist"
ON_DEMAND = frozenset({
    "accelerate", "deepspeed", "diffusers", "peft", "scikit-learn", "scipy", "submitit", "tensorboard", "transformers",
    "wandb", "webdataset",
})  # fmt: skip
"""Packages that are imported when something asks for them: what does not ask runs beside an old one."""
PYTHON = (3, 11)
"""`requires-python`, known before anything that needs it is imported; tests/unit/test_versions.py compares the two."""


class Floor(NamedTuple):
    """A package, the lowest version of it that is allowed, and the version that is installed (None: it is not)."""

    package: str
    lowest: str
    installed: str | None

    @property
    def is_met(self) -> bool:
        """Whether the installed version is new enough; what is not installed is not judged."""
        return self.installed is None or release(self.installed) >= release(self.lowest)

    @property
    def text(self) -> str:
        """What is wrong: the version found, and the one needed."""
        return f"{self.package} {self.installed} is too old, {self.lowest} or newer is needed"


def release(version: str) -> tuple[int, ...]:
    """Numbers of a version without what follows them: (2, 8, 0) for 2.8.0, 2.8.0+cu128 and 2.8.0rc1.

    A container's `2.8.0a0+5228986c39.nv25.06` has what 2.8.0 has. Zeros at the end say nothing: 2.8 is 2.8.0.
    """
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def floors() -> list[Floor]:
    """Every package with a lowest version, in the order of pyproject.toml, extras last and without those of `dev`."""
    lines: dict[str, str] = {}
    for line in requirements():
        name, _, marker = line.partition(";")
        found = re.match(r"\s*([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?[^>]*>=\s*([\w.]+)", name)
        if found and not re.search(r"extra == ['\"]dev['\"]", marker):
            lines.setdefault(found[1], found[2])
    return [Floor(package, lowest, installed(package)) for package, lowest in lines.items()]


def requirements() -> Iterable[str]:
    """Requirements as pyproject.toml of this checkout has them; those of the installed package where there is none."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if not project.is_file():
        try:
            return importlib.metadata.requires(OWN) or ()
        except importlib.metadata.PackageNotFoundError:
            return ()
    import tomllib

    table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
    if table.get("name") != OWN:
        return ()
    extras: dict[str, list[str]] = table["optional-dependencies"]
    of_extras = [f'{line}; extra == "{extra}"' for extra, lines in extras.items() for line in lines]
    return [*table["dependencies"], *of_extras]


def installed(package: str) -> str | None:
    """The version of an installed package by its metadata, without importing it; None where there is none."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    # `distribution.version` parses all of METADATA, which takes five times as long.
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or distribution.read_text("") or ""
    found = re.search(r"^Version: *(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def cure(old: Iterable[Floor]) -> str:
    """The command that installs newer versions of packages."""
    return "pip install " + " ".join(f"'{floor.package}>={floor.lowest}'" for floor in old)


def require_versions() -> None:
    """End this process with one line where a package that every command needs is too old.

    A package that is needed on demand alone is named in a line on stderr. Ranks leave both to the launch.
    """
    if os.environ.get(PARENT):
        return
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        sys.exit(f"error: {OWN} needs Python {wanted} or newer, this is {sys.version.split()[0]}")
    old = [floor for floor in floors() if not floor.is_met]
    for fatal, prefix in ((True, "error"), (False, "warning")):
        these = [floor for floor in old if (floor.package not in ON_DEMAND) == fatal]
        if these:
            print(f"{prefix}: {'; '.join(floor.text for floor in these)}: {cure(these)}", file=sys.stderr)
            if fatal:
                sys.exit(1)
