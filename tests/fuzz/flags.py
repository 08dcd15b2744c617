"""Command lines: numbers out of range, names, devices, lists, patterns and texts that no sound command has."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzz.damage import ESCAPES
from fuzz.judge import Order
from fuzz.kinds import OWN, TABLE, Made, Place

LAUNCH = ["launch", "tiny.py", "--scale", "smoke", "--out", "runs", "--cache", "cache"]
ALLOW = ("own/runs", "own/cache")
NO_NUMBERS = ("nan", "inf", "-inf", "1e400", "NaN")
NUMBERS = ("-1", "0", "1e-400", "1e38", "-0.0", "1e308", "2", "-1e30")
WORDS = ("", "x", "1,5", "0x10", "1_000", "١", "1e", "--1", "½", "1 2", "\u2212 1", "9" * 400, "[", "None", "true")
INTEGERS = ("-1", "0", str(2**31), str(2**63), str(2**70), "1.5", "1e3", "nan", "-" + "9" * 30, "9" * 5000)


def _leaves(value: Any, here: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Flags of a recipe and the values that they have: each field, and lists of numbers as wholes."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "plugin":
                yield from _leaves(item, (*here, key))
    else:
        yield "--" + ".".join(here).replace("_", "-"), value


@functools.cache
def fields(base: Path, run: str) -> tuple[tuple[str, Any], ...]:
    """The flags of the tiny recipe, in an order that mixes its parts."""
    recipe = json.loads((base / "received" / "runs" / run / "config.json").read_bytes())["recipe"]
    recipe["evaluate"].pop("metrics")  # a list of plug-ins is no flag
    found = list(_leaves(recipe))
    random.Random(0).shuffle(found)
    return tuple(found)


def _of(place: Place, kind: type | tuple[type, ...]) -> list[str]:
    def fits(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool)

    return [
        flag
        for flag, value in fields(place.base.root, place.base.run)
        if fits(value) or (isinstance(value, list) and value and all(map(fits, value)))
    ]


@TABLE.add("flags/floats of recipes", *OWN, quick=4, full=180)
def floats(place: Place, seed: int, rng: random.Random) -> Made:
    """NaN and infinity in each field that is a fraction: refused as a wrong command line, by the field's name."""
    flags = _of(place, float)
    flag, value = flags[seed % len(flags)], NO_NUMBERS[(seed + seed // len(flags)) % len(NO_NUMBERS)]
    values = (
        [value, value]
        if "betas" in flag
        else [value] * 4
        if flag.endswith("four")
        else [value] * 2
        if flag.endswith("two")
        else [value]
    )
    name = flag.removeprefix("--").rpartition(".")[2].replace("-", "[-_]")
    order = Order(
        [*LAUNCH, f"{flag}={value}"] if len(values) == 1 else [*LAUNCH, flag, *values],
        allow=ALLOW,
        codes=(2,),
        says=name,
    )
    return Made(f"{flag} {value}", order)


@TABLE.add("flags/numbers of recipes", *OWN, quick=2, full=120)
def numbers(place: Place, seed: int, rng: random.Random) -> Made:
    """Numbers at the edges and no numbers, in each field; nothing is trained."""
    flags = _of(place, (int, float))
    flag = flags[seed % len(flags)]
    value = rng.choice((*NUMBERS, *WORDS) if rng.random() < 0.5 else INTEGERS)
    return Made(f"{flag} {value[:20]}", Order([*LAUNCH, "--dry-run", f"{flag}={value}"], allow=ALLOW))


@TABLE.add("flags/learning rates", *OWN, quick=2, full=32)
def learning_rates(place: Place, seed: int, rng: random.Random) -> Made:
    """Learning rates, betas and decay that no optimizer takes: refused before the first stage."""
    flag, *values = (
        ("--train.lr-student", "-1"),
        ("--train.lr-heads", "-1e-9"),
        ("--train.betas-student", "1", "0.9"),
        ("--train.betas-heads", "0.5", "1.5"),
        ("--train.betas-student", "-0.1", "0.9"),
        ("--train.weight-decay", "-1"),
        ("--teacher.lr", "-1"),
        ("--teacher.weight-decay", "-0.1"),
        ("--train.clip", "-1"),
        ("--teacher.clip", "-2"),
        ("--train.ema.half-life", "-1"),
        ("--teacher.label-dropout", "1.5"),
        ("--train.lr-final", "-1"),
        ("--teacher.lr-final", "-3"),
        ("--train.lr-student", "1e30"),
        ("--shards.guidance", "-1e9"),
    )[seed % 16]
    words = (
        [*LAUNCH, flag, *values, "--seed", "5"] if len(values) > 1 else [*LAUNCH, f"{flag}={values[0]}", "--seed", "5"]
    )
    codes = (2,) if values != ["1e30"] and "guidance" not in flag else (0, 1, 2)
    return Made(f"{flag} {' '.join(values)}", Order([*words, "--stages", "distill"], allow=ALLOW, codes=codes))


RUN = "runs/{run}"
COMMANDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "sample {r} --columns 1 --classes 0 --out out/s.png --levels",
        ("nan", "inf", "-1", "0", "nan nan", "1 2", "80 80", "1e400", "x", "", "1e38 1e-38"),
    ),
    (
        "sample {r} --columns 1 --out out/s.png --classes",
        ("-1", "10", str(2**70), "x", "0..", "5..2", "0..999999999", "1.5", "nan", "0 " * 2000),
    ),
    ("sample {r} --classes 0 --out out/s.png --columns", ("0", "-1", str(2**70), "x", "1e3", str(10**12), "200000000")),
    ("sample {r} --classes 0 --columns 1 --out out/s.png --steps", ("-1", "1000000", str(2**70), "x", "100000000000")),
    (
        "sample {r} --classes 0 --columns 1 --out out/s.png --seed",
        (str(2**70), str(-(2**70)), "-1", "9" * 400, "9" * 5000, "x", "1.5", str(2**63), str(2**64)),
    ),
    ("sample {r} --classes 0 --columns 1 --cache cache --out out/s.png --teacher-steps", ("-1", "5", str(2**70), "x")),
    (
        "sample {r} --classes 0 --columns 1 --out out/s.png --device",
        (
            "meta",
            "cuda",
            "cuda:99",
            "mps",
            "xla",
            "tpu",
            "cpu:7",
            "",
            "x\x1b[31m",
            "hpu",
            "privateuseone",
            "cpu:" + "9" * 30,
        ),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --device",
        ("meta", "cuda", "mps", "xla", "ipu", "cpu:1", "", "vulkan"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --threads",
        ("1000000", "-1", str(2**31), str(2**70), "x", "1e3", "100000"),
    ),
    ("doctor --only disk --threads", ("1000000", "-1", str(2**70))),
    ("launch tiny.py --scale smoke --out runs --cache cache --nproc", ("0", "-1", "64", str(2**70), "x", "1.5")),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --timeout-s",
        ("nan", "inf", "-1", "0", "1e400", "x", "1e308"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --seed",
        (str(2**70), "-1", "9" * 400, "nan", str(2**63), str(-(2**63)), "9" * 5000),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --evaluate.steps",
        ("", "4 4", "0", "-1", "x", str(2**70), "4 2 1 1", "1000000"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --evaluate.seeds",
        ("1 1", str(2**70), "-1", "x", "1000003 1000003", "0..5000000"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --stages",
        ("", "x", "distill distill", "teacher;ls", "\x1b[31m"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --swap",
        ("head=\x1b[31mx", "head", "=", "head=", "x=y", "head=max_pool=max_pool", "\x9b1m=2", "head=../x"),
    ),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --plugins",
        ("no.such.module", "", "..", "os;x", "\x1b[31m", "a/b", "x" * 5000, "plugins.", ".plugins"),
    ),
    ("launch tiny.py --scale smoke --out runs --cache cache --parallel", ("x", "\x1b[31m", "fsdp", "zero9")),
    (
        "launch tiny.py --scale smoke --out runs --cache cache --locked",
        ("nowhere", "", "tiny.py", "/dev/null", "cache"),
    ),
    ("launch tiny.py --scale smoke --out runs --cache cache --on", ("nowhere.py", "tiny.py", "", "cache")),
    ("launch tiny.py --out runs --cache cache --scale", ("x", "", "SMOKE", "\x1b[31m")),
    (
        "evaluate {r} --cache cache --out out/e.json --metrics matched --num-samples 4 --steps",
        ("", "0", "4 4", "-1", "x", "1000000000", str(2**70)),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --metrics matched --num-samples 4 --levels",
        ("nan", "inf", "-1", "1 2", "x", ""),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --metrics matched --num-samples",
        ("-1", str(2**70), "x", "1", str(10**13)),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --num-samples 4 --steps 1 --metrics",
        ("x", "\x1b[31m", "", "../x", "color color"),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --num-samples 4 --steps 1 --metrics matched --seeds",
        ("1 1", str(2**70), "x", "-1", "0..9999999999"),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --num-samples 4 --steps 1 --metrics matched --seed",
        (str(2**70), "9" * 400, "x", "-1"),
    ),
    (
        "evaluate {r} --cache cache --out out/e.json --num-samples 4 --steps 2 --metrics matched --hybrid",
        ("-1", "9", "x", str(2**70), "0..99999999999"),
    ),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size 2 --targets",
        ("(", "[", "*", "(a+)+$", "(?P<x", "\\", "nothing", "x{999999999}", "(?<=a*)b"),
    ),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size 2 --lr",
        ("nan", "inf", "-1", "0", "1e400", "1e38", "x"),
    ),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size 2 --rank",
        ("0", "-1", str(2**70), "1000000000000", "x"),
    ),
    ("control train {r} --cache cache --out out/c.safetensors --batch-size 2 --steps", ("0", "-1", str(2**70), "x")),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size",
        ("0", "-1", str(2**70), str(10**13), "x"),
    ),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size 2 --seed",
        (str(2**70), "-1", "9" * 400, "x"),
    ),
    (
        "control train {r} --cache cache --out out/c.safetensors --steps 1 --batch-size 2 --attribute",
        ("x", "", "\x1b[31m"),
    ),
    (
        "control apply {r} {c} --cache cache --columns 1 --out out/c.png --strength",
        ("nan", "inf", "-inf", "1e400", "x", "", "1e38", "1e308"),
    ),
    (
        "control apply {r} {c} --cache cache --out out/c.png --columns",
        ("0", "-1", str(2**70), "x", str(10**13)),
    ),
    (
        "control transfer {r} {c} --cache cache --out out/t.json --num-samples 2 --strength",
        ("nan", "inf", "0", "x"),
    ),
    (
        "control transfer {r} {c} --cache cache --out out/t.json --num-samples",
        ("0", "1", "-1", str(2**70), "x"),
    ),
    ("diagnose {r} --cache cache --num-samples", ("0", "-1", str(2**70), "x", "1")),
    ("export {r} --out out/e.safetensors --step", ("-1", "3", str(2**70), "x", "9" * 400)),
    ("export {r} --to", ("x", "", "\x1b[31m", "Safetensors")),
    ("plan tiny.py --scale smoke --gpu-memory-gb", ("nan", "inf", "-1", "0", "1e400", "x", "1e300")),
    ("plan tiny.py --scale smoke --gpus", ("0", "-1", str(2**70), "x", "1000000000")),
    ("plan tiny.py --scale smoke --gpus-per-node", ("0", "-1", "x", str(2**70))),
    ("plan tiny.py --scale smoke --batch-per-gpu", ("-1", str(2**70), "x", "1000000000000")),
    ("levels tiny.py --scale smoke --cache cache --num-pairs 2 --steps", ("1", "-1", str(2**70), "x", "1000000")),
    ("levels tiny.py --scale smoke --cache cache --steps 2 --num-pairs", ("0", "-1", str(2**70), "x")),
    ("levels tiny.py --scale smoke --cache cache --steps 2 --num-pairs 2 --device", ("meta", "x", "cuda")),
    ("compare {r} --metric", ("x", "", "\x1b[31m", "../x", "x" * 5000, "[bold]")),
    ("compare {r} --metric matched_error --sampler", ("x", "", "\x1b]52;c;x\x07", "student@9")),
    ("compare {r} --metric matched_error --better", ("x", "", "LOWER")),
    (
        "compare",
        (
            "nowhere",
            "",
            "wandb:",
            "wandb:a",
            "wandb-offline:nowhere",
            "wandb-offline:",
            "tiny.py",
            "\x1b[31m",
            "x" * 5000,
            "runs runs",
        ),
    ),
    (
        "jobs",
        (
            "nowhere",
            "",
            "tiny.py",
            "\x1b[31m",
            "x" * 5000,
            "cache",
            "runs --run x",
            "runs --cancel --run \x1b[31m",
            "runs --on nowhere.py",
            "runs --cancel",
        ),
    ),
    ("plugins --check", ("x", "", "head:", ":x", "x:y", "\x1b[31m", "head:max_pol", "[bold]", "x" * 5000)),
    ("plugins --kind", ("x", "", "\x1b[31m", "\x9b1m")),
    ("plugins --plugins", ("no.such", "", "\x1b[31m", "..", "x" * 5000)),
    ("doctor --only", ("x", "\x1b[31m", "", "disk disk")),
    ("doctor --only disk --device", ("meta", "x", "cuda:99", "")),
    ("doctor", ("nowhere.py", "cache", "\x1b[31m.py", "--train.steps=0", "tiny.py --only x")),
    (
        "sweep",
        (
            "nowhere.py",
            "tiny.py",
            "",
            "cache",
            "sweep_tiny.py",
            "sweep_tiny.py --on nowhere.py",
            "sweep_tiny.py --dry-run --scale x",
            "sweep_tiny.py --trial {",
            "sweep_tiny.py --trial []",
            "sweep_tiny.py --trial \x1b",
            "sweep_tiny.py --project x",
        ),
    ),
    (
        "",
        (
            "",
            "x",
            "\x1b[31mred",
            "-",
            "--",
            "--json",
            "launch",
            "levels",
            "control",
            "control x",
            "promote x",
            "cancel \x1b[31m",
            "wandb-sweep x",
            "sample",
            "evaluate",
            "export",
            "diagnose",
            "plan",
            "lunch",
        ),
    ),
)
CASES = tuple((command, value) for command, values in COMMANDS for value in values)
MUST_BE_2 = ("--lr", "--levels", "--strength", "--timeout-s", "--gpu-memory-gb")
"""Flags that are fractions: with NaN and infinity the command line is wrong."""


@functools.cache
def _shuffled() -> tuple[tuple[str, str], ...]:
    found = list(CASES)
    random.Random(1).shuffle(found)
    # Those that a command answers before long work come first, which are what the tests make.
    found.sort(
        key=lambda case: (
            case[0].split(" ")[0] in ("launch", "evaluate", "control", "plan", "levels", "guidance", "diagnose")
        )
    )
    return tuple(found)


@TABLE.add("flags/of commands", *OWN, "received/files", quick=32, full=len(CASES))
def of_commands(place: Place, seed: int, rng: random.Random) -> Made:
    """Each flag of each command, with values that make no sense."""
    command, value = _shuffled()[seed % len(CASES)]
    words = command.format(r=RUN.format(run=place.base.run), c="../received/files/control.safetensors").split()
    many = command.endswith(
        (
            "--levels",
            "--classes",
            "--steps",
            "--seeds",
            "--strength",
            "--metrics",
            "--evaluate.steps",
            "--evaluate.seeds",
        )
    )
    if many or command in ("jobs", "compare", "doctor", "sweep", ""):
        words += value.split(" ") if value or command == "" else [value]
    elif words[-1].startswith("--"):
        words[-1] += f"={value}"
    words = [word for word in words if word] if command == "" else words
    wrong = value.strip("-").lower() in ("nan", "inf") and words[-2 if many else -1].partition("=")[0].endswith(
        MUST_BE_2
    )
    codes = (2,) if wrong else (0, 1, 2)
    order = Order(
        words,
        allow=(*ALLOW, f"own/runs/{place.base.run}"),
        codes=codes,
        silent_ok=words[:1] in (["doctor"], ["plugins"], []),
    )
    return Made(f"{command[-30:]} {value[:20]!r}", order)


@TABLE.add("flags/names", *OWN, quick=2, full=64)
def names(place: Place, seed: int, rng: random.Random) -> Made:
    """Names that are no component of a path stay in the folder of runs, or are refused before anything is made."""
    names = (
        "../../outside/x",
        "/abs",
        ".",
        "..",
        "",
        "a\nb",
        "\x1b[31mred",
        "x" * 300,
        "a/b",
        "-rf",
        "~",
        " ",
        "é",
        "CON",
        "a\\b",
    )
    name = names[seed % len(names)].replace("/abs", str(place.root / "outside" / "x"))
    more = ("--stages=distill", "--dry-run", "--from-scratch", "--stages=report")[seed // len(names) % 4]
    return Made(f"--name {name[:20]!r}", Order([*LAUNCH, f"--name={name}", more], allow=ALLOW))


@TABLE.add("flags/texts", *OWN, quick=2, full=48)
def texts(place: Place, seed: int, rng: random.Random) -> Made:
    """Notes that are no text, or hold escapes: refused before the first stage, or shown clean."""
    raw = (b"\xff\xfe", b"caf\xe9", b"\x80", b"a\xed\xa0\x80b", *(text.replace("\0", "").encode() for text in ESCAPES))
    value = raw[seed % len(raw)]
    flag = (b"--note=", b"--reported.outcome=", b"--name=")[seed // len(raw) % 3]
    stages = b"--stages=" + (b"distill,evaluate,report" if seed % 2 else b"distill")
    codes = (2,) if seed % len(raw) < 4 else (0, 2)
    return Made(f"{flag.decode()}{value!r}", Order([*LAUNCH, flag + value, stages], allow=ALLOW, codes=codes))
