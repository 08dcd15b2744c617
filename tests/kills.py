"""Kill every command at a drawn moment, run the same command again, and compare every byte with a run never stopped.

    make kills                            # 100 cases; about half an hour
    make kills ARGS='--cases 20 --seed 7 --only distill-2'

Each case is a line of JSON, printed as it ends, so that a cut loses one. What differs between two runs that nobody
stopped (clocks, and the path of the folder) is not compared. The disk is slowed
down until the kill (`fsync` takes 30 ms), so that kills often fall inside saves.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil
from safetensors.torch import load_file

from ladd_dist.core.signals import arm

REPO = Path(__file__).resolve().parents[1]
IMPORTS = (
    *("torch._dynamo", "ladd_dist.engine.dcp_planners", "ladd_dist.stages.dry_run", "ladd_dist.stages.run"),
    *("ladd_dist.cli.recipe_arguments", "ladd_dist.exporting.student", "ladd_dist.evaluation.student_evaluation"),
    *("ladd_dist.recipe.loading", "sklearn.datasets", "matplotlib.figure", "scipy.stats"),
)
MARK = "LADD_KILLS_CASE"
"""Environment variable that all processes of a case inherit."""
DEADLINE_S = 240.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SMALL = (
    *("--teacher.steps", "20", "--train.steps", "12"),
    *("--evaluate.num-samples", "32", "--evaluate.num-references", "64"),
)
EXP4 = ("launch", str(REPO / "recipes/exp4_specnorm.py"), "--scale", "smoke", *SMALL, "--stages")
LATENT = ("launch", str(REPO / "recipes/latent_digits.py"), "--scale", "smoke", "--stages")
TWO = ("--nproc", "2", "--parallel", "ddp")
SLOW_DISK = "import os, time\nreal = os.fsync\nos.fsync = lambda file: (time.sleep(0.03), real(file))[1]\n"
SWEEP = """
from dataclasses import replace
from ladd_dist.recipe import Axis, Sweep
from recipes.exp4_specnorm import RECIPE
BASE = RECIPE.smoke
BASE = replace(BASE, teacher=replace(BASE.teacher, steps=20), train=replace(BASE.train, steps=12))
SWEEP = Sweep("one_head", BASE, (Axis("head", ("max_pool",)),), seeds=(0,))
"""


@dataclass(frozen=True)
class Work:
    """A command that is killed.

    Attributes:
        words: module and arguments, in the folder of the case.
        cases: how many of 100.
        start: the work whose result it begins with; empty: nothing.
        without: what is removed of that (patterns).
    """

    name: str
    words: tuple[str, ...]
    cases: int
    start: str = ""
    without: tuple[str, ...] = ()
    ranks: bool = False


EVALUATED = ("runs/*/eval*", "runs/*/evaluate.done.json", "runs/*/report.*", "cache/reference-*")
FEATURES = ("cache/features", "cache/figures")
WORKS = (
    Work("autoencoder", (*LATENT, "autoencoder"), 9),
    Work("teacher", (*EXP4, "teacher"), 11),
    Work("shards", (*EXP4, "teacher,shards"), 11, "teacher"),
    Work("distill", (*EXP4, "teacher,shards,distill"), 14, "shards"),
    Work("reference", (*EXP4, "evaluate"), 8, "distill"),
    Work("evaluate", (*EXP4, "evaluate"), 8, "reference", (*EVALUATED[:2], *FEATURES)),
    Work("report", (*EXP4, "report"), 6, "reference"),
    Work("export", ("export", "RUN", "--out", "student.safetensors"), 8, "distill"),
    Work("evaluate-command", ("evaluate", "RUN", "--steps", "4", "--out", "figures.json"), 6, "reference"),
    Work("sweep", ("sweep", "one_head.py", "--scale", "smoke", "--on", str(REPO / "slurm/laptop.py")), 3, "report"),
    Work("teacher-2", (*EXP4, "teacher", *TWO), 4, ranks=True),
    Work("shards-2", (*EXP4, "teacher,shards", *TWO), 3, "teacher-2", ranks=True),
    Work("distill-2", (*EXP4, "teacher,shards,distill", *TWO), 6, "shards-2", ranks=True),
    Work("evaluate-2", (*EXP4, "evaluate", *TWO), 3, "distill-2", ranks=True),
)  # fmt: skip


@dataclass
class Whole:
    """What a command leaves that nobody stops, twice; and how long it took on the slow disk, with how many files."""

    folder: Path
    seconds: float = 0.0
    temporaries: int = 1
    volatile: dict[str, set[str]] = field(default_factory=dict)
    """Places in files that are not the same twice: clocks, and the path of the case."""

    def compare(self, twice: Path) -> None:
        """Learn what is not the same twice."""
        files = [files_of(top) for top in (self.folder, twice)]
        assert files[0].keys() == files[1].keys()
        pairs = {name: differing(path, files[1][name]) for name, path in files[0].items()}
        self.volatile = {name: places for name, places in pairs.items() if places}


class Started:
    """A command in a folder, as a fork of this process, which has all its imports; and the processes it starts."""

    def __init__(self, work: Work, folder: Path, *, slow: bool, name: str) -> None:
        self.mark, self.err = f"{folder}-{name}", folder.with_suffix(f".{name}.err")
        self.began, self.code = time.monotonic(), None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(work, folder, slow)

    def _become(self, work: Work, folder: Path, slow: bool) -> NoReturn:
        site = folder.parent / ("slow" if slow else "usual")  # for its ranks and jobs
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(SLOW_DISK if slow else "")
        exec(SLOW_DISK if slow else "", {})
        os.environ |= {"PYTHONPATH": f"{site}:{REPO}", MARK: self.mark, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        for number, path in enumerate((Path(os.devnull), self.err, self.err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        os.chdir(folder)
        module, *words = work.words
        run = next((str(path.relative_to(folder)) for path in folder.glob("runs/exp4*")), "RUN")
        sys.argv = [module, *(run if word == "RUN" else word for word in words)]
        sys.path[0] = str(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        arm()
        runpy.run_module(f"ladd_dist.{module}", run_name="__main__", alter_sys=True)
        sys.exit()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def descendants(self) -> Iterator[tuple[psutil.Process, str]]:
        """Its processes that run, with their ranks ("" for none)."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                own = variables.get(MARK) == self.mark or process.pid == self.pid
                if own and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, variables.get("RANK", "")

    def wait(self) -> int:
        """Wait for the end of the command itself; returns its exit code."""
        while (code := self.poll()) is None:
            if time.monotonic() - self.began > DEADLINE_S:
                for process, _ in self.descendants():
                    process.kill()
            time.sleep(0.005)
        return code

    def orphans(self, seconds: float) -> list[str]:
        """Command lines of descendants that are left after a while; they are killed."""
        deadline = time.monotonic() + seconds
        while (left := list(self.descendants())) and time.monotonic() < deadline:
            time.sleep(0.1)
        words = [" ".join(process.cmdline()) for process, _ in left]
        for process, _ in left:
            process.kill()
        return words


def temporaries(folder: Path) -> set[str]:
    """Files and folders that are being written, or were when somebody was killed."""
    found = set()
    for top, folders, files in os.walk(folder):
        found |= {os.path.join(top, name) for name in (*folders, *files) if name.startswith(".tmp-")}  # noqa: PTH118
    return found


def begin(work: Work, wholes: dict[str, Whole], folder: Path) -> None:
    """Fill the folder of a case with what the command begins with."""
    folder.mkdir()
    if work.start:
        shutil.copytree(wholes[work.start].folder, folder, dirs_exist_ok=True)
    for pattern in work.without:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "one_head.py").write_text(SWEEP)


def again(work: Work, folder: Path, name: str) -> tuple[int, list[str], str]:
    """Run a command to its end: exit code, processes that are left, and its output.

    A sweep whose jobs outlived it is run until there is nothing to submit.
    """
    for attempt in range(2 if work.name == "sweep" else 1):
        started = Started(work, folder, slow=False, name=f"{name}-{attempt}")
        code = started.wait()
    return code, started.orphans(20.0), started.err.read_text(errors="replace")


def leaves(path: Path) -> dict[str, Any]:
    """What a file holds, by place: values of JSON by their keys, tensors by name, all bytes of another file."""
    if path.suffix == ".safetensors":  # the order of a checkpoint's tensors is chance
        return {name: (str(tensor.dtype), tensor.tolist()) for name, tensor in load_file(path).items()}
    if path.suffix == ".html":  # the page of a run names the seconds of an earlier attempt at it
        return {"": [line for line in path.read_text().splitlines() if "<dt>Time</dt>" not in line]}
    if path.suffix not in (".json", ".jsonl", ".lock"):
        return {"": path.read_bytes()}
    found: dict[str, Any] = {}

    def visit(value: Any, place: str) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            visit(inner, f"{place}/{key}")
        if not pairs:
            found[place] = value

    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    visit([json.loads(line) for line in lines if line], "")
    return found


def differing(first: Path, second: Path) -> set[str]:
    """The places in which two files differ."""
    if first.read_bytes() == second.read_bytes():
        return set()
    one, other = leaves(first), leaves(second)
    return {place for place in one.keys() | other.keys() if one.get(place) != other.get(place)}


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a case that are compared: no logs, and no record of a sweep's jobs, which a kill adds to."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "sweep.json")
    return {str(path.relative_to(folder)): path for path in paths if "/logs/" not in str(path)}


def differences(whole: Whole, folder: Path) -> list[str]:
    """Files that are not as they should be, or should not be there at all."""
    files = [files_of(top) for top in (whole.folder, folder)]
    wrong = [f"missing {name}" for name in files[0].keys() - files[1].keys()]
    wrong += [f"left over {name}" for name in files[1].keys() - files[0].keys() if not name.endswith(".lock")]
    wrong += [f"left over {Path(name).relative_to(folder)}" for name in temporaries(folder) if Path(name).is_dir()]
    for name in sorted(files[0].keys() & files[1].keys()):
        places = differing(files[0][name], files[1][name]) - whole.volatile.get(name, set())
        wrong += [f"differs {name}: {sorted(places)[:3]}"] if places else []
    return wrong


def reference(work: Work, wholes: dict[str, Whole], place: Path) -> Whole:
    """Run a command that nobody stops, once as usual and once on the slow disk; what PLACE has of it stays."""
    folders = [place / f"whole-{work.name}", place / f"whole-{work.name}-slow"]
    notes = folders[0].with_suffix(".json")
    if notes.exists():
        known = json.loads(notes.read_text())
        whole = Whole(folders[0], known["seconds"], known["temporaries"])
        whole.compare(folders[1])
        return whole
    for folder in folders:
        begin(work, wholes, folder)
    code, _, output = again(work, folders[0], "whole")
    assert code == 0, (work.name, output[-3_000:])
    whole = Whole(folders[0])
    started, seen = Started(work, folders[1], slow=True, name="whole"), temporaries(folders[1])
    known = set(seen)
    while started.poll() is None:
        seen |= temporaries(folders[1])
        time.sleep(0.005)
    whole.seconds, whole.temporaries = time.monotonic() - started.began, max(1, len(seen - known))
    whole.compare(folders[1])
    row = {"whole": work.name, "seconds": round(whole.seconds, 1), "temporaries": whole.temporaries}
    notes.write_text(json.dumps(row | {"not_compared": {name: len(places) for name, places in whole.volatile.items()}}))
    print(notes.read_text(), flush=True)
    return whole


def strike(work: Work, whole: Whole, folder: Path, draw: random.Random) -> dict[str, Any] | None:
    """Start a command and kill it at a drawn moment; None if it was over before."""
    number = draw.choice(SIGNALS)
    victim = draw.choice(("launch", "rank 0", "rank 1", "ranks")) if work.ranks else "launch"
    inside, wait = draw.random() < 0.6, draw.uniform(0.05, 1.0) * whole.seconds
    count, delay = draw.randint(1, whole.temporaries), draw.uniform(0.0, 0.03)
    started, seen = Started(work, folder, slow=True, name="killed"), temporaries(folder)
    known = set(seen)
    while started.poll() is None:
        if inside:
            seen |= temporaries(folder)
        if len(seen - known) >= count if inside else time.monotonic() - started.began > wait:
            break
        time.sleep(0.001)
    time.sleep(delay)
    ranks = {rank: process for process, rank in started.descendants() if rank} if victim != "launch" else {}
    targets = [ranks[rank] for rank in ranks if victim == "ranks" or rank == victim[-1]]
    victim = victim if targets else "launch"
    if started.poll() is not None:
        return None
    being_written = len(temporaries(folder))
    for target in targets or [psutil.Process(started.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            target.send_signal(number)
    struck = time.monotonic()
    code = started.wait()
    took = time.monotonic() - struck
    text = started.err.read_text(errors="replace")
    expected = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -9 if victim == "launch" else 1}[number]
    said = text.count("stopped:") + text.count("error:")
    wrong = [] if code in (expected, 0) else [f"exit code {code}, not {expected}"]
    wrong += [f"{said} messages"] if said != (0 if code in (0, -9) else 1) else []
    wrong += [word for word in ("Traceback", "terminate called", "Exception ignored") if word in text]
    return {
        "signal": number.name, "victim": victim, "moment": f"file {count}" if inside else f"{wait:.1f} s",
        "being_written": being_written, "code": code, "ended_s": round(took, 2), "wrong": wrong,
        "left": started.orphans(0.0 if work.name == "sweep" or code != -9 else 15.0),
        "output": text[-1_500:] if wrong else "",
    }  # fmt: skip


def case(number: int, work: Work, whole: Whole, wholes: dict[str, Whole], place: Path, seed: int) -> dict[str, Any]:
    """Kill, run again, compare."""
    draw = random.Random(f"{seed}-{number}")
    for attempt in range(6):
        folder = place / f"case-{number}-{attempt}"
        begin(work, wholes, folder)
        struck = strike(work, whole, folder, draw)
        if struck is not None and struck["code"] != 0:
            break
        shutil.rmtree(folder)  # it was over before: another moment
    else:
        return {"case": number, "work": work.name, "wrong": ["always over before"]}
    code, left, output = again(work, folder, "again")
    wrong = [*struck.pop("wrong"), *([f"again: exit code {code}"] if code else []), *differences(whole, folder)]
    wrong += [f"left running: {words}" for words in (*struck.pop("left"), *left)]
    if not work.ranks:  # a rank that loses another writes down where it waited
        wrong += [f"fault {path.name}" for path in folder.rglob("fault-*.txt")]
    if not wrong:
        shutil.rmtree(folder)
    elif "output" in struck:
        struck["output"] += output[-1_500:]
    return {"case": number, "work": work.name, **struck, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--only", nargs="*", default=[work.name for work in WORKS])
    parser.add_argument("--place", type=Path, help="folder to keep what went wrong in; a temporary one by default")
    options = parser.parse_args()
    place = options.place or Path(tempfile.mkdtemp(prefix="kills-"))
    place.mkdir(exist_ok=True, parents=True)
    for name in IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # forks end faster
    wholes: dict[str, Whole] = {}
    needed = set(options.only)
    for work in reversed(WORKS):
        needed |= {work.start} if work.name in needed else set()
    for work in WORKS:
        if work.name in needed:
            wholes[work.name] = reference(work, wholes, place)
    works = [work for work in WORKS if work.name in options.only for _ in range(work.cases)]
    random.Random(options.seed).shuffle(works)
    counts: Counter[str] = Counter()
    for number in range(options.first, options.cases):
        work = works[number % len(works)]
        row = case(number, work, wholes[work.name], wholes, place, options.seed)
        print(json.dumps(row), flush=True)
        counts["wrong" if row["wrong"] else "right"] += 1
    print(json.dumps({"cases": options.cases, "seed": options.seed, **counts}), flush=True)
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
