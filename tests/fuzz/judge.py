"""What must hold after every input: no traceback, one message, nothing run, nothing changed elsewhere, nothing lost."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.forks import MOST_CPU_S, Ended

MOST_PEAK = 2 * 10**9
MOST_CPU = 20.0
"""Seconds of a processor. Of the clock it may take longer on a machine that others use too."""
ALWAYS = ("own/out", "tmp", "home/.cache", "home/.config", "home/.local", "output", "notes")
"""What every command may write to."""
CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\udc80-\udcff]")
"""C0 without tab and newline, DEL, C1, and bytes that are no UTF-8."""
_MESSAGE = re.compile(r"^(?:error|stopped): ", re.MULTILINE)
_BOX = re.compile(r"^╭", re.MULTILINE)
FORMULA = re.compile(r"^\s*[=+\-@\t]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
CANARY = "ran-"
"""How the names of the files in `outside` begin that a canary writes when it runs."""

Check = Callable[[Path, Ended], str]
"""Looks at a case's folder after the command; an empty text when all is well, else what is wrong."""


@dataclass(frozen=True)
class Order:
    """A command on an input, and what is asked of it beyond what always holds."""

    words: Sequence[str | bytes]
    allow: tuple[str, ...] = ()
    """Paths below the case's folder, besides `ALWAYS`, that the command may write to."""
    environment: dict[str, str | bytes] = field(default_factory=dict)
    check: Check | None = None
    """Asked when the exit code is 0."""
    codes: tuple[int, ...] = (0, 1, 2)
    says: str = ""
    """A regular expression that the message of a refusal must have."""
    silent_ok: bool = False
    """Whether an exit code of 1 may come without a message, as of `ladd doctor`, whose table says what is wrong."""
    consents: bool = False
    """Whether the command line asks for the canary, which then has to run."""
    network: bool = False
    """Whether the command line asks for the network."""


Snapshot = dict[str, tuple[int, int, str]]


def snapshot(root: Path) -> Snapshot:
    """Type, size and a digest of every path below a folder; links are not followed."""
    found: Snapshot = {}
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            mark = ""
            if kind == stat.S_IFLNK:
                mark = str(path.readlink())
            elif kind == stat.S_IFREG:
                mark = str(status.st_mtime_ns)
            found[os.fsencode(path.relative_to(root)).decode(errors="backslashreplace")] = (kind, status.st_size, mark)
    return found


def _changed(before: Snapshot, after: Snapshot, allowed: Iterable[str]) -> list[str]:
    """Paths that are new, gone or other, outside of what is allowed."""
    paths = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    folders = tuple(f"{name}/" for name in allowed)
    wrong = [path for path in paths if not path.startswith(folders) and path not in tuple(allowed)]
    # A folder's size changes with what is allowed inside it.
    return [
        path
        for path in wrong
        if not (path in before and path in after and before[path][0] == stat.S_IFDIR == after[path][0])
    ]


def judge(order: Order, ended: Ended, root: Path, before: Snapshot) -> list[str]:
    """Everything that is wrong with how a command ended; empty when nothing is."""
    faults = [*_process(ended), *_words(order, ended)]
    after = snapshot(root)
    ran = [path for path in after if path.startswith(f"outside/{CANARY}")]
    if ran and not order.consents:
        faults.append(f"code ran: {ran[0]}")
    if order.consents and not ran and ended.code == 0:
        faults.append("the canary did not run although the command line asks for it")
    if "notes/network" in after and not order.network:
        faults.append(f"asked the network: {(root / 'notes/network').read_text()[:200].splitlines()[0]}")
    changed = [path for path in _changed(before, after, (*ALWAYS, *order.allow)) if path not in ran]
    if changed:
        faults.append(f"changed outside of its output: {', '.join(changed[:3])}")
    faults += _left(ended, before, after, root)
    if order.check is not None and ended.code == 0 and not faults:
        wrong = order.check(root, ended)
        faults += [f"silent: {wrong}"] if wrong else []
    return faults


def _process(ended: Ended) -> list[str]:
    faults = []
    if ended.timed_out:
        faults.append(f"no end after {ended.wall_s:.0f} s")
    elif ended.code < 0:
        faults.append(f"ended by signal {-ended.code}")
    if ended.cpu_s > min(MOST_CPU, MOST_CPU_S) and not ended.timed_out:
        faults.append(f"took {ended.cpu_s:.0f} s of a processor")
    if ended.peak_bytes > MOST_PEAK:
        faults.append(f"took {ended.peak_bytes / 1e9:.1f} GB of memory")
    return faults


def _words(order: Order, ended: Ended) -> list[str]:
    out, err = (text.decode("utf-8", "surrogateescape") for text in (ended.out, ended.err))
    faults = []
    if "Traceback (most recent call last)" in err or "Traceback (most recent call last)" in out:
        last = [
            line for line in err.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit|Warning)\b", line)
        ]
        faults.append(f"traceback: {(last or err.splitlines())[-1][:200]}")
    elif "this is a fault of the program" in err:
        faults.append("a fault of the program")
    elif ended.code not in order.codes and ended.code >= 0:
        faults.append(f"exit code {ended.code}")
    elif ended.code > 0:
        count = len(_MESSAGE.findall(err)) + len(_BOX.findall(err))
        if count != 1 and not (count == 0 and order.silent_ok):
            faults.append(f"{count} messages with exit code {ended.code}: {err[-200:]!r}")
        elif order.says and not re.search(order.says, err):
            faults.append(f"the message lacks {order.says!r}: {err[-300:]!r}")
    elif ended.code == 0 and _MESSAGE.search(err):
        faults.append(f"an error with exit code 0: {err[-200:]!r}")
    if found := CONTROLS.search(out + err):
        place = max(found.start() - 30, 0)
        faults.append(f"printed a control character: {(out + err)[place : found.end() + 10]!a}")
    if "--json" in order.words and ended.code == 0 and (wrong := _no_json(out)):
        faults.append(f"--json printed no JSON: {wrong}")
    return faults


def _no_json(text: str) -> str:
    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return str(error)
    return ""


def _left(ended: Ended, before: Snapshot, after: Snapshot, root: Path) -> list[str]:
    new = [path for path in after if path not in before]
    faults = []
    if ended.code >= 0 and (half := [path for path in new if "/.tmp-" in f"/{path}"]):
        faults.append(f"left half-written: {half[0]}")
    if ended.code == 2:
        folders = [path for path in new if after[path][0] == stat.S_IFDIR and re.match(r"own/(runs|cache)/.", path)]
        files = [path for path in new if after[path][0] != stat.S_IFDIR]
        empty = [folder for folder in folders if not any(file.startswith(f"{folder}/") for file in files)]
        if empty:
            faults.append(f"left an empty folder: {empty[0]}")
    for table in (root / "own" / "out").glob("*.csv"):
        if table.is_file() and (cell := _formula(table)):
            faults.append(f"a cell of {table.name} is a formula: {cell!r}")
    return faults


def _formula(table: Path) -> str:
    csv.field_size_limit(2**31 - 1)  # a text of a received file may be long
    with table.open(newline="", encoding="utf-8", errors="replace") as lines:
        cells = [cell for row in csv.reader(lines) for cell in row]
    return next((cell for cell in cells if FORMULA.match(cell) and not NUMBER.fullmatch(cell.strip())), "")


def digest(path: Path) -> str:
    """What an output says, as a digest: the pixels of a picture, the tensors of a safetensors file, else the bytes."""
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        total = hashlib.sha256()
        for name, tensor in sorted(load_file(path).items()):
            total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.numpy().tobytes())
        return total.hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same(path: str, sound: str) -> Check:
    """The output says what it says for the sound input, whose digest is `sound`."""

    def check(root: Path, ended: Ended) -> str:
        found = root / path
        if not found.is_file():
            return f"exit code 0 without {path}"
        return "" if digest(found) == sound else f"{path} is not what the sound input gives"

    return check
