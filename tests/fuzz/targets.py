"""Where commands write: what is there and is no plain file stays what it is."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from fuzz.damage import PLACES, put_in_place
from fuzz.forks import Ended
from fuzz.judge import Order
from fuzz.kinds import OWN, TABLE, Made, Place

COMMANDS = (
    ("compare {r} {o} --metric matched_error --csv", "c.csv"),
    ("compare {r} {o} --metric matched_error --out", "p.html"),
    ("sample {r} --columns 1 --classes 0 --out", "s.png"),
    ("export {r} --out", "e.safetensors"),
    ("sample {r} --columns 1 --classes 0 --folder", "pictures"),
    ("evaluate {r} --cache cache --num-samples 4 --steps 1 --metrics matched --out", "e.json"),
    ("control train {r} --cache cache --steps 1 --batch-size 2 --rank 1 --out", "c.safetensors"),
    ("launch tiny.py --scale smoke --cache cache --stages report --out", "runs"),
    ("launch tiny.py --scale smoke --out runs --stages teacher --cache", "cache"),
)


def _kept(path: Path, kind: int, link: str) -> object:
    def check(root: Path, ended: Ended) -> str:
        now = path.lstat()
        if now.st_mode & 0o170000 != kind:
            return f"{path.name} was replaced by something of another type"
        return ""

    return check


@TABLE.add("targets/no plain files", *OWN, quick=4, full=63)
def no_plain_files(place: Place, seed: int, rng: random.Random) -> Made:
    """A device, a pipe, a folder or a link stands where the output goes."""
    cheap = len(COMMANDS)
    command, name = COMMANDS[seed % cheap]
    what = PLACES[seed // cheap % len(PLACES)]
    if what == "fifo" and seed % 2:
        what = "device"
    path = place.root / "outside" / name
    path.write_bytes(b"")
    what = put_in_place(path, what)
    runs = {"r": f"runs/{place.base.run}", "o": f"runs/{place.base.other}"}
    allow: tuple[str, ...] = ("own/runs", "own/cache")
    if what in ("dangling link", "huge", "folder"):
        allow += ("outside",)
    check = _kept(path, path.lstat().st_mode & 0o170000, "") if what in ("fifo", "device", "socket") else None
    return Made(f"{name} is {what}", Order([*command.format(**runs).split(), str(path)], allow=allow, check=check))  # type: ignore[arg-type]


@TABLE.add("targets/names", *OWN, quick=4, full=45)
def names(place: Place, seed: int, rng: random.Random) -> Made:
    """Outputs whose names make no path, or a strange one."""
    command, name = COMMANDS[seed % len(COMMANDS)]
    own = ("", ".", "x" * 300, f"nowhere/{name}", "\x1b[31mred", f"tiny.py/{name}")[seed // len(COMMANDS) % 6]
    suffix = Path(name).suffix
    value = own + suffix if own in ("\x1b[31mred", "x" * 300) else own
    runs = {"r": f"runs/{place.base.run}", "o": f"runs/{place.base.other}"}
    words = command.format(**runs).split()
    words[-1] += f"={value}"
    return Made(f"{words[-1][:40]!r}", Order(words, allow=("own",)))


NEW = ("made", "made/mine.py", "made/mine_head.py", "made/mine_cluster.py")
NO_NAMES = (
    "", ".", "..", "a/b", "/mine", "x" * 300, "json", "torch", "plugins", "Mine", "mine.py", "1a", "é", "-rf", "mine\n",
    "\x1b[31mred",
)  # fmt: skip

NEW_CASES = [*itertools.product(NEW, PLACES), *(("", name) for name in NO_NAMES)]
random.Random(0).shuffle(NEW_CASES)


@TABLE.add("targets/new", quick=6, full=len(NEW_CASES))
def new(place: Place, seed: int, rng: random.Random) -> Made:
    """What stands where `ladd new` writes is never replaced, and a name that is no new module's writes nothing."""
    path, what = NEW_CASES[seed % len(NEW_CASES)]
    (place.root / "own" / "made").mkdir()
    if not path:
        return Made(f"{what[:20]!r}", Order(["new", "--folder=made", what], codes=(2,)))
    what = put_in_place(place.root / "own" / path, what)
    free = ("own/made", "own/nowhere") if path == "made" and what in ("folder", "dangling link") else ()
    return Made(f"{path} is {what}", Order(["new", "mine", "--folder=made"], allow=free, codes=(0,) if free else (2,)))
