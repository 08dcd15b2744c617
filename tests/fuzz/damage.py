"""Damage of files: their bytes, the values of their JSON, and what lies in their place."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ESCAPES = (
    "\x1b]52;c;Y2FuYXJ5\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b31mC1",
    "two\nlines\rback",
    "=HYPERLINK(1)",
    "+1+1",
    "@SUM(1)",
    "[bold red]markup[/]",
    "[/nothing]",
    "<script>alert(1)</script>",
    "\u202egnitirw",
    "\x00nul",
    "\ttab",
    "-1+cmd|' /C'!A0",
)
PATHS = ("../../outside/escaped", "/../outside/escaped", ".", "..", "", "a/b", "a\nb", "~", "x" * 5000, "\ud800")

HUGE = 3 * 2**30
"""Bytes of a sparse file: more than a command may take, less than its address space, into which weights are mapped."""


class Raw(NamedTuple):
    """Text that stands in JSON as it is."""

    text: str


WRONG: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("true", True),
    ("zero", 0),
    ("minus one", -1),
    ("fraction", 1.5),
    ("empty text", ""),
    ("text", "text"),
    ("list", []),
    ("list of lists", [[]]),
    ("object", {}),
    ("object of one", {"a": 1}),
    ("400 digits", Raw("9" * 400)),
    ("2**63", Raw(str(2**63))),
    ("NaN", Raw("NaN")),
    ("Infinity", Raw("Infinity")),
    ("1e999", Raw("1e999")),
    ("-1e308", Raw("-1e308")),
    ("deep list", Raw("[" * 50_000 + "]" * 50_000)),
    ("deep object", Raw('{"a":' * 50_000 + "1" + "}" * 50_000)),
    ("long text", "x" * 200_000),
    ("long list", Raw("[" + "0," * 200_000 + "0]")),
    ("lone surrogate", Raw('"\\ud800"')),
    ("list of texts", ["a", "b"]),
    *((f"escape {number}", text) for number, text in enumerate(ESCAPES)),
    *((f"path {number}", text) for number, text in enumerate(PATHS[:-1])),
)
BYTES = ("flip", "flips", "cut", "empty", "zeroed", "latin-1", "utf-16", "byte order mark", "tail", "nul", "doubled")
PLACES = ("fifo", "folder", "device", "dangling link", "circle of links", "huge", "socket")


def replace(path: Path, content: bytes) -> None:
    """Write a file anew; what was hard-linked to it stays."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def flip(content: bytes, place: int, bit: int) -> bytes:
    """The content with one bit of the byte at a place turned."""
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def bytes_of(content: bytes, how: str, rng: random.Random) -> bytes:
    """Content damaged as one of `BYTES` says."""
    place = rng.randrange(len(content))
    match how:
        case "flip":
            return flip(content, place, rng.randrange(8))
        case "flips":
            for _ in range(20):
                content = flip(content, rng.randrange(len(content)), rng.randrange(8))
            return content
        case "cut":
            return content[:place]
        case "empty":
            return b""
        case "zeroed":
            return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]
        case "latin-1":
            return content[:place] + b"\xe9\xff" + content[place:]
        case "utf-16":
            return content.decode("utf-8", "replace").encode("utf-16")
        case "byte order mark":
            return b"\xef\xbb\xbf" + content
        case "tail":
            return content + rng.randbytes(100)
        case "nul":
            return content[:place] + b"\0" + content[place:]
        case "doubled":
            return content + content
    raise ValueError(how)


def put_in_place(path: Path, what: str) -> str:
    """Put one of `PLACES` where a file was; returns what became of it, for a device may need more rights."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match what:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":  # of its own, like /dev/zero: what is written to it or renamed over it harms nobody
            with contextlib.suppress(PermissionError):
                os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
                return what
            os.mkfifo(path)
            return "fifo"
        case "dangling link":
            path.symlink_to("nowhere")
        case "circle of links":
            path.symlink_to(path.name)
        case "huge":
            with path.open("wb") as stream:
                stream.truncate(HUGE)
        case "socket":
            os.mknod(path, 0o600 | stat.S_IFSOCK)
    return what


# --- JSON ---


def places_of(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value, that of the whole too."""
    found = [here]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places_of(item, (*here, key))
    return found


def with_value(value: Any, place: tuple[Any, ...], new: Callable[[Any], Any]) -> Any:
    """A copy with what is at a place put through `new`; None from a key's `new` is a value, not an absence."""
    if not place:
        return new(value)
    head, *rest = place
    copy = value.copy()
    copy[head] = with_value(value[head], tuple(rest), new)
    return copy


def dumps(value: Any) -> bytes:
    """JSON as bytes, with `Raw` texts as they are, and lone surrogates."""
    raws: list[str] = []

    def mark(found: Any) -> Any:
        if isinstance(found, Raw):
            raws.append(found.text)
            return f"@@raw{len(raws) - 1}@@"
        if isinstance(found, dict):
            return {key: mark(item) for key, item in found.items()}
        return [mark(item) for item in found] if isinstance(found, list) else found

    text = json.dumps(mark(value), indent=1)
    for number, raw in enumerate(raws):
        text = text.replace(f'"@@raw{number}@@"', raw)
    return text.encode("utf-8", "surrogatepass")


def pick(value: Any, rng: random.Random) -> tuple[Any, ...]:
    """A place in a JSON value; those near the top come as often as all below them."""
    places = places_of(value)
    depth = rng.randrange(max(map(len, places)) + 1)
    return rng.choice([place for place in places if len(place) == depth] or places)


def json_value(value: Any, rng: random.Random) -> tuple[str, Any]:
    """A JSON value with one slip, and its name: a wrong value, a key that is gone, renamed or too many."""
    place = pick(value, rng)
    where = ".".join(map(str, place)) or "all"
    slip = rng.random()
    if place and slip < 0.15:
        parent, key = place[:-1], place[-1]

        def without(holder: Any) -> Any:
            if isinstance(holder, dict):
                return {name: item for name, item in holder.items() if name != key}
            return [item for number, item in enumerate(holder) if number != key]

        return f"{where} is gone", with_value(value, parent, without)
    if place and slip < 0.25 and isinstance(place[-1], str):
        parent, key, other = place[:-1], place[-1], rng.choice([*ESCAPES, *PATHS[:-1], "key"])

        def renamed(holder: Any) -> Any:
            return {(other if name == key else name): item for name, item in holder.items()}

        return f"{where} is called {other[:20]!r}", with_value(value, parent, renamed)
    name, new = rng.choice(WRONG)
    return f"{where} is {name}", with_value(value, place, lambda old: new)


def damage_json(path: Path, rng: random.Random) -> str:
    """Damage a JSON file in one of all ways; returns which."""
    choice = rng.random()
    if choice < 0.12:
        return put_in_place(path, rng.choice(PLACES))
    content = path.read_bytes()
    if choice < 0.35:
        how = rng.choice(BYTES)
        replace(path, bytes_of(content, how, rng))
        return how
    name, value = json_value(json.loads(content), rng)
    replace(path, dumps(value))
    return name


def damage_lines(path: Path, rng: random.Random) -> str:
    """Damage a file of JSON lines in one of all ways; returns which."""
    if rng.random() < 0.4:
        return damage_bytes(path, rng)
    lines = path.read_bytes().splitlines()
    number = rng.choice([0, len(lines) - 1, rng.randrange(len(lines))])
    name, value = json_value(json.loads(lines[number]), rng)
    lines[number] = dumps(value).replace(b"\n", b" ")
    replace(path, b"\n".join(lines) + b"\n")
    return f"line {number}: {name}"


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Damage any file's bytes, or put something in its place; returns which."""
    if rng.random() < 0.25:
        return put_in_place(path, rng.choice(PLACES))
    how = rng.choice(BYTES)
    replace(path, bytes_of(path.read_bytes(), how, rng))
    return how
