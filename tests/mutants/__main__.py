"""Put each mutant's bug into a copy of the package, and run the test that must see it: `make mutants`.

    make mutants ARGS='engine stages/heads_rate_stays --workers 4'

The named tests have to pass on the package as it is. Then a mutant is *killed* if its test fails. The command fails
with a list of the mutants that survived, took too long, ended in another way than by a failed test (a plausible slip
does not stop the tests from being collected), or whose old text is not there exactly once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from mutating import PACKAGES, REPO, Mutation, mutate, mutated

from mutants import MUTANTS

OWN = (*PACKAGES, "mutants", "mutating")
"""Modules of the package as it is, which a copy has to import anew."""
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ENDS = {0: "survived", 1: "killed", None: "timeout"}


@dataclass(frozen=True)
class Job:
    """Tests on one copy."""

    name: str
    tests: tuple[str, ...]
    mutation: Mutation | None = None
    """None: the package as it is."""


@dataclass
class Running:
    """A job's process, and where its copy and output are."""

    job: Job
    process: BaseProcess
    folder: Path
    until: float


def load_libraries() -> None:
    """Import what the package imports, once for all copies, and forget the package itself."""
    for name in (
        "ladd_dist.launch",
        "ladd_dist.stages.distill",
        "ladd_dist.stages.evaluate",
        "plugins",
        "recipes._base",
    ):
        importlib.import_module(name)
    for name in ("pytest", "scipy.special", "scipy.stats", "torch._dynamo", "torchvision", "webdataset"):
        importlib.import_module(name)
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]


def run_tests(folder: Path, tests: tuple[str, ...]) -> None:
    """The child process: the copy's tests with the copy's package; ends with pytest's code."""
    os.setsid()
    out = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    forget()
    here = {"", str(REPO), str(REPO / "tests")}
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in here)]
    os.environ["PYTHONPATH"] = str(folder)
    package = importlib.import_module("ladd_dist")
    assert str(package.__file__).startswith(str(folder)), package.__file__
    import pytest

    code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--rootdir", ".", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def start(job: Job, place: Path, timeout: float) -> Running:
    folder = place / job.name.replace("/", "-").replace(".", "-")
    mutate(job.mutation or Mutation("", ()), folder, with_tests=True)
    process = get_context("fork").Process(target=run_tests, args=(folder, job.tests))
    process.start()
    return Running(job, process, folder, time.monotonic() + timeout * len(job.tests))


def run(jobs: list[Job], workers: int, timeout: float) -> Iterator[tuple[Job, int | None, str]]:
    """Each job with its exit code (None: it took too long) and the end of its output, as they end."""
    waiting, running = list(reversed(jobs)), list[Running]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(start(waiting.pop(), Path(place), timeout))
            rest = min(item.until for item in running) - time.monotonic()
            connection.wait([item.process.sentinel for item in running], max(rest, 0.0))
            for item in list(running):
                code = item.process.exitcode
                if code is None and time.monotonic() < item.until:
                    continue
                running.remove(item)
                if code is None:
                    os.killpg(item.process.pid or 0, 9)
                    item.process.join()
                text = (item.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
                shutil.rmtree(item.folder)
                yield item.job, code, "\n".join(text.splitlines()[-12:])


def chosen(words: list[str], mutants: Mapping[str, Mutation]) -> dict[str, Mutation]:
    """The mutants of the named groups and names; all of them for no words."""
    unknown = [word for word in words if not any(word in (name, name.partition("/")[0]) for name in mutants)]
    if unknown:
        raise SystemExit(f"no group and no mutant is called {unknown[0]!r}: {', '.join(mutants)}")
    return {name: one for name, one in mutants.items() if not words or {name, name.partition("/")[0]} & set(words)}


def faults(mutation: Mutation) -> str:
    """The reason why a mutation cannot be put in; empty if it can."""
    try:
        mutated(mutation.edits)
    except ValueError as error:
        return str(error)
    return ""


def main(argv: list[str] | None = None, mutants: Mapping[str, Mutation] = MUTANTS) -> int:
    parser = argparse.ArgumentParser("make mutants", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", help="groups, or mutants; all if there are none")
    parser.add_argument("--workers", type=int, default=min(4, CPUS), help="processes at once")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for a test")
    options = parser.parse_args(argv)
    todo = chosen(options.names, mutants)
    bad = {name: ("does not apply", reason) for name, one in todo.items() if (reason := faults(one))}
    whole: dict[str, dict[str, None]] = {}
    for mutation in todo.values():
        whole.setdefault(mutation.test.partition("::")[0], {})[mutation.test] = None
    jobs = [Job(f"unchanged {Path(file).stem}", tuple(tests)) for file, tests in whole.items()]
    jobs += [Job(name, (one.test,), one) for name, one in todo.items() if name not in bad]
    load_libraries()
    killed, started = 0, time.monotonic()
    for done, (job, code, text) in enumerate(run(jobs, options.workers, options.timeout), start=1):
        found = ENDS.get(code, f"ended with code {code}")
        wanted = "killed" if job.mutation else "survived"
        killed += job.mutation is not None and found == wanted
        if found != wanted:
            bad[job.name] = (found if job.mutation else f"tests that must pass: {found}", text)
        progress = f"{done}/{len(jobs)} {killed} killed, {len(bad)} to look at, {time.monotonic() - started:.0f} s"
        print(f"\r{progress}  {job.name:60.60}", end="" if sys.stdout.isatty() else "\n", flush=True)
    print(f"\n{len(todo)} mutants: {killed} killed")
    for name, (found, text) in bad.items():
        about = f" ({todo[name].bug}; {todo[name].test})" if name in todo else ""
        print(f"{name}: {found}{about}" + ("" if found == "survived" else f"\n{text}"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
