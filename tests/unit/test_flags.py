"""A wrong flag or environment variable is one message that names it, exit code 2, before anything is written."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from test_ranges import Number, beyond, ends, numbers

from ladd_dist import (
    compare,
    control,
    diagnose,
    doctor,
    evaluate,
    export,
    guidance,
    jobs,
    launch,
    new,
    plan,
    plugins,
    prompts,
    sample,
    search_levels,
    sweep,
    tune,
)
from ladd_dist.builders.networks import require_within
from ladd_dist.builders.teacher import fresh_network, require_levels
from ladd_dist.cli.arguments import path_first, read, split_words
from ladd_dist.core.environment import require_environment
from ladd_dist.core.errors import RangeError, RecipeError
from ladd_dist.core.ranges import hints_of
from ladd_dist.levels.named import Good
from ladd_dist.parallel.devices import count_processes
from ladd_dist.recipe import load_recipe, validate
from ladd_dist.samplers.karras import Euler
from ladd_dist.stages import sizes
from ladd_dist.stages.dry_run import describe_run
from ladd_dist.stages.sizes import maps_bytes, require_room
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.schedules.constant import Constant
from plugins.schedules.piecewise import Piecewise

REPO = Path(__file__).resolve().parents[2]
EXP4 = str(REPO / "recipes" / "exp4_specnorm.py")
SWEEP = str(REPO / "recipes" / "sweep_heads.py")
OPTIONS = (
    compare.Options, control.Train, control.Apply, control.Transfer, diagnose.Options, doctor.Options,
    evaluate.Options, export.Options, guidance.Options, jobs.Options, launch.Options, new.Options, plan.Options,
    plugins.Options, prompts.Options, sample.Options, search_levels.Options, sweep.Options, tune.Options,
)  # fmt: skip
"""The options of every command."""


def numbers_of(cls: type) -> Iterator[Number]:
    for name, hint in hints_of(cls).items():
        for found in numbers(hint, ()):
            yield Number(name, *found)


FLAGS = [
    pytest.param(cls, number, id=f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}.{number.field}")
    for cls in OPTIONS
    for number in numbers_of(cls)
]


def test_the_table_of_flags_covers_the_commands() -> None:
    """Every module of a command is in the table, and so are flags of every sort: optional, in lists, with floats."""
    modules = {path.stem for path in (REPO / "ladd_dist").glob("*.py") if "class Options" in path.read_text()}
    assert modules | {"control"} == {cls.__module__.rpartition(".")[2] for cls in OPTIONS}
    covered = {str(flag.id) for flag in FLAGS}
    named = {"launch.Options.nproc", "launch.Options.timeout_s", "export.Options.step", "evaluate.Options.levels"}
    assert named | {"plan.Options.gpu_memory_gb", "control.Train.lr", "doctor.Options.threads"} <= covered


@pytest.mark.parametrize(("cls", "number"), FLAGS)
def test_a_number_of_a_flag_declares_its_range_and_is_held_to_it(cls: type, number: Number) -> None:
    assert number.within is not None, "annotate the option with a range of ladd_dist.core.ranges"
    required = [field for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
    flag = f"--{number.field.replace('_', '-')}"
    words = ["x" for _ in required]
    for value in [*beyond(number), *([2**70] if number.kind is int else [])]:
        with pytest.raises(
            RangeError, match=rf"^{flag}(\[0\])?: must be .*, got (one of 71 bits|{re.escape(str(value))})$"
        ):
            read(cls, [*words, f"{flag}={value}"], prog="ladd")
    for value in ends(number):
        made = getattr(read(cls, [*words, f"{flag}={value}"], prog="ladd"), number.field)
        assert made in (value, (value,))
    if number.kind is float:
        assert all(math.isnan(value) or value not in number.within for value in (math.nan, math.inf, -math.inf))


BAD_TEXT = "caf\udce9"
"""What Python makes of the bytes `caf\\xe9`, which are no UTF-8."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--note", BAD_TEXT], r"--note: a byte that is no UTF-8 in 'caf\\udce9'"),
        ([f"--note={BAD_TEXT}"], r"--note: a byte that is no UTF-8 in '--note=caf\\udce9'"),
        (["--out", "a\0b"], r"--out: a control character in 'a\x00b'"),
        (["--name", "a\nb"], r"--name: a control character in 'a\nb'"),
        (["--name", "\x1b]52;c;aGk=\a"], r"--name: a control character in '\x1b]52;c;aGk=\x07'"),
        (["--name", "a\x9bm"], r"--name: a control character in 'a\x9bm'"),
        ([BAD_TEXT], r"the command line: a byte that is no UTF-8 in 'caf\udce9'"),
    ],
)
def test_words_that_are_no_text_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        launch._main([*words, EXP4])
    assert str(refused.value).replace("\\\\", "\\") == message.replace("\\\\", "\\")


def test_a_note_may_have_several_lines_and_any_alphabet() -> None:
    words = [EXP4, "--scale", "smoke", "--note", "erste Zeile: größer\nzweite\tZeile: 火", "--dry-run"]
    assert launch.main(words) == 0


def test_a_range_of_numbers_is_bounded() -> None:
    assert len(split_words(["1..10000"], int)) == 10_000
    with pytest.raises(ValueError, match=r"the range 1\.\.10+ has more than 10000 numbers"):
        split_words(["1..1000000000"], int)


def test_a_word_that_no_path_can_be_is_no_path() -> None:
    words = ["--steps", "1", "x" * 5000, "a\0b"]
    assert path_first(evaluate.Options, words) == words


# --- the environment ---


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("RANK", "x", {}),
        ("RANK", "-1", {}),
        ("RANK", "2", {"WORLD_SIZE": "2"}),
        ("WORLD_SIZE", "0", {"RANK": "0"}),
        ("WORLD_SIZE", "1e3", {}),
        ("LOCAL_RANK", "one", {}),
        ("LOCAL_RANK", "3", {"LOCAL_WORLD_SIZE": "3"}),
        ("LOCAL_WORLD_SIZE", "0", {}),
        ("MASTER_PORT", "99999", {}),
        ("MASTER_PORT", "http", {}),
        ("SLURM_PROCID", "x", {}),
        ("SLURM_STEP_NUM_TASKS", "many", {"SLURM_PROCID": "0"}),
        ("SLURM_JOB_ID", "9" * 30, {}),
        ("SLURM_STEP_TASKS_PER_NODE", "4(y2)", {}),
        ("OMP_NUM_THREADS", "abc", {}),
        ("OMP_NUM_THREADS", "1000000", {}),
        ("OMP_NUM_THREADS", "0", {}),
        ("CUDA_VISIBLE_DEVICES", "gpu0", {}),
        ("LADD_CORES", "0", {}),
        ("LADD_PARENT", "me", {}),
    ],
)
@pytest.mark.parametrize("command", [launch, jobs, plugins], ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_variable_of_the_environment_that_is_no_number_is_named(
    command: ModuleType,
    name: str,
    value: str,
    more: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "_exit", sys.exit)  # how a rank of several ends
    for key, text in {name: value, **more}.items():
        monkeypatch.setenv(key, text)
    words = [EXP4, "--scale", "smoke"] if command is launch else []
    try:
        code = command.main(words)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code == 2, said
    assert re.match(rf"error: (rank \d: )?the environment variable {name} ", said.err), said.err
    assert said.err.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUDA_VISIBLE_DEVICES", ""),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("CUDA_VISIBLE_DEVICES", "-1"),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,MIG-1"),
        ("OMP_NUM_THREADS", "4,2"),
        ("OMP_NUM_THREADS", ""),
        ("SLURM_STEP_TASKS_PER_NODE", "4(x2),1"),
        ("SLURM_STEP_ID", "4294967291"),
        ("MASTER_PORT", ""),
    ],
)
def test_what_launchers_set_passes(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    require_environment()


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_rank_that_is_not_told_where_to_meet_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for key, text in told.items():
        monkeypatch.setenv(key, text)
    assert count_processes(1) == 1
    monkeypatch.delenv(missing)
    with pytest.raises(RecipeError, match=f"the environment variable {missing} is not set, and RANK is"):
        count_processes(1)


# --- nothing is left of a refused command line ---


LAUNCH = [
    ("--device meta", r"--device meta: not usable here; what is: auto, cpu"),
    ("--device cuda:99", r"--device cuda:99: not usable here; what is: auto, cpu"),
    ("--device nonsense", r"--device nonsense: not usable here; what is: auto, cpu"),
    ("--device cpu:3", r"--device cpu:3: not usable here; what is: auto, cpu"),
    ("--device mps", r"--device mps: not usable here|--device mps"),
    ("--threads -1", r"--threads: must be at least 0 and at most 1024, got -1"),
    ("--timeout-s nan", r"--timeout-s: must be finite and above 0 and at most 1e7, got nan"),
    ("--nproc 1000000", r"--nproc: must be at least 1 and at most 1024, got 1000000"),
    ("--seed 1180591620717411303424", r"recipe\.seed: must be a whole number below 2\^63, got one of 71 bits"),
    ("--evaluate.steps", r"recipe\.evaluate\.steps: give at least one"),
    ("--evaluate.steps 1,1,4", r"recipe\.evaluate\.steps: 1 stands there twice"),
    ("--evaluate.steps 0", r"recipe\.evaluate\.steps\[0\]: must be at least 1"),
    ("--evaluate.steps 1000000000 --swap levels=karras", r"recipe\.evaluate\.steps\[0\]: .* at most 10000"),
    ("--student-steps 1000000000 --swap levels=karras", r"recipe\.student_steps: .* at most 10000"),
    ("--shards.sampler.steps 1000000000", r"recipe\.shards\.sampler\.steps: .* at most 10000"),
    ("--swap teacher.sigma=timesteps --teacher.sigma.timesteps 1000000000", r"at most 10000 timesteps"),
    ("--evaluate.seeds 5 5", r"seeds must differ"),
    ("--swap student=lora --student.targets (", r"lora\.targets: '\(' is no regular expression"),
    ("--swap tracker=wandb --tracker.base-url nowhere", r"wandb\.base_url must be an address"),
    ("--train.steps 1000000000000", r"recipe\.train\.steps: .* at most 1000000000, got"),
    (
        "--swap adv-weight=constant distill-weight=constant --adv-weight.value 0 --distill-weight.value 0 "
        "--train.steps 1000000000",
        r"both are 0 at every step",
    ),
    ("--train.batch-size 1000000000", r"recipe\.train\.batch_size: must be at least 1 and at most 10000000"),
    ("--teacher.batch-size 10000000", r"recipe\.teacher\.batch_size: 10000000: needs .*B of memory or more"),
    (
        "--shards.num-samples 10000000 --train.batch-size 10000000",
        r"recipe\.train\.batch_size: 10000000: needs .*B of memory or more",
    ),
    ("--shards.num-samples 1000000000000000", r"shards\.num_samples: 10{15} take 6\.14 EB, and the disk of --cache"),
    ("--evaluate.num-samples 1000000000000000", r"evaluate\.num_samples: 10{15}: needs .*B of memory or more"),
    ("--network.widths 65536", r"recipe\.network, recipe\.head: needs .*B of memory or more"),
    ("--network.widths 10000000", r"recipe\.network\.widths\[0\]: must be at least 8 and at most 65536"),
    ("--network.blocks 10000000", r"recipe\.network\.blocks: .* at most 256"),
    ("--head.blocks 10000000", r"recipe\.head\.blocks: .* at most 256"),
    ("--dataset.size 65536", r"recipe\.teacher\.batch_size: 32: needs .*B of memory or more"),
    ("--dataset.repeat 1000000000", r"recipe\.dataset\.repeat: .* at most 1000"),
]


@pytest.mark.parametrize(("words", "message"), LAUNCH, ids=[words for words, _ in LAUNCH])
def test_a_refused_launch_leaves_neither_run_nor_cache(
    words: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    try:
        code = launch.main([EXP4, "--scale", "smoke", *words.split()])
    except SystemExit as ended:  # tyro's own way out
        code = ended.code
    assert code == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "Traceback" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (plan, [EXP4, "--gpu-memory-gb", "inf"], "--gpu-memory-gb: must be finite and above 0"),
        (plan, [EXP4, "--batch-per-gpu", "1000000000"], "--batch-per-gpu: must be at least 0 and at most 1000000"),
        (doctor, [EXP4, "--scale", "smoke", "--device", "meta"], "--device meta: not usable here"),
        (doctor, ["--threads", "1000000"], "--threads: must be at least 0 and at most 1024"),
        (search_levels, [EXP4, "--steps", "1"], "--steps: must be at least 2"),
        (diagnose, [EXP4, "--scale", "smoke", "--device", "meta"], "--device meta: not usable here"),
        (diagnose, [EXP4, "--num-samples", "0"], "--num-samples: must be at least 1"),
        (diagnose, ["RUN", "--out", "x"], "--out: goes with a recipe file; RUN is a run's folder"),
        (control, ["train", "RUN", "--lr", "nan"], "--lr: must be finite and above 0"),
        (control, ["train", "RUN", "--targets", "("], "targets: '(' is no regular expression"),
        (control, ["apply", "RUN", "--strength", "nan"], "--strength[0]: must be finite"),
        (sample, ["RUN", "--levels", "nan"], "--levels[0]: must be finite and above 0"),
        (sample, ["RUN", "--out", BAD_TEXT], "--out: a byte that is no UTF-8"),
        (sample, ["RUN", "--threads", "-1"], "--threads: must be at least 0 and at most 1024"),
        (evaluate, ["RUN", "--threads", "-1"], "--threads: must be at least 0 and at most 1024"),
        (control, ["train", "RUN", "--threads", "-1"], "--threads: must be at least 0 and at most 1024"),
        (evaluate, ["RUN", "--levels", "inf"], "--levels[0]: must be finite and above 0"),
        (export, ["RUN", "--step", "-1"], "--step: must be at least 0"),
        (compare, ["RUN", "--out", "a\0"], "--out: a control character"),
        (jobs, ["RUN", "--run", "a\nb"], "--run: a control character"),
        (sweep, [SWEEP, "--on", BAD_TEXT], "--on: a byte that is no UTF-8"),
        (plugins, ["--check", "a\x1b"], "--check: a control character"),
    ],
)
def test_a_refused_command_is_one_message_and_leaves_nothing(
    command: ModuleType,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}") and said.count("\n") == 1, said
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_for_a_path_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch.main([EXP4, "--scale", "smoke", "--out", "x" * 300]) == 1
    assert re.match(r"error: no access to x+.* \(File name too long\); choose writable", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_more_processes_than_memory_can_hold_are_not_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ladd_dist.core.machine.memory_bytes", lambda: 10**9)
    monkeypatch.setattr("ladd_dist.launch._spawn", pytest.fail)
    assert launch.main([EXP4, "--scale", "smoke", "--nproc", "8"]) == 2
    assert "error: --nproc 8: needs 2 GB of memory or more, and 1 GB are here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_text_of_a_recipe_file_that_cannot_be_written_is_refused() -> None:
    recipe = dataclasses.replace(load_recipe(Path(EXP4), "smoke"), note=BAD_TEXT)
    with pytest.raises(RecipeError, match=r"recipe\.note: 'caf\\udce9' cannot be written as UTF-8"):
        validate(recipe)


@pytest.mark.parametrize("words", [(sample,), (evaluate,), (control, "train")], ids=["sample", "evaluate", "control"])
def test_threads_are_taken_before_anything_is_loaded(words: tuple[Any, ...], tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        command, *subcommand = words
        assert command.main([*subcommand, str(tmp_path), "--threads", "3"]) != 0  # no run lies there
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_million_threads_are_refused_in_place_of_a_crash(tmp_path: Path) -> None:
    """OpenMP starts them at the first operation, and the process ends with a segmentation fault."""
    command = [sys.executable, "-m", "ladd_dist.launch", EXP4, "--scale", "smoke", "--threads", "1000000"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPO)}
    )
    assert done.returncode == 2 and done.stderr.startswith("error: --threads: must be at least 0"), done
    assert not list(tmp_path.iterdir())


# --- what the sizes are compared with ---


def test_an_exact_count_refuses_a_batch_that_its_lower_bound_lets_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The bound counts feature maps alone; a step of the smoke recipe's 16 samples takes many times that."""
    recipe = load_recipe(Path(EXP4), "smoke")
    run = Run(recipe, Workspace(tmp_path / "runs", tmp_path / "cache", torch.device("cpu")))
    facts = describe_run(run, "smoke")
    network = fresh_network(recipe)
    weights = 4 * (facts.params["teacher"] + 5 * (facts.params["student"] + facts.params["heads"]))
    has = max(weights, 16 * maps_bytes(network), 32 * maps_bytes(network)) + 1
    monkeypatch.setattr(sizes, "memory_bytes", lambda: has)
    with pytest.raises(RecipeError, match=r"recipe\.train\.batch_size: 16: needs .*B of memory or more"):
        require_room(run, facts, ("distill",), 1)
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 100 * has)
    require_room(run, facts, ("teacher", "shards", "distill", "evaluate"), 1)


def test_a_network_is_asked_for_levels_of_its_own_schedule_alone() -> None:
    network = SimpleNamespace(sigma_max=14.61, sigma_min=0.0292)
    require_within(network, (14.6, 1.0, 0.03), "--levels")
    with pytest.raises(RecipeError, match=r"--levels: starts at level 80, .* ends at 14\.61; choose levels up to that"):
        require_within(network, (80.0, 1.0), "--levels")
    with pytest.raises(RecipeError, match=r"--levels: ends at level 0\.002, .* begins at 0\.0292; choose levels from"):
        require_within(network, (14.0, 0.002), "--levels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": Euler(steps=4, sigma_max=14.0)}, r"recipe\.shards\.sampler: ends at level 0\.002"),
        ({"sampler": Euler(steps=4, sigma_min=0.03)}, r"recipe\.shards\.sampler: starts at level 80"),
        (
            {"levels": Good(two=(14.0, 1.0), four=(14.0, 4.0, 1.0, 0.01), one=(14.0,))},
            r"recipe\.levels: ends at level 0.01",
        ),
        (
            {"levels": Good(two=(80.0, 1.0), four=(14.0, 4.0, 1.0, 0.1), one=(14.0,))},
            r"recipe\.levels: starts at level 80",
        ),
    ],
)
def test_levels_beyond_a_networks_schedule_are_refused_also_those_of_the_evaluation_alone(
    changes: dict[str, Any], message: str
) -> None:
    recipe = load_recipe(Path(EXP4), "smoke")
    fits = (
        Euler(steps=4, sigma_min=0.03, sigma_max=14.0),
        Good(four=(14.0, 4.0, 1.0, 0.1), two=(14.0, 1.0), one=(14.0,)),
    )
    shards = dataclasses.replace(recipe.shards, sampler=changes.get("sampler", fits[0]))
    steps = dataclasses.replace(recipe.evaluate, steps=(4, 2, 1))
    recipe = dataclasses.replace(recipe, shards=shards, levels=changes.get("levels", fits[1]), evaluate=steps)
    with pytest.raises(RecipeError, match=message):
        require_levels(recipe, SimpleNamespace(sigma_max=14.61, sigma_min=0.0292))


def test_a_metric_that_stands_twice_is_refused() -> None:
    recipe = load_recipe(Path(EXP4), "smoke")
    twice = dataclasses.replace(recipe.evaluate, metrics=recipe.evaluate.metrics * 2)
    with pytest.raises(
        RecipeError, match=rf"recipe\.evaluate\.metrics: {recipe.evaluate.metrics[0].name} stands there twice"
    ):
        validate(dataclasses.replace(recipe, evaluate=twice))


def test_a_weight_that_begins_late_is_still_seen() -> None:
    """Schedules are looked at evenly over a training of a billion updates, not step by step."""
    recipe = load_recipe(Path(EXP4), "smoke")
    late = Piecewise(points=((0, 0.0), (900_000_000, 0.0), (900_100_000, 1.0)))
    train = dataclasses.replace(recipe.train, steps=950_000_000)
    validate(dataclasses.replace(recipe, adv_weight=late, distill_weight=Constant(0.0), train=train))
