"""`python -m fuzz`: the corpus, in processes of its own, and a table of what became of it."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from fuzz import server
from fuzz.server import Outcome

HERE = Path(__file__).resolve().parents[1]
FORMAT = "{:28s} {:>6s} {:>8s} {:>6s} {:>6s}   {:s}"


class Server:
    """A process that runs cases (`server.main`)."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.server", str(root)],
            cwd=HERE,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def read(self) -> str:
        """The next reply.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of the corpus ended with {self.process.wait()}")
        return line.rstrip("\n")

    def ask(self, kind: str, seed: int) -> Outcome:
        """Run one case."""
        assert self.process.stdin is not None
        print(f"{kind}\t{seed}", file=self.process.stdin, flush=True)
        data = json.loads(self.read())
        return Outcome(**{**data, "faults": tuple(data["faults"])})

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def run(root: Path, cases: list[tuple[str, int]], workers: int, tell: Callable[[Outcome], object]) -> list[Outcome]:
    """Run cases in some processes."""
    waiting, done, lock = list(reversed(cases)), [], threading.Lock()
    first = Server(root)
    first.read()  # the base is made
    servers = [first, *(Server(root) for _ in range(min(workers, len(cases)) - 1))]

    def work(mine: Server) -> None:
        if mine is not first:
            mine.read()
        while True:
            with lock:
                if not waiting:
                    return
                case = waiting.pop()
            found = mine.ask(*case)
            with lock:
                done.append(found)
                tell(found)

    threads = [threading.Thread(target=work, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in servers:
        each.close()
    return done


def table(outcomes: Iterable[Outcome]) -> str:
    """A row for each kind: how many were refused, sound and at fault, and the exit codes."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
        by_kind["all"].append(outcome)
    lines = [FORMAT.format("kind", "inputs", "refused", "sound", "fault", "exit codes")]
    for kind in [*sorted(by_kind.keys() - {"all"}), "all"]:
        words = Counter(outcome.word for outcome in by_kind[kind])
        codes = Counter(outcome.code for outcome in by_kind[kind])
        shown = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        numbers = (str(len(by_kind[kind])), *(str(words[word]) for word in ("refused", "sound", "fault")))
        lines.append(FORMAT.format(kind, *numbers, shown))
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 if there is a fault."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--kind", default="", help="only this kind, or this group of kinds (GROUP/)")
    parser.add_argument("--seed", type=int, help="with --kind: only this input")
    parser.add_argument("--quick", action="store_true", help="only the inputs that the tests make")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--base", type=Path, help="a folder that keeps the sound run from call to call")
    parser.add_argument("--out", type=Path, help="write every outcome to this file, a line of JSON each")
    parser.add_argument("--list", action="store_true", help="print the kinds and how many inputs each has")
    options = parser.parse_args()
    kinds = [kind for kind in server.load_kinds().values() if kind.name.startswith(options.kind)]
    if options.list:
        print(
            "\n".join(
                f"{kind.name:28s} {kind.quick:4d} {kind.full:5d}  {(kind.make.__doc__ or '').strip()}" for kind in kinds
            )
        )
        return 0
    cases = server.cases_of(kinds, quick=options.quick)
    if options.seed is not None:
        cases = [(kind.name, options.seed) for kind in kinds]
    root = options.base or Path(tempfile.mkdtemp(prefix="ladd-fuzz-"))
    root.mkdir(exist_ok=True, parents=True)

    def tell(found: Outcome) -> None:
        if options.out is not None:
            with options.out.open("a", encoding="utf-8") as lines:
                print(json.dumps(asdict(found)), file=lines)
        if found.faults or options.seed is not None:
            print(
                found,
                f"\n  exit code {found.code}: {found.message.strip()}" if options.seed is not None else "",
                flush=True,
            )

    try:
        done = run(root, cases, options.workers, tell)
    finally:
        if options.base is None:
            shutil.rmtree(root, ignore_errors=True)
    print(table(done))
    slowest, largest = max(done, key=lambda one: one.cpu_s), max(done, key=lambda one: one.peak_bytes)
    print(
        f"slowest: {slowest.kind} {slowest.seed}, {slowest.cpu_s} s of a processor; "
        f"largest: {largest.kind} {largest.seed}, {largest.peak_bytes / 1e9:.2f} GB"
    )
    return int(any(found.faults for found in done))


if __name__ == "__main__":
    sys.exit(main())
