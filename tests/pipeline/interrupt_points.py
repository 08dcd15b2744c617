"""`python interrupt_points.py STAGE EVERY MOST WORDS...`: a launch that forks in its stage, at every EVERY-th call.

Each fork gets SIGINT there, as if it had come in the middle of that call: moments of microseconds, which no clock
finds. Within writing there is none, as a fork would remove the temporary file of the launch. A line of JSON for each
fork says where it was and how it ended; after MOST of them the launch ends too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from ladd_dist.core.signals import arm

PATIENCE_S = 60
WRITING = ("write_atomic", "commit_folder", "publish", "save")


class Points:
    """The profile function of the launch."""

    def __init__(self, every: int, most: int, output: str) -> None:
        self.every, self.most, self.output = every, most, output
        self.calls, self.next, self.forks = 0, every, 0

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        self.calls += 1
        if self.calls < self.next or is_writing(frame):
            return
        self.next = self.calls + self.every
        self.forks += 1
        if self.forks > self.most:
            os._exit(0)
        sys.stdout.flush()
        sys.stderr.flush()
        if (pid := os.fork()) == 0:
            self.interrupt()
            return
        code = wait_for(pid)
        text = Path(self.output).read_text(encoding="utf-8")
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name} {event}"
        print(json.dumps({"call": self.calls, "place": place, "code": code, "text": text}), flush=True)

    def interrupt(self) -> None:
        """In the fork: what it says goes to a file, and the signal comes as soon as the call goes on."""
        sys.setprofile(None)
        file = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.kill(os.getpid(), signal.SIGINT)


def is_writing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in WRITING:
            return True
        frame = frame.f_back
    return False


def wait_for(pid: int) -> int:
    """The exit code of a fork; that of a kill where it hangs."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def main() -> None:
    """The launch, with the profile function while the stage runs."""
    stage, every, most, *words = sys.argv[1:]
    arm()
    import ladd_dist.stages.run as stages
    from ladd_dist.launch import main as launch

    points = Points(int(every), int(most), tempfile.mkstemp()[1])
    run_stage = stages._run_stage

    def watched(name: str, *args: Any, **more: Any) -> None:
        if name == stage:
            sys.setprofile(points)
        run_stage(name, *args, **more)
        sys.setprofile(None)  # a signal after the work is done changes nothing

    stages._run_stage = watched
    code = launch(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a fork's shutdown would take longer than all the rest


if __name__ == "__main__":
    main()
