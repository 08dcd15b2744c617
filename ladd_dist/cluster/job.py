"""What runs on the cluster: a callable that holds paths alone, saves when it is told to end, and is requeued."""

from __future__ import annotations

import _thread
import dataclasses
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ladd_dist.core.consent import NOTHING, Consent
from ladd_dist.core.environment import env_number
from ladd_dist.core.errors import ConsentError
from ladd_dist.core.signals import NUMBERS, RECEIVED, Process, Stopped, end_of, is_importing, raise_stop
from ladd_dist.core.slurm import PORTS, ranks_of_step

if TYPE_CHECKING:
    import torch

    from ladd_dist.workspace.opening import OpenedRun

HELD_BACK = (signal.SIGTERM, signal.SIGUSR2)
"""Blocked until there is somebody to hear them: their default is to end the process, and it starts for seconds."""
START = f"import os,signal,sys;signal.pthread_sigmask(0,{[int(n) for n in HELD_BACK]});os.execv(sys.executable,[sys.executable,*sys.argv[1:]])"  # noqa: E501
"""Python's `-c` for a start with them blocked (0 is SIG_BLOCK)."""
LINGER_S = 120.0
"""After a save for SIGTERM alone: SLURM ends the job within this time, or sends SIGUSR2 after all."""
LOST_S = 330.0
"""After another rank is gone: SLURM notices a lost node within 300 s by default and requeues the job itself."""
IMPORT_S = 0.05
"""Seconds after which a signal that met an import comes again."""
LAST_S = 5.0
"""For a process whose threads wait for ranks that are gone, from its failure to its end."""


@dataclass(frozen=True)
class StageJob:
    """Some stages of the run whose config.json lies at `config`. Everything else is read on the node.

    submitit pickles it: jobs that an older version submitted may have more attributes than these.
    """

    config: str
    stages: tuple[str, ...]
    cache: str
    paths: tuple[str, ...] = ()
    """Folders on the submitter's `sys.path` that plug-ins and recipes may come from."""
    timeout_s: float = 600.0
    consent: Consent = NOTHING
    """What the line that submitted the job allows: config.json lies where others may have written, and allows nothing.
    Its recipe file is run where the run's plug-ins are not known without it."""

    def __call__(self) -> dict[str, str]:
        """Run the stages; returns `{"run": folder}`.

        Raises:
            Exception: what the stages raise; submitit keeps the traceback.
        """
        RECEIVED.clear()
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's, which saves the job's pickle and tells SLURM
        for number in HELD_BACK:
            signal.signal(number, _stop)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
            self.run()
        except BaseException as error:
            _settle(end_of(error), requeue)
            raise
        finally:
            Process.stop = None
        for number in NUMBERS:  # the work is done: a signal must not make a failure of it, also while Python shuts down
            signal.signal(number, signal.SIG_IGN)
        return {"run": str(Path(self.config).parent)}

    def checkpoint(self) -> Any:
        """The same again: what is done lies in the run's folder."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def run(self) -> None:
        """The stages, as one process of one or several."""
        os.environ.update(ranks_of_job())
        sys.path.extend(path for path in self.paths if path not in sys.path)

        from ladd_dist.parallel.devices import local_device, pick_device
        from ladd_dist.stages.run import prepare_run, run_stages
        from ladd_dist.workspace.config import SweepMembership, facts_of

        num_here, local_rank = (env_number(name, default) for name, default in LOCAL)
        device = local_device(pick_device("auto"), num_here, local_rank)
        opened = self._open(device)

        def prepare() -> None:
            config = opened.config
            path, membership = Path(config.recipe_path), SweepMembership(config.sweep, config.axes)
            prepare_run(
                opened.run, facts_of(config), path=path, plugins=config.plugins, command=config.command,
                membership=membership,
            )  # fmt: skip

        own = any(name in ("distill", "evaluate", "report") for name in self.stages)
        run_stages(
            opened.run,
            self.stages,
            say_line=_say,
            timeout_s=self.timeout_s,
            prepare=prepare if own else None,
        )

    def _open(self, device: torch.device) -> OpenedRun:
        from ladd_dist.workspace.opening import open_run

        folder, cache = Path(self.config).parent, Path(self.cache)
        try:
            return open_run(folder, consent=dataclasses.replace(self.consent, recipe=None), cache=cache, device=device)
        except ConsentError:
            if self.consent.recipe is None:
                raise
            return open_run(folder, consent=self.consent, cache=cache, device=device)


LOCAL = (("LOCAL_WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def ranks_of_job() -> dict[str, str]:
    """Rank and size of this process, as torchrun would set them; nothing for a job of one process."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return ranks_of_step(os.environ)
    size, rank = os.environ["SUBMITIT_LOCAL_NTASKS"], os.environ["SUBMITIT_LOCAL_GLOBALID"]
    if size == "1":
        return {}
    port = str(PORTS[env_number("SUBMITIT_LOCAL_JOB_ID") * 7 % len(PORTS)])
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    more = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" and "GLOO_SOCKET_IFNAME" not in os.environ else {}
    return own | more | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    """Stop where nobody listens better. The same signal again changes nothing: a save must not be cut short."""
    if is_importing(frame):
        _thread.start_new_thread(_send_again, (number,))  # no lock, which the interrupted import might hold
    elif number not in RECEIVED:
        RECEIVED.add(number)
        raise_stop(number)


def _send_again(number: int) -> None:
    time.sleep(IMPORT_S)
    os.kill(os.getpid(), number)


def _settle(error: BaseException, requeue: Any) -> None:
    """End this process in the way that lets the job go on, or return for a failure to be reported.

    The first rank alone requeues, and the others wait until SLURM ends them: with --kill-on-bad-exit the first one to
    leave ends all.
    """
    for number in NUMBERS:
        signal.signal(number, lambda number, frame: RECEIVED.add(number))
    if os.environ.get("SUBMITIT_EXECUTOR") not in ("slurm", "local"):
        return
    several = "RANK" in os.environ
    told = isinstance(error, Stopped) and error.number == signal.SIGUSR2
    lost = several and type(error).__name__ == "LostRank" and not getattr(error, "waited", True)
    if isinstance(error, Stopped) or lost:
        print(f"{error}; waiting for the scheduler", file=sys.stderr, flush=True)
        told = told or _wait_for_usr2(LOST_S if lost else LINGER_S)
    if told or signal.SIGUSR2 in RECEIVED:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(LOST_S)
            os._exit(os.EX_TEMPFAIL)
        _requeue(requeue)
    if isinstance(error, Stopped):
        raise RuntimeError(f"{error}; what is finished is saved: submit again to go on") from error
    if several:
        threading.Timer(LAST_S, os._exit, [1]).start()


def _wait_for_usr2(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while signal.SIGUSR2 not in RECEIVED and time.monotonic() < deadline:
        time.sleep(0.1)
    return signal.SIGUSR2 in RECEIVED


def _requeue(handler: Any) -> None:
    """submitit's own way out, which ends in SystemExit; here and now, whatever the threads wait for."""
    try:
        handler(signal.SIGUSR2, None)
    except SystemExit as exit_:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_.code & 0xFF if isinstance(exit_.code, int) else 1)
