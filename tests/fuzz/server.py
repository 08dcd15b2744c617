"""Runs cases one after the other: a folder each, a fork each, a verdict each."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz import base, forks
from fuzz.base import Base
from fuzz.judge import Snapshot, digest, judge, snapshot
from fuzz.kinds import TABLE, Kind, Place

MODULES = ("received", "consent", "weights", "shards", "flags", "environment", "data", "targets", "tuning")
"""The files with kinds."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    kind: str
    seed: int
    what: str
    """The damage in a few words."""
    command: str
    code: int
    faults: tuple[str, ...]
    wall_s: float
    cpu_s: float
    peak_bytes: int
    message: str
    """The end of what it printed on stderr."""

    @property
    def word(self) -> str:
        """fault, sound or refused."""
        return "fault" if self.faults else "sound" if self.code == 0 else "refused"

    def __str__(self) -> str:
        again = f"PYTHONPATH=tests python -m fuzz --kind '{self.kind}' --seed {self.seed}"
        lines = [
            f"{self.kind} {self.seed}: {self.what}",
            f"  {self.command}",
            *(f"  FAULT {fault}" for fault in self.faults),
        ]
        return "\n".join([*lines, f"  again: {again}"])


def load_kinds() -> dict[str, Kind]:
    """All kinds by name."""
    for name in MODULES:
        importlib.import_module(f"fuzz.{name}")
    return TABLE.kinds


def cases_of(kinds: Iterable[Kind], *, quick: bool) -> list[tuple[str, int]]:
    """Name and number of each case."""
    return [(kind.name, seed) for kind in kinds for seed in range(kind.quick if quick else kind.full)]


SOUND = {
    "sample": ("sample {run} --columns 1 --classes 0 --out out/s.png", "s.png"),
    "sample file": ("sample ../received/files/student.safetensors --columns 1 --classes 0 --out out/f.png", "f.png"),
    "sample teacher": ("sample {run} --columns 1 --classes 0 --teacher-steps 1 --cache cache --out out/t.png", "t.png"),
    "export": ("export {run} --out out/e.safetensors", "e.safetensors"),
    "export step 2": ("export {run} --step 2 --out out/two.safetensors", "two.safetensors"),
    "export step 4": ("export {run} --step 4 --out out/four.safetensors", "four.safetensors"),
}
"""Commands on sound inputs whose outputs damaged ones are held to."""


def build(root: Path) -> Base:
    """The base in a folder, which is made unless it is there, and the digests of what is sound."""
    stored = root / "base.json"
    if not stored.is_file():
        found = base.make(root)
        (root / "own" / "out").mkdir()
        sound = {}
        for name, (words, out) in SOUND.items():
            base.command(root, *words.format(run=f"../received/runs/{found.run}").split())
            sound[name] = digest(root / "own" / "out" / out)
        sound["student"] = digest(root / "own" / "runs" / found.run / "student.safetensors")
        shutil.rmtree(root / "own" / "out")
        stored.write_text(json.dumps({**asdict(found), "root": str(root), "sound": sound}), encoding="utf-8")
    data = json.loads(stored.read_text(encoding="utf-8"))
    return Base(**{**data, "root": Path(data["root"])})


def run_case(sound: Base, name: str, seed: int, folder: Path, *, keep: bool = False) -> Outcome:
    """Make a case, run its command, judge how it ended."""
    kind = load_kinds()[name]
    folder = folder / f"{name.replace('/', '-').replace(' ', '_')}-{seed}"
    _remove(folder)
    folder.mkdir(parents=True)
    shared = _sound_files(sound.root)
    try:
        base.lay_out(sound, folder, kind.parts)
        made = kind.make(Place(sound, folder), seed, random.Random(f"{name}/{seed}"))
        order = made.order
        environment = {**base.environment(folder), **order.environment}
        (folder / "output").mkdir()
        before = snapshot(folder)
        ended = forks.run(
            order.words, cwd=folder / "own", environment=environment, output=folder / "output", notes=folder / "notes"
        )
        faults = judge(order, ended, folder, before)
        if _sound_files(sound.root) != shared:
            faults.append("changed files of the sound run, of which this case had hard links")
    except Exception as error:  # of this corpus; it must not end the others
        return Outcome(
            name, seed, "", "", -1, (f"the corpus failed: {traceback.format_exc()[-900:]}",), 0, 0, 0, str(error)
        )
    finally:
        if not keep:
            _remove(folder)
    words = " ".join(word if isinstance(word, str) else repr(word) for word in order.words)
    message = ended.err.decode("utf-8", "backslashreplace")[-600:]
    return Outcome(
        name,
        seed,
        made.what,
        f"ladd {_short(words)}" + _environment(order.environment),
        ended.code,
        tuple(faults),
        round(ended.wall_s, 2),
        round(ended.cpu_s, 2),
        ended.peak_bytes,
        message,
    )


def _sound_files(root: Path) -> list[Snapshot]:
    return [snapshot(root / name) for name in ("own", "received", "foreign")]


def _short(text: str) -> str:
    text = ascii(text)[1:-1]
    return text if len(text) < 300 else f"{text[:200]} ... {text[-80:]}"


def _environment(own: dict[str, str | bytes]) -> str:
    return f" with {own}"[:300] if own else ""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def serve(sound: Base, folder: Path, orders: Iterable[str]) -> Iterator[str]:
    """Answer orders, lines `KIND<tab>SEED`, each with an outcome as a line of JSON."""
    for line in orders:
        name, _, seed = line.rstrip("\n").partition("\t")
        yield json.dumps(asdict(run_case(sound, name, int(seed), folder)))


def main(root: str) -> None:
    """A server on stdin and stdout: the base first, then outcomes in the order of the orders."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import may print is no reply
    forks.warm()
    sound = build(Path(root))
    print("ready", file=replies, flush=True)
    for reply in serve(sound, Path(root) / "cases" / str(os.getpid()), sys.stdin):
        print(reply, file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
