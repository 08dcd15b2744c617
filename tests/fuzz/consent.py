"""Code that came with a run: nothing of it runs unless the command line asks for it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from fuzz import received
from fuzz.damage import replace
from fuzz.judge import Order
from fuzz.kinds import OWN, RECEIVED, TABLE, Made, Place

CANARY_PLUGIN = '''
from dataclasses import dataclass
from ladd_dist.core.plugin import register
from plugins.heads.max_pool import MaxPool

@register("canary_head")
@dataclass(frozen=True)
class CanaryHead(MaxPool):
    """A head that somebody made."""
'''
OPENING = (
    received.SAMPLE_TEACHER,
    received.EXPORT,
    received.EXPORT_STEP,
    received.LOCKED,
    received.JOBS,
    received.JOBS_JSON,
    received.COMPARE,
    received.COMPARE_FILES,
    received.EVALUATE,
    received.DIAGNOSE,
    received.CONTROL,
    received.REPORT,
    "sample {run} --columns 1 --classes 0 --out out/s.png",
    "export {run} --to diffusers --out out/d",
    "control apply {run} ../received/files/control.safetensors --columns 1 --cache cache --out out/c.png",
    "control transfer {run} ../received/files/control.safetensors --num-samples 2 --cache cache --out out/t.json",
)
"""Every command that opens a run."""


def edit(place: Place, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the config.json and the recipe.lock of the received run."""
    for name in ("config.json", "recipe.lock"):
        path = place.run / name
        data = json.loads(path.read_bytes())
        change(data)
        replace(path, json.dumps(data, indent=1).encode())


@TABLE.add("consent/modules", *RECEIVED, quick=4, full=32)
def modules(place: Place, seed: int, rng: random.Random) -> Made:
    """config.json names a module that can be imported from here, or from the received folder."""
    name = ("canary_module", "canary_package.inside", "received_canary")[seed // len(OPENING) % 3]
    folder = place.root / ("received" if name.startswith("received") else "own")
    if "." in name:
        (folder / "canary_package").mkdir()
        (folder / "canary_package" / "__init__.py").write_text(place.canary_code, encoding="utf-8")
        (folder / "canary_package" / "inside.py").write_text("", encoding="utf-8")
    else:
        (folder / f"{name}.py").write_text(place.canary_code, encoding="utf-8")
    edit(place, lambda data: data.update(plugins=["plugins", name]))
    command = OPENING[seed % len(OPENING)]
    return Made(f"plugins names {name}", received.order_of(place, command))


@TABLE.add("consent/recipe path", *RECEIVED, quick=4, full=32)
def recipe_path(place: Place, seed: int, rng: random.Random) -> Made:
    """config.json names a recipe file that came along, and a plug-in that nobody knows."""
    path = (place.run, place.root / "received", place.root / "own")[seed // len(OPENING) % 3] / "recipe.py"
    path.write_text(f"{place.canary_code}{CANARY_PLUGIN}\nfrom tiny import RECIPE\n", encoding="utf-8")

    def change(data: dict[str, Any]) -> None:
        data["recipe_path"] = str(path)
        data["recipe"]["head"] = {"plugin": "canary_head"}

    edit(place, change)
    return Made(f"recipe_path is {path.parent.name}/recipe.py", received.order_of(place, OPENING[seed % len(OPENING)]))


@TABLE.add("consent/profile", *RECEIVED, quick=4, full=16)
def profile(place: Place, seed: int, rng: random.Random) -> Made:
    """sweep.json names a cluster's profile that came along."""
    spot = rng.choice((place.root / "received", place.root / "received" / "runs", place.sweep, place.root / "own"))
    path = spot / "profile.py"
    path.write_text(
        f"{place.canary_code}\nfrom ladd_dist.cluster import Cluster\n"
        "CLUSTER = Cluster(client={'PATH': '/nowhere'})\n",
        encoding="utf-8",
    )
    for run in (place.run, place.run.with_name(place.base.other)):
        (run / "evaluate.done.json").unlink()
    record = json.loads((place.sweep / "sweep.json").read_bytes())
    record["on"] = rng.choice((str(path), "../profile.py", path.name))
    for job in record["jobs"]:
        job["cluster"] = rng.choice(("slurm", "local"))
    replace(place.sweep / "sweep.json", json.dumps(record).encode())
    commands = (received.JOBS, received.JOBS_JSON, "jobs {sweep}", "jobs {sweep} --cancel")
    return Made(f"on is {record['on'][-30:]}", received.order_of(place, commands[seed % len(commands)]))


@TABLE.add("consent/asked for", *RECEIVED, quick=2, full=6)
def asked_for(place: Place, seed: int, rng: random.Random) -> Made:
    """The command line names the module: then it is imported, which shows too that the canary can sing."""
    (place.root / "own" / "canary_module.py").write_text(place.canary_code + CANARY_PLUGIN, encoding="utf-8")
    edit(place, lambda data: data.update(plugins=["plugins", "canary_module"]))
    command = (received.EXPORT, received.SAMPLE_TEACHER, received.EXPORT_STEP)[seed % 3]
    words = [*received.words_of(place, command), "--plugins", "canary_module"]
    return Made("--plugins canary_module", Order(words, allow=("own/cache",), consents=True, codes=(0,)))


@TABLE.add("consent/pickles", *RECEIVED, quick=4, full=24)
def pickles(place: Place, seed: int, rng: random.Random) -> Made:
    """A pickle lies where weights or arrays are read."""
    target, command = (
        (place.run / "student.safetensors", received.SAMPLE),
        (place.run / "student.safetensors", received.EXPORT),
        (next(place.run.glob("checkpoints/step-00000002/*.safetensors")), received.EXPORT_STEP),
        (place.cache / place.base.teacher / "teacher.safetensors", received.SAMPLE_TEACHER),
        (place.root / "received/files/control.safetensors", OPENING[-2]),
        (place.run / "config.json", received.JOBS),
        (next(place.run.glob("dumps/*.safetensors")), received.COMPARE_FILES),
        (place.run / "checkpoints/step-00000002/meta.json", received.EXPORT_STEP),
    )[seed % 8]
    replace(target, pickle_of(place))
    return Made(f"{target.name} is a pickle", received.order_of(place, command))


def pickle_of(place: Place) -> bytes:
    """A pickle that runs the canary when it is read."""
    return b"cbuiltins\nexec\n(V" + place.canary_code.strip().encode("raw_unicode_escape") + b"\ntR."


@TABLE.add("consent/hub", *RECEIVED, quick=3, full=12)
def hub(place: Place, seed: int, rng: random.Random) -> Made:
    """The card of a received file names a repository of the hub."""
    key, plugin = (("network", "diffusers"), ("codec", "autoencoder_kl"), ("student", "lora"))[seed % 3]
    own = {"source": "somebody/canary", "revision": "main"} if plugin != "lora" else {}
    network = {"plugin": plugin, **own}
    path = place.root / "received/files/student.safetensors"

    def change(card: dict[str, Any]) -> None:
        card[key] = network
        if key == "codec":
            card["pixels"] = card["image"]
        if key == "student":
            card["network"] = {"plugin": "diffusers", "source": "somebody/canary"}
            card["teacher"] = {"signature": "0123456789", "file": "/nowhere/teacher.safetensors"}

    received_card(path, change)
    file = "../received/files/student.safetensors"
    words = ["sample", file, "--columns", "1", "--classes", "0", "--out", "out/s.png"]
    if seed // 3 % 2:
        words = ["evaluate", file, "--like", f"../received/runs/{place.base.run}", "--cache", "cache"]
        words += ["--num-samples", "4", "--steps", "1", "--metrics", "matched", "--out", "out/ev.json"]
    return Made(f"the card's {key} is {network['plugin']} of a repository", Order(words, allow=("own/cache",)))


CHECKSUM = "ladd_dist_sha256"
"""The key of the checksum in a safetensors file's metadata. Whoever means harm leaves it out, as old versions did."""


def received_card(path: Any, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the card in a safetensors file's metadata, and leave out the checksums that would tell."""
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(path, framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != CHECKSUM}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    card = json.loads(metadata["ladd_dist"])
    card.pop("weights_sha256", None)
    change(card)
    replace(path, save(tensors, {**metadata, "ladd_dist": json.dumps(card)}))


@TABLE.add("consent/own lock", *OWN, quick=1, full=8)
def own_lock(place: Place, seed: int, rng: random.Random) -> Made:
    """A lock that came along names a recipe file and modules."""
    (place.root / "own" / "canary_module.py").write_text(place.canary_code, encoding="utf-8")
    recipe = place.root / "outside" / "recipe.py"
    recipe.write_text(f"{place.canary_code}from tiny import RECIPE\n", encoding="utf-8")
    lock = place.root / "outside" / "recipe.lock"
    data = json.loads((place.own_run / "recipe.lock").read_bytes())
    data |= ({"plugins": ["plugins", "canary_module"]}, {"recipe_path": str(recipe)})[seed % 2]
    data["recipe"] = {**data["recipe"], "head": {"plugin": "canary_head"}}
    lock.write_text(json.dumps(data), encoding="utf-8")
    more = ([], ["--dry-run"])[seed // 2 % 2]
    words = ["launch", "--locked", str(lock), "--scale", "smoke", "--out", "runs", "--cache", "cache", *more]
    return Made("the lock names code", Order(words, allow=("own/runs", "own/cache")))
