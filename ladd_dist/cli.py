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

from rich.console import Console

USAGE, FAILURE, INTERRUPTED = 2, 1, 130

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; user errors become one message on stderr and an exit code.

    2: wrong command line or recipe; 1: a failure; 130: interrupted after a clean save. Anything unexpected keeps its
    traceback, because then the fault is ours. With LADD_TRACEBACK=1 in the environment every error shows one.
    """
    from ladd_dist.core.plugin import PluginError
    from ladd_dist.core.serialize import RecipeError

    try:
        with _terminate_like_interrupt():
            return command()
    except (RecipeError, PluginError) as error:
        return _say(str(error), USAGE)
    except KeyboardInterrupt as error:
        why = str(error) or "interrupted"
        return _say(f"{why}; what is finished is saved: run the same command again to go on", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left, as in `... | head`: nobody to tell, and the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _say(_explain(error), FAILURE)
    except (ValueError, KeyError) as error:
        text = str(error.args[0]) if error.args else ""
        if " " not in text:  # no sentence, so not ours: a lookup that failed
            raise
        return _say(text, FAILURE)


def plugin_modules(given: tuple[str, ...]) -> tuple[str, ...]:
    """The modules to import for their plug-ins: the package `plugins` and those given by --plugins."""
    return tuple(dict.fromkeys(("plugins", *given)))


@contextlib.contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM takes the same way out as Ctrl-C: open files are cleaned up. Only the main thread may set this."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _say(message: str, code: int) -> int:
    if os.environ.get("LADD_TRACEBACK"):
        traceback.print_exc()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{'stopped' if code == INTERRUPTED else 'error'}:[/]", end=" ")
    console.print(message, markup=False)
    sys.stderr.flush()
    return code
