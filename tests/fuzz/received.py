"""A run folder from somebody else, with damage in each of its files."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.damage import ESCAPES, PATHS, damage_bytes, damage_json, damage_lines, put_in_place, replace
from fuzz.judge import Order
from fuzz.kinds import OWN, RECEIVED, TABLE, Made, Place

JOBS = "jobs ../received/runs"
JOBS_JSON = "jobs ../received/runs --json"
COMPARE = "compare {run} {other} --metric matched_error"
COMPARE_JSON = "compare {run} {other} --metric matched_error --json"
COMPARE_FILES = "compare {run} {other} --metric matched_error --csv out/c.csv --out out/page.html"
COMPARE_SKIP = "compare ../received/runs --metric matched_error --skip-broken --mixed"
COMPARE_SWEEP = "compare {sweep} --metric matched_error --csv out/c.csv"
SAMPLE = "sample {run} --columns 1 --classes 0 --out out/s.png"
SAMPLE_TEACHER = "sample {run} --columns 1 --classes 0 --teacher-steps 1 --cache cache --out out/s.png"
EXPORT = "export {run} --out out/e.safetensors"
EXPORT_STEP = "export {run} --step 2 --out out/e.safetensors"
EVALUATE = "evaluate {run} --num-samples 4 --metrics matched --steps 1 --cache cache --out out/ev.json"
DIAGNOSE = "diagnose {run} --num-samples 32 --cache cache"
CONTROL = "control train {run} --steps 1 --batch-size 2 --rank 1 --cache cache --out out/c.safetensors"
LOCKED = "launch --locked {run} --scale smoke --cache cache --out runs --dry-run"
REPORT = "launch tiny.py --scale smoke --out ../received/runs --cache cache --stages report"
LAUNCH = "launch tiny.py --scale smoke --out ../received/runs --cache cache"
CHEAP = (JOBS, JOBS_JSON, COMPARE, COMPARE_JSON, COMPARE_FILES, COMPARE_SKIP)
WRITES = {
    DIAGNOSE: ("received/runs",),
    REPORT: ("received/runs", "own/cache"),
    LAUNCH: ("received/runs", "own/cache"),
    EVALUATE: ("own/cache",),
    CONTROL: ("own/cache",),
    SAMPLE_TEACHER: ("own/cache",),
}
"""What commands write to besides `own/out`."""


def words_of(place: Place, command: str) -> list[str]:
    """The words of a command on the received run."""
    runs = "../received/runs"
    names = {
        "run": f"{runs}/{place.base.run}",
        "other": f"{runs}/{place.base.other}",
        "sweep": f"{runs}/sweeps/{place.sweep.name}",
    }
    return command.format(**names).split(" ")


def order_of(place: Place, command: str, **more: object) -> Order:
    """The order for one of the commands above."""
    return Order(words_of(place, command), allow=WRITES.get(command, ()), **more)  # type: ignore[arg-type]


def commands(rng: random.Random, cheap: Sequence[str], dear: Sequence[str] = (), share: float = 0.2) -> str:
    """One of the commands; of those that take seconds fewer."""
    return rng.choice(dear if dear and rng.random() < share else cheap)


def _damaged(
    name: str,
    file: str,
    damage: Callable[[Path, random.Random], str],
    cheap: Sequence[str],
    dear: Sequence[str] = (),
    *,
    quick: int,
    full: int,
) -> None:
    """Enter the kind of one file's damage."""

    @TABLE.add(f"received/{name}", *RECEIVED, quick=quick, full=full)
    def make(place: Place, seed: int, rng: random.Random) -> Made:
        [path] = (place.root / "received").glob(file.replace("RUN", place.base.run))
        what = damage(path, rng)
        command = commands(rng, cheap, dear)
        return Made(what, order_of(place, command))


_damaged(
    "config.json",
    "runs/RUN/config.json",
    damage_json,
    (*CHEAP, EXPORT, EXPORT_STEP, SAMPLE_TEACHER, COMPARE_SWEEP),
    (EVALUATE, DIAGNOSE, CONTROL, REPORT, LAUNCH),
    quick=16,
    full=140,
)
_damaged("eval.json", "runs/RUN/eval.json", damage_json, (*CHEAP, COMPARE_SWEEP), (REPORT, DIAGNOSE), quick=7, full=70)
_damaged("eval_classes.json", "runs/RUN/eval_classes.json", damage_json, (*CHEAP, REPORT), quick=2, full=30)
_damaged("metrics.jsonl", "runs/RUN/metrics.jsonl", damage_lines, CHEAP, (REPORT,), quick=8, full=60)
_damaged("guard.json", "runs/RUN/guard.json", damage_json, CHEAP, (REPORT,), quick=5, full=40)
_damaged("timings.json", "runs/RUN/timings.json", damage_json, (*CHEAP, REPORT), (LAUNCH,), quick=2, full=24)
_damaged("done.json", "runs/RUN/*ill.done.json", damage_json, (JOBS, JOBS_JSON, COMPARE), (LAUNCH,), quick=2, full=20)
_damaged("evaluate.done.json", "runs/RUN/evaluate.done.json", damage_json, (JOBS, COMPARE), (LAUNCH,), quick=0, full=10)
_damaged("recipe.lock", "runs/RUN/recipe.lock", damage_json, (LOCKED,), quick=2, full=60)
_damaged(
    "sweep.json",
    "runs/sweeps/*/sweep.json",
    damage_json,
    (JOBS, JOBS_JSON, COMPARE_SWEEP, COMPARE_SKIP, "jobs {sweep}", "jobs {sweep} --cancel"),
    quick=10,
    full=90,
)
_damaged("logs", "runs/sweeps/*/logs/1_0_log.err", damage_bytes, (JOBS, JOBS_JSON), quick=2, full=16)
_damaged("strips.json", "runs/RUN/samples/strips.json", damage_json, (REPORT,), quick=0, full=24)
_damaged("attention.json", "runs/RUN/samples/attention.json", damage_json, (REPORT,), quick=0, full=20)
_damaged("pictures", "runs/RUN/samples/final.png", damage_bytes, (REPORT,), quick=0, full=16)
_damaged("dumps", "runs/RUN/dumps/*.safetensors", damage_bytes, (COMPARE_FILES, COMPARE_JSON, REPORT), quick=2, full=24)
_damaged("report.html", "runs/RUN/report.html", damage_bytes, (JOBS, REPORT), quick=0, full=8)


TEXTS = (
    ("name",),
    ("recipe", "name"),
    ("recipe", "note"),
    ("scale",),
    ("version",),
    ("command",),
    ("signature",),
    ("sweep",),
    ("recipe_path",),
    ("axes", "head"),
    ("recipe", "reported", "outcome"),
    ("environment", "torch"),
    ("recipe", "head", "plugin"),
    ("taps", 0),
    ("plugins", 0),
    ("cache",),
)


def _set(data: object, path: tuple[object, ...], text: str) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {}) if isinstance(data, dict) else data[key]  # type: ignore[index]
    data[path[-1]] = text  # type: ignore[index]


@TABLE.add("received/escapes", *RECEIVED, quick=12, full=120)
def escapes(place: Place, seed: int, rng: random.Random) -> Made:
    """Terminal escapes, formulas, markup and paths in the texts that a run and its sweep hold."""
    text = rng.choice([*ESCAPES, *PATHS[:-1]])
    where = rng.choice(("config", "config", "sweep", "guard", "metrics", "log", "eval", "lock"))
    command = commands(rng, CHEAP, (REPORT, DIAGNOSE, EVALUATE), 0.1)
    if where == "config":
        path = rng.choice(TEXTS)
        _edit(place.run / "config.json", lambda data: _set(data, path, text))
        where = ".".join(map(str, path))
        command = commands(rng, (*CHEAP, EXPORT, SAMPLE_TEACHER), (REPORT, EVALUATE), 0.15)
    elif where == "sweep":
        key = rng.choice(("label", "run", "teacher"))
        _edit(place.sweep / "sweep.json", lambda data: data["runs"][0].update({key: text, "axes": {text: text}}))
        command = rng.choice((JOBS, COMPARE_SWEEP, "jobs {sweep} --cancel"))
    elif where == "guard":
        more = {"headline": text, "level": rng.choice(("collapsed", text)), "since": 2}
        _edit(place.run / "guard.json", lambda data: data.update(more))
    elif where == "metrics":
        row = json.dumps({"step": 4, text: 1.0, f"accuracy/{text}": 0.5, "loss/heads": 1.0})
        replace(place.run / "metrics.jsonl", (place.run / "metrics.jsonl").read_bytes() + row.encode() + b"\n")
    elif where == "log":
        (place.sweep / "logs" / "1_0_log.err").write_text(f"RuntimeError: {text}\n", "utf-8", "surrogatepass")
        _unfinished(place)
        command = rng.choice((JOBS, JOBS_JSON))
    elif where == "eval":
        _edit(
            place.run / "eval.json",
            lambda data: data.update({text: dict(data["student@4"]), "student@4": {**data["student@4"], text: 1.0}}),
        )
    else:
        _edit(place.run / "recipe.lock", lambda data: data.update(recipe_path=text + ".py", commit=text, run=text))
        command = LOCKED
    return Made(f"{where} is {text[:20]!r}", order_of(place, command))


def _unfinished(place: Place) -> None:
    for run in (place.run, place.run.with_name(place.base.other)):
        for name in ("distill.done.json", "evaluate.done.json", "eval.json"):
            (run / name).unlink()


def _edit(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    data = json.loads(path.read_bytes())
    change(data)
    replace(path, json.dumps(data, indent=1).encode())


@TABLE.add("received/folders", *RECEIVED, quick=4, full=40)
def folders(place: Place, seed: int, rng: random.Random) -> Made:
    """A whole folder of the run is something else: a fifo, a link to elsewhere, a folder with a strange name."""
    part = rng.choice(("checkpoints", "samples", "dumps", "", "logs", "checkpoints/step-00000004"))
    slip = rng.choice(("fifo", "circle of links", "dangling link", "huge", "name", "outside"))
    path = place.run / part if part else place.run
    if slip == "name":
        other = place.run.with_name(rng.choice(["\x1b[31mred", "two\nlines", "-rf", "=1+1", "a b", "x" * 200]))
        place.run.rename(other)
        command = rng.choice(
            (JOBS, JOBS_JSON, COMPARE_SKIP, "compare ../received/runs --metric matched_error --csv out/c.csv")
        )
        return Made(f"the run is called {other.name[:20]!r}", order_of(place, command))
    if slip == "outside":
        elsewhere = place.root / "outside" / "moved"
        elsewhere.mkdir()
        (elsewhere / "kept.txt").write_text("kept", encoding="utf-8")
        if path.is_dir():
            shutil.rmtree(path)
        path.symlink_to(elsewhere)
    else:
        path.mkdir(exist_ok=True)
        put_in_place(path, slip)
    command = commands(rng, (*CHEAP, EXPORT, EXPORT_STEP, SAMPLE), (REPORT, LAUNCH), 0.15)
    return Made(f"{part or 'the run'} is {slip}", order_of(place, command))


@TABLE.add("received/foreign bytes", *RECEIVED, quick=2, full=16)
def foreign_bytes(place: Place, seed: int, rng: random.Random) -> Made:
    """A file of the run holds another file of it."""
    files = sorted(path for path in place.run.rglob("*") if path.is_file())
    source, target = rng.sample(files, 2)
    replace(target, source.read_bytes())
    command = commands(rng, (*CHEAP, EXPORT, EXPORT_STEP, SAMPLE, LOCKED), (REPORT, LAUNCH))
    return Made(f"{target.name} holds {source.name}", order_of(place, command))


@TABLE.add("received/own files", *OWN, quick=2, full=60)
def own_files(place: Place, seed: int, rng: random.Random) -> Made:
    """A file of a run of one's own is damaged, and the same command is given again."""
    files = [
        "config.json",
        "guard.json",
        "metrics.jsonl",
        "timings.json",
        "distill.done.json",
        "evaluate.done.json",
        "eval.json",
    ]
    name = rng.choice(files)
    what = (damage_lines if name == "metrics.jsonl" else damage_json)(place.own_run / name, rng)
    if rng.random() < 0.3:
        (place.own_run / "evaluate.done.json").unlink(missing_ok=True)
    words = ["launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache"]
    return Made(f"{name}: {what}", Order(words, allow=("own/runs", "own/cache")))


@TABLE.add("received/cache", *OWN, quick=2, full=50)
def cache(place: Place, seed: int, rng: random.Random) -> Made:
    """A JSON file of the cache is damaged: of teacher, shards, reference or figures."""
    files = sorted(path for path in place.cache.rglob("*.json") if path.is_file())
    path = rng.choice(files)
    what = damage_json(path, rng)
    if rng.random() < 0.5:
        shutil.rmtree(place.own_run)
    stages = rng.choice(("teacher,shards", "teacher,shards,distill", "teacher,shards,distill,evaluate"))
    words = f"launch tiny.py --scale smoke --out runs --cache cache --stages {stages}".split()
    return Made(f"{path.parent.name}/{path.name}: {what}", Order(words, allow=("own/runs", "own/cache")))
