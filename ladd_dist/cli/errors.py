"""What the commands share: exit codes, and errors as one clear message in place of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple

from ladd_dist.core.environment import require_environment
from ladd_dist.core.errors import UserError
from ladd_dist.core.failure import LOG_NOTE, Kind, has_parent, rank_here, world_size, write_failure
from ladd_dist.core.own_code import place_of
from ladd_dist.core.packages import missing_package
from ladd_dist.core.printable import printable_output, to_nobody
from ladd_dist.core.screen import Screen
from ladd_dist.core.signals import (
    SAVED,
    Process,
    Stopped,
    end_here,
    end_now,
    end_of,
    heard,
    is_importing,
    let_go_of_terminal,
    raise_stop,
    settle,
)

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
AGAIN = os.EX_TEMPFAIL
"""75: ended by a scheduler's signal after a clean save; with `RequeueExit=75` SLURM starts the job again."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip


class ExitReport(NamedTuple):
    """How a command ends because of an exception."""

    code: int
    message: str | None
    """One line for the user; None where the traceback has to tell."""
    kind: Kind = "failure"


@printable_output()
def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; a `UserError` becomes one message on stderr and an exit code.

    2: wrong command line or recipe; 1: a failure; 130 (SIGINT), 75 (SIGTERM, SIGUSR2, SIGHUP): stopped after a clean
    save. In a process that is a command alone, signals that come after the end change nothing, and one that failed or
    was stopped ends here (`core.signals.end_here`).
    Every other exception keeps its traceback, and a closing line says that the program is at fault and where the log
    is. With LADD_TRACEBACK=1 in the environment every error shows its traceback. What is printed meanwhile cannot
    steer a terminal (`printable_output`).
    """
    try:
        code = _run_guarded(command)
    finally:
        Process.stop = None
    if Process.is_command:
        settle(code)
        if code != 0 and world_size() == 1:  # a rank does not wait for anything: see `leave`
            end_here(code)
    return code


def _run_guarded(command: Callable[[], int]) -> int:
    try:
        with _signals_stop():
            require_environment()
            code = command()
            sys.stdout.flush()  # here, where a reader that has left or a full disk has its message
            return code
    except (SystemExit, GeneratorExit):
        raise
    except BrokenPipeError:
        to_nobody(sys.stdout)  # the reader of our output has left, as in `... | head`: nobody to tell
        return FAILURE
    except BaseException as error:
        report = exit_report(error)
        if world_size() > 1:
            return _end_rank(error, report)
        if report.message is None:
            traceback.print_exception(error)
        return say(report.message or fault(error), report.code)


def leave(code: int) -> int:
    """The exit code, for `sys.exit`; a rank that failed ends here and now.

    Its threads and communicators may wait for other ranks for ever, and these wait for it.
    """
    if code == 0 or world_size() == 1:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(message: str, code: int) -> int:
    """Print the one message of a command that ends with `code`; returns the code."""
    if os.environ.get("LADD_TRACEBACK") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    console = Screen(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{'stopped' if code in (INTERRUPTED, AGAIN) else 'error'}:[/]", end=" ")
    console.print(message, markup=False)
    sys.stderr.flush()
    return code


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Signals raise `Stopped`, so that open files are cleaned up. Only the main thread may set this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in heard()}
    try:
        yield
    finally:
        for number, handler in before.items():  # nothing but a message is left of a command
            signal.signal(number, signal.SIG_IGN if Process.is_command else handler)


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise `Stopped`; within an import, where that could break the process, end it here and now: files are whole."""
    let_go_of_terminal()
    if is_importing(frame):
        stopped = Stopped(number)
        write_failure(stopped, stopped.text, stopped.code, "stop")
        end_now("" if has_parent() or rank_here() > 0 else stopped.text, stopped.code)
    raise_stop(number)


def exit_report(error: BaseException) -> ExitReport:
    """Exit code and message of an exception; it takes no exception for the user's but a `UserError`, by its type."""
    from ladd_dist.core.plugin import PluginError
    from ladd_dist.core.serialize import RecipeError

    error = end_of(error)
    if isinstance(error, RecipeError | PluginError):
        return ExitReport(USAGE, str(error))
    if isinstance(error, UserError):
        return ExitReport(FAILURE, str(error))
    if isinstance(error, KeyboardInterrupt):
        if isinstance(error, Stopped):
            return ExitReport(error.code, error.text, "stop")
        return ExitReport(INTERRUPTED, f"interrupted; {SAVED}", "stop")
    if isinstance(error, OSError):
        return ExitReport(FAILURE, _explain(error))
    if missing := missing_package(error):
        return ExitReport(FAILURE, missing)
    if world_size() > 1:
        from ladd_dist.parallel.heartbeat import LostRank

        if isinstance(error, LostRank):
            return ExitReport(FAILURE, str(error), "missing" if error.waited else "victim")
    return ExitReport(FAILURE, None)


def fault(error: BaseException) -> str:
    """The closing line below the traceback of an exception that nobody expected."""
    logs = [note.removeprefix(LOG_NOTE) for note in getattr(error, "__notes__", ()) if note.startswith(LOG_NOTE)]
    place = place_of(error)
    where = f"the traceback above is in {logs[0]} too" if logs else "the traceback above is all that is known"
    return (
        f"{type(error).__name__}: this is a fault of the program (or of a plug-in that stands in the traceback), not "
        f"of your command; {where}: please report it with that"
        + (f". The last line of your own code in it is {place}" if place else "")
    )


def _end_rank(error: BaseException, report: ExitReport) -> int:
    """Tell the launch that started this rank, which then tells the user; where there is none, this rank does."""
    write_failure(error, report.message, report.code, report.kind)
    rank = rank_here()
    if (rank == 0 and has_parent()) or (rank > 0 and report.kind == "stop"):
        return report.code
    if report.message is None:
        traceback.print_exception(error)
    text = report.message or fault(error)
    return say(text if rank == 0 and report.kind == "stop" else f"rank {rank}: {text}", report.code)


def _explain(error: OSError) -> str | None:
    """What to do about a full or unwritable disk; None for every other error of the operating system."""
    where = f" {error.filename}" if error.filename else ""
    if error.errno in NO_ROOM:
        return (
            f"no room to write{where} ({error.strerror}). Nothing half-written was kept: free some space, or choose "
            "another place with --out and --cache, and run the same command again"
        )
    if error.errno in NO_ACCESS:
        return f"no access to{where or ' a file'} ({error.strerror}); choose writable folders with --out and --cache"
    return None
