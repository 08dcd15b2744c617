"""Signals that end a command: before it has begun, while it runs, and after its work is done."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
"""Signals that stop a run: Ctrl-C; the end of a time limit or a shutdown; the warning that schedulers send before
either (submitit's default); a terminal that closes."""

RECEIVED: set[int] = set()
"""All signals received so far. Schedulers send several; the exit path needs every one."""

SAVED = "what is finished is saved: run the same command again to go on"
IMPORTING = "<frozen importlib._bootstrap"
"""Begin of the file names of the frames in which Python imports a module."""


class Stopped(KeyboardInterrupt):
    """Request by a signal to end the program; all finished work is saved.

    A subclass also for SIGINT: after a plain KeyboardInterrupt that passed through an `exec`, Python ends by the
    signal instead of with the exit code it was given.
    """

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"stopped by {self.number.name}")

    @property
    def code(self) -> int:
        """Exit code: 130 for Ctrl-C, otherwise 75, which makes schedulers start the job again."""
        return 130 if self.number == signal.SIGINT else os.EX_TEMPFAIL

    @property
    def text(self) -> str:
        """Message for the user."""
        return f"{self}; {SAVED}"


class Process:
    """What signals need to know of this process."""

    is_command = False
    """Whether it is a command and nothing else, so that its signals are ours from its start to its end."""
    stop: Stopped | None = None
    """What `raise_stop` raised in the command that runs."""


def raise_stop(number: int) -> NoReturn:
    """Raise `Stopped`, and remember it: a library may answer it with an error of its own, or swallow it.

    PyTorch makes a ValueError of it where it looks into a storage, which safetensors does for every tensor it reads.
    """
    Process.stop = Stopped(number)
    raise Process.stop


def end_of(error: BaseException) -> BaseException:
    """Why the program ends: the stop that a signal raised before `error`, if any, otherwise `error` itself.

    filelock, interrupted while it locks, raises a group of the stop and an error of its own, which is no `Exception`.
    """
    own = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
    return error if own or Process.stop is None else Process.stop


def require_not_stopped() -> None:
    """Raise the stop again that something swallowed: what came of it since may be wrong, and must not be kept.

    Not while that stop passes through, nor in other threads: a save at the end of a run must not be cut short.
    """
    if Process.stop is None or threading.current_thread() is not threading.main_thread():
        return
    if not isinstance(sys.exception(), KeyboardInterrupt):
        raise_stop(Process.stop.number)


def heard() -> tuple[signal.Signals, ...]:
    """`NUMBERS` without what is ignored: SIGHUP under nohup, SIGINT in what a shell's script has started with `&`."""
    optional = (signal.SIGINT, signal.SIGHUP)
    return tuple(n for n in NUMBERS if n not in optional or signal.getsignal(n) != signal.SIG_IGN)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Processes that start here get signals only once they let them in, as `arm` does.

    Python raises KeyboardInterrupt while it starts: that ends a process with a traceback, or is swallowed, and a rank
    would then wait for others that have stopped.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def arm() -> None:
    """End this process at once, with one line, when a signal comes before `run_guarded` listens.

    An exception would meet imports, and those of C++ libraries answer it with `std::terminate`.
    """
    Process.is_command = True
    sys.unraisablehook = _tell_unraisable
    for number in heard():
        signal.signal(number, _end_early)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)  # held back where a launch has started this rank
    # Among these functions the first comes last: what follows it, Python's own end, would be killed by a signal.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def arm_module() -> str:
    """`arm` in `python -m ladd_dist.X`: this package is imported before X, while Python's `argv[0]` is still "-m".

    Returns the module's name; empty where the process runs no module of this package.
    """
    name = sys.orig_argv[-len(sys.argv)].removeprefix("-m") if sys.argv[:1] == ["-m"] else ""
    if not name.startswith("ladd_dist"):
        return ""
    arm()
    return name


def _end_early(number: int, frame: FrameType | None) -> None:
    if "LADD_PARENT" in os.environ:  # a rank, whose parent tells the user, and knows what signal it has passed on
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    stopped = Stopped(number)
    end_now(f"{stopped}; nothing was begun", stopped.code)


def _tell_unraisable(info: sys.UnraisableHookArgs) -> None:
    """As Python does, but without a word about a stop: where none can pass, as while a generator closes, it is not lost
    (`require_not_stopped`)."""
    if not isinstance(info.exc_value, Stopped):
        sys.__unraisablehook__(info)


def end_now(message: str, code: int) -> None:
    """End this process without any clean-up, after one line on stderr unless it is empty."""
    with contextlib.suppress(OSError):
        os.write(2, f"stopped: {message}\n".encode() if message else b"")
    os._exit(code)


def is_importing(frame: FrameType | None) -> bool:
    """Whether `frame` runs for an import: no exception may pass there (see `arm`; some raise RecursionError)."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTING):
            return True
        frame = frame.f_back
    return False


def let_go_of_terminal() -> None:
    """Send further output nowhere if the terminal is gone: to write there is an error, which would cut a save short."""
    for number in (1, 2):
        try:
            os.write(number, b"")
        except OSError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def settle(code: int) -> None:
    """The work is done and said: a late signal of a scheduler makes no failure of it, and Ctrl-C ends the rest.

    The rest is Python's own shutdown, which may wait for threads and for services that do not answer.
    """
    for number in heard():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(code))


def end_here(code: int) -> NoReturn:
    """End this process after what is registered for its end, without Python's own shutdown.

    An exception in a backward leaves a queue to its thread; where Python's hooks hold saved tensors in it
    (`torch.autograd.graph.saved_tensors_hooks`), it is freed after Python is gone: a segmentation fault.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
