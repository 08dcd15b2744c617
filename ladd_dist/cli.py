"""What the commands share: exit codes, and errors as one clear message in place of a traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from rich.console import Console

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def run_guarded(command: Callable[[], int]) -> int:
    """Run a command; user errors become one message on stderr and an exit code.

    2: wrong command line or recipe; 1: a failure; 130: interrupted after a clean save. Anything unexpected keeps its
    traceback, because then the fault is ours.
    """
    from ladd_dist.core.plugin import PluginError
    from ladd_dist.core.serialize import RecipeError
    from ladd_dist.engine.loop import Interrupted

    try:
        return command()
    except (RecipeError, PluginError) as error:
        return _say(str(error), USAGE)
    except Interrupted as error:
        return _say(f"{error}; everything finished is saved: run the same command again to go on", INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to go on from the last checkpoint", INTERRUPTED)
    except OSError as error:
        return _say(_explain(error), FAILURE)
    except (ValueError, KeyError) as error:
        return _say(str(error.args[0]) if error.args else repr(error), FAILURE)


def _explain(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"no room to write{where}: {error.strerror}. Nothing half-written was kept; free some space, or choose "
            "another place with --out and --cache, and run the same command again"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return f"cannot write{where}: {error.strerror}; choose a writable folder with --out and --cache"
    return f"{error}"


def _say(message: str, code: int) -> int:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]{'stopped' if code == INTERRUPTED else 'error'}:[/]", end=" ")
    console.print(message, markup=False)
    sys.stderr.flush()
    return code
