"""Runs `ladd doctor` on copies of the package, each in a process forked from one that has imported the libraries.

`python mutant.py JOBS` with JOBS a JSON list of {"folder", "argv", "out"}; writes stdout of each to its file `out`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

AT_ONCE = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def forget() -> None:
    """The package that brought the libraries is not the one to run."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("ladd_dist", "plugins", "recipes")]:
        del sys.modules[name]


def run(job: dict[str, object]) -> None:
    """The child: the copy's own doctor."""
    os.chdir(str(job["folder"]))
    sys.path.insert(0, str(job["folder"]))
    out = Path(str(job["out"])).open("w", encoding="utf-8")  # noqa: SIM115
    os.dup2(out.fileno(), 1)
    code = 1
    try:
        doctor = importlib.import_module("ladd_dist.doctor")
        assert doctor.__file__.startswith(str(job["folder"])), doctor.__file__
        code = doctor.main(job["argv"])
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Every job, a few at a time."""
    for name in (
        "doctor",
        "launch",
        "preflight.resume_checks",
        "preflight.loss_checks",
        "preflight.service_checks",
        "preflight.storage_checks",
    ):
        importlib.import_module(f"ladd_dist.{name}")
    for name in ("plugins", "torch._dynamo", "webdataset"):  # the last two at their first use otherwise
        importlib.import_module(name)
    forget()
    running = 0
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if running == AT_ONCE:
            os.wait()
            running -= 1
        if os.fork() == 0:
            run(job)
        running += 1
    for _ in range(running):
        os.wait()


if __name__ == "__main__":
    main()
