"""`UserError`, which a command shows as a single line, and a guard for reading files that may be damaged."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class UserError(ValueError):
    """Error that the user can fix; its text says what is wrong, where, and what would work.

    A command prints the text alone, without a traceback, and ends with exit code 1 (2 for a `RecipeError` or
    `PluginError`). Every other exception is a fault of the program and keeps its traceback.
    """


class MachineError(UserError):
    """A failure of the machine (its disk, network, memory or limits) that says nothing about the input.

    Nothing about the input may be kept that follows from it: the same command may meet it no more.
    """


_OF_THE_FILE = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)


def is_of_the_file(error: OSError) -> bool:
    """Whether an error tells of a file's name, links or permissions, which the next look finds the same.

    Every other one (EIO, ESTALE, EMFILE, ENFILE, EAGAIN, ENOMEM, ETIMEDOUT, ...) is the machine's.
    """
    return error.errno in _OF_THE_FILE


def unreadable(path: Path, error: OSError) -> MachineError:
    """The error about a file that cannot be read now, for a reason that may be gone the next time."""
    why = " ".join(str(error.strerror or error).split())
    return MachineError(
        f"{str(path)!r} cannot be read now ({why}), which says nothing about its content, so nothing is kept: look at "
        "the disk, the network and the limits of this machine, and run the same command again"
    )


class RecipeError(UserError):
    """Error in a recipe or a part of one; the message gives the field's path and what would have worked."""


class RangeError(RecipeError):
    """Error about a number outside the range that its field declares (`ladd_dist.core.ranges`)."""


class ConsentError(RecipeError):
    """Something that a file from outside names needs to be asked for on the command line; the text has the line."""


class ShardError(UserError):
    """A shard or its content is wrong; the message names the file and the remedy."""


class UnknownTapError(UserError, KeyError):
    """Error about a tap that the network does not have; its text lists those it has."""

    def __str__(self) -> str:  # KeyError's own would put the sentence in quotes
        return str(self.args[0])


class MissingFileError(FileNotFoundError, UserError):
    """A file that the user has to put somewhere; the text says which and where."""


@contextlib.contextmanager
def reading(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Turn the errors of a damaged or foreign file of tensors into a `UserError`: `PATH PROBLEM (why); REMEDY`.

    Out-of-memory errors and all other exceptions pass unchanged, because writing the file again would not help.

    Raises:
        UserError: the file is damaged, or does not fit the object it is read into.
    """
    try:
        yield
    except Exception as error:
        if not _is_damage(error):
            raise
        raise UserError(f"{path} {problem} ({' '.join(str(error).split())}); {remedy}") from error


def _is_damage(error: Exception) -> bool:
    import torch
    from safetensors import SafetensorError

    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):  # the CPU's is a RuntimeError
        return False
    return isinstance(error, SafetensorError | RuntimeError | KeyError | UserError)
