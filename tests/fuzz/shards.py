"""Shards from outside for `--shards.source`: every sample comes in as it was written, or none does."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import struct
import tarfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from foreign_source import foreign_sample, member, members_of, npy, write_tar

from fuzz.base import NUM_FOREIGN
from fuzz.consent import pickle_of
from fuzz.damage import ESCAPES, PLACES, bytes_of, flip, put_in_place, replace
from fuzz.forks import Ended
from fuzz.judge import Check, Order
from fuzz.kinds import TABLE, Made, Place

COMMON = [
    *("launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache", "--stages", "shards"),
    *("--shards.num-samples", "64", "--shards.source"),
]
GB = 2**30


def source_order(source: str, check: Check | None, **more: Any) -> Order:
    """The import of a source."""
    return Order([*COMMON, source], allow=("own/runs", "own/cache"), check=check, **more)


def imported(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N,3,16,16] and classes [N] of the imported set.

    Raises:
        ValueError: there is none, or several.
    """
    from safetensors.numpy import load

    [index] = (root / "own" / "cache").glob("shards-*/index.json")
    num = json.loads(index.read_bytes())["num_samples"]
    pictures, classes = [], []
    for path in sorted(index.parent.glob("*.tar")):
        with tarfile.open(path) as tar:
            for item in tar:
                if item.name.endswith(".safetensors"):
                    content = tar.extractfile(item)
                    assert content is not None
                    chunk = load(content.read())
                    pictures.append(chunk["x0"])
                    classes.append(chunk["cond"])
    found = np.concatenate(pictures), np.concatenate(classes)
    if len(found[0]) != num:
        raise ValueError(f"the index says {num} samples, the shards hold {len(found[0])}")
    return found


def complete(num: int = NUM_FOREIGN, *, exact: bool = True) -> Check:
    """All samples came in; with `exact`, each as it was written."""

    def check(root: Path, ended: Ended) -> str:
        try:
            pictures, classes = imported(root)
        except ValueError as error:
            return str(error)
        if len(pictures) != num:
            return f"{len(pictures)} of {num} samples came in"
        if exact:
            for index in range(num):
                if not np.array_equal(pictures[index], foreign_sample(index)) or classes[index] != index % 10:
                    return f"sample {index} is not what was written"
        elif not np.isfinite(pictures).all():
            return "pictures that are not finite came in"
        return ""

    return check


def tar_places(content: bytes) -> tuple[list[int], list[int]]:
    """Where the headers of a tar file begin, and the bytes of its members' contents that are no header."""
    headers, data = [], []
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for item in tar:
            headers.append(item.offset)
            data.append(item.offset_data)
    return headers, data


FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "padding": (500, 12),
}


@TABLE.add("shards/header flips", "foreign", quick=3, full=90)
def header_flips(place: Place, seed: int, rng: random.Random) -> Made:
    """One bit of one header of the tar."""
    path = place.root / "foreign" / "plain.tar"
    content = path.read_bytes()
    headers, _ = tar_places(content)
    field = list(FIELDS)[seed % len(FIELDS)]
    start, length = FIELDS[field]
    header = rng.choice(headers)
    path.write_bytes(flip(content, header + start + rng.randrange(length), rng.randrange(8)))
    what = f"bit of the {field} of the header at {header}"
    return Made(what, source_order("../foreign/plain.tar", complete()))


@TABLE.add("shards/zeroed", "foreign", quick=1, full=24)
def zeroed(place: Place, seed: int, rng: random.Random) -> Made:
    """A whole block of the tar is zeros or noise, as a disk may leave it; headers and arrays alike."""
    path = place.root / "foreign" / "plain.tar"
    content = path.read_bytes()
    headers, data = tar_places(content)
    start = rng.choice(headers if seed % 2 else data)
    noise = rng.choice((bytes(512), rng.randbytes(512), b"\xff" * 512))
    path.write_bytes(content[:start] + noise + content[start + 512 :])
    # Noise inside an array gives other pixels, which no tar can tell: what counts is that none is lost.
    return Made(f"block at {start}", source_order("../foreign/plain.tar", complete(exact=False)))


@TABLE.add("shards/cut", "foreign", quick=2, full=40)
def cut(place: Place, seed: int, rng: random.Random) -> Made:
    """The file ends early, or is followed by something."""
    zipped = seed % 3 == 1
    path = place.root / "foreign" / ("zipped.tar.gz" if zipped else "plain.tar")
    content = path.read_bytes()
    headers, _ = tar_places(content if not zipped else gzip.decompress(content))
    slip = rng.choice(("at a header", "anywhere", "in the last blocks", "tail", "twice"))
    match slip:
        case "at a header":
            content = content[: rng.choice(headers)]
        case "anywhere":
            content = content[: rng.randrange(1, len(content))]
        case "in the last blocks":
            content = content[: -rng.choice((1, 511, 512, 1024, 1025, 4096)) or None]
        case "tail":
            content += rng.choice((b"x", rng.randbytes(512), bytes(512) + rng.randbytes(1024)))
        case "twice":
            content += content
    path.write_bytes(content)
    check = _refused("the first of two archives") if slip == "twice" else complete()
    return Made(f"{path.name} {slip}", source_order(f"../foreign/{path.name}", check))


@TABLE.add("shards/compressed flips", "foreign", quick=2, full=40)
def compressed_flips(place: Place, seed: int, rng: random.Random) -> Made:
    """One bit of a compressed tar, in its stream or in its checksum; or none, which has to come in whole."""
    how = ("gz", "bz2", "xz")[seed % 3]
    plain = (place.root / "foreign" / "plain.tar").read_bytes()
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[how](plain)
    sound = seed % 7 == 6
    spot = rng.choice((rng.randrange(len(packed)), len(packed) - 1 - rng.randrange(8), rng.randrange(10)))
    path = place.root / "foreign" / f"packed.tar.{how}"
    path.write_bytes(packed if sound else flip(packed, spot, rng.randrange(8)))
    return Made(
        f"{how}{', sound' if sound else f' bit at {spot} of {len(packed)}'}",
        source_order(f"../foreign/{path.name}", complete()),
    )


def _raw_header(name: str, size: int, kind: bytes = b"0", form: str = "octal") -> bytes:
    number = b"%011o\0" % size if form == "octal" and size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block = bytearray(512)
    block[0 : len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[124:136] = number
    block[136:148] = b"%011o\0" % 0
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pax(records: dict[str, str]) -> bytes:
    text = b""
    for key, value in records.items():
        line = f" {key}={value}\n".encode()
        size = len(line) + 1
        while len(str(size)) + len(line) != size:
            size = len(str(size)) + len(line)
        text += str(size).encode() + line
    return _raw_header("pax", len(text), b"x") + text + bytes(-len(text) % 512)


BOMBS = (
    "sparse member",
    "declared 6 GB",
    "file of 6 GB",
    "gzip of 8 GB",
    "gzip of gzips",
    "npy of 2**40",
    "npy of a terabyte",
    "safetensors of 2**62",
    "sparse file",
    "device",
    "fifo",
    "folder",
    "circle of links",
    "dangling link",
    "socket",
    "million members",
    "long name",
    "pax size",
    "negative size",
    "gnu sparse",
    "zip bomb xz",
    "long pax",
)


@TABLE.add("shards/bombs", "foreign", quick=4, full=44)
def bombs(place: Place, seed: int, rng: random.Random) -> Made:
    """A small file that asks for gigabytes, or one that never ends."""
    what = BOMBS[seed % len(BOMBS)]
    path = place.root / "foreign" / "bomb.tar"
    first = members_of(range(1))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in first:
            tar.addfile(info, io.BytesIO(content))
    begun = buffer.getvalue()[: sum(512 + -(-len(content) // 512) * 512 for _, content in first)]
    end = bytes(1024)
    match what:
        case "sparse member" | "gnu sparse":
            size = 20 * GB
            records = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "s9.npy",
                "GNU.sparse.realsize": str(size),
            }
            table = b"1\n%d\n0\n" % size if what == "gnu sparse" else b"0\n"
            table += bytes(-len(table) % 512)
            path.write_bytes(begun + _pax(records) + _raw_header("s9.npy", len(table)) + table + end)
        case "declared 6 GB":
            path.write_bytes(begun + _raw_header("s9.npy", 6 * GB) + bytes(2048) + end)
        case "file of 6 GB":
            with path.open("wb") as stream:
                stream.write(begun + _raw_header("s9.npy", 6 * GB))
                stream.truncate(len(begun) + 512 + 6 * GB + 1024)
        case "gzip of 8 GB" | "zip bomb xz":
            path = path.with_suffix(".tar.gz")
            path.write_bytes(_zeros_packed(begun + _raw_header("s9.npy", 8 * GB - 512), seed))
        case "gzip of gzips":
            path = path.with_suffix(".tar.gz")
            block = gzip.compress(bytes(2**20))
            path.write_bytes(gzip.compress(begun + _raw_header("s9.npy", 2**33)) + block * 2000)
        case "npy of 2**40" | "npy of a terabyte":
            shape = (2**40,) if what == "npy of 2**40" else (3, 600_000, 600_000)
            write_tar(
                path,
                [
                    *first,
                    member("s9.npy", _npy_header({"descr": "<f4", "fortran_order": False, "shape": shape})),
                    member("s9.cls", b"1"),
                ],
            )
        case "safetensors of 2**62":
            write_tar(
                path, [*first, member("s9.safetensors", (2**62).to_bytes(8, "little") + b"{}"), member("s9.cls", b"1")]
            )
        case "million members":
            name = b"".join(_raw_header(f"s{number:07d}.txt", 0) for number in range(200_000))
            path.write_bytes(begun + name + end)
        case "long name" | "long pax":
            size = 200 * 2**20
            with path.open("wb") as stream:
                stream.write(begun + _raw_header("././@LongLink", size, b"L" if what == "long name" else b"x"))
                stream.truncate(len(begun) + 512 + size + 2048)
        case "pax size":
            path.write_bytes(begun + _pax({"size": str(6 * GB)}) + _raw_header("s9.npy", 10) + bytes(1024) + end)
        case "negative size":
            block = bytearray(_raw_header("s9.npy", 0))
            block[124:136] = b"\xff" * 12
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            path.write_bytes(begun + bytes(block) + end)
        case "sparse file":
            put_in_place(path, "huge")
        case _:
            what = put_in_place(path, what)
    return Made(what, source_order(f"../foreign/{path.name}", complete(1, exact=False)))


def _zeros_packed(head: bytes, seed: int) -> bytes:
    """A gzip stream of a head and gigabytes of zeros, in a few megabytes of file."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(head)]
    million = bytes(2**20)
    for _ in range(1024):  # one GB: 8 would take seconds to write; a reader without a limit fails with this one too
        parts.append(packer.compress(million))
    return b"".join([*parts, packer.flush()])


def _npy_header(header: object, *, version: bytes = b"\x01\x00") -> bytes:
    text = repr(header).encode() if not isinstance(header, bytes) else header
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


@TABLE.add("shards/arrays", "foreign", quick=3, full=70)
def arrays(place: Place, seed: int, rng: random.Random) -> Made:
    """One array of the set lies: its header, its type, its values."""
    good = foreign_sample(5)
    slips: dict[str, Any] = {
        "shape": _npy_header({"descr": "<f4", "fortran_order": False, "shape": (3, 16, 17)}) + good.tobytes(),
        "negative shape": _npy_header({"descr": "<f4", "fortran_order": False, "shape": (-3, -16, 16)})
        + good.tobytes(),
        "huge product": _npy_header({"descr": "<f4", "fortran_order": False, "shape": (2**32, 2**32, 1)})
        + good.tobytes(),
        "object": npy(np.array([{"a": 1}], dtype=object), allow_pickle=True),
        "pickle": _npy_header({"descr": "|O", "fortran_order": False, "shape": (1,)}) + pickle_of(place),
        "pickle alone": pickle_of(place),
        "code in the header": _npy_header(
            b"{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (1,)}"
        ),
        "deep header": _npy_header(b"(" * 20_000 + b")" * 20_000),
        "structured": npy(np.zeros((3, 16), dtype=[("a", "<f4"), ("b", "<f4")])),
        "text": npy(np.array(["a" * 100])),
        "dates": npy(np.zeros((3, 16, 16), dtype="datetime64[s]")),
        "complex": npy(good.astype(np.complex64)),
        "float16": npy(good.astype(np.float16)),
        "float64": npy(good.astype(np.float64)),
        "long double": npy(good.astype(np.longdouble)),
        "integers": npy((good * 127).astype(np.int8)),
        "big endian": npy(good.astype(">f4")),
        "fortran": npy(np.asfortranarray(good)),
        "0 to 255": npy((good + 1) * 127.5),
        "1e30": npy(good * 1e30),
        "twice the range": npy(good * 2),
        "nan": npy(np.where(good > 0.9, np.nan, good)),
        "inf": npy(np.where(good > 0.9, np.inf, good)),
        "tail": npy(good) + b"x" * 100,
        "cut": npy(good)[:-7],
        "empty": b"",
        "no header": good.tobytes(),
        "version 9": b"\x93NUMPY\x09\x00" + npy(good)[8:],
        "scalar": npy(np.float32(0.5)),
        "channels last": npy(good.transpose(1, 2, 0).copy()),
    }
    name = list(slips)[seed % len(slips)]
    members = members_of(range(NUM_FOREIGN))
    members[10] = member("s005.npy", slips[name])
    if seed >= len(slips):  # in the whole set, so that no comparison with neighbours finds it
        members = [
            member(f"s{i:03d}.npy", slips[name]) if k == 0 else pair
            for i in range(NUM_FOREIGN)
            for k, pair in enumerate(members[2 * i : 2 * i + 2])
        ]
    write_tar(place.root / "foreign" / "plain.tar", members)
    exact = name in ("big endian", "fortran", "float64") and seed < len(slips)
    valid = name in ("big endian", "fortran", "float64", "float16", "long double", "tail")
    check = complete(exact=exact) if valid else _refused(name)
    return Made(f"{name}{' in all' if seed >= len(slips) else ''}", source_order("../foreign/plain.tar", check))


def _refused(name: str) -> Check:
    def check(root: Path, ended: Ended) -> str:
        return f"{name} came in"

    return check


@TABLE.add("shards/members", "foreign", quick=2, full=56)
def members(place: Place, seed: int, rng: random.Random) -> Made:
    """Members that are missing, double, of strange names and types, or whose classes make no sense."""
    found = members_of(range(NUM_FOREIGN))
    slips = (
        "double key",
        "double member",
        "no class",
        "class of text",
        "class out of range",
        "class 2**70",
        "class nan",
        "negative class",
        "class of a fraction",
        "unordered",
        "path",
        "absolute",
        "escape name",
        "symlink",
        "hardlink",
        "device",
        "fifo",
        "folder",
        "json",
        "pyd",
        "pth",
        "not utf-8",
        "empty set",
        "only noise",
        "noise in one",
        "two suffixes",
        "capital suffix",
        "dot file",
    )
    slip = slips[seed % len(slips)]
    check: Check | None = None
    match slip:
        case "double key":
            found += [member("s003.npy", npy(foreign_sample(99))), member("s003.cls", b"3")]
            check = _refused("a key twice")
        case "double member":
            found.insert(7, member("s003.npy", npy(foreign_sample(99))))
            check = _refused("a member twice")
        case "no class":
            del found[7]
        case (
            "class of text"
            | "class out of range"
            | "class 2**70"
            | "class nan"
            | "negative class"
            | "class of a fraction"
        ):
            text = {
                "class of text": "a",
                "class out of range": "10",
                "class 2**70": str(2**70),
                "class nan": "nan",
                "negative class": "-1",
                "class of a fraction": "1.5",
            }
            found[7] = member("s003.cls", text[slip].encode())
            check = _refused(slip)
        case "unordered":
            rng.shuffle(found)
            check = _refused("members in no order")
        case "path" | "absolute" | "escape name" | "not utf-8" | "two suffixes" | "capital suffix" | "dot file":
            names = {
                "path": "../../outside/s003",
                "absolute": "/outside/s003",
                "escape name": rng.choice(ESCAPES).replace("\0", "") + "s003",
                "not utf-8": "s003\udce9",
                "two suffixes": "s003.old",
                "capital suffix": "s003",
                "dot file": ".s003",
            }
            suffix = "NPY" if slip == "capital suffix" else "npy"
            found[6], found[7] = (
                member(f"{names[slip]}.{suffix}", npy(foreign_sample(3))),
                member(f"{names[slip]}.cls", b"3"),
            )
            check = complete(exact=False)
        case "symlink" | "hardlink" | "device" | "fifo" | "folder":
            info = tarfile.TarInfo("s003.npy")
            info.type = {
                "symlink": tarfile.SYMTYPE,
                "hardlink": tarfile.LNKTYPE,
                "device": tarfile.CHRTYPE,
                "fifo": tarfile.FIFOTYPE,
                "folder": tarfile.DIRTYPE,
            }[slip]
            info.linkname = "s002.npy" if slip == "hardlink" else "/etc/passwd"
            found[6] = (info, b"")
            check = complete(exact=False)
        case "json" | "pyd" | "pth":
            found.insert(8, member(f"s003.{slip}", pickle_of(place)))
            check = complete()
        case "empty set":
            found = []
        case "only noise":
            found = [member(info.name.replace(".npy", ".noise.npy"), content) for info, content in found]
        case "noise in one":
            found.insert(8, member("s003.noise.npy", npy(foreign_sample(3))))
    write_tar(place.root / "foreign" / "plain.tar", found)
    return Made(slip, source_order("../foreign/plain.tar", check))


@TABLE.add("shards/safetensors", "foreign", quick=1, full=40)
def safetensors_members(place: Place, seed: int, rng: random.Random) -> Made:
    """A member's safetensors header lies."""
    from safetensors.numpy import save

    from fuzz.weights import damage

    target = place.root / "tmp" / "one.safetensors"
    target.write_bytes(save({"x0": foreign_sample(3), "cond": np.array(3)}))
    hows = (
        "bit of header",
        "cut",
        "tail",
        "length lies",
        "header lies",
        "header lies",
        "header lies",
        "nan",
        "inf",
        "bytes",
    )
    how = hows[seed % len(hows)]
    try:
        what = damage(target, how, rng)
    except KeyError:  # a header without metadata cannot have a deep one
        what = "deep"
        target.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)
    found = members_of(range(NUM_FOREIGN))
    found[6:8] = [member("s003.safetensors", target.read_bytes())]
    write_tar(place.root / "foreign" / "plain.tar", found)
    target.unlink()
    return Made(what, source_order("../foreign/plain.tar", complete(exact=False)))


@TABLE.add("shards/own shards", "own/cache", quick=2, full=30)
def own_shards(place: Place, seed: int, rng: random.Random) -> Made:
    """Shards that this package made, as a source: the first thing that a user tries. Sound, and with damage."""
    folder = place.root / "foreign"
    shutil.copytree(place.cache / place.base.shards, folder)
    tars = sorted(folder.glob("*.tar"))
    num = 32
    what = ("sound", "one shard", "bit", "cut", "no index", "index damaged", "one is missing", "bytes")[seed % 8]
    source = "../foreign/*.tar"
    match what:
        case "one shard":
            source, num = f"../foreign/{tars[0].name}", 16
        case "bit":
            content = tars[0].read_bytes()
            replace(tars[0], flip(content, rng.randrange(len(content)), rng.randrange(8)))
        case "cut":
            content = tars[1].read_bytes()
            replace(
                tars[1],
                content[: rng.choice((rng.randrange(len(content)), len(content) - 512, 512 * (len(content) // 1024)))],
            )
        case "no index":
            (folder / "index.json").unlink()
        case "index damaged":
            from fuzz.damage import damage_json

            what = damage_json(folder / "index.json", rng)
        case "one is missing":
            tars[1].unlink()
        case "bytes":
            replace(
                tars[0], bytes_of(tars[0].read_bytes(), rng.choice(("flips", "zeroed", "doubled", "tail", "nul")), rng)
            )
    return Made(what, source_order(source, _own(place, num, what)))


def _own(place: Place, num: int, what: str) -> Check:
    """As many samples as there were, with the pictures of the original; but where a whole file is missing, any rest."""

    def check(root: Path, ended: Ended) -> str:
        from safetensors.numpy import load

        try:
            pictures, _ = imported(root)
        except ValueError as error:
            return str(error)
        if what == "one is missing":
            return "" if len(pictures) == 16 else f"{len(pictures)} samples came in"
        if len(pictures) != num:
            return f"{len(pictures)} of {num} samples came in"
        parts = []
        for path in sorted((place.base.root / "own" / "cache" / place.base.shards).glob("*.tar")):
            with tarfile.open(path) as tar:
                parts += [
                    load(tar.extractfile(item).read())["x0"] for item in tar if item.name.endswith(".safetensors")
                ]  # type: ignore[union-attr]
        same = np.array_equal(np.concatenate(parts)[:num], pictures)
        return "" if same else "the pictures are not what the shards hold"

    # The cache already holds the user's own shards, under another signature: look at the new one alone.
    def only_new(root: Path, ended: Ended) -> str:
        shutil.rmtree(root / "own" / "cache" / place.base.shards, ignore_errors=True)
        return check(root, ended)

    return only_new


@TABLE.add("shards/table of texts", "own/runs", "own/cache", quick=2, full=40)
def table_of_texts(place: Place, seed: int, rng: random.Random) -> Made:
    """The shards in the cache have a table of texts, whose index or file is damaged; its sha256 may be right."""
    import torch

    from fuzz.damage import damage_json
    from ladd_dist.core.condition_index import TableIndex
    from ladd_dist.core.pack_rows import forms_of, write_piece
    from ladd_dist.engine.shard_writer import file_sha256

    folder, rows = place.cache / place.base.shards, {"states": torch.ones(4, 3, 2), "mask": torch.ones(4, 3).byte()}
    index, files = json.loads((folder / "index.json").read_bytes()), [write_piece(folder / "conditions-0", rows)]
    table = folder / "conditions.json"
    table.write_text(json.dumps(asdict(TableIndex([0, 1, 1, 2, 3], forms_of(rows), files))))
    if seed % 4:
        what = damage_json(table, rng)
    else:
        what = rng.choice(("flip", "cut", "zeroed", "tail"))
        replace(folder / "conditions-0", bytes_of((folder / "conditions-0").read_bytes(), what, rng))
    if table.is_file() and table.stat().st_size < GB:
        entry = {"bytes": table.stat().st_size, "sha256": file_sha256(table)}
        replace(folder / "index.json", json.dumps(index | {"conditions": {"name": table.name, **entry}}).encode())
    shutil.rmtree(place.own_run)
    words = ["launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache", "--stages", "shards,distill"]
    from fuzz.judge import same

    path = f"own/runs/{place.base.run}/student.safetensors"
    return Made(what, Order(words, allow=("own/runs", "own/cache"), check=same(path, place.base.sound["student"])))


@TABLE.add("shards/trained on", "own/runs", "own/cache", quick=1, full=50)
def trained_on(place: Place, seed: int, rng: random.Random) -> Made:
    """The shards in the cache are damaged, and a student is trained on them."""
    folder = place.cache / place.base.shards
    tar = sorted(folder.glob("*.tar"))[rng.randrange(2)]
    slip = rng.choice(("flip", "flips", "cut", "zeroed", "tail", "place", "flip"))
    if slip == "place":
        slip = put_in_place(tar, rng.choice(PLACES))
    else:
        replace(tar, bytes_of(tar.read_bytes(), slip, rng))
    shutil.rmtree(place.own_run)
    words = ["launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache", "--stages", "shards,distill"]
    from fuzz.judge import same

    path = f"own/runs/{place.base.run}/student.safetensors"
    return Made(slip, Order(words, allow=("own/runs", "own/cache"), check=same(path, place.base.sound["student"])))
