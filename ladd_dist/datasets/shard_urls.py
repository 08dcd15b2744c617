"""Shards by name: files, globs, folders, `pipe:` commands and web addresses, expanded and opened as streams of bytes.

`webdataset` expands the names. It does not open them: its reader of addresses gives them to a shell, and a pipe that
fails is noticed where its stream was read to the end alone.
"""

from __future__ import annotations

import contextlib
import glob
import http.client
import itertools
import os
import re
import selectors
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ladd_dist.core.door import require_regular
from ladd_dist.core.errors import UserError, unreadable
from ladd_dist.core.printable import one_line
from ladd_dist.core.tar_stream import Stream

MOST_SHARDS = 1_000_000
"""Largest number of shards that a set may have."""
PATIENCE_S = 60.0
"""Seconds without a byte after which a server or a command counts as gone."""
ENDINGS = ("*.tar", "*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz")
"""Names of the shards in a folder."""
PIPE = "pipe:"
_WEB = re.compile(r"https?://", re.IGNORECASE)
_OTHER = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_GROUP = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"^(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?$")
_LETTERS = re.compile(r"^([A-Za-z])\.\.([A-Za-z])(?:\.\.-?(\d+))?$")
_MOST_DIGITS = 18
_MOST_DEPTH = 50
_SHOWN = 200


def is_remote(url: str) -> bool:
    """Whether a name is no file: a command or a web address."""
    return url.startswith(PIPE) or _WEB.match(url) is not None


def expand(urls: str, field: str) -> list[str]:
    """The shards that a text names, in its order; files that a glob matches or a folder holds by their names.

    Braces and `::` between names mean what WebDataset means by them.

    Raises:
        UserError: there is none, a file is missing, braces do not close, or there are too many.
    """
    from webdataset.shardlists import expand_urls

    if not urls:
        raise UserError(f"{field} is empty; name shards, like 'pictures/{{000..099}}.tar', a folder or a web address")
    depths = itertools.accumulate((letter == "{") - (letter == "}") for letter in urls)
    if max(depths, default=0) > _MOST_DEPTH:
        raise UserError(f"{field}: {shown(urls)}: braces are nested too deeply; at most {_MOST_DEPTH} are read")
    num = sum(_most_names(url) for url in urls.split("::"))
    if num > MOST_SHARDS:
        raise UserError(f"{field}: {shown(urls)} are {num:,} shards or more; at most {MOST_SHARDS:,} are read")
    try:
        names = expand_urls(urls)
    except ValueError as error:
        raise UserError(
            f"{field}: {shown(urls)}: a brace is not closed, or not opened; braces come in pairs"
        ) from error
    except (AssertionError, LookupError) as error:  # ${NAME} is the variable WDS_NAME to WebDataset
        raise UserError(f"{field}: {shown(urls)}: {error}; write $NAME for a variable of a command's shell") from error
    found = [shard for url in names for shard in _shards_of(url, field)]
    if not found:
        raise UserError(f"{field}: nothing matches {shown(urls)}")
    return found


def _most_names(url: str) -> int:
    """The number of names that braces stand for, or more; above `MOST_SHARDS` it may be any number above."""
    num, url = 1, _ESCAPED.sub("", url)
    while inner := _GROUP.findall(url):
        for group in inner:
            num *= _num_choices(group)
            if num > MOST_SHARDS:
                return num
        url = _GROUP.sub("", url)
    return num


def _num_choices(group: str) -> int:
    """The number of texts that the inside of a pair of braces stands for."""
    found = _NUMBERS.match(group) or _LETTERS.match(group)
    if found is None:
        return 1 + group.count(",")
    if max(len(part or "") for part in found.groups()) > _MOST_DIGITS:
        return MOST_SHARDS + 1
    first, last = (int(part) if found.re is _NUMBERS else ord(part) for part in found.groups()[:2])
    return 1 + abs(last - first) // max(1, int(found[3] or 1))


def _shards_of(url: str, field: str) -> list[str]:
    if is_remote(url):
        return [url]
    if (other := _OTHER.match(url)) and other[1].lower() != "file":
        raise UserError(f"{field}: {shown(url)}: {other[1]} is not read; give a command that does: pipe:COMMAND")
    path = os.path.expanduser(re.sub(r"^file:(//)?", "", url))  # noqa: PTH111  # Path would drop what it holds for noise
    if os.path.isdir(path):  # noqa: PTH112  # not Path's, which raises where no such name can exist
        return sorted(name for ending in ENDINGS for name in glob.glob(str(Path(glob.escape(path)) / ending)))
    if glob.has_magic(path) and not os.path.lexists(path):
        return sorted(glob.glob(path))
    try:
        require_regular(Path(path))
    except UserError as error:
        raise UserError(f"{field}: shard {error}") from error
    return [path]


def shown(url: str) -> str:
    """A name for messages, without what is long in it."""
    return repr(one_line(url if len(url) <= _SHOWN else f"{url[:_SHOWN]}..."))


@contextlib.contextmanager
def opened(url: str) -> Iterator[Stream]:
    """The bytes of a shard. A command runs in the system's shell, and is ended if its bytes are not wanted any more.

    Raises:
        UserError: the file is missing, the server does not give it, or the command fails or writes nothing for
            `PATIENCE_S`; also at the end of the block.
        MachineError: the file cannot be read now.
    """
    if url.startswith(PIPE):
        with _pipe(url) as output:
            yield output
    elif _WEB.match(url):
        with _web(url) as answer:
            yield answer
    else:
        require_regular(Path(url))
        try:
            with Path(url).open("rb") as file:
                yield file
        except OSError as error:  # also within the block, where the file is read
            raise unreadable(Path(url), error) from error


class _SilenceError(UserError):
    """A command that neither writes nor ends."""


class _Output:
    """What a command writes; its errors name the command."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], ready: selectors.BaseSelector) -> None:
        assert process.stdout is not None
        self.url, self.process, self.stream, self.ready = url, process, process.stdout, ready
        ready.register(self.stream, selectors.EVENT_READ)

    def read(self, size: int, /) -> bytes:
        """The next bytes, at least one unless the command has closed its output.

        Raises:
            UserError: nothing came for `PATIENCE_S`.
        """
        if not self.ready.select(PATIENCE_S):
            raise self._silence("wrote nothing")
        return self.stream.read(size)

    def code(self) -> int:
        """The exit code of a command that has closed its output.

        Raises:
            UserError: it does not end within `PATIENCE_S`.
        """
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise self._silence("closed its output and did not end") from error

    def _silence(self, what: str) -> UserError:
        return _SilenceError(
            one_line(
                f"shard {shown(self.url)} cannot be read: the command {what} for {PATIENCE_S:g} s, so it was ended; "
                "try it by itself, or let it write to files and name these"
            )
        )


@contextlib.contextmanager
def _pipe(url: str) -> Iterator[Stream]:
    with tempfile.TemporaryFile() as said, selectors.DefaultSelector() as ready:
        command = url.removeprefix(PIPE)
        process = subprocess.Popen(
            command, bufsize=0, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        output = _Output(url, process, ready)
        try:
            yield output
        except _SilenceError:
            raise
        except UserError as error:  # what it has written is no whole shard; if it failed, this is why
            if output.read(1):  # it was still writing
                raise
            raise _failed(url, output.code(), said) or error from error
        else:
            if (failed := _failed(url, output.code(), said)) is not None:
                raise failed
        finally:
            output.stream.close()
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _failed(url: str, code: int, said: IO[bytes]) -> UserError | None:
    if code == 0:
        return None
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - 2 * _SHOWN))
    last = said.read().decode(errors="replace").strip().splitlines()[-1:]
    why = f": {last[0]}" if last else ""
    ended = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
    return UserError(one_line(f"shard {shown(url)} cannot be read: the command {ended}{why}"))


class _Answer:
    """What a server sends; its errors name the address."""

    def __init__(self, url: str, answer: http.client.HTTPResponse) -> None:
        self.url, self.answer, self.count = url, answer, 0
        length = answer.headers.get("Content-Length", "")
        self.length = int(length) if length.isdecimal() and len(length) < 19 else None

    def read(self, size: int, /) -> bytes:
        """The next bytes.

        Raises:
            UserError: the connection broke, or nothing came for `PATIENCE_S`.
        """
        try:
            found = self.answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise _web_error(self.url, error) from error
        self.count += len(found)
        if not found and self.length is not None and self.count < self.length:
            raise _web_error(self.url, f"the connection ended after {self.count:,} of {self.length:,} bytes")
        return found


@contextlib.contextmanager
def _web(url: str) -> Iterator[Stream]:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "ladd_dist", "Accept-Encoding": "identity"})
        answer = urllib.request.urlopen(request, timeout=PATIENCE_S)  # `_WEB` has seen its scheme
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _web_error(url, error) from error
    with answer:
        yield _Answer(url, answer)


def _web_error(url: str, error: object) -> UserError:
    if isinstance(error, urllib.error.HTTPError):
        why = f"the server says {error.code} {error.reason}"
    else:
        why = str(getattr(error, "reason", None) or error or type(error).__name__)
    return UserError(one_line(f"shard {shown(url)} cannot be fetched ({why}); look at the address and the server"))
