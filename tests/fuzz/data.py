"""Data sets and other folders from outside: MNIST's files, prompts, recipes, W&B's files."""

from __future__ import annotations

import io
import os
import random
import struct
from pathlib import Path

from foreign_source import member, write_tar

from fuzz.damage import ESCAPES, PLACES, flip, put_in_place
from fuzz.judge import Order
from fuzz.kinds import TABLE, Made, Place

LAUNCH = ["launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache"]
SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
ALLOW = ("own/runs", "own/cache")


def _mnist(folder: Path) -> None:
    """Files of the right size and header, whose pictures are black; sparse, so that they cost nothing."""
    folder.mkdir(parents=True)
    for name, size in SIZES.items():
        count = (60_000, 10_000)[name.startswith("t10k")]
        header = struct.pack(">4I", 2051, count, 28, 28) if "images" in name else struct.pack(">2I", 2049, count)
        with (folder / name).open("wb") as stream:
            stream.write(header)
            stream.truncate(size)


@TABLE.add("data/mnist", "own/cache", quick=1, full=48)
def mnist(place: Place, seed: int, rng: random.Random) -> Made:
    """MNIST's files are not what their names say."""
    folder = place.root / "data" / "MNIST" / "raw"
    _mnist(folder)
    path = folder / list(SIZES)[seed % 4]
    slip = ("place", "magic", "dimensions", "labels", "short", "long", "type", "gone", "rank", "root")[seed // 4 % 10]
    root = str(place.root / "data")
    with path.open("r+b") as stream:
        match slip:
            case "magic":
                stream.write(rng.randbytes(4))
            case "dimensions":
                stream.seek(4)
                stream.write(struct.pack(">I", rng.choice((0, 1, 2**32 - 1, 59_999, 2**31))))
            case "labels":
                stream.seek(8)
                stream.write(b"\xff" * 64)
            case "type":
                stream.write(bytes([0, 0, rng.choice((9, 11, 12, 13, 14, 0, 255)), rng.choice((1, 3))]))
            case "rank":
                stream.write(bytes([0, 0, 8, rng.choice((0, 2, 4, 255))]))
            case "short":
                stream.truncate(rng.choice((0, 4, 16, 1000)))
            case "long":
                stream.truncate(50 * 2**30)
    if slip == "gone":
        path.unlink()
    if slip == "place":
        slip = put_in_place(path, rng.choice(PLACES))
    if slip == "root":
        root = rng.choice(("/dev/null", str(path), "\x1b[31mred", "", "x" * 5000))
    words = [
        *LAUNCH,
        "--swap",
        "dataset=mnist",
        f"--dataset.root={root}",
        "--dataset.size",
        "16",
        "--dataset.no-download",
        "--stages",
        "teacher",
    ]
    return Made(f"{path.name}: {slip}", Order(words, allow=ALLOW))


@TABLE.add("data/prompts", "own/cache", quick=1, full=32)
def prompts(place: Place, seed: int, rng: random.Random) -> Made:
    """A file of prompts that is none."""
    path = place.root / "outside" / "prompts.txt"
    contents = (
        b"\xff\xfea\x00",
        b"a\0b\n",
        b"\n\n\n",
        b"",
        b"x" * 20_000,
        b"caf\xe9\n",
        *(text.encode() for text in ESCAPES[:6]),
    )
    slip = rng.choice(("place", "content", "content"))
    path.write_bytes(rng.choice(contents))
    if slip == "place":
        slip = put_in_place(path, rng.choice(PLACES))
    words = [*LAUNCH, "--swap", "dataset=prompts", f"--dataset.file={path}", "--dry-run"]
    return Made(slip, Order(words, allow=ALLOW))


def _pictures(rng: random.Random, root: Path) -> None:
    """A dozen sound pictures in two class folders."""
    from PIL import Image

    for number in range(12):
        folder = root / ("ones", "twos")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (rng.randrange(256), number, 9)).save(folder / f"{number:02d}.png")


def _spoil_picture(path: Path, rng: random.Random) -> None:
    """Bytes changed, cut off or put in."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(bytes(content[: rng.choice((len(content), rng.randrange(len(content)), 0))]))


@TABLE.add("data/pictures", "own/cache", quick=3, full=96)
def pictures(place: Place, seed: int, rng: random.Random) -> Made:
    """A folder of pictures that holds what is none, or metadata that say other things."""
    root = place.root / "data" / "pictures"
    _pictures(rng, root)
    victim = root / "ones" / "00.png"
    lines = (
        b'{"file_name": "../../outside/x.png"}\n',
        b'{"file_name": "ones/00.png", "text": "a"}\n{"file_name": \n',
        b"[" * 100_000,
        b'{"file_name": "ones/00.png", "label": "\x1b[31mred"}\n',
        b'{"file_name": "\\ud800.png"}\n',
        b'{"file_name": "' + b"x/" * 5_000 + b'.png"}\n',
        b"\xff\xfe\0",
        b'{"file_name": "ones/00.png", "base": ' + b"9" * 400 + b"}\n",
    )
    slips = ("bytes", "metadata", "place", "names", "header", "circle", "deep", "root", "text", "bytes", "metadata")
    slip, root_text, more = slips[seed % len(slips)], str(root), []
    match slip:
        case "bytes":
            for path in rng.sample(sorted(root.rglob("*.png")), 4):
                _spoil_picture(path, rng)
        case "metadata":
            (root / "metadata.jsonl").write_bytes(rng.choice(lines))
        case "place":
            slip = put_in_place(victim, rng.choice(PLACES))
        case "header":
            header = struct.pack(">2I5B", *rng.choice(((2**31 - 1, 2**31 - 1), (0, 1), (9_000, 9_000))), 8, 6, 0, 0, 0)
            victim.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + rng.randbytes(40))
        case "names":
            name = rng.choice(
                (b"\xff\xe9.png", b"\x1b]52;c;x\x07.png", b"two\nlines.png", b"-x.png", b"\xe2\x80\xae.png")
            )
            victim.rename(os.fsdecode(os.fsencode(victim.parent) + b"/" + name))
            (root / "twos" / "01.png").write_bytes(b"")
        case "circle":
            (root / "ones" / "again").symlink_to("..")
        case "deep":
            (root / "/".join(["d"] * 400)).mkdir(parents=True)
        case "root":
            root_text = rng.choice(("/dev/null", str(victim), "\x1b[31mred", "", "x" * 5_000, "/proc/self/fd"))
        case "text":
            (root / "ones" / "00.txt").write_bytes(rng.choice((b"\xff", b"x" * 50_000, b"a\0b", b"")))
            more = ["--dataset.captions", "txt"]
    words = [*LAUNCH, "--swap", "dataset=folder", f"--dataset.root={root_text}", "--dataset.size", "16", *more]
    words += rng.choice(([], ["--dataset.on-bad", "skip"]))
    return Made(slip, Order([*words, "--stages", "teacher"], allow=ALLOW))


@TABLE.add("data/picture shards", "own/cache", quick=2, full=60)
def picture_shards(place: Place, seed: int, rng: random.Random) -> Made:
    """A shard of pictures with damage, members of another kind, or another name."""
    from PIL import Image

    members = []
    for number in range(12):
        data = io.BytesIO()
        Image.new("RGB", (16, 16), (rng.randrange(256), number, 9)).save(data, "png")
        members += [member(f"s{number:02d}.png", data.getvalue()), member(f"s{number:02d}.cls", b"%d" % (number % 2))]
    at = rng.randrange(len(members))
    root = place.root / "data" / "shards"
    root.mkdir(parents=True)
    path, slip, urls = root / "a.tar", ("flip", "cut", "member", "name", "place", "urls")[seed % 6], str(root / "a.tar")
    match slip:
        case "member":
            wrong = rng.choice((b"", rng.randbytes(200), b"-1", b"9" * 300, b"\x1b[31m", bytes(10**6)))
            members[at] = member(members[at][0].name, wrong)
        case "name":
            name = rng.choice(
                ("../../x.png", "/etc/x.cls", "s\x1b[31m.png", "s00.png", "none", "a.b.c.png", "d/.h.png")
            )
            members[at] = member(name, members[at][1])
    write_tar(path, members)
    content = path.read_bytes()
    match slip:
        case "flip":
            path.write_bytes(flip(content, rng.randrange(len(content)), rng.randrange(8)))
        case "cut":
            path.write_bytes(content[: rng.randrange(len(content))])
        case "place":
            slip = put_in_place(path, rng.choice(PLACES))
        case "urls":
            urls = rng.choice(
                ("", "pipe:", "pipe:exit 3", "pipe:head -c 99999999 /dev/zero", "http://[", "http://127.0.0.1:1/a.tar",
                 "\x1b[31m.tar", "{0..99999999}.tar", "x" * 5_000, f"{root}/{{a,b}}.tar", "ftp://host/a.tar", "::")
            )  # fmt: skip
    words = [*LAUNCH, "--swap", "dataset=webdataset", f"--dataset.urls={urls}", "--dataset.size", "16"]
    words += ["--dataset.num-classes", "2", *rng.choice(([], ["--dataset.on-bad", "skip"]))]
    return Made(slip, Order([*words, "--stages", "teacher"], allow=ALLOW))


@TABLE.add("data/recipes", "own/cache", quick=2, full=48)
def recipes(place: Place, seed: int, rng: random.Random) -> Made:
    """A recipe file of one's own with a slip."""
    contents = {
        "empty": b"",
        "null bytes": b"RECIPE = 1\0",
        "latin-1": b"# caf\xe9\nRECIPE = 1\n",
        "exits": b"raise SystemExit(0)\n",
        "raises escapes": b"raise ValueError('\\x1b[31mred\\n\\x9b1m')\n",
        "recursion": b"def f(): f()\nf()\n",
        "deep": b"RECIPE = " + b"(" * 500 + b")" * 500,
        "none": b"RECIPE = None\n",
        "interrupt": b"raise KeyboardInterrupt\n",
        "base exception": b"class B(BaseException): pass\nraise B('x')\n",
        "generator exit": b"raise GeneratorExit\n",
        "prints": b"print('\x1b[31mred')\nfrom tiny import RECIPE\n",
        "utf-16": "RECIPE = 1".encode("utf-16"),
        "text": b"RECIPE = 'x'\n",
        "syntax": b"RECIPE = (\n",
        "nan": b"from plugins.schedules.constant import Constant\nfrom tiny import RECIPE\n"
        b"RECIPE = RECIPE.replace(adv_weight=Constant(value=float('nan')))\n",
        "name": b"from tiny import RECIPE\nRECIPE = RECIPE.replace(name='../../outside/x')\n",
        "name with escape": b"from tiny import RECIPE\nRECIPE = RECIPE.replace(name='\\x1b[31mred')\n",
        "memory": b"RECIPE = 'x' * (10**12)\n",
        "sweep": b"SWEEP = 1\n",
        "note": b"from tiny import RECIPE\nRECIPE = RECIPE.replace(note='\\udcff')\n",
    }
    slips = [*contents, *PLACES[:5]]
    slip = slips[seed % len(slips)]
    path = place.root / "own" / "mine.py"
    path.write_bytes(contents.get(slip, b""))
    if slip not in contents:
        slip = put_in_place(path, slip)
    command = ("launch", "plan", "doctor", "sweep")[seed // len(slips) % 4]
    more = {
        "launch": ["--scale", "smoke", "--dry-run"],
        "plan": ["--scale", "smoke"],
        "doctor": ["--scale", "smoke", "--only", "disk"],
        "sweep": ["--dry-run"],
    }[command]
    order = Order(
        [command, "mine.py", *more],
        silent_ok=command == "doctor",
        codes=(1, 2, 130) if slip == "interrupt" else (0, 1, 2),
    )
    if slip == "prints":  # a user's own file may print what it likes
        return Made("prints", Order(["launch", "nowhere.py"]))
    return Made(slip, order)


@TABLE.add("data/wandb", "received", quick=3, full=40)
def wandb(place: Place, seed: int, rng: random.Random) -> Made:
    """W&B's folders that hold no run, or a file of another kind."""
    folder = place.root / "received" / "wandb" / "offline-run-20260101_000000-abcd1234"
    folder.mkdir(parents=True)
    path = folder / "run-abcd1234.wandb"
    begin = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    contents = (
        b"",
        begin,
        begin[:3],
        begin + rng.randbytes(1000),
        rng.randbytes(40_000),
        begin + bytes(32_768 * 2),
        begin + struct.pack("<IHB", 0, 60_000, 1) + b"x" * 100,
        begin + struct.pack("<IHB", 0, 10, 9) + b"x" * 10,
        begin + (struct.pack("<IHB", 0, 4, 2) + b"abcd") * 5_000,
    )
    what = "content"
    path.write_bytes(contents[seed % len(contents)])
    if rng.random() < 0.25:
        what = put_in_place(path, rng.choice(PLACES))
    (folder / "files").mkdir()
    (folder / "files" / "config.yaml").write_text("a: [\n", encoding="utf-8")
    words = ["compare", "wandb-offline:../received/wandb", "--metric", "matched_error"]
    return Made(f"{what} {seed % len(contents)}", Order(words, allow=("own/wandb",)))


@TABLE.add("data/folders", "received", "own/cache", quick=3, full=24)
def folders(place: Place, seed: int, rng: random.Random) -> Made:
    """Folders of runs with strange names, depths and links in a circle."""
    runs = place.root / "received" / "runs"
    slip = rng.choice(("circle", "up", "not utf-8", "newline", "many", "deep", "escape", "dangling"))
    match slip:
        case "circle":
            (runs / "again").symlink_to(".")
        case "up":
            (runs / "up").symlink_to("../..")
        case "not utf-8":
            place.run.rename(Path(os.fsdecode(os.fsencode(runs) + b"/run-\xff\xe9")))
        case "newline":
            place.run.rename(runs / "two\nlines")
        case "escape":
            place.run.rename(runs / "\x1b]52;c;x\x07\x9b1m")
        case "many":
            for number in range(2000):
                (runs / f"run-{number}").mkdir()
        case "deep":
            deep = runs / "/".join(["d"] * 500)
            deep.mkdir(parents=True)
        case "dangling":
            (runs / "gone").symlink_to("nowhere")
    command = rng.choice(
        (
            "jobs ../received/runs",
            "jobs ../received/runs --json",
            "compare ../received/runs --metric matched_error --skip-broken --csv out/c.csv --out out/p.html",
        )
    )
    return Made(slip, Order(command.split()))
