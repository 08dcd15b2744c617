"""Paths of a run, and writing files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ladd_dist.core.door import read_typed
from ladd_dist.core.errors import UserError
from ladd_dist.core.signals import require_not_stopped
from ladd_dist.core.targets import is_stream, temporary_prefix, write_stream
from ladd_dist.core.tensor_file import encoded
from ladd_dist.core.tensor_file import weights_sha256 as weights_sha256

if TYPE_CHECKING:
    import torch

_KEPT = 40
"""Characters of a file's name in that of its temporary file, which must not be too long where the name is not."""
CLOCKS_S = 60.0
"""Seconds by which the clocks of a file server and of this machine may differ."""


class RunDir:
    """The folder of one run: `runs/<name>-<signature>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.eval = path / "eval.json"
        self.eval_classes = path / "eval_classes.json"
        self.report = path / "report.html"
        self.timings = path / "timings.json"
        self.samples = path / "samples"
        self.dumps = path / "dumps"
        self.checkpoints = path / "checkpoints"
        self.student = path / "student.safetensors"
        self.init = path / "init.safetensors"

    def create(self) -> None:
        """Make the folders.

        Raises:
            UserError, OSError: nothing can be made there (the caller turns it into a message).
        """
        for folder in (self.path, self.samples, self.dumps, self.checkpoints):
            make_folder(folder)
            remove_stale(folder)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        UserError: its file system takes no new folders, as /proc. OSError: no room, or no access.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # all that was missing has been made, so nothing can be
        raise _takes_nothing(folder) from error


def _takes_nothing(path: Path) -> UserError:
    return UserError(
        f"no access to {path}: its file system takes no new files; choose writable folders with --out and --cache"
    )


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and rename the result to `path`: readers see the whole file or none.

    A failure, or a stop that something swallowed (`require_not_stopped`), leaves neither the temporary file nor a
    changed target; what a killed process of this machine left on its way to the same target is removed. A link is
    replaced by the file: a folder that came from somebody else must not lead elsewhere
    (`ladd_dist.core.targets.output_file` follows a user's own). A pipe or device cannot be replaced by a file, so it is
    written to directly.

    Raises:
        UserError: the target is a folder, a socket or a disk, or nothing can be made there. OSError: no room or access.
    """
    if is_stream(path):
        return write_stream(path, write)
    if path.exists() and not path.is_symlink() and not path.is_file():
        raise UserError(f"{path} is no regular file, so no file can take its place; move it away")
    make_folder(path.parent)
    remove_stale(path.parent, path.name)
    temporary = path.with_name(f"{temporary_prefix()}{os.getpid()}-{path.name[-_KEPT:]}")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        require_not_stopped()
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError) and error.filename == str(temporary):
            raise _takes_nothing(path) from error
        raise


def remove_stale(folder: Path, target: str = "") -> None:
    """Remove temporary files and folders that killed processes of this machine left: all, or those of one target."""
    name = f"-{glob.escape(target[-_KEPT:])}" if target else ""
    for path in folder.glob(f"{glob.escape(temporary_prefix())}*{name}"):
        pid = path.name.removeprefix(temporary_prefix()).partition("-")[0]
        with contextlib.suppress(FileNotFoundError):  # its writer has just renamed it
            if pid.isdigit() and not _is_there(int(pid), since=path.stat().st_mtime):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_there(pid: int, since: float) -> bool:
    """Whether the process that had this number at a time (seconds since 1970) is still running.

    A process that started later has been given the number anew.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return bool(process.create_time() <= since + CLOCKS_S and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of somebody else
        return True


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock for making `folder`; wait while another process holds it (which has made it by then).

    The operating system releases the lock when its holder ends, however that ends.

    Raises:
        UserError: no folder can be made there. OSError: no room, or no access.
    """
    make_folder(folder.parent)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _require_lock(Path(lock.lock_file), folder)
        print(f"waiting for another process that works on {folder}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _require_lock(lock: Path, folder: Path) -> None:
    """Refuse a folder whose lock can never be had: filelock tries for ever to make a file where none can be made."""
    try:
        lock.touch()
    except FileNotFoundError as error:
        raise _takes_nothing(folder) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_bytes(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON of any form. Where the form is known, `ladd_dist.core.door.read_typed` checks it too.

    Raises:
        UserError: the file is missing, no regular file, too large or damaged; the message names it.
    """
    return read_typed(path, Any)


def commit_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `folder`, then rename it: the folder becomes visible only when whole."""
    remove_stale(folder.parent)
    temporary = folder.with_name(f"{temporary_prefix()}{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    try:
        fill(temporary)
        publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish(temporary: Path, folder: Path) -> None:
    """Flush a filled folder to disk and rename it to `folder`, replacing an older one.

    Raises:
        UserError: something that is no folder is there; it stays.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is {'a link' if folder.is_symlink() else 'no folder'}; move it away")
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    require_not_stopped()
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Save tensors as safetensors, atomically, with a sha256 that `ladd_dist.core.tensor_file` verifies.

    Raises:
        OSError: the disk is full or not writable (`safetensors.torch.save_file` raises an error without an errno).
    """
    parts = encoded(tensors, metadata)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            stream.writelines(parts)

    write_atomic(path, write)
