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

from rich.console import Console

from ladd_dist.core.failure import Kind, has_parent, rank_here, world_size, write_failure
from ladd_dist.core.signals import NUMBERS, SAVED, Stopped

USAGE, FAILURE, INTERRUPTED = 2, 1, 130
AGAIN = os.EX_TEMPFAIL
"""75: ended by a scheduler's signal after a clean save; with `RequeueExit=75` SLURM starts the job again."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


class Verdict(NamedTuple):
    """What an exception means to the user."""

    code: int
    message: str | None
    """None: unexpected, the traceback has to tell."""
    kind: Kind = "failure"


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; user errors become one message on stderr and an exit code.

    2: wrong command line or recipe; 1: a failure; 130 (SIGINT), 75 (SIGTERM, SIGUSR2): stopped after a clean save.
    Anything unexpected keeps its traceback, because then the fault is ours. With LADD_TRACEBACK=1 in the environment
    every error shows one.
    """
    try:
        with _signals_stop():
            return command()
    except (SystemExit, GeneratorExit):
        raise
    except BrokenPipeError:
        # The reader of our output has left, as in `... | head`: nobody to tell, and the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except BaseException as error:
        verdict = _judge(error)
        if world_size() > 1:
            return _end_rank(error, verdict)
        if verdict.message is None:
            raise
        return say(verdict.message, verdict.code)


def leave(code: int, *, ending: bool) -> int:
    """The exit code, for `sys.exit`; a rank that failed ends here and now.

    Its threads and communicators may wait for other ranks for ever, and these wait for it.

    Args:
        ending: this process has nothing else to do.
    """
    if ending and threading.current_thread() is threading.main_thread():
        for number in NUMBERS:  # the work is done and said: a scheduler that is late must not make a failure of it
            signal.signal(number, signal.SIG_IGN)
    if code == 0 or world_size() == 1:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(message: str, code: int) -> int:
    """Print the one message of a command that ends with `code`; returns the code."""
    if os.environ.get("LADD_TRACEBACK") and sys.exc_info()[0] is not None:
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{'stopped' if code in (INTERRUPTED, AGAIN) else 'error'}:[/]", end=" ")
    console.print(message, markup=False)
    sys.stderr.flush()
    return code


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM and SIGUSR2 take the way out of Ctrl-C: open files are cleaned up. Only the main thread may set this."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in NUMBERS if number != signal.SIGINT]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _judge(error: BaseException) -> Verdict:
    from ladd_dist.core.plugin import PluginError
    from ladd_dist.core.serialize import RecipeError

    if isinstance(error, RecipeError | PluginError):
        return Verdict(USAGE, str(error))
    if isinstance(error, KeyboardInterrupt):
        if isinstance(error, Stopped):
            return Verdict(error.code, error.text, "stop")
        return Verdict(INTERRUPTED, f"interrupted; {SAVED}", "stop")
    if isinstance(error, OSError):
        return Verdict(FAILURE, _explain(error))
    if isinstance(error, ValueError | KeyError):
        text = str(error.args[0]) if error.args else ""
        return Verdict(FAILURE, text if " " in text else None)  # no sentence, so not ours: a lookup that failed
    if world_size() > 1:
        from ladd_dist.parallel.heartbeat import LostRank

        if isinstance(error, LostRank):
            return Verdict(FAILURE, str(error), "missing" if error.waited else "victim")
    return Verdict(FAILURE, None)


def _end_rank(error: BaseException, verdict: Verdict) -> int:
    """Tell the launch that started this rank, which then tells the user; where there is none, this rank does."""
    write_failure(error, verdict.message, verdict.code, verdict.kind)
    rank = rank_here()
    if (rank == 0 and has_parent()) or (rank > 0 and verdict.kind == "stop"):
        return verdict.code
    if verdict.message is None:
        traceback.print_exception(error)
    text = verdict.message or f"{type(error).__name__}: {error}"
    return say(text if rank == 0 and verdict.kind == "stop" else f"rank {rank}: {text}", verdict.code)


def _explain(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in NO_ROOM:
        return (
            f"no room to write{where} ({error.strerror}). Nothing half-written was kept: free some space, or choose "
            "another place with --out and --cache, and run the same command again"
        )
    if error.errno in NO_ACCESS:
        return f"no access to{where or ' a file'} ({error.strerror}); choose writable folders with --out and --cache"
    return f"{error}"
