"""Which profile a sweep was submitted with: kept in this user's own folder, because a profile is a program.

A sweep.json may come from somebody else, with a profile beside it; what it names is shown and never run.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TypedDict

from ladd_dist.core.door import read_bytes, read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.rundir import write_json
from ladd_dist.zoo import file_at


class Note(TypedDict):
    """What is kept of a submission."""

    sweep: str
    """The sweep's folder, absolute."""
    profile: str
    """The file, absolute."""
    sha256: str
    """Of the file when it was used."""


def state_folder() -> Path:
    """The folder of this user's state: `$XDG_STATE_HOME/ladd_dist`, else `~/.local/state/ladd_dist`."""
    named = os.environ.get("XDG_STATE_HOME", "")
    base = Path(named) if named.startswith("/") else Path.home() / ".local" / "state"  # a relative one does not count
    return base / "ladd_dist"


def keep(sweep: Path, profile: Path) -> None:
    """Note that this user submits the sweep with the profile; a warning where that cannot be written."""
    try:
        profile = file_at(profile, "slurm")
        note = Note(sweep=_name(sweep), profile=str(profile.resolve()), sha256=_digest(profile))
        write_json(_file(sweep), note)
    except (OSError, RuntimeError, UserError) as error:  # RuntimeError: there is no home
        print(f"warning: `ladd jobs` will need --on {profile} for this sweep ({error})", file=sys.stderr)


def kept(sweep: Path) -> Path | None:
    """The profile with which this user submitted the sweep from here; None where the sweep or the file is another one.

    Args:
        sweep: the sweep's folder.
    """
    try:
        note = read_typed(_file(sweep), Note)
        profile = Path(note["profile"])
        same = note["sweep"] == _name(sweep) and _digest(profile) == note["sha256"]
    except (OSError, RuntimeError, UserError):  # no such note, or no such file
        return None
    return profile if same else None


def _name(sweep: Path) -> str:
    return str(sweep.resolve())


def _file(sweep: Path) -> Path:
    return state_folder() / "profiles" / f"{hashlib.sha256(_name(sweep).encode()).hexdigest()[:32]}.json"


def _digest(profile: Path) -> str:
    return hashlib.sha256(read_bytes(profile)).hexdigest()
