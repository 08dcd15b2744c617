"""What the tests of launching run as ranks: joins, talks a little, and then ends as it is told to.

python ranks_script.py FOLDER MODE            one rank (RANK ... in the environment)
python ranks_script.py FOLDER MODE --spawn    two of them, watched, as `launch --nproc 2` does it
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ladd_dist.cli.errors import leave, run_guarded, say
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.signals import arm
from ladd_dist.engine.loop import StopFlag
from ladd_dist.parallel.ranks import Ranks, join
from ladd_dist.parallel.spawn import follow_parent, outcome, spawn

TIMEOUT_S = 3.0


def talk(ranks: Ranks, folder: Path) -> None:
    """Everything ranks can say to each other; each writes what it heard."""
    order: list[str] = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        time.sleep(0.3)
        (folder / "held").touch()
        order.append("taken")
        yield
        order.append("given back")

    with ranks.first_holds(lock):
        order.append(f"inside, held {(folder / 'held').exists()}")
    heard = {
        "size": ranks.size,
        "first": ranks.is_first,
        "agree": ranks.from_rank0(lambda: f"from {ranks.rank}"),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "highest": ranks.max(ranks.rank * 5),
        "mean": ranks.mean(torch.tensor([ranks.rank, 4.0])).tolist(),
        "order": order,
    }
    (folder / f"heard{ranks.rank}.json").write_text(json.dumps(heard), encoding="utf-8")


def misbehave(mode: str, rank: int) -> None:
    """What one rank does in the middle of a training."""
    if mode == "raise" and rank == 1:
        raise ZeroDivisionError("broken on purpose")
    if mode == "raise0" and rank == 0:
        raise ZeroDivisionError("broken on purpose")
    if mode == "user" and rank == 0:
        raise RecipeError("this is a message for users")
    if mode == "disk" and rank == 1:
        raise OSError(28, "No space left on device", "/full/disk")
    if rank == 1 and mode in ("SIGKILL", "SIGSEGV", "SIGSTOP"):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.Signals[mode])


def loop(mode: str, ranks: Ranks, folder: Path) -> None:
    """Collectives for ever, with a clean stop like the training loop's; rank 0 is slow to save."""
    with StopFlag().listen() as stop:
        for step in range(10**9):
            ranks.mean(torch.ones(3))
            ranks.beat(f"train step {step}")
            if step == 30:
                time.sleep(0.3)  # so that the next sign is not held back
            if step == 31:
                (folder / f"pid{ranks.rank}").write_text(str(os.getpid()), encoding="utf-8")
                misbehave(mode, ranks.rank)
            if step > 31:
                time.sleep(0.01)
            if stop.agree(ranks):
                if ranks.is_first:
                    time.sleep(1.0)
                    (folder / "saved").write_text(str(step), encoding="utf-8")
                stop.check()


def rank_main(folder: Path, mode: str) -> int:
    follow_parent()
    if mode == "alone" and os.environ["RANK"] == "0":  # the other waits for it to come
        os.kill(os.getpid(), signal.SIGINT)
    with join("gloo", TIMEOUT_S) as ranks:
        if mode == "talk":
            talk(ranks, folder)
        elif mode == "early":
            (folder / f"pid{ranks.rank}").write_text(str(os.getpid()), encoding="utf-8")
            ranks.barrier()
        elif mode != "over":
            loop(mode, ranks, folder)
    if mode == "over":  # as Python is while it shuts down: the work is done, nobody listens
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        (folder / f"pid{ranks.rank}").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(60)
    if mode == "early" and ranks.is_first:
        other = int((folder / "pid1").read_text(encoding="utf-8"))
        deadline = time.monotonic() + 60
        while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:  # the parent takes note of its end
            time.sleep(0.05)
        (folder / ("together" if Path(f"/proc/{other}").exists() else "alone")).touch()
    return 0


def main() -> int:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    if "--spawn" in sys.argv:
        command = [sys.executable, __file__, str(folder), mode]
        code, message = outcome(*spawn(command, 2, folder / "logs", 1), folder / "logs")
        return say(message, code) if message else code
    arm()
    return leave(run_guarded(lambda: rank_main(folder, mode)))


if __name__ == "__main__":
    sys.exit(main())
