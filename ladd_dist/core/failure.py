"""Why a process of several ended, written where the process that started it looks."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ladd_dist.core.errors import UserError

Kind = Literal["failure", "missing", "stop", "victim"]
"""failure: an error of this process; missing: another did not come; stop: a signal; victim: another one ended."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""The variable that launchers of PyTorch's kind name the file in."""
CORES = "LADD_CORES"
"""The variable with the number of cores that a launch has divided among its ranks, unless the user did."""

LOG_NOTE = "log: "
"""How the note begins that tells the command where the traceback of an exception was written."""

PARENT = "LADD_PARENT"
"""The process id of the launch that started this rank."""


@dataclass(frozen=True)
class Failure:
    """How one rank ended."""

    rank: int
    code: int
    kind: Kind
    message: str
    """For the user; empty where the traceback is all there is."""
    trace: str
    time: float


def world_size() -> int:
    """Processes of this training, by the environment alone (PyTorch need not be there yet)."""
    size = os.environ.get("WORLD_SIZE") if "RANK" in os.environ else os.environ.get("SLURM_STEP_NUM_TASKS")
    return int(size or 1)


def rank_here() -> int:
    """The rank of this process, by the environment alone."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID")) if world_size() > 1 else None
    return int(rank or 0)


def has_parent() -> bool:
    """Whether the launch that started this rank is there to tell the user."""
    return os.environ.get(PARENT) == str(os.getppid())


def write_failure(error: BaseException, message: str | None, code: int, kind: Kind) -> None:
    """Leave word of how this rank ends, in the form that PyTorch's launchers show too."""
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
    """Write the traceback of an unexpected exception to `FOLDER/fault-TIME.txt`, and note the file on the exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        path = folder / f"fault-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
        with contextlib.suppress(OSError):  # no room, perhaps the very reason of the failure
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            error.add_note(f"{LOG_NOTE}{path}")
        raise


def read_failure(path: Path) -> Failure | None:
    """What a rank wrote; None when it ended without a word."""
    try:
        return Failure(**json.loads(path.read_text(encoding="utf-8"))["ladd"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
