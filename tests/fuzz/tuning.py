"""What `ladd tune` is given from outside: a folder of pictures, a student's file, and a base."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from tuned import write_pictures

from fuzz.consent import received_card
from fuzz.damage import BYTES, ESCAPES, PATHS, PLACES, bytes_of, damage_json, put_in_place, replace
from fuzz.judge import Order
from fuzz.kinds import RECEIVED, TABLE, Made, Place
from fuzz.weights import CARDS, HOWS, damage, set_value, slip

NUM = 8
TUNE = (
    "tune {student} --base {base} --images ../received/pictures --scale smoke --device cpu --threads 1 --updates 1"
    " --out runs --cache cache"
)
SMALL = (
    "--train.batch-size 4 --train.log-every 1 --train.early-stop.every 1 --train.early-stop.num-samples 4"
    " --train.old.num-samples 8 --evaluate.num-samples 4 --evaluate.num-references 4 --evaluate.batch-size 4"
    " --shards.sampler.steps 2 --guard.samples 4"
)
ALLOW = ("own/runs", "own/cache")
STUDENT, RUN = "../received/files/student.safetensors", "../received/runs/{run}"
NOT_TEXT = "caf\udce9"
"""A name whose bytes are no UTF-8."""


def _order(place: Place, *more: str, student: str = STUDENT, base: str = "", dry: bool = True) -> Order:
    """The command on what was received; unless `dry`, with the smallest training."""
    base = base or f"cache/{place.base.teacher}/teacher.safetensors"
    words = TUNE.format(student=student.format(run=place.base.run), base=base.format(run=place.base.run)).split()
    words += ["--dry-run"] if dry else SMALL.split()
    return Order([*words, *(more or ("--classes", "3"))], allow=ALLOW)


def _pictures(place: Place, *classes: str, captions: int = 0) -> Path:
    return write_pictures(place.root / "received" / "pictures", NUM, classes=classes, captions=captions)


def _png(width: int, height: int) -> bytes:
    """A PNG that says it has many pixels, and holds none."""
    parts = (b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    sized = ((struct.pack(">I", len(data)), kind + data) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(size + data + struct.pack(">I", zlib.crc32(data)) for size, data in sized)


@TABLE.add("tuning/pictures", *RECEIVED, quick=2, full=70)
def pictures(place: Place, seed: int, rng: random.Random) -> Made:
    """A folder of pictures with damaged ones, other things than files, bombs, and names that nobody would give."""
    folder = _pictures(place)
    slip = ("bytes", "place", "bomb", "name", "all", "circle", "deep", "folder")[seed % 8]
    chosen = sorted(folder.glob("*.png"))[: NUM if slip == "all" else rng.choice((1, 5))]
    what = slip
    for path in chosen:
        match slip:
            case "bytes" | "all":
                what = rng.choice(BYTES)
                replace(path, bytes_of(path.read_bytes(), what, rng))
            case "place":
                what = put_in_place(path, rng.choice(PLACES))
            case "bomb":
                replace(path, _png(*rng.choice(((2**31 - 1, 2**31 - 1), (0, 0), (100_000, 100_000), (2**16, 1)))))
            case "name":
                name = rng.choice([*(text for text in ESCAPES if "/" not in text and "\0" not in text), NOT_TEXT])
                path.rename(folder / f"{path.stem}{name}.png")
    match slip:
        case "circle":
            (folder / "again").symlink_to(".")
        case "deep":
            (folder / "/".join(["d"] * 300)).mkdir(parents=True)
        case "folder":
            what = rng.choice(PLACES)
            folder.rename(place.root / "received" / "moved")
            put_in_place(folder, what)
    return Made(f"{len(chosen)} pictures: {what}", _order(place, dry=seed % 5 != 0))


@TABLE.add("tuning/classes", *RECEIVED, quick=2, full=40)
def classes(place: Place, seed: int, rng: random.Random) -> Made:
    """Folders of pictures, and --classes, with names that nobody would give; metadata.jsonl that is none."""
    names = [text for text in (*ESCAPES, *PATHS[:-2], "9" * 200, "1e3", "-1", NOT_TEXT) if text.strip("./")]
    if seed % 4 == 3:
        folder = _pictures(place, captions=2)
        path = folder / "metadata.jsonl"
        what = rng.choice(BYTES)
        replace(path, bytes_of(path.read_bytes(), what, rng))
        return Made(f"metadata.jsonl: {what}", _order(place))
    if seed % 2:
        _pictures(place)
        name = rng.choice(names)
        return Made(f"--classes {name[:20]!r}", _order(place, f"--classes={name}".replace("\0", "")))
    folder = _pictures(place, "0", "1")
    name = rng.choice([text for text in names if "/" not in text and "\0" not in text])[:100]
    (folder / "1").rename(folder / name)
    return Made(f"a folder is called {name[:20]!r}", _order(place, *rng.choice(((), ("--classes", "3", "4")))))


@TABLE.add("tuning/student", *RECEIVED, quick=1, full=50)
def student(place: Place, seed: int, rng: random.Random) -> Made:
    """A damaged student, alone or in its run's folder."""
    _pictures(place)
    if seed % 3 == 0:
        what = damage(place.run / "student.safetensors", HOWS[seed % len(HOWS)], rng)
        return Made(what, _order(place, student=RUN))
    what = damage(place.root / STUDENT.removeprefix("../"), HOWS[seed % len(HOWS)], rng)
    return Made(what, _order(place, student=STUDENT))


@TABLE.add("tuning/card", *RECEIVED, quick=2, full=len(CARDS) + 50)
def card(place: Place, seed: int, rng: random.Random) -> Made:
    """A student's card that lies about its network, levels, classes or teacher."""
    _pictures(place)
    path = place.root / STUDENT.removeprefix("../")
    more = (
        ("base", {"signature": rng.choice(ESCAPES), "dataset": rng.choice(ESCAPES)}),
        ("base", {"signature": "x" * 100_000}),
        ("base", 3),
        ("class_names", [rng.choice(ESCAPES)] * 10),
        ("class_names", ["x" * 10_000] * 10),
        ("law", {"plugin": "good", "four": [1e300, 1.0, 0.5, 0.1]}),
        ("law", {"plugin": "karras", "sigma_min": 1e-300, "rho": 1e6}),
    )
    every = (*more, *CARDS)
    if seed < len(every):
        field, value = every[seed * 5 % len(every)]
        received_card(path, lambda found: set_value(found, field, value))
        return Made(f"{field} is {str(value)[:40]!r}", _order(place, *rng.choice(((), ("--classes", "cat")))))
    return Made(slip(path, rng), _order(place))


@TABLE.add("tuning/base", *RECEIVED, quick=2, full=60)
def base(place: Place, seed: int, rng: random.Random) -> Made:
    """A base that is damaged, lies about what it is, is a student, or no base at all."""
    _pictures(place)
    folder = place.cache / place.base.teacher
    match seed % 4:
        case 0:
            what = damage(folder / "teacher.safetensors", HOWS[seed // 4 % len(HOWS)], rng)
            return Made(what, _order(place))
        case 1:
            what = f"done.json: {damage_json(folder / 'done.json', rng)}"
            return Made(what, _order(place, base=rng.choice((f"cache/{folder.name}", ""))))
        case 2:
            what = f"config.json: {damage_json(place.run / 'config.json', rng)}"
            return Made(what, _order(place, base=RUN))
    named = rng.choice(
        (STUDENT, "../received/pictures", "/dev/zero", "/dev/null", "cache", ".", "no/where", "/proc/self")
    )
    return Made(f"--base {named}", _order(place, base=named))
