"""Runs a command in a fork of a process that has imported everything: a crash or a hang is that one case's.

A fork starts in a tenth of a second where a new process takes ten. It has limits of memory, time and file size, and no
network: whoever asks for a name or connects somewhere leaves a note, as code does that ran without consent.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

MOST_CPU_S = 30
MOST_STILL_S = 20
"""Seconds in which a fork uses no processor at all: it waits for something that does not come. A busy machine makes
others slow, so the clock alone says nothing."""
MOST_ADDRESS_SPACE = 4 * 2**30
"""More than what the process that is forked has: a command that takes it has a MemoryError instead of the machine."""
MOST_FILE = 2**29
NOT_WARM = ("ladd_dist.networks.diffusers", "ladd_dist.exporting")
"""Modules that import diffusers, which few commands need."""


@dataclass(frozen=True)
class Ended:
    """How a fork ended."""

    code: int
    """Negative: the signal that ended it."""
    out: bytes
    err: bytes
    wall_s: float
    cpu_s: float
    peak_bytes: int
    timed_out: bool


def warm() -> None:
    """Import what commands import, so that forks need not."""
    import torch

    torch.set_num_threads(1)
    import ladd_dist
    import recipes

    for package in (ladd_dist, recipes):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(NOT_WARM) and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in ("torch._dynamo", "webdataset", "matplotlib.pyplot", "rich.table", "rich.console", "plugins"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.startswith((f"{recipes.__name__}.", "recipes."))]:
        del sys.modules[name]  # a command reads its recipe itself


def address_space() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run(
    words: Sequence[str | bytes],
    *,
    cwd: Path,
    environment: Mapping[str, str | bytes],
    output: Path,
    notes: Path,
    allow_files: int = MOST_FILE,
) -> Ended:
    """Run `ladd WORDS` in a fork and wait for its end.

    Args:
        output: a folder for what it prints.
        notes: a folder in which the fork notes that it wanted the network.
    """
    out, err = output / "stdout", output / "stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(words, cwd, environment, out, err, notes, allow_files)
    timed_out, moved, last = False, started, -1
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if (ticks := _ticks(child)) != last:
            moved, last = time.monotonic(), ticks
        if time.monotonic() - moved > MOST_STILL_S:
            timed_out = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        code,
        out.read_bytes(),
        err.read_bytes(),
        time.monotonic() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        timed_out or code == -signal.SIGXCPU,
    )


def _ticks(child: int) -> int:
    """Hundredths of a second of a processor that a process has used."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _become(
    words: Sequence[str | bytes],
    cwd: Path,
    environment: Mapping[str, str | bytes],
    out: Path,
    err: Path,
    notes: Path,
    most_file: int,
) -> NoReturn:
    """Do in the fork what a user's process does; ends the process."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number, path in enumerate((Path(os.devnull), out, err)):
            file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            os.dup2(file, number)
            os.close(file)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="strict", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update({name: os.fsdecode(value) for name, value in environment.items()})
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _limit(most_file)
        _no_network(notes)
        sys.argv = ["ladd", *(os.fsdecode(word) for word in words)]
        sys.path[0] = ""
        code = _main()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                traceback.print_exc()
                code = 120  # as Python does
        os._exit(code)


def _main() -> int:
    from ladd_dist.__main__ import main

    try:
        main()
    except SystemExit as exit_:
        if exit_.code is None:
            return 0
        if isinstance(exit_.code, int):
            return exit_.code
        print(exit_.code, file=sys.stderr)
        return 1
    return 0


def _limit(most_file: int) -> None:
    most = address_space() + MOST_ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_file, most_file))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _no_network(notes: Path) -> None:
    connect = socket.socket.connect
    look_up = socket.getaddrinfo
    here = ("localhost", "127.0.0.1", "::1", socket.gethostname())

    def refuse(where: object) -> NoReturn:
        notes.mkdir(parents=True, exist_ok=True)
        with (notes / "network").open("a") as file:
            file.write(f"{where}\n")
        raise OSError(101, "Network is unreachable")

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in here:
            refuse(address)
        connect(self, address)

    def look_up_here(host: Any, *more: Any, **other: Any) -> Any:
        if host not in (*here, None):
            refuse(host)
        return look_up(host, *more, **other)

    socket.socket.connect = connect_here  # type: ignore[method-assign]
    socket.getaddrinfo = look_up_here  # type: ignore[assignment]
