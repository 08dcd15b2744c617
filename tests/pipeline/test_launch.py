"""The contract of `launch` for machines and people, with real processes at smoke scale."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from processes import (
    LAUNCH,
    RECIPE,
    REPO,
    Done,
    Ladd,
    Running,
    error_of,
    half_written,
    read_json,
    rows,
    run_command,
    snapshot,
)
from safetensors import safe_open

from ladd_dist import __version__
from ladd_dist.core import checkout
from ladd_dist.core.checkout import current_commit
from ladd_dist.reports.table import figure

LADD = Path(sys.executable).parent / "ladd"
STAGES = ["teacher", "shards", "distill", "evaluate", "report"]
STUDENT = {"student@4", "student@2", "student@1"}
FIGURES = {"fd_real", "fd_teacher", "hue_entropy", "accuracy", "s_per_image"}
FLOORS = {"floor@50": {"s_per_image", "fd_real"}, "floor@real": {"s_per_image"}}
"""The entries that are no sampler's, and what they lack."""


def test_the_whole_smoke_pipeline_leaves_what_the_contract_names(smoke: tuple[Done, Ladd]) -> None:
    done, ladd = smoke
    assert done.run.parent == ladd.runs
    assert re.fullmatch(r"exp4_specnorm-[0-9a-f]{10}", done.run.name)
    for name in ("config.json", "metrics.jsonl", "eval.json", "report.html", "report.md", "student.safetensors"):
        assert (done.run / name).stat().st_size > 0
    assert list(done.run.glob("samples/*.png"))
    assert list(done.run.glob("checkpoints/*/meta.json"))
    assert not half_written(ladd.runs, ladd.cache)
    assert list(read_json(done.run / "timings.json")) == STAGES


def test_eval_json_holds_students_and_teachers_with_finite_figures(smoke: tuple[Done, Ladd]) -> None:
    found = read_json(smoke[0].run / "eval.json")
    assert set(found) == STUDENT | {"untrained@4", "teacher@4:karras", "teacher@4:good", "teacher@50", *FLOORS}
    for name, figures in found.items():
        assert set(figures) >= FIGURES - FLOORS.get(name, set())
        assert set(figures["features"]) <= set(figures)
        assert all(abs(value) < 1e9 for name, value in figures.items() if name != "features")


def test_every_step_is_logged_at_smoke_scale(smoke: tuple[Done, Ladd]) -> None:
    logged = rows(smoke[0].run / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(1, 21))
    assert set(logged[-1]) >= {
        "loss/heads",
        "loss/adversarial",
        "loss/distill",
        "rate/steps_per_s",
        "weight/adversarial",
    }


def test_the_first_line_says_the_scale_and_how_to_choose_it_and_progress_goes_to_stderr(
    smoke: tuple[Done, Ladd],
) -> None:
    first = smoke[0].stdout.splitlines()[0]
    assert "scale smoke" in first
    assert "--scale smoke|laptop|paper" in first
    for wanted in ("teacher 40/40", "shards 128/128", "distill 20/20", "sampling student@4 64/64"):
        assert smoke[0].stderr.count(wanted) == 1


def test_config_json_holds_command_modules_and_the_whole_recipe(smoke: tuple[Done, Ladd]) -> None:
    config = read_json(smoke[0].run / "config.json")
    assert config["command"].startswith(f"python -m ladd_dist.launch {RECIPE} --scale smoke")
    assert config["plugins"] == ["plugins"]
    assert config["recipe"]["head"]["plugin"] == "spectral_norm"
    assert config["scale"] == "smoke"
    assert config["large_gap"] == 15.0
    assert smoke[0].run.name.endswith(config["signature"])


def test_a_second_run_skips_every_stage_changes_nothing_but_the_page_and_prints_its_result_as_json(
    smoke: tuple[Done, Ladd],
) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        found = snapshot(ladd.runs) | snapshot(ladd.cache)
        return {
            name: value for name, value in found.items() if not name.endswith((".html", ".md", "timings.json", ".lock"))
        }

    done, ladd = smoke
    before, started = state(), time.monotonic()
    again = ladd("--json")
    assert time.monotonic() - started < 30
    assert again.stderr.count("done before, skipped") == 4
    assert state() == before
    assert json.loads(again.stdout) == {"run": str(done.run), "eval": read_json(done.run / "eval.json")}


def test_another_head_reuses_teacher_shards_and_reference(ladd: Ladd, smoke: tuple[Done, Ladd]) -> None:
    before = snapshot(ladd.cache)
    done = ladd("--swap", "head=max_pool", "--swap", "adv_weight=cosine", "--head.width", 16)
    assert snapshot(ladd.cache) == before
    assert done.run.name != smoke[0].run.name
    assert set(read_json(done.run / "timings.json")) == {"distill", "evaluate", "report"}
    recipe = read_json(done.run / "config.json")["recipe"]
    assert (recipe["head"]["plugin"], recipe["head"]["width"]) == ("max_pool", 16)
    assert recipe["adv_weight"]["plugin"] == "cosine"


def test_without_a_scale_it_is_the_laptops_also_with_an_accelerator_and_a_line_says_how_to_ask_for_more(
    cold: Ladd, launch_here: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    done = launch_here(*cold.words("--scale", "auto", "--dry-run", "--device", "cpu"))
    first = done.stdout.splitlines()[0]
    assert "at scale laptop" in first and "--scale paper is the report's own size" in first
    asked = launch_here(*cold.words("--scale", "laptop", "--dry-run", "--device", "cpu"))
    assert "at scale laptop" in asked.stdout and "report's own size" not in asked.stdout


def test_another_seed_is_another_run_with_the_same_teacher_and_shards(ladd: Ladd, smoke: tuple[Done, Ladd]) -> None:
    before = snapshot(ladd.cache)
    done = ladd("--seed", 1, "--stages", "teacher,shards,distill")
    assert done.run.name != smoke[0].run.name
    assert snapshot(ladd.cache) == before
    student = "student.safetensors"
    assert (done.run / student).read_bytes() != (smoke[0].run / student).read_bytes()


def test_the_same_command_twice_at_once_trains_once(ladd: Ladd, tmp_path: Path) -> None:
    words = ladd.words("--stages", "teacher,shards,distill", "--train.steps", 60, "--seed", 5)
    both = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        both.append(Running([*LAUNCH, *words], tmp_path / name, None))
    one, two = (running.wait() for running in both)
    assert one.code == two.code == 0, (one, two)
    assert (one.stderr + two.stderr).count("waiting for another process") == 1
    assert (one.stdout + two.stdout).count("[distill] done before, skipped") == 1
    assert [row["step"] for row in rows(one.run / "metrics.jsonl")] == list(range(1, 61))


def test_flags_may_stand_before_the_recipe(ladd: Ladd) -> None:
    place = ["--out", ladd.runs, "--cache", ladd.cache, "--scale", "smoke", "--stages=teacher"]
    words = ["--head.width", 16, "--swap", "head=small_conv", RECIPE, *place, "--swap=adv_weight=constant"]
    done = run_command(*LAUNCH, *words, cwd=ladd.cwd)
    assert done.code == 0, done.stderr
    recipe = read_json(ladd.cwd / done.run / "config.json")["recipe"]
    assert (recipe["head"]["plugin"], recipe["head"]["width"]) == ("small_conv", 16)
    assert recipe["adv_weight"]["plugin"] == "constant"


@pytest.mark.parametrize("command", [LAUNCH, (LADD, "launch")])
def test_a_dry_run_prints_one_json_object_and_writes_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "mine.py"
    recipe.parent.mkdir()
    shutil.copy(RECIPE, recipe)
    done = run_command(*command, "recipes/mine.py", "--scale", "smoke", "--dry-run", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert done.code == 0
    assert set(facts) == {"recipe", "scale", "signature", "params", "taps", "stages", "flops", "data"}
    assert set(facts["params"]) == {"teacher", "student", "heads"}
    assert set(facts["flops"]) == {"student_forward", "teacher_to_last_tap", "step"}
    assert facts["stages"] == [{"name": name, "cached": False} for name in STAGES]
    assert len(facts["taps"]) == 7
    files = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert files == {"mine.py", "stdout.txt", "stderr.txt"}
    assert not [path for path in tmp_path.iterdir() if path.name in ("runs", "cache")]


def test_a_dry_run_says_which_stages_are_done(smoke: tuple[Done, Ladd], launch_here: Callable[..., Done]) -> None:
    facts = json.loads(launch_here(*smoke[1].words("--dry-run", "--json")).stdout)
    assert facts["stages"] == [{"name": name, "cached": True} for name in STAGES]
    assert smoke[0].run.name.endswith(facts["signature"])
    assert "parameters of the teacher" in launch_here(*smoke[1].words("--dry-run")).stdout


def test_the_plugins_command_is_the_same_as_a_module_and_as_a_script(tmp_path: Path) -> None:
    one = run_command(sys.executable, "-m", "ladd_dist.plugins", "--json", cwd=tmp_path)
    two = run_command(LADD, "plugins", "--json", cwd=tmp_path)
    assert one.code == two.code == 0
    assert json.loads(one.stdout) == json.loads(two.stdout)
    assert "spectral_norm" in {plugin["name"] for plugin in json.loads(one.stdout)["plugins"]}


def test_the_head_of_the_plugin_page_trains_from_a_file_in_the_current_folder(ladd: Ladd) -> None:
    page = (REPO / "docs" / "plugins.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert code is not None
    (ladd.cwd / "my_heads.py").write_text(code[1], encoding="utf-8")
    place = ["--scale", "smoke", "--out", ladd.runs, "--cache", ladd.cache]
    words = [*place, "--plugins", "my_heads", "--swap", "head=my_head", "--stages", "teacher,shards,distill"]
    done = run_command(LADD, "launch", RECIPE, *words, cwd=ladd.cwd)
    assert done.code == 0, done.stderr
    config = read_json(done.run / "config.json")
    assert config["plugins"] == ["plugins", "my_heads"]
    assert config["recipe"]["head"] == {"plugin": "my_head", "width": 32}


def test_a_launch_ends_with_verdict_distance_and_page_and_then_the_folder(smoke: tuple[Done, Ladd]) -> None:
    done, figures = smoke[0], read_json(smoke[0].run / "eval.json")
    line, folder = done.stdout.splitlines()[-2:]
    assert folder == str(done.run)
    assert line.startswith("Look closer: ") or line.startswith("Collapsed: ")
    real = [figures[entry]["fd_real"] for entry in ("student@4", "floor@real", "untrained@4", "teacher@50")]
    told = "; fd_real of student@4 {} (floor {}, untrained@4 {}, teacher@50 {}, teacher@4:"
    assert told.format(*map(figure, real)) in line
    distance, floor = figures["student@4"]["fd_teacher"], figures["teacher@50"]["fd_teacher"]
    assert f"fd_teacher of student@4 {figure(distance)} (floor {figure(floor)}, teacher@4:" in line
    assert line.endswith(f"; page: {done.run / 'report.html'}")


def test_version_names_version_commit_torch_and_device(tmp_path: Path) -> None:
    done = run_command(LADD, "--version", cwd=tmp_path)
    commit = re.escape(current_commit())
    own, library = re.escape(__version__), re.escape(torch.__version__)
    pattern = rf"ladd_dist {own} \(commit {commit}\), python 3\.\S+, torch {library}, "
    assert done.code == 0
    assert re.fullmatch(pattern + r"device \S.*\n", done.stdout), done.stdout


def test_code_in_somebody_elses_checkout_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "venv" / "ladd_dist" / "core"
    package.mkdir(parents=True)
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(checkout, "__file__", str(package / "checkout.py"))
    assert current_commit() == "unknown"


def test_a_commit_is_dirty_by_code_and_not_by_texts_and_measured_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benchmarks write down a run's figures before the next run begins: these two are of the same code."""
    files = [tmp_path / name for name in ("ladd_dist/__init__.py", "benchmarks/a.json", "docs/a.md", "recipes/a.py")]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    (tmp_path / "ladd_dist" / "core").mkdir()
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "ladd_dist" / "core" / "checkout.py"))
    clean = current_commit()
    assert re.fullmatch("[0-9a-f]{10}", clean)
    for path in files[1:3]:
        path.write_text("2")
    assert current_commit() == clean
    files[3].write_text("2")
    assert current_commit() == f"{clean}-dirty"


def test_an_unknown_command_of_ladd_lists_the_commands(tmp_path: Path) -> None:
    done = run_command(LADD, "lunch", cwd=tmp_path)
    assert done.code == 2
    assert "unknown command 'lunch'" in done.stderr
    assert "launch " in done.stderr


@pytest.mark.alone
def test_help_comes_in_three_seconds(tmp_path: Path) -> None:
    spent = []
    for _ in range(3):
        started = time.monotonic()
        done = run_command(*LAUNCH, "--help", cwd=tmp_path)
        spent.append(time.monotonic() - started)
        assert done.code == 0
        assert "--swap" in done.stdout
    assert min(spent) < 3


def test_help_with_a_recipe_lists_its_groups_and_their_plug_ins(tmp_path: Path) -> None:
    done = run_command(*LAUNCH, RECIPE, "--scale", "smoke", "--help", "--swap", "start=path", cwd=tmp_path)
    assert done.code == 0
    assert "--from-scratch" in done.stdout
    assert re.search(r"^start +path +0 +fresh, ot, stored *$", done.stdout, re.MULTILINE)
    assert len(done.stdout.splitlines()) < 130


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = "import ladd_dist.launch, ladd_dist.plugins, ladd_dist.__main__, sys; print('torch' in sys.modules)"
    assert run_command(sys.executable, "-c", code, cwd=tmp_path).stdout == "False\n"
    code = (
        "import atexit, sys, ladd_dist.__main__ as m; atexit.register(lambda: print('torch' in sys.modules)); m.main()"
    )
    for words in (["--help"], ["launch", "--help"], ["evaluate", "--help"]):
        assert run_command(sys.executable, "-c", code, *words, cwd=tmp_path).stdout.splitlines()[-1] == "False"


def test_a_reader_that_leaves_early_causes_no_noise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ladd_dist", "launch", str(RECIPE), "--scale", "smoke", "--dry-run", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "rror" not in process.stderr.read().decode()
    process.wait(60)


def test_from_scratch_starts_over(ladd: Ladd, smoke: tuple[Done, Ladd]) -> None:
    shutil.copytree(smoke[1].runs, ladd.runs)
    own = ladd.runs / smoke[0].run.name
    (own / "old.txt").write_text("old")
    before = snapshot(ladd.cache)
    done = ladd("--from-scratch", "--stages", "teacher,shards,distill")
    assert done.run == own
    assert not (own / "old.txt").exists()
    assert not (own / "eval.json").exists()
    assert "[distill] training" in done.stdout
    assert snapshot(ladd.cache) == before
    assert (own / "student.safetensors").read_bytes() == (smoke[0].run / "student.safetensors").read_bytes()
    assert "--from-scratch" not in read_json(own / "config.json")["command"]


@pytest.mark.parametrize(
    ("asked", "advice"),
    [("distill", "--stages teacher,shards"), ("shards", "--stages teacher"), ("evaluate", "--stages distill")],
)
def test_a_stage_without_what_it_needs_says_which_stage_makes_it(
    cold: Ladd, launch_here: Callable[..., Done], asked: str, advice: str
) -> None:
    done = launch_here(*cold.words("--stages", asked))
    assert done.code == 1
    assert advice in error_of(done)


@pytest.mark.slow
@pytest.mark.mnist
def test_paper_scale_runs_a_few_steps_of_every_stage_on_the_real_mnist(cold: Ladd, mnist_root: Path) -> None:
    few = "--teacher.steps 2 --teacher.batch-size 8 --train.steps 2 --train.batch-size 4"
    few += " --shards.num-samples 8 --shards.batch-size 8 --shards.sampler.steps 2"
    few += " --evaluate.num-samples 8 --evaluate.num-references 64"
    done = cold("--scale", "paper", "--dataset.root", mnist_root, *few.split())
    config = read_json(done.run / "config.json")
    assert config["recipe"]["dataset"]["plugin"] == "mnist"
    assert config["recipe"]["network"]["widths"] == [64, 128, 256, 256]
    found = read_json(done.run / "eval.json")
    assert set(found) == STUDENT | {
        "untrained@4",
        "teacher@4:karras",
        "teacher@4:good",
        "teacher@2",
        "floor@2",
        "floor@real",
    }
    assert all(set(figures) >= FIGURES for name, figures in found.items() if not name.startswith("floor@"))
    assert len(config["taps"]) == 9


def test_a_student_of_one_step_goes_all_the_way_to_its_page(ladd: Ladd) -> None:
    done = ladd("--student-steps", 1, "--evaluate.steps", 1, "--train.steps", 2)
    found = read_json(done.run / "eval.json")
    assert {"student@1", "untrained@1", "teacher@50"} <= set(found) and "student@4" not in found
    assert "turned into a 1-step student" in (done.run / "report.md").read_text(encoding="utf-8")
    assert "student@1" in read_json(done.run / "samples" / "strips.json")["samplers"]


def test_teacher_and_student_say_where_they_come_from(smoke: tuple[Done, Ladd]) -> None:
    run, cache = smoke[0].run, smoke[1].cache
    with safe_open(run / "student.safetensors", framework="pt") as file:
        base = json.loads(file.metadata()["ladd_dist"])["base"]
    told = read_json(cache / f"teacher-{base['signature']}" / "done.json")
    recipe = read_json(run / "config.json")["recipe"]
    assert told["origin"]["network"] == recipe["network"]
    assert base["dataset"] == told["origin"]["dataset"] == recipe["dataset"]["plugin"]
    assert told["signature"] == told["origin"]["signature"] == base["signature"]
