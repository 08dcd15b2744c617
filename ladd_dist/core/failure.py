"""Reports of failed ranks: each rank writes why it ended to a file that the launching process reads."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypedDict

from ladd_dist.core.door import read_typed
from ladd_dist.core.environment import PARENT, env_number
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.signals import end_of

Kind = Literal["failure", "missing", "stop", "victim"]
"""Reason why a rank ended. failure: its own error; missing: another rank did not arrive; stop: a signal; victim:
another rank ended."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable in which PyTorch's launchers name the report file."""

LOG_NOTE = "log: "
"""Prefix of the exception note that tells a command where the traceback was written."""


@dataclass(frozen=True)
class Failure:
    """Report of how one rank ended."""

    rank: int
    code: int
    kind: Kind
    message: str
    """Text for the user; empty where there is only a traceback."""
    trace: str
    time: float


class _Report(TypedDict):
    """The part of a report file that is ours."""

    ladd: Failure


def world_size() -> int:
    """Number of processes of this training, from environment variables alone (without importing PyTorch).

    1 where a variable is no number: a command refuses it at its start (`require_environment`), and has to say so.
    """
    return _number("WORLD_SIZE" if "RANK" in os.environ else "SLURM_STEP_NUM_TASKS", 1)


def rank_here() -> int:
    """Rank of this process, from environment variables alone."""
    return _number("RANK" if "RANK" in os.environ else "SLURM_PROCID", 0) if world_size() > 1 else 0


def _number(name: str, default: int) -> int:
    try:
        return env_number(name, default)
    except RecipeError:
        return default


def has_parent() -> bool:
    """Whether the launch that started this rank is still there to show its message to the user."""
    return os.environ.get(PARENT) == str(os.getppid())


def write_failure(error: BaseException, message: str | None, code: int, kind: Kind) -> None:
    """Write how this rank ends to the report file, if there is one, in a format that PyTorch's launchers show too."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    trace = "".join(traceback.format_exception(error))
    failure = Failure(rank_here(), code, kind, message or "", trace, time.time())
    extra = {"py_callstack": trace, "timestamp": str(int(failure.time))}
    shown = {"message": message or f"{type(error).__name__}: {error}", "extraInfo": extra, "errorCode": code}
    with contextlib.suppress(OSError):  # no room, perhaps the very reason of the failure
        Path(path).write_text(json.dumps({"message": shown, "ladd": asdict(failure)}), encoding="utf-8")


@contextlib.contextmanager
def tracebacks_kept(folder: Path) -> Iterator[None]:
    """Write the traceback of an unexpected exception to `FOLDER/fault-TIME.txt`, and add its path as a note."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if end_of(error) is not error:  # a stop, which a library has turned into it
            raise
        path = folder / f"fault-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
        with contextlib.suppress(OSError):  # no room, perhaps the very reason of the failure
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            error.add_note(f"{LOG_NOTE}{path}")
        raise


def read_failure(path: Path) -> Failure | None:
    """Report that a rank wrote; None if it wrote none that can be read."""
    try:
        return read_typed(path, _Report)["ladd"]
    except (OSError, UserError):
        return None
