"""`ladd promote` writes down what a finished run depended on; `launch --locked` holds a launch to it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import RECIPE, REPO, Done, Ladd, half_written, read_json, snapshot
from safetensors.torch import load_file, save_file

from ladd_dist import __version__
from ladd_dist.core import plugin as registry
from ladd_dist.core.plugin import load_modules
from ladd_dist.core.rundir import weights_sha256
from ladd_dist.promote import main
from ladd_dist.recipe import load_recipe
from ladd_dist.workspace import lock as locks
from ladd_dist.workspace.config import cache_of

Launch = Callable[..., Done]


@pytest.fixture(scope="module")
def promoted(smoke: tuple[Done, Ladd], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lock of the shared smoke run."""
    path = tmp_path_factory.mktemp("lock") / "recipe.lock"
    assert main([str(smoke[0].run), "--out", str(path)]) == 0
    return path


@pytest.fixture
def locked(promoted: Path, smoke: tuple[Done, Ladd], launch_here: Launch) -> Callable[..., Done]:
    """`launch --dry-run --locked` with the lock, changed by a function, and more words."""

    def launch(*words: str, change: Callable[[dict[str, Any]], None] = lambda lock: None) -> Done:
        lock = read_json(promoted)
        change(lock)
        Path("recipe.lock").write_text(json.dumps(lock))
        place = ("--out", str(smoke[1].runs), "--cache", str(smoke[1].cache))
        return launch_here(str(RECIPE), "--scale", "smoke", *place, "--dry-run", "--locked", "recipe.lock", *words)

    return launch


def test_the_lock_holds_all_that_the_run_depended_on(promoted: Path, smoke: tuple[Done, Ladd]) -> None:
    lock, run = read_json(promoted), smoke[0].run
    config = read_json(run / "config.json")
    assert lock["recipe"] == config["recipe"]
    assert {lock[name] == config[name] for name in ("scale", "version", "plugins", "environment", "command")} == {True}
    assert lock["signatures"]["distill"] == config["signature"]
    assert lock["signatures"]["evaluate"] == read_json(run / "evaluate.done.json")["signature"]
    assert (smoke[1].cache / f"shards-{lock['signatures']['shards']}").is_dir()
    assert lock["eval"] == read_json(run / "eval.json")
    student = run / "student.safetensors"
    assert lock["student"]["file_sha256"] == hashlib.sha256(student.read_bytes()).hexdigest()
    assert lock["student"]["weights_sha256"] == weights_sha256(load_file(student))
    teacher = smoke[1].cache / f"teacher-{lock['signatures']['teacher']}" / "teacher.safetensors"
    assert lock["data"]["teacher_weights_sha256"] == weights_sha256(load_file(teacher))
    assert config["environment"]["commit"] in (lock["commit"], f"{lock['commit']}-dirty")
    assert lock["environment"]["numpy"]
    assert not half_written(promoted.parent)


def test_the_lock_names_class_version_and_sources_of_every_plug_in(promoted: Path) -> None:
    used = read_json(promoted)["plugin_classes"]
    assert {"dataset", "network", "head", "taps", "teacher.sigma", "shards.sampler", "parallel", "tracker"} <= set(used)
    head, network = used["head"], used["network"]
    assert (head["module"], head["class"], head["package"]) == ("plugins.heads.spectral_norm", "SpectralNorm", None)
    content = (REPO / "plugins" / "heads" / "spectral_norm.py").read_bytes()
    assert head["sources"]["plugins.heads.spectral_norm"] == hashlib.sha256(content).hexdigest()
    assert "ladd_dist.heads" in head["sources"]  # its base class
    assert (network["package"], network["version"]) == ("ladd_dist", __version__)
    assert used["tracker"]["neutral"]
    assert not head["neutral"]


def test_what_has_not_drifted_is_launched(locked: Callable[..., Done]) -> None:
    done = locked()
    assert done.code == 0, done.stderr


def test_fields_that_change_no_result_may_differ(locked: Callable[..., Done]) -> None:
    assert locked("--name", "mine", "--train.log-every", "7", "--note", "again").code == 0


def test_every_drifted_field_is_named_with_both_values(locked: Callable[..., Done]) -> None:
    done = locked("--train.steps", "21", "--head.width", "48", "--swap", "adv_weight=constant", "--seed", "3")
    assert done.code == 2
    for line in (
        "recipe.train.steps: locked 20, now 21",
        "recipe.head.width: locked ",
        "recipe.adv_weight: locked linear_warmup, now constant",
        "recipe.seed: locked 0, now 3",
        "signature of distill: locked ",
        "signature of evaluate: locked ",
    ):
        assert f"\n  {line}" in done.stderr, done.stderr
    assert "signature of teacher" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_sent_to_a_cluster_is_held_to_the_lock_before_it_is_sent(locked: Callable[..., Done]) -> None:
    done = locked("--on", str(REPO / "slurm" / "laptop.py"), "--seed", "3")
    assert done.code == 2
    assert "recipe.seed: locked 0, now 3" in done.stderr


def test_a_refused_launch_leaves_everything_as_it_was(promoted: Path, cold: Ladd, smoke: tuple[Done, Ladd]) -> None:
    before = snapshot(smoke[1].cache)
    done = cold("--locked", promoted, "--seed", "1", code=2)
    assert "recipe.seed: locked 0, now 1" in done.stderr
    assert not cold.runs.exists()
    assert not cold.cache.exists()
    assert snapshot(smoke[1].cache) == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lock: lock.update(version="0.0.9"), f"version of ladd_dist: locked 0.0.9, now {__version__}"),
        (lambda lock: lock["signatures"].update(teacher="0" * 10), "signature of teacher: locked 0000000000, now "),
        (
            lambda lock: lock["plugin_classes"]["head"]["sources"].update({"plugins.heads.spectral_norm": "ab" * 32}),
            "plug-in head (spectral_norm) source of plugins.heads.spectral_norm: locked sha256 abababababab, now",
        ),
        (
            lambda lock: lock["plugin_classes"]["network"].update(version="0.0.9"),
            f"plug-in network (cunet) version: locked 0.0.9, now {__version__}",
        ),
        (lambda lock: lock["recipe"].update(gone=1), "recipe.gone: locked 1, now (absent)"),
        (lambda lock: lock["recipe"].pop("head"), "recipe.head: locked (absent), now spectral_norm"),
        (
            lambda lock: (
                lock["environment"].update(threads=torch.get_num_threads()),  # as the launch: elsewhere they may differ
                lock["data"].update(teacher_weights_sha256="ab" * 32),
            ),
            "data teacher_weights_sha256: locked abab",
        ),
    ],
)
def test_code_and_data_that_drifted_are_refused(
    locked: Callable[..., Done], change: Callable[[dict[str, Any]], None], line: str
) -> None:
    done = locked(change=change)
    assert done.code == 2
    assert f"\n  {line}" in done.stderr, done.stderr


def test_another_environment_is_one_warning_line(locked: Callable[..., Done]) -> None:
    def older(lock: dict[str, Any]) -> None:
        lock["environment"].update(torch="2.6.0", device="NVIDIA H100")
        lock["data"].update(teacher_weights_sha256="ab" * 32)  # made again there, it cannot be the same bits

    done = locked(change=older)
    assert done.code == 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("warning:"))
    assert "torch: locked 2.6.0, now" in line
    assert "device: locked NVIDIA H100, now cpu" in line
    assert "data teacher_weights_sha256" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; `ladd promote RUN --out wrong.lock` writes one"),
        ("{", "not valid JSON"),
        ("[]", "format None, this version reads 1"),
        ('{"format": 2}', "format 2, this version reads 1"),
        ('{"format": 1}', "lacks data, environment, plugin_classes, recipe, signatures, version"),
    ],
)
def test_a_wrong_lock_is_one_message(launch_here: Launch, content: str | None, message: str) -> None:
    if content is not None:
        Path("wrong.lock").write_text(content)
    done = launch_here(str(RECIPE), "--scale", "smoke", "--locked", "wrong.lock")
    assert done.code == 2
    assert message in done.stderr


# --- sources of plug-ins ---


@pytest.fixture
def my_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None) -> Iterator[Path]:
    """A head in a file of its own that computes with another file of the user's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_blocks.py").write_text("import json\nWIDTH = 3\n")
    (tmp_path / "my_locked_head.py").write_text(
        "from dataclasses import dataclass\nimport my_blocks\nfrom plugins.heads.spectral_norm import SpectralNorm\n"
        "from ladd_dist.core.plugin import register\n\n\n@register('my_locked_head')\n@dataclass(frozen=True)\n"
        "class MyLockedHead(SpectralNorm):\n    '''Mine.'''\n"
    )
    yield tmp_path
    for name in ("my_blocks", "my_locked_head"):
        sys.modules.pop(name, None)


def test_the_users_own_modules_belong_to_a_plug_ins_source(my_head: Path) -> None:
    load_modules(["my_locked_head"])
    cls = registry.lookup("head", "my_locked_head")
    before = locks.sources(cls)
    assert {"my_locked_head", "my_blocks", "plugins.heads.spectral_norm", "ladd_dist.heads"} <= set(before)
    assert not {"json", "dataclasses", "torch", "ladd_dist.core.plugin"} & set(before)
    (my_head / "my_blocks.py").write_text("import json\nWIDTH = 4\n")
    after = locks.sources(cls)
    assert {name for name in before if before[name] != after[name]} == {"my_blocks"}


def test_line_ends_do_not_count_as_another_source(my_head: Path) -> None:
    load_modules(["my_locked_head"])
    cls = registry.lookup("head", "my_locked_head")
    before, path = locks.sources(cls), my_head / "my_locked_head.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert locks.sources(cls) == before


def test_a_field_added_later_is_no_drift_at_its_default() -> None:
    recipe = load_recipe(RECIPE, "smoke")
    data = read_json_of(recipe)
    del data["train"]["compute"]
    assert locks.fields_drift(data, recipe) == []


def read_json_of(recipe: Any) -> Any:
    from ladd_dist.core.serialize import to_data

    return json.loads(json.dumps(to_data(recipe)))


# --- what cannot be promoted ---


def test_what_the_lock_cannot_vouch_for_is_said(
    smoke: tuple[Done, Ladd], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    (run / "eval.json").unlink()
    config = read_json(run / "config.json")
    config["environment"]["commit"] = "0123456789-dirty"
    (run / "config.json").write_text(json.dumps(config))
    out = tmp_path / "recipe.lock"
    assert main([str(run), "--out", str(out), "--cache", str(tmp_path / "gone")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    for words in ("not committed (on 0123456789)", "not in", "no figures yet"):
        assert words in said.err
    lock = read_json(out)
    assert (lock["commit"], lock["dirty"], lock["eval"]) == ("0123456789", True, None)
    assert lock["data"] == {"teacher_weights_sha256": None, "shards_index_sha256": None}


def test_an_unfinished_or_damaged_run_is_not_promoted(
    smoke: tuple[Done, Ladd], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    out = tmp_path / "recipe.lock"
    weights = load_file(run / "student.safetensors")
    save_file(weights, run / "student.safetensors")  # without its card
    assert main([str(run), "--out", str(out)]) == 1
    assert "is no student that ladd_dist wrote" in capsys.readouterr().err
    (run / "distill.done.json").unlink()
    assert main([str(run), "--out", str(out)]) == 1
    assert "is not finished; go on with: python -m ladd_dist.launch" in capsys.readouterr().err
    config = read_json(run / "config.json")
    (run / "config.json").write_text(json.dumps({**config, "signature": "0" * 10}))
    assert main([str(run), "--out", str(out)]) == 1
    assert "use the version that made it" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(out)]) == 1
    assert "is no run's folder" in capsys.readouterr().err
    assert not out.exists()


def test_the_cache_is_the_one_that_the_runs_command_named() -> None:
    assert cache_of("python -m ladd_dist.launch r.py --cache '/a b/c' --seed 1") == Path("/a b/c")
    assert cache_of("python -m ladd_dist.launch r.py --cache=/a") == Path("/a")
    assert cache_of("python -m ladd_dist.launch r.py") == Path("cache")
