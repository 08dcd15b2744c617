"""Places that a user names to write to: looked at before the work begins, so that hours do not end in a refusal."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ladd_dist.core.errors import RecipeError, UserError

_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|(stdin|stdout|stderr))|/proc/self/fd/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


def output_file(path: Path, flag: str = "--out") -> Path:
    """Where to write a file that the user named: the file itself, behind links, which stay links.

    Devices and pipes are written to as they are (`is_stream`).

    Raises:
        RecipeError: it cannot become a file: a folder, a socket, a disk, or something below a file.
        UserError: nothing can be made there.
    """
    if _DESCRIPTOR.fullmatch(str(path)):
        return path
    real = _real(path, flag)
    if real.is_dir():
        raise RecipeError(f"{flag} {path}: is a folder; name a file")
    if path.exists() and not (path.is_file() or is_stream(real)):
        raise RecipeError(f"{flag} {path}: is neither a file, nor a pipe or a device that can be written to")
    if not is_stream(real):
        _require_writable(nearest_there(real.parent), path, flag)
    return real if path.is_symlink() else path


def output_picture(path: Path, flag: str = "--out") -> Path:
    """Where to write a PNG that the user named: as `output_file`; its name says so, that of a pipe or device need not.

    Viewers and browsers know a picture by its ending.

    Raises:
        RecipeError: it cannot become a file, or its name has another ending or none.
    """
    real = output_file(path, flag)
    if not is_stream(real):
        require_ending(path, ".png", flag)
    return real


def require_ending(path: Path, ending: str, flag: str = "--out") -> None:
    """Refuse a file's name with another ending than its format's; capitals count as small letters.

    Raises:
        RecipeError: names the ending.
    """
    if path.suffix.lower() != ending:
        raise RecipeError(f"{flag} {path}: the file's name must end in {ending}, like {path.stem or 'mine'}{ending}")


def output_folder(path: Path, flag: str = "--out", *, whole: bool = False) -> Path:
    """Where to write a folder that the user named, behind links.

    Args:
        whole: it is made beside its place and then put there (`rundir.commit_folder`), in place of an empty one.

    Raises:
        RecipeError: something that is no folder is there.
        UserError: nothing can be made there.
    """
    real = _real(path, flag)
    if path.exists() and not path.is_dir():
        raise RecipeError(f"{flag} {path}: is there already, and is no folder")
    if whole and os.path.ismount(real):
        raise UserError(f"{flag} {path}: a file system is mounted there, which cannot be replaced; name a folder in it")
    _require_writable(nearest_there(real.absolute().parent if whole else real), path, flag)
    return real if path.is_symlink() else path


def require_place(path: Path, flag: str, *, may_be_full: bool = False) -> None:
    """Refuse a folder in which nothing can be made, or that cannot be made, before the work begins.

    Args:
        may_be_full: let one pass that is there: a cache that holds everything may be read-only.

    Raises:
        UserError: nothing can be made there. OSError: the disk is full.
    """
    if not (may_be_full and os.path.lexists(path)):
        _require_writable(nearest_there(path.absolute()), path, flag)


def temporary_prefix() -> str:
    """How the names of temporary files of this machine begin (`rundir.remove_stale`); the process's number follows."""
    return f".tmp-{platform.node()}-"


def nearest_there(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _require_writable(folder: Path, path: Path, flag: str) -> None:
    """Make a folder in `folder` for a moment: permissions say little on /proc, to root, or of a read-only disk."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"{temporary_prefix()}{os.getpid()}-", dir=folder):
            return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # has a message of its own
            raise
        why = error.strerror
        if error.errno == errno.ENOENT:
            why = "it is a link to nothing" if folder.is_symlink() else "its file system takes no new files"
        raise UserError(
            f"no access to {flag} {path}: nothing can be made in {folder} ({why}); choose another place"
        ) from error


def require_apart(**outputs: Path | None) -> None:
    """Refuse two outputs in one file.

    Raises:
        RecipeError: names the two flags.
    """
    given = [(flag, path) for flag, path in outputs.items() if path is not None]
    for place, (flag, path) in enumerate(given):
        for other, first in given[:place]:
            if os.path.realpath(path) == os.path.realpath(first) and not is_stream(path):
                raise RecipeError(f"--{other} and --{flag} are one file, {path}: one would replace the other")


def _real(path: Path, flag: str) -> Path:
    """The path behind all links, below an existing folder."""
    try:
        real = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            path.stat()
        above = next(parent for parent in real.parents if os.path.lexists(parent))
    except (OSError, ValueError) as error:  # below a file, too long, a circle of links, a NUL
        why = getattr(error, "strerror", None) or error
        raise RecipeError(f"{flag} {str(path)!r}: cannot be written ({why}); choose another") from error
    if not above.is_dir():
        raise RecipeError(f"{flag} {path}: lies below {above}, which is no folder; choose another")
    return real


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe, a character device or an open file (`/dev/stdout`), which hold no whole file.

    A link to one is none: `output_file` follows those that a user names, and no others are followed.
    """
    if _DESCRIPTOR.fullmatch(str(path)):
        return True
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def write_stream(path: Path, write: Callable[[Path], object]) -> None:
    """Write what `write(temporary path)` makes to a pipe, device or open file.

    Raises:
        UserError: nobody reads from the pipe: it would be waited for without end. OSError: the device refuses.
    """
    with tempfile.TemporaryDirectory(prefix="ladd-") as folder:
        made = Path(folder) / "content"
        write(made)
        with made.open("rb") as content, os.fdopen(_open(path), "wb") as stream:
            shutil.copyfileobj(content, stream)


def _open(path: Path) -> int:
    if match := _DESCRIPTOR.fullmatch(str(path)):
        sys.stdout.flush()  # what was printed before comes before
        return os.dup(_STANDARD[match[2]] if match[2] else int(match[1] or match[3]))
    try:
        number = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UserError(f"{path} is a pipe from which nobody reads; start its reader first") from error
        raise
    os.set_blocking(number, True)
    return number
