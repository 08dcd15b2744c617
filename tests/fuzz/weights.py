"""Files of weights: student, exported file, slider, teacher, checkpoints. Damage is found, or changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import received
from fuzz.consent import CHECKSUM, received_card
from fuzz.damage import PLACES, Raw, bytes_of, damage_json, dumps, flip, json_value, put_in_place, replace
from fuzz.judge import Check, Order, digest, same
from fuzz.kinds import OWN, RECEIVED, TABLE, Made, Place

FILE = "../received/files/student.safetensors"
SAMPLE_FILE = f"sample {FILE} --columns 1 --classes 0 --out out/f.png"
EVALUATE_FILE = (
    f"evaluate {FILE} --like {{run}} --cache cache --num-samples 4 --steps 1 --metrics matched --out out/ev.json"
)
APPLY = "control apply {run} ../received/files/control.safetensors --columns 1 --cache cache --out out/c.png"
RESUME = "launch tiny.py --scale smoke --out runs --cache cache --stages distill"


def header_size(content: bytes) -> int:
    """Bytes of a safetensors file before its data."""
    return 8 + int.from_bytes(content[:8], "little")


def damage(path: Path, how: str, rng: random.Random) -> str:
    """Damage a safetensors file in a named way."""
    content = path.read_bytes()
    start = header_size(content)
    match how:
        case "bit of data":
            place = rng.randrange(start, len(content))
            replace(path, flip(content, place, rng.randrange(8)))
            return f"bit of data at byte {place}"
        case "sign of data":
            place = rng.randrange((len(content) - start) // 4) * 4 + start + 3
            replace(path, flip(content, place, 7))
        case "bit of header":
            replace(path, flip(content, rng.randrange(start), rng.randrange(8)))
        case "cut":
            replace(
                path, content[: rng.choice((0, 4, 8, start - 1, start, len(content) - 1, rng.randrange(len(content))))]
            )
        case "tail":
            replace(path, content + bytes(rng.choice((1, 8, 4096))))
        case "length lies":
            length = rng.choice((0, 1, start - 9, start - 7, 2**31, 2**62, 2**64 - 1))
            replace(path, length.to_bytes(8, "little") + content[8:])
        case "header lies":
            return _lie(path, content, start, rng)
        case "swapped":
            half = start + (len(content) - start) // 2 // 4 * 4
            replace(path, content[:start] + content[half:] + content[start:half])
        case "nan" | "inf" | "zero" | "half":
            _values(path, how)
        case "place":
            return put_in_place(path, rng.choice(PLACES))
        case "bytes":
            slip = rng.choice(("flips", "zeroed", "nul", "doubled", "byte order mark"))
            replace(path, bytes_of(content, slip, rng))
            return slip
    return how


def _lie(path: Path, content: bytes, start: int, rng: random.Random) -> str:
    header = json.loads(content[8:start])
    header.get("__metadata__", {}).pop(CHECKSUM, None)  # a lie, not damage: no checksum is to tell
    name = rng.choice([key for key in header if key != "__metadata__"])
    slip = rng.choice(("dtype", "shape", "shape", "offsets", "gone", "name", "json", "metadata", "deep", "huge shape"))
    entry = header[name]
    match slip:
        case "dtype":
            entry["dtype"] = rng.choice(("F64", "I32", "F16", "BOOL", "XX", 3, None, "BF16", "I64"))
        case "shape":
            entry["shape"] = rng.choice(
                ([], [-1], [1.5], "text", [2**40], [0], entry["shape"][::-1], [*entry["shape"], 1], None)
            )
        case "huge shape":
            entry["shape"], entry["data_offsets"] = [2**35], [0, 2**37]
        case "offsets":
            entry["data_offsets"] = rng.choice(([0, 4], [4, 0], [-4, 0], [0, 2**60], None, [0], ["a", "b"], [0.5, 4.5]))
        case "gone":
            del header[name]
        case "name":
            header["\x1b[31mred"] = header.pop(name)
        case "metadata":
            header["__metadata__"] = rng.choice(
                (None, {}, [], {"ladd_dist": 1}, {"ladd_dist": "{"}, {"a": "b"}, {"ladd_dist": "[]"})
            )
        case "json":
            slip, header = json_value(header, rng)
        case "deep":
            header["__metadata__"]["ladd_dist"] = "[" * 100_000
    text = dumps(header)
    replace(path, len(text).to_bytes(8, "little") + text + content[start:])
    return f"the header lies: {slip}"


def _values(path: Path, how: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    if how in ("nan", "inf"):
        metadata.pop(CHECKSUM, None)
    tensors = load_file(path)
    name = max(tensors, key=lambda key: tensors[key].numel())
    changed = tensors[name].clone()
    if how == "half":
        changed = changed.half()
    elif how == "zero":
        changed.zero_()
    else:
        changed.view(-1)[0] = float(how)
    replace(path, save({**tensors, name: changed}, metadata))


HOWS = (
    "bit of data",
    "sign of data",
    "bit of data",
    "bit of header",
    "cut",
    "tail",
    "length lies",
    "header lies",
    "header lies",
    "swapped",
    "nan",
    "inf",
    "zero",
    "half",
    "place",
    "bytes",
)


def _same(place: Place, path: str, name: str) -> Check:
    return same(path, place.base.sound[name])


@TABLE.add("weights/student", *RECEIVED, quick=16, full=110)
def student(place: Place, seed: int, rng: random.Random) -> Made:
    """The student in a received run: whoever reads it finds the damage, or gives what the sound one gives."""
    what = damage(place.run / "student.safetensors", HOWS[seed % len(HOWS)], rng)
    command, check = rng.choice(
        (
            (received.SAMPLE, _same(place, "own/out/s.png", "sample")),
            (received.EXPORT, _same(place, "own/out/e.safetensors", "export")),
            (received.EXPORT, _same(place, "own/out/e.safetensors", "export")),
        )
    )
    return Made(what, received.order_of(place, command, check=check))


def _like_sound(place: Place) -> Check:
    """The figures of a student with damage are those of the sound one, which is to be measured once."""

    def check(root: Path, ended: object) -> str:
        return (
            ""
            if digest(place.run / "student.safetensors") == place.base.sound["student"]
            else "measured another student"
        )

    return check


@TABLE.add("weights/evaluated", *RECEIVED, quick=1, full=24)
def evaluated(place: Place, seed: int, rng: random.Random) -> Made:
    """A damaged student is measured."""
    what = damage(place.run / "student.safetensors", HOWS[seed % len(HOWS)], rng)
    return Made(what, received.order_of(place, received.EVALUATE, check=_like_sound(place)))


@TABLE.add("weights/exported file", *RECEIVED, quick=8, full=70)
def exported(place: Place, seed: int, rng: random.Random) -> Made:
    """An exported student's file."""
    what = damage(place.root / "received/files/student.safetensors", HOWS[seed % len(HOWS)], rng)
    return Made(what, received.order_of(place, SAMPLE_FILE, check=_same(place, "own/out/f.png", "sample file")))


CARDS: tuple[tuple[str, Any], ...] = (
    ("image.channels", 1_000_000),
    ("image.channels", 10**12),
    ("image.height", 2**20),
    ("image.height", 0),
    ("image.height", -16),
    ("image.num_classes", 10**9),
    ("image.num_classes", 0),
    ("network.blocks", 10_000_000),
    ("network.widths", [8] * 100_000),
    ("network.widths", [2**30, 8]),
    ("network.widths", []),
    ("network.embed_dim", 2**40),
    ("network.attention_heads", 0),
    ("network.patch", 0),
    ("network.sigma_data", float("nan")),
    ("network.sigma_data", 0),
    ("network.precondition", "none"),
    ("network.plugin", "../../x"),
    ("network.plugin", 3),
    ("levels", {}),
    ("levels", {"4": []}),
    ("levels", {"x": [1.0]}),
    ("levels", {"4": [float("nan")] * 4}),
    ("levels", {"4": [1.0, 2.0, 3.0, 4.0]}),
    ("levels", {"4": [80.0, 3.0, 1.0]}),
    ("levels", {"1": [float("inf")]}),
    ("levels", {"1": [-1.0]}),
    ("levels", {"1": ["80"]}),
    ("levels", {str(10**7): [80.0] * 10}),
    ("levels", {"10000000": list(range(300_000, 0, -1))}),
    ("rule", "magic"),
    ("rule", 3),
    ("rule", None),
    ("law", {"plugin": "x"}),
    ("law", {"plugin": "karras", "sigma_max": float("inf")}),
    ("signature", 5),
    ("recipe", "\x1b[31mred"),
    ("network", []),
    ("image", None),
    ("codec", {"plugin": "vae"}),
    ("codec", 3),
    ("student", {"plugin": "lora", "rank": 2**40}),
    ("space", 3),
    ("weights_sha256", "0" * 64),
    ("weights_sha256", 3),
    ("teacher", {"file": "/dev/zero", "signature": "x"}),
)
"""Values on a student's card that nobody wrote."""


def set_value(data: Any, path: str, value: Any) -> None:
    *parents, key = path.split(".")
    for parent in parents:
        data = data[parent]
    data[key] = value


@TABLE.add("weights/card", *RECEIVED, quick=14, full=len(CARDS) * 2)
def card(place: Place, seed: int, rng: random.Random) -> Made:
    """A card that asks for too much memory or time, or whose values make no sense."""
    field, value = CARDS[(seed * 7) % len(CARDS)]
    received_card(place.root / "received/files/student.safetensors", lambda found: set_value(found, field, value))
    check = None if field in ("recipe", "signature", "space") else _same(place, "own/out/f.png", "sample file")
    command = SAMPLE_FILE if seed < len(CARDS) else EVALUATE_FILE
    order = Order(received.words_of(place, command), allow=("own/cache",), check=check if seed < len(CARDS) else None)
    return Made(f"{field} is {str(value)[:40]!r}", order)


@TABLE.add("weights/card slips", *RECEIVED, quick=8, full=80)
def card_slips(place: Place, seed: int, rng: random.Random) -> Made:
    """A card with one value of another kind."""
    what = slip(place.root / "received/files/student.safetensors", rng)
    return Made(what, received.order_of(place, SAMPLE_FILE))


def slip(path: Path, rng: random.Random) -> str:
    """Put a value of another kind into the card of a student's file; returns what was done."""
    name = ""

    def change(found: dict[str, Any]) -> None:
        nonlocal name
        name, new = json_value(dict(found), rng)
        found.clear()
        found.update(new if isinstance(new, dict) else {"network": None if isinstance(new, Raw) else new})

    received_card_raw(path, change)
    return name


def received_card_raw(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the card in a file's header, which may then hold what no JSON writer writes."""
    content = path.read_bytes()
    start = header_size(content)
    header = json.loads(content[8:start])
    header["__metadata__"].pop(CHECKSUM, None)
    card = json.loads(header["__metadata__"]["ladd_dist"])
    card.pop("weights_sha256", None)
    change(card)
    header["__metadata__"]["ladd_dist"] = dumps(card).decode("utf-8", "surrogatepass")
    text = json.dumps(header).encode()
    replace(path, len(text).to_bytes(8, "little") + text + content[start:])


@TABLE.add("weights/slider", *RECEIVED, quick=1, full=32)
def slider(place: Place, seed: int, rng: random.Random) -> Made:
    """A concept slider's file, whose damage is found before the run is opened."""
    path = place.root / "received/files/control.safetensors"
    hows = [how for how in HOWS if how not in ("zero", "half", "sign of data", "bit of data")]
    what = damage(path, rng.choice(hows), rng)
    return Made(what, Order(received.words_of(place, APPLY), allow=("own/cache",)))


@TABLE.add("weights/teacher", *RECEIVED, quick=4, full=40)
def teacher(place: Place, seed: int, rng: random.Random) -> Made:
    """The trained teacher in the cache."""
    what = damage(place.cache / place.base.teacher / "teacher.safetensors", HOWS[seed % len(HOWS)], rng)
    check = _same(place, "own/out/t.png", "sample teacher")
    words = received.words_of(place, received.SAMPLE_TEACHER.replace("s.png", "t.png"))
    return Made(what, Order(words, allow=("own/cache",), check=check))


CHECKPOINT_HOWS = (
    "bit of data",
    "bit of data",
    "bit of header",
    "cut",
    "swapped",
    "header lies",
    "place",
    "nan",
    "tail",
    "length lies",
)


def _checkpoint(place: Place, run: Path, step: int, seed: int, rng: random.Random) -> str:
    folder = run / "checkpoints" / f"step-{step:08d}"
    if seed % 3 == 2:
        if seed % 2:  # as older versions wrote it, and whoever means harm
            meta = json.loads((folder / "meta.json").read_bytes())
            meta.pop("sha256", None)
            replace(folder / "meta.json", json.dumps(meta).encode())
        return f"meta.json: {damage_json(folder / 'meta.json', rng)}"
    [path] = folder.glob("*.safetensors")
    return damage(
        path, CHECKPOINT_HOWS[seed // 3 * 2 % len(CHECKPOINT_HOWS)] if seed % 3 else rng.choice(CHECKPOINT_HOWS), rng
    )


@TABLE.add("checkpoints/exported", *RECEIVED, quick=9, full=70)
def checkpoint_exported(place: Place, seed: int, rng: random.Random) -> Made:
    """A received checkpoint whose average is exported."""
    step = rng.choice((2, 4))
    what = _checkpoint(place, place.run, step, seed, rng)
    name = {2: "two", 4: "four"}[step]
    if step == 4:
        (place.run / "student.safetensors").unlink()
    words = f"export {{run}} --step {step} --out out/{name}.safetensors"
    check = _same(place, f"own/out/{name}.safetensors", f"export step {step}") if step == 2 else _average(place)
    return Made(f"step {step}: {what}", received.order_of(place, words, check=check))


def _average(place: Place) -> Check:
    """The averaged weights of the last checkpoint are the finished student."""

    def check(root: Path, ended: object) -> str:
        found = digest(root / "own/out/four.safetensors")
        return "" if found in (place.base.sound["student"], place.base.sound["export"]) else "exported another student"

    return check


@TABLE.add("checkpoints/resumed", *OWN, quick=2, full=60)
def resumed(place: Place, seed: int, rng: random.Random) -> Made:
    """A run that goes on from a damaged checkpoint ends with the student of the undisturbed run, or says why not."""
    (place.own_run / "student.safetensors").unlink()
    (place.own_run / "distill.done.json").unlink()
    step = 4 if rng.random() < 0.7 else 2
    what = _checkpoint(place, place.own_run, step, seed, rng)
    if step == 2:
        shutil.rmtree(place.own_run / "checkpoints" / "step-00000004")
    elif seed % 5 == 0:
        what += ", and the one before"
        [path] = (place.own_run / "checkpoints" / "step-00000002").glob("*.safetensors")
        damage(path, "bit of data", rng)

    path = f"own/runs/{place.base.run}/student.safetensors"
    order = Order(RESUME.split(), allow=("own/runs", "own/cache"), check=same(path, place.base.sound["student"]))
    return Made(f"step {step}: {what}", order)


@TABLE.add("checkpoints/folders", *OWN, quick=1, full=20)
def checkpoint_folders(place: Place, seed: int, rng: random.Random) -> Made:
    """Folders beside the checkpoints that a kill or somebody left: none of them is taken for a checkpoint."""
    (place.own_run / "student.safetensors").unlink()
    (place.own_run / "distill.done.json").unlink()
    folder = place.own_run / "checkpoints"
    shutil.rmtree(folder / "step-00000004")
    name = rng.choice(
        (
            ".tmp-step-00000004",
            "step-00000003",
            "step-99999999",
            "step-x",
            "step-",
            "step--1",
            "step-00000004",
            "step-" + "9" * 30,
        )
    )
    kind = rng.choice(("empty", "file", "copy", "fifo", "link"))
    path = folder / name
    match kind:
        case "empty":
            path.mkdir()
        case "file":
            path.write_text("x", encoding="utf-8")
        case "copy":
            shutil.copytree(folder / "step-00000002", path)
        case _:
            put_in_place(path, "fifo" if kind == "fifo" else "dangling link")
    path_out = f"own/runs/{place.base.run}/student.safetensors"
    order = Order(RESUME.split(), allow=("own/runs", "own/cache"), check=same(path_out, place.base.sound["student"]))
    return Made(f"{name[:20]} is {kind}", order)
