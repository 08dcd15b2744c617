"""A check and its finding."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

from ladd_dist.core.errors import UserError
from ladd_dist.core.signals import require_not_stopped

State = Literal["pass", "warn", "fail", "skipped"]
Group = Literal["environment", "method"]
S = TypeVar("S")
_HELP = "if a plug-in of yours is in that file, `ladd plugins --check NAME` narrows it down; else please report it"


class Outcome(Exception):
    """The end of a check that does not pass: what was found, its cause, and its cure."""

    state: State

    def __init__(self, found: str, *, cause: str = "", cure: str = "") -> None:
        super().__init__(found)
        self.found, self.cause, self.cure = found, cause, cure


class Fail(Outcome):
    """A run would fail, or would compute something else than the recipe says."""

    state = "fail"


class Warn(Outcome):
    """A run would work, but not as well as it could."""

    state = "warn"


class Skip(Outcome):
    """The check does not apply, or cannot be made yet."""

    state = "skipped"


@dataclass(frozen=True)
class Check(Generic[S]):
    """One question about a subject; `look` returns what it found, or raises an `Outcome`."""

    name: str
    says: str
    """What holds if the check passes, as a sentence without a full stop."""
    look: Callable[[S], str]


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    group: Group
    name: str
    says: str
    state: State
    found: str
    cause: str
    cure: str
    seconds: float


def examine(group: Group, check: Check[S], subject: S) -> Finding:
    """Make one check; every exception that it raises becomes a finding."""
    started = time.monotonic()
    state: State = "pass"
    cause = cure = ""
    try:
        found = check.look(subject)
    except Outcome as outcome:
        state, found, cause, cure = outcome.state, outcome.found, outcome.cause, outcome.cure
    except UserError as error:  # its message says what is wrong and what to do
        state, found = "fail", str(error)
    except Exception as error:
        state, found, cause, cure = "fail", _said(error), _where(error), _HELP
    require_not_stopped()  # an interrupt is no failure of the check that it met
    return Finding(group, check.name, check.says, state, found, cause, cure, round(time.monotonic() - started, 3))


def skip_all(group: Group, checks: Iterable[Check[S]], why: str, cure: str) -> list[Finding]:
    """Findings of checks that cannot be made, with the reason and a cure."""
    return [Finding(group, check.name, check.says, "skipped", why, "", cure, 0.0) for check in checks]


def skipped(finding: Finding, why: str, cure: str) -> Finding:
    """The same finding as one that could not be made."""
    return replace(finding, state="skipped", found=why, cause="", cure=cure)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised in {Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
