"""Several ranks on this machine, started and watched by one process that computes nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException, SubprocessContext

from ladd_dist.core.environment import CORES, PARENT, env_number
from ladd_dist.core.failure import ERROR_FILE, Failure, has_parent, read_failure
from ladd_dist.core.machine import usable_cores
from ladd_dist.core.rundir import make_folder
from ladd_dist.core.signals import NUMBERS, Stopped, heard, held_back, let_go_of_terminal
from ladd_dist.parallel.heartbeat import Heartbeats

POLL_S = 0.05
FAILED_S = 5.0
"""Seconds that the other ranks have after a failure to end by themselves: they wait for one that will not come."""
STOP_S = 300.0
"""Seconds that the ranks have after a signal to save, and the last one when the first has ended by one."""
STOP_CODES = (75, 130)
HOST = "127.0.0.1"
LOGS = "LADD_LOGS"
"""Environment variable that names the folder of the ranks' output."""
FOLLOW_S = 1.0
TRACE_LINES = 20
"""Number of lines shown from the end of a traceback or a log."""


@dataclass(frozen=True)
class Ended:
    """How a rank's process ended."""

    rank: int
    pid: int
    code: int
    time: float
    killed: bool
    """Whether we killed it, because it did not end after another had."""
    stop: signal.Signals | None = None
    """The signal that ended it, if we passed it on: the rank did not listen yet, or had finished and no longer did."""


class RankLogs(LogsSpecs):
    """Rank 0 keeps the terminal, the others write to `rank<k>.out` and `rank<k>.err` in one folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(log_dir=str(folder))
        self.folder = folder

    @property
    def root_log_dir(self) -> str:
        return str(self.folder)

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        make_folder(self.folder)
        errors = {rank: str(self.folder / f"rank{rank}.json") for rank in envs}
        for rank, path in errors.items():
            envs[rank][ERROR_FILE] = path
        return LogsDest(
            stdouts={rank: str(self.folder / f"rank{rank}.out") if rank else "" for rank in envs},
            stderrs={rank: str(self.folder / f"rank{rank}.err") if rank else "" for rank in envs},
            error_files=errors,
        )


class Workers(SubprocessContext):
    """The processes. PyTorch's own supervision leaves a hanging rank 30 s, and cuts short those that save."""

    def supervise(self, stop: StopSignal) -> list[Ended]:
        """Wait until all have ended: all by themselves, or after the first failure with our help."""
        ended: dict[int, Ended] = {}
        killed: set[int] = set()
        deadline, forwarded, lonely = float("inf"), 0, float("inf")
        while len(ended) < self.nprocs:
            for rank, handler in self.subprocess_handlers.items():
                code = handler.proc.poll()
                if rank not in ended and code is not None:
                    asked = next((number for number in stop.received if code == -number), None)
                    ended[rank] = Ended(rank, handler.proc.pid, code, time.time(), rank in killed, asked)
                    if code != 0:
                        stopped = asked or code in STOP_CODES
                        deadline = min(deadline, time.monotonic() + (STOP_S if stopped else FAILED_S))
                        lonely = min(lonely, time.monotonic() + FAILED_S) if stopped else lonely
            if not stop.received and time.monotonic() > lonely:  # one rank alone was told to stop, before they could
                stop.received.append(signal.SIGTERM)  # agree on it: the others may wait for it to come
            if len(stop.received) > forwarded:
                self.send(stop.received[forwarded])
                forwarded += 1
                deadline = min(deadline, time.monotonic() + STOP_S)
            if time.monotonic() > deadline:
                killed.update(self.running())
                self.send(signal.SIGKILL)
            time.sleep(POLL_S)
        return sorted(ended.values(), key=lambda end: end.time)

    def running(self) -> list[int]:
        """The ranks whose processes have not ended."""
        return [rank for rank, handler in self.subprocess_handlers.items() if handler.proc.poll() is None]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to those that run, with the processes that they started (each leads a session of its own)."""
        for rank in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.subprocess_handlers[rank].proc.pid, number)


class StopSignal:
    """The signals that came for the ranks."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []

    @contextlib.contextmanager
    def listen(self) -> Iterator[StopSignal]:
        """Keep them for `Workers.supervise`. A terminal that closes (SIGHUP) is a SIGTERM."""

        def handle(number: int, frame: FrameType | None) -> None:
            let_go_of_terminal()
            self.received.append(signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number))

        before = {number: signal.signal(number, handle) for number in heard()}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def spawn(
    command: list[str], nproc: int, logs: Path, threads: int
) -> tuple[list[Ended], dict[int, Failure], Heartbeats]:
    """Run `command` as the ranks 0 .. nproc - 1 of one group until all have ended; returns how, and what they said."""
    # Kept here, not by rank 0, so that it can be asked whatever happens to the ranks.
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    envs = {rank: _environment(rank, nproc, store.port, logs, threads) for rank in range(nproc)}
    workers = Workers("ladd", command[0], dict.fromkeys(range(nproc), tuple(command[1:])), envs, RankLogs(logs))
    handlers = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGQUIT)}
    try:
        try:
            with held_back():
                workers.start()
        except SignalException as error:  # it takes the signal handlers while it starts the ranks
            raise Stopped(error.sigval) from error
        for number, handler in handlers.items():
            signal.signal(number, handler)
        with StopSignal().listen() as stop:
            ended = workers.supervise(stop)
    finally:
        workers.send(signal.SIGKILL)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = {rank: failure for rank, path in workers.error_files.items() if (failure := read_failure(Path(path)))}
    return ended, said, Heartbeats(store, 0, nproc)


def _environment(rank: int, nproc: int, port: int, logs: Path, threads: int) -> dict[str, str]:
    own = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_WORLD_SIZE": str(nproc),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there already: rank 0 must not make one
        "TORCHELASTIC_RESTART_COUNT": "0",
        PARENT: str(os.getpid()),
        LOGS: str(logs),
    }
    cores = usable_cores()
    defaults = {
        "OMP_NUM_THREADS": str(threads or max(1, cores // nproc)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # else the end of one rank fills the terminal with the others' stack frames
    }
    if not threads and "OMP_NUM_THREADS" not in os.environ:
        own[CORES] = str(cores)
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's name need not lead to itself
    return own | {name: value for name, value in defaults.items() if name not in os.environ}


def follow_parent() -> None:
    """End this rank, as by SIGTERM, when the launch that started it has died.

    Looked at once a second: the system's own signal for it comes several times from a parent of several threads, and
    the second one would cut a save short.
    """
    if PARENT in os.environ:
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    while has_parent():
        time.sleep(FOLLOW_S)
    os.kill(os.getpid(), signal.SIGTERM)


def take_all_threads() -> None:
    """Compute on all cores that were divided among the ranks; for rank 0, when the others have left."""
    if CORES in os.environ:
        torch.set_num_threads(env_number(CORES))


def clear(folder: Path) -> None:
    """Remove all in a run's folder but the logs into which this launch's own ranks write."""
    own = Path(os.environ[LOGS]) if LOGS in os.environ else None
    for path in [*folder.glob("logs/*"), *folder.iterdir()]:
        if own is not None and path.absolute() in (own, own.parent):
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def outcome(ended: list[Ended], said: dict[int, Failure], heartbeats: Heartbeats, logs: Path) -> tuple[int, str]:
    """The exit code of a training and the message for the user: of the rank that ended first by its own fault."""
    failed = [end for end in ended if end.code != 0]
    if not failed:
        return 0, ""
    first = min(failed, key=lambda end: _order(end, said.get(end.rank)))
    failure = said.get(first.rank)
    if failure is not None and not first.killed:
        return failure.code, _said(failure, logs)
    if first.stop is not None and not first.killed:
        stopped = Stopped(first.stop)
        return stopped.code, stopped.text
    code = first.code if first.code > 0 else 1
    return code, _silent(first, heartbeats, logs)


def _order(end: Ended, failure: Failure | None) -> tuple[int, float]:
    if end.killed:
        return 3, end.time
    if failure is None:
        return (2 if end.stop else 0), end.time
    # A stop comes after a failure, which may be that of the save; those who only lost a connection come last.
    return {"failure": 0, "missing": 1, "stop": 2, "victim": 4}[failure.kind], failure.time


def _said(failure: Failure, logs: Path) -> str:
    if failure.kind == "stop":
        return failure.message
    log = f"; its log: {logs / f'rank{failure.rank}.err'}" if failure.rank else ""
    if failure.kind == "missing":
        return f"{failure.message}: {logs}"
    if failure.message:
        return f"rank {failure.rank}: {failure.message}{log}" if failure.rank else failure.message
    lines = failure.trace.rstrip().splitlines()
    if len(lines) > TRACE_LINES:
        lines = ["  ...", *lines[-TRACE_LINES:]]
    end = f"this is a fault of the program (or of a plug-in in the traceback), not of your command; logs: {logs}"
    return "\n".join([f"rank {failure.rank} failed{log}", *lines, end])


def _silent(end: Ended, heartbeats: Heartbeats, logs: Path) -> str:
    """The message about a rank that could not say anything."""
    how = f"ended with exit code {end.code}"
    if end.code < 0:
        how = f"was killed by {signal.Signals(-end.code).name}"
    if end.killed:
        how = "did not end when it was asked to, and was killed"
    last = heartbeats.last_of(end.rank)
    text = f"rank {end.rank} (process {end.pid}) {how}"
    text += f" {max(end.time - last.time, 0.0):.1f} s after its last sign of life, {last.what!r}" if last else ""
    if end.code == -signal.SIGKILL and not end.killed:
        text += ". Nobody but the system or a person sends that signal: memory may have run out"
    if end.rank == 0:
        return text
    errors = logs / f"rank{end.rank}.err"
    text += f"; its log: {errors}"
    with contextlib.suppress(OSError):
        text = "\n".join([text, *errors.read_text(encoding="utf-8", errors="replace").splitlines()[-TRACE_LINES:]])
    return text
