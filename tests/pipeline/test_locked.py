"""A finished run writes down what it depended on, in its recipe.lock; `launch --locked` holds a launch to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import RECIPE, REPO, Done, Ladd, half_written, read_json, run_command, snapshot
from safetensors.torch import load_file, save_file

from ladd_dist import __version__
from ladd_dist.core import plugin as registry
from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import load_modules
from ladd_dist.core.rundir import weights_sha256
from ladd_dist.core.serialize import from_data
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.recipe.plugin_sources import sources
from ladd_dist.stages.locking import write_lock
from ladd_dist.workspace.lock import fields_drift, read_lock, signatures, warnings_of
from ladd_dist.workspace.opening import cache_folder, open_run

Launch = Callable[..., Done]


@pytest.fixture
def written(smoke: tuple[Done, Ladd]) -> Path:
    """The lock that the shared smoke run has written."""
    return smoke[0].run / "recipe.lock"


@pytest.fixture
def locked(written: Path, smoke: tuple[Done, Ladd], launch_here: Launch) -> Callable[..., Done]:
    """`launch --dry-run --locked` with the lock, changed by a function, and more words."""

    def launch(*words: str, change: Callable[[dict[str, Any]], None] = lambda lock: None) -> Done:
        lock = read_json(written)
        change(lock)
        Path("recipe.lock").write_text(json.dumps(lock))
        place = ("--out", str(smoke[1].runs), "--cache", str(smoke[1].cache))
        return launch_here(str(RECIPE), "--scale", "smoke", *place, "--dry-run", "--locked", "recipe.lock", *words)

    return launch


def test_the_lock_holds_all_that_the_run_depended_on(written: Path, smoke: tuple[Done, Ladd]) -> None:
    lock, run = read_json(written), smoke[0].run
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
    assert not half_written(written.parent)
    assert read_lock(written.parent) == read_lock(written)  # the folder names it too


def test_the_lock_names_class_version_and_sources_of_every_plug_in(written: Path) -> None:
    used = read_json(written)["plugin_classes"]
    assert {"dataset", "network", "head", "taps", "teacher.sigma", "shards.sampler", "parallel", "tracker"} <= set(used)
    head, network = used["head"], used["network"]
    assert (head["module"], head["class"], head["package"]) == ("plugins.heads.spectral_norm", "SpectralNorm", None)
    content = (REPO / "plugins" / "heads" / "spectral_norm.py").read_bytes()
    before = content.replace(b"ladd_dist.zoo.", b"")  # as it was hashed when the imports had no longer name
    assert head["sources"]["plugins.heads.spectral_norm"] == hashlib.sha256(before).hexdigest()
    assert "plugins.heads._classifier" in head["sources"]
    assert "ladd_dist.heads" in head["sources"]  # its base class
    assert (network["package"], network["version"]) == ("ladd_dist", __version__)
    assert used["tracker"]["neutral"]
    assert not head["neutral"]


def test_what_has_not_drifted_is_launched(
    locked: Callable[..., Done], written: Path, smoke: tuple[Done, Ladd], launch_here: Launch
) -> None:
    done = locked()
    assert done.code == 0, done.stderr
    for lock in (written, written.parent):  # as the run left it
        done = launch_here(*smoke[1].words("--dry-run", "--locked", lock))
        assert done.code == 0, done.stderr


def test_a_lock_is_written_once_and_anew_when_the_figures_are_others(smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    opened = open_run(run, device=torch.device("cpu")).run
    before = (run / "recipe.lock").stat().st_mtime_ns
    assert write_lock(opened) == run / "recipe.lock"
    assert (run / "recipe.lock").stat().st_mtime_ns == before
    figures = read_json(run / "eval.json")
    figures["student@4"]["fd_real"] += 1
    (run / "eval.json").write_text(json.dumps(figures))
    write_lock(opened)
    assert read_json(run / "recipe.lock")["eval"] == figures
    assert read_json(run / "recipe.lock")["student"] == read_json(smoke[0].run / "recipe.lock")["student"]


def test_a_lock_of_the_version_before_is_held_to_as_well(locked: Callable[..., Done]) -> None:
    def of_promote(lock: dict[str, Any]) -> None:
        del lock["hashed_version"], lock["hashed_commit"]

    assert locked(change=of_promote).code == 0


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


def test_a_lock_alone_names_recipe_and_scale(written: Path, smoke: tuple[Done, Ladd], launch_here: Launch) -> None:
    lock = read_json(written)
    lock["recipe"]["seed"] = 3  # what no recipe file says
    recipe: Recipe = from_data(Recipe, lock["recipe"])
    lock["signatures"] = signatures(recipe)
    Path("moved.lock").write_text(json.dumps({**lock, "recipe_path": "elsewhere/exp4.py"}))  # the file is not needed
    place = ("--out", str(smoke[1].runs), "--cache", str(smoke[1].cache), "--dry-run", "--json")
    for words in (("--locked", "moved.lock"), ("--locked=moved.lock",)):
        done = launch_here(*words, *place)
        assert done.code == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["scale"], said["signature"]) == ("smoke", recipe.distill_signature())
        assert next(stage["cached"] for stage in said["stages"] if stage["name"] == "shards")
    done = launch_here("--locked", "moved.lock", *place, "--train.steps", "21")
    assert done.code == 2
    assert "recipe.train.steps: locked 20, now 21" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lock: lock.update(recipe_path=""), "does not say which recipe file it is of"),
        (lambda lock: lock.update(recipe_path="--plugins=this.py"), "does not say which recipe file it is of"),
        (lambda lock: lock.update(scale="--plugins=this"), "does not say which recipe file it is of"),
        (lambda lock: lock["recipe"].update(gone=1), "has no field 'gone'"),
        (lambda lock: lock["recipe"]["head"].update(plugin="my_head"), "unknown head 'my_head'"),
    ],
)
def test_a_lock_alone_that_gives_no_recipe_is_one_message(
    written: Path, launch_here: Launch, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    lock = read_json(written)
    change(lock)
    Path("wrong.lock").write_text(json.dumps(lock))
    done = launch_here("--locked", "wrong.lock", "--dry-run")
    assert done.code == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert "no such file" in launch_here("--locked", "nothing.lock").stderr


def test_a_refused_launch_leaves_everything_as_it_was(written: Path, cold: Ladd, smoke: tuple[Done, Ladd]) -> None:
    before = snapshot(smoke[1].cache)
    done = cold("--locked", written, "--seed", "1", code=2)
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
        (None, "no such file; every finished run has one in its folder, RUN/recipe.lock"),
        ("{", "not valid JSON"),
        ("[]", "does not have the expected form (Expected `object`, got `array`)"),
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
    before = sources(cls)
    assert {"my_locked_head", "my_blocks", "plugins.heads.spectral_norm", "ladd_dist.heads"} <= set(before)
    assert not {"json", "dataclasses", "torch", "ladd_dist.core.plugin"} & set(before)
    (my_head / "my_blocks.py").write_text("import json\nWIDTH = 4\n")
    after = sources(cls)
    assert {name for name in before if before[name] != after[name]} == {"my_blocks"}


def test_line_ends_do_not_count_as_another_source(my_head: Path) -> None:
    load_modules(["my_locked_head"])
    cls = registry.lookup("head", "my_locked_head")
    before, path = sources(cls), my_head / "my_locked_head.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert sources(cls) == before


def test_a_field_added_later_is_no_drift_at_its_default() -> None:
    recipe = load_recipe(RECIPE, "smoke")
    data = read_json_of(recipe)
    del data["train"]["compute"]
    assert fields_drift(data, recipe) == []


def read_json_of(recipe: Any) -> Any:
    from ladd_dist.core.serialize import to_data

    return json.loads(json.dumps(to_data(recipe)))


# --- what has no lock, or one that cannot vouch for all ---


def test_what_the_lock_cannot_vouch_for_is_said(smoke: tuple[Done, Ladd], tmp_path: Path, launch_here: Launch) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    config = read_json(run / "config.json")
    config["environment"]["commit"] = "0123456789-dirty"
    (run / "config.json").write_text(json.dumps(config))
    path = write_lock(open_run(run, cache=tmp_path / "gone", device=torch.device("cpu")).run)
    assert path == run / "recipe.lock"
    lock = read_json(path)
    assert (lock["commit"], lock["dirty"]) == ("0123456789", True)
    assert lock["data"] == {"teacher_weights_sha256": None, "shards_index_sha256": None}
    done = launch_here(*smoke[1].words("--dry-run", "--locked", path))
    assert done.code == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith(f"note: --locked {path}: ")]
    for words in ("not committed (on 0123456789)", "so not locked"):
        assert any(words in note for note in notes), notes
    assert "had no figures yet" in warnings_of(dataclasses.replace(read_lock(path), eval=None))[-1]


def test_an_unfinished_or_damaged_run_writes_no_lock(smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    (run / "recipe.lock").unlink()
    opened = open_run(run, device=torch.device("cpu")).run
    weights = load_file(run / "student.safetensors")
    save_file(weights, run / "student.safetensors")  # without its card
    with pytest.raises(UserError, match="is damaged, or no student that ladd_dist wrote"):
        write_lock(opened)
    (run / "evaluate.done.json").unlink()
    assert write_lock(opened) is None
    (run / "distill.done.json").unlink()
    assert write_lock(opened) is None
    assert not (run / "recipe.lock").exists()


# --- the opener of a finished run ---


def test_a_run_that_is_none_or_of_another_version_is_one_message(smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    config = read_json(run / "config.json")
    for changes, message in (
        ({"signature": "0" * 10}, "use the version that made it"),
        ({"format": 2}, "has format 2, this version reads 1"),
    ):
        (run / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=message):
            open_run(run, device=torch.device("cpu"))
    del config["recipe"]
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks recipe"):
        open_run(run, device=torch.device("cpu"))
    with pytest.raises(UserError, match="is no run's folder"):
        open_run(tmp_path, device=torch.device("cpu"))


def test_a_run_that_was_renamed_is_opened_where_it_is(smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    run = Path(shutil.copytree(smoke[0].run, tmp_path / "mine"))
    opened = open_run(run, device=torch.device("cpu"))
    assert opened.folder.path == run and opened.folder.student.is_file()
    assert opened.run.folder.path == tmp_path / smoke[0].run.name


def test_the_cache_is_the_one_that_the_run_used_else_that_of_its_command(
    smoke: tuple[Done, Ladd], tmp_path: Path
) -> None:
    config = open_run(smoke[0].run, device=torch.device("cpu")).config
    assert config.cache == str(smoke[1].cache.resolve())
    assert cache_folder(config) == smoke[1].cache.resolve()
    for recorded in ("", str(tmp_path / "gone")):  # a run of an older version; a project that has been moved
        for words, cache in (("--cache '/a b/c' --seed 1", "/a b/c"), ("--cache=/a", "/a"), ("", "cache")):
            older = dataclasses.replace(config, cache=recorded, command=f"python -m ladd_dist.launch r.py {words}")
            assert cache_folder(older) == Path(cache)


# --- the names of the version before ---


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["cancel", "heads", "--run", "a b"], "ladd jobs heads --cancel --run 'a b'"),
        (["wandb-sweep", "s.py", "--scale", "smoke"], "ladd sweep s.py --scale smoke --on wandb"),
        (["wandb-sweep", "s.py", "--trial", '{"seed": 0}'], """ladd sweep s.py --trial '{"seed": 0}'"""),
        (["promote", "RUN"], "ladd launch RECIPE --locked RUN/recipe.lock"),
    ],
)
def test_an_old_name_answers_with_the_line_to_type(tmp_path: Path, words: list[str], line: str) -> None:
    name, *rest = words
    for command in (["ladd_dist", name], [f"ladd_dist.{name.replace('-', '_')}"]):
        done = run_command(sys.executable, "-m", *command, *rest, cwd=tmp_path)
        assert done.code == 2
        assert done.stderr.startswith(f"error: `ladd {name}` is ") and done.stderr.endswith(f"; type: {line}\n")


def test_promotes_answer_knows_the_runs_recipe(smoke: tuple[Done, Ladd], tmp_path: Path) -> None:
    done = run_command(sys.executable, "-m", "ladd_dist.promote", smoke[0].run, "--out", "x.lock", cwd=tmp_path)
    assert done.stderr.endswith(f"type: ladd launch {RECIPE} --scale smoke --locked {smoke[0].run}/recipe.lock\n")
