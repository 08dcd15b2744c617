"""Nothing that a received run names is imported, run or fetched, by any command, unless its own line asks for it."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import RECIPE, REPO, Done, Ladd, read_json
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ladd_dist.__main__ import COMMANDS, MODULES
from ladd_dist.cluster.executor import forget_pickles
from ladd_dist.core import plugin as registry
from ladd_dist.core.consent import NOTHING, Consent
from ladd_dist.core.errors import ConsentError
from ladd_dist.core.plugin import load_plugins
from ladd_dist.core.serialize import from_data, to_data
from ladd_dist.recipe import Recipe
from ladd_dist.workspace.lock import signatures
from ladd_dist.workspace.opening import open_run

CANARY = """
from dataclasses import dataclass
from pathlib import Path

with Path({marker!r}).open("a") as sung:
    sung.write(__name__ + chr(10))

from ladd_dist.core.plugin import register
from ladd_dist.cluster import Cluster
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import Sweep
from plugins.heads import SpectralNorm
from recipes.exp4_specnorm import RECIPE

CLUSTER = Cluster(executor="local")
SWEEP = Sweep(name="sung", base=RECIPE, seeds=(0,))


@register("canary")
@dataclass(frozen=True)
class Canary(SpectralNorm):
    '''A head that sings.'''


@register("canary_net")
@dataclass(frozen=True)
class CanaryNet(CUNet):
    '''A network that sings.'''
"""
MODULE = "canary_mod"


@dataclass(frozen=True)
class Received:
    """A folder that came from somebody else. The working directory is its root, as `cd theirs` would make it."""

    root: Path
    run: Path
    """Its config.json and recipe.lock name the head `canary`, the module and the file that define it."""
    student: Path
    """A student's file whose card names the network `canary_net`."""
    recipe: Path
    """A recipe in the run's folder that defines the head and the network."""
    profile: Path
    sweep: Path
    marker: Path

    @property
    def sung(self) -> bool:
        """Whether something of theirs ran since the last time that this was asked."""
        there = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        sys.modules.pop(MODULE, None)
        for name in [name for name in sys.modules if name.startswith(f"ladd_file_{self.run.name}_")]:
            del sys.modules[name]
        return there


@pytest.fixture
def received(
    smoke: tuple[Done, Ladd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None
) -> Iterator[Received]:
    root = tmp_path / "theirs"
    run = Path(shutil.copytree(smoke[0].run, root / "runs" / smoke[0].run.name))
    made = Received(
        root, run, root / "theirs.safetensors", run / "their_recipe.py", root / "slurm" / "here.py",
        root / "runs" / "sweeps" / "sung-0123456789", tmp_path / "marker",
    )  # fmt: skip
    made.profile.parent.mkdir()
    for path in (root / f"{MODULE}.py", made.recipe, made.profile):
        path.write_text(CANARY.format(marker=str(made.marker)))
    for name in ("config.json", "recipe.lock"):
        data = read_json(run / name)
        data["recipe"]["head"]["plugin"] = "canary"
        data |= {"plugins": ["plugins", MODULE], "recipe_path": str(made.recipe)}
        (run / name).write_text(json.dumps(data))
    with safe_open(smoke[0].run / "student.safetensors", framework="pt") as file:
        card = json.loads(file.metadata()["ladd_dist"])
    card["network"]["plugin"] = "canary_net"
    save_file(load_file(smoke[0].run / "student.safetensors"), made.student, {"ladd_dist": json.dumps(card)})
    (made.sweep / "logs").mkdir(parents=True)
    jobs = [{"id": "1_0", "kind": "run", "of": run.name, "submitted": "2026-11-22T07:00:00Z", "cluster": "slurm"}]
    entry = {"label": "a", "axes": {}, "seed": 0, "run": run.name, "signature": run.name[-10:]}
    record = {"format": 1, "name": "sung", "signature": "0123456789", "runs": [entry], "jobs": jobs}
    record |= {"on": "slurm/here.py", "recipe_path": str(made.recipe), "cache": str(smoke[1].cache)}
    (made.sweep / "sweep.json").write_text(json.dumps(record))
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(REPO)])
    importlib.invalidate_caches()
    yield made
    _ = made.sung


Words = Callable[[Received], list[str]]
OPENERS: dict[str, Words] = {
    "launch": lambda it: ["--locked", str(it.run), "--dry-run", "--device", "cpu"],
    "launch FILE": lambda it: ["--locked", str(it.run / "recipe.lock"), "--dry-run", "--device", "cpu"],
    "diagnose": lambda it: [str(it.run)],
    "evaluate": lambda it: [str(it.run)],
    "evaluate FILE": lambda it: [str(it.student), "--like", str(it.run)],
    "sample": lambda it: [str(it.student)],
    "sample RUN": lambda it: [str(it.run), "--teacher-steps", "1"],
    "control": lambda it: ["train", str(it.run), "--steps", "1"],
    "export": lambda it: [str(it.run), "--step", "10"],
    "tune": lambda it: [str(it.run), "--images", "pictures"],
}
"""Command lines that need what the run names; a word behind the command tells several of one command apart."""
READERS: dict[str, Words] = {
    "compare": lambda it: ["runs", str(it.run), "--skip-broken"],
    "compare SWEEP": lambda it: [str(it.sweep)],
    "jobs": lambda it: ["runs"],
    "jobs --cancel": lambda it: [str(it.sweep), "--cancel"],
    "export FINISHED": lambda it: [str(it.run), "--out", "out.safetensors"],
}
"""Command lines that read the received files and need nothing that they name."""
OWN: dict[str, Words] = {
    "sweep": lambda it: ["own_sweep.py", "--scale", "smoke", "--dry-run"],
    "sweep --trial": lambda it: [
        "own_sweep.py", "--scale", "smoke", "--trial",
        json.dumps({"seed": 0, "plugins": MODULE, "recipe": str(it.recipe), "_wandb": {"plugins": [MODULE]}}),
    ],
    "plan": lambda it: [str(RECIPE), "--scale", "smoke"],
    "new": lambda it: ["mine"],
    "prompts": lambda it: ["--count", "3"],
    "plugins": lambda it: ["--json"],
    "doctor": lambda it: [],
    "levels": lambda it: [str(RECIPE), "--scale", "smoke"],
    "guidance": lambda it: [str(RECIPE), "--scale", "smoke"],
}  # fmt: skip
"""Command lines about the user's own file, in the received folder, with its OUT."""


def typed(name: str, words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command within this process, and its stderr."""
    capfd.readouterr()
    command = name.partition(" ")[0]
    module = importlib.import_module(MODULES.get(command, f"ladd_dist.{command}"))
    try:
        code = module.main(words)
    except SystemExit as exit_:
        code = int(str(exit_.code))
    said = capfd.readouterr()
    assert "Traceback" not in said.err, said.err
    return code, said.err


def test_the_tables_have_every_command() -> None:
    assert {name.partition(" ")[0] for name in (*OPENERS, *READERS, *OWN)} == set(COMMANDS)


@pytest.mark.parametrize("name", OPENERS)
def test_what_a_run_names_runs_only_when_it_is_asked_for(
    name: str, received: Received, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    code, said = typed(name, OPENERS[name](received), capfd)
    assert not received.sung
    assert code == 2
    assert re.search("unknown (head|network) 'canary", said), said
    lines = [shlex.split(line) for line in re.split(", or: ", said.strip().partition("type: ")[2])]
    wanted = [["--plugins", MODULE], ["--recipe", str(received.recipe)]]
    if name == "sample":  # the card alone: there is no run beside it that would name a module
        assert f"{shlex.join(['ladd', 'sample', str(received.student), '--plugins', 'MODULE'])}\n" in said
        lines = [["ladd", "sample", *OPENERS[name](received), *more] for more in wanted]
    elif name.startswith("launch"):
        assert lines[0][-2:] == wanted[0] and lines[1][2] == str(received.recipe)
    else:
        assert [line[-2:] for line in lines] == wanted
    for line in lines:
        assert line[:2] == ["ladd", name.partition(" ")[0]]
        typed(name, line[2:], capfd)
        assert received.marker.read_text().count("\n") == 1  # once
        assert received.sung, line


@pytest.mark.parametrize("name", [*READERS, *OWN])
def test_a_command_that_needs_nothing_that_the_files_name_runs_nothing_of_theirs(
    name: str, received: Received, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)  # without SLURM
    (received.root / "own_sweep.py").write_text(
        "from ladd_dist.recipe import Sweep\nfrom recipes.exp4_specnorm import RECIPE\n"
        "SWEEP = Sweep(name='mine', base=RECIPE, axes=(), seeds=(0,))\n"
    )
    code, said = typed(name, {**READERS, **OWN}[name](received), capfd)
    assert not received.sung
    if name == "sweep --trial":
        assert code == 2 and "the sweep has no run" in said
    if name == "jobs --cancel":
        assert code == 1 and "--on slurm/here.py" in said
        typed(name, [str(received.sweep), "--cancel", "--on", "slurm/here.py"], capfd)
        assert received.sung


def test_modules_that_are_not_needed_are_neither_imported_nor_mentioned(
    received: Received, capfd: pytest.CaptureFixture[str]
) -> None:
    config = read_json(received.run / "config.json")
    config["recipe"]["head"]["plugin"] = "spectral_norm"
    (received.run / "config.json").write_text(json.dumps(config))
    assert open_run(received.run, device=torch.device("cpu")).config.plugins == ("plugins", MODULE)
    assert not received.sung
    assert MODULE not in "".join(capfd.readouterr())


@pytest.mark.parametrize("module", ["a b", "--plugins=x", "x;touch y", "\x1b]52;c;x", "..", "plugins"])
def test_a_name_that_is_no_module_is_not_offered(module: str, received: Received) -> None:
    config = read_json(received.run / "config.json")
    (received.run / "config.json").write_text(
        json.dumps({**config, "plugins": [module], "recipe_path": f"{module}.py"})
    )
    with pytest.raises(ConsentError) as found:
        open_run(received.run, device=torch.device("cpu"))
    assert str(found.value).endswith("--plugins MODULE")


def test_a_lock_sends_no_key_to_a_server_of_its_own(received: Received, capfd: pytest.CaptureFixture[str]) -> None:
    lock = read_json(received.run / "recipe.lock")
    lock["recipe"]["head"]["plugin"] = "spectral_norm"
    lock["recipe"]["tracker"] = {"plugin": "wandb", "base_url": "https://theirs.example"}
    (received.run / "recipe.lock").write_text(json.dumps(lock))
    words = ["--locked", str(received.run), "--dry-run", "--device", "cpu"]
    code, said = typed("launch", words, capfd)
    assert code == 2
    assert said.endswith(f"type: {shlex.join(['ladd', 'launch', *words])} --tracker.base-url https://theirs.example\n")
    code, said = typed("launch", [*words, "--tracker.base-url", "https://theirs.example"], capfd)
    assert "would send" not in said


# --- the user's own jobs ---


def test_a_job_carries_what_its_line_allowed_and_takes_nothing_from_the_folder(received: Received) -> None:
    from ladd_dist.cluster.job import StageJob

    job = StageJob(config=str(received.run / "config.json"), stages=(), cache=".")
    with pytest.raises(ConsentError):
        job._open(torch.device("cpu"))
    assert not received.sung
    for consent in (Consent(plugins=(MODULE,)), Consent(recipe=received.recipe)):
        carried = pickle.loads(pickle.dumps(replace(job, consent=consent)))
        with pytest.raises(ValueError, match="signature"):  # that of the head that was swapped out
            carried._open(torch.device("cpu"))
        assert received.sung
        registry._tables["head"].pop("canary")
        registry._tables["network"].pop("canary_net")
    assert StageJob.consent == NOTHING  # what a job has that an older version submitted


def test_pickles_that_came_with_a_sweep_are_gone_before_a_job_can_read_them(tmp_path: Path) -> None:
    names = ("17_submitted.pkl", "17_0_result.pkl", "4_2_submitted.pkl", "4_3_submitted.pkl", "a.pkl", "17_0_log.out")
    for name in names:
        (tmp_path / name).write_bytes(b"cos\nsystem\n")
    forget_pickles(tmp_path, alive={"4_2"})
    assert {path.name for path in tmp_path.iterdir()} == {"4_2_submitted.pkl", "a.pkl", "17_0_log.out"}


# --- folders in the way ---


@pytest.mark.parametrize("asked", [False, True])
def test_a_folder_plugins_that_came_with_the_runs_is_imported_only_by_name(
    asked: bool, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    (received.root / "plugins").mkdir()
    (received.root / "plugins" / "__init__.py").write_text(f"open({str(received.marker)!r}, 'w')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins"]:
        monkeypatch.delitem(sys.modules, name)
    load_plugins(("plugins",) if asked else ())
    assert received.sung == asked
    if not asked:
        with pytest.raises(registry.PluginError, match=r"/plugins is a package `plugins` too: .*--plugins plugins"):
            registry.lookup("head", "no_such_head")


def test_a_package_that_lies_beside_the_runs_is_no_installed_one(
    received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = received.root / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[ladd_dist.plugins]\ncanary = {MODULE}\n")
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    registry.load_entry_points()
    assert not received.sung
    monkeypatch.chdir(received.run)
    monkeypatch.syspath_prepend(received.root)  # where the user has put it on the path
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    registry.load_entry_points()
    assert received.sung


# --- the hub ---


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The repositories that the hub was asked for."""
    import huggingface_hub

    found: list[str] = []

    def snapshot(repo: str, *, local_files_only: bool = False, **more: Any) -> str:
        if not local_files_only:
            found.append(repo)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return found


@pytest.mark.parametrize("part", ["network", "codec"])
def test_a_card_gets_its_repository_only_when_it_is_asked_for(
    part: str, received: Received, asked: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with safe_open(received.student, framework="pt") as file:
        card = json.loads(file.metadata()["ladd_dist"])
    repository = f"theirs/{part}"
    card["network"]["plugin"] = "cunet"
    if part == "network":
        card["network"] = {"plugin": "diffusers", "source": repository}
    else:
        card |= {"codec": {"plugin": "vae", "source": repository}, "pixels": card["image"]}
    save_file(load_file(received.student), received.student, {"ladd_dist": json.dumps(card)})
    code, said = typed("sample", [str(received.student), "--columns", "1"], capfd)
    assert (code, asked) == (2, [])
    assert f"{received.student} names '{repository}'" in said
    assert said.endswith(f"type: ladd sample {received.student} --columns 1 --hub {repository}\n")
    code, said = typed("sample", [str(received.student), "--columns", "1", "--hub", repository], capfd)
    assert (code, asked) == (1, [repository])
    assert "the hub does not give it" in said


def test_a_run_gets_its_repository_only_when_it_is_asked_for(
    received: Received, asked: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.json", "recipe.lock"):
        data = read_json(received.run / name)
        data["recipe"]["head"]["plugin"] = "spectral_norm"
        data["recipe"]["network"] = {"plugin": "diffusers", "source": "theirs/teacher"}
        recipe: Recipe = from_data(Recipe, data["recipe"])
        data["recipe"] = to_data(recipe)
        if name == "recipe.lock":
            data["signatures"] = signatures(recipe)
        (received.run / name).write_text(json.dumps(data))
    places = ["--dry-run", "--device", "cpu"]
    code, said = typed("launch", ["--locked", str(received.run), *places], capfd)
    assert (code, asked) == (2, [])
    assert "--hub theirs/teacher" in said
    typed("launch", ["--locked", str(received.run), *places, "--hub", "theirs/teacher"], capfd)
    assert set(asked) == {"theirs/teacher"}


def test_a_command_in_the_urls_of_a_runs_dataset_is_run_only_when_it_is_asked_for(
    received: Received, capfd: pytest.CaptureFixture[str]
) -> None:
    urls = f"pipe:touch {received.marker}"
    for name in ("config.json", "recipe.lock"):
        data = read_json(received.run / name)
        data["recipe"]["head"]["plugin"] = "spectral_norm"
        data["recipe"]["dataset"] = {"plugin": "webdataset", "urls": urls, "size": 16, "num_classes": 10}
        recipe: Recipe = from_data(Recipe, data["recipe"])
        data["recipe"] = to_data(recipe)
        if name == "recipe.lock":
            data["signatures"] = signatures(recipe)
        (received.run / name).write_text(json.dumps(data))
    for command in ("launch", "diagnose", "evaluate", "sample RUN"):
        typed(command.partition(" ")[0], OPENERS[command](received), capfd)
    words = ["--locked", str(received.run), "--device", "cpu", "--stages", "teacher"]
    code, said = typed("launch", words, capfd)
    assert code == 2
    assert f"--hub {shlex.quote(urls)}" in said
    assert not received.sung
    typed("launch", [*words, "--hub", urls], capfd)
    assert received.marker.exists()
