"""What an evaluation leaves, and `ladd evaluate`: a student measured by metrics and samples of one's choice."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Done, Ladd, error_of, read_json, rows, run_command
from safetensors.torch import load_file

from ladd_dist.builders.teacher import guided_teacher, load_teacher
from ladd_dist.cli.arguments import read
from ladd_dist.comparison.runs import from_folder
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import added_noise, sample_starts
from ladd_dist.core.tensor_file import read_tensors
from ladd_dist.evaluate import Options, main, with_settings
from ladd_dist.metrics.clean_fid import CleanFid
from ladd_dist.metrics.interval import is_bound
from ladd_dist.recipe import load_recipe
from ladd_dist.stages.evaluate import require_metrics
from ladd_dist.workspace.opening import open_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

FIGURES = {
    "fd_real", "fd_teacher", "accuracy", "hue_entropy", "colour_variance", "saturation", "kid", "kid_teacher",
    "precision", "recall", "density", "coverage", "pairwise_distance", "pairwise_share", "nearest_train_distance",
    "nearest_train_share", "nearest_teacher_distance", "nearest_teacher_share", "matched_error",
}  # fmt: skip
TO_REAL = {"fd_real", "kid", "nearest_train_distance", "nearest_train_share"}
"""Figures to real images, whose floor is that of other real images."""


@pytest.fixture
def run(smoke: tuple[Done, Ladd]) -> Path:
    return smoke[0].run


@pytest.fixture
def evaluate(
    smoke: tuple[Done, Ladd], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command on copies of the smoke run and its cache."""
    copy = Path(shutil.copytree(smoke[0].run, tmp_path / smoke[0].run.name))
    cache = shutil.copytree(smoke[1].cache, tmp_path / "cache")

    def call(*words: object, source: Path = copy, out: tuple[object, ...] = ("--out", tmp_path / "found.json")) -> Any:
        capsys.readouterr()
        code = main([str(word) for word in (source, "--cache", cache, *out, *words)])
        return code, *capsys.readouterr()

    return call


# What a run holds


def test_every_entry_has_every_figure_with_its_interval_and_what_it_was_measured_on(run: Path) -> None:
    found = read_json(run / "eval.json")
    assert {"student@4", "student@2", "student@1", "untrained@4", "teacher@50", "floor@50", "floor@real"} <= set(found)
    left_out = {"floor@50": TO_REAL, "floor@real": {"matched_error"}}
    for name, entry in found.items():
        plain = {key for key in entry if not is_bound(key)} - {"s_per_image", "timed_turns", "times_faster", "features"}
        assert set(entry["features"]) <= plain
        assert plain == (FIGURES | {"num_samples", "seed"}) - left_out.get(name, set()), name
        assert entry["num_samples"] == 64 and entry["seed"] == 1_000_003
        for key in FIGURES & plain:
            assert entry[f"{key}_low"] <= entry[key] <= entry[f"{key}_high"], (name, key)


def test_the_floor_is_the_teacher_against_itself(run: Path) -> None:
    found = read_json(run / "eval.json")
    floor, teacher = found["floor@50"], found["teacher@50"]
    assert floor["fd_teacher"] == pytest.approx(teacher["fd_teacher"])
    assert floor["kid_teacher"] == pytest.approx(teacher["kid_teacher"])
    assert teacher["matched_error"] == floor["matched_error"] == 0.0
    assert "s_per_image" not in floor


def test_the_floor_of_real_is_other_real_images_and_nothing_is_nearer(run: Path) -> None:
    found = read_json(run / "eval.json")
    floor = found["floor@real"]
    samplers = [own["fd_real"] for name, own in found.items() if not name.startswith("floor@")]
    assert 0 < floor["fd_real"] < min(samplers)
    assert floor["nearest_train_distance"] > 0  # none of them is among the references
    assert floor["accuracy"] > 0.9


def test_seconds_are_compared_with_the_teachers_of_the_same_turns(run: Path) -> None:
    found = read_json(run / "eval.json")
    student = found["student@4"]
    assert student["times_faster_low"] <= student["times_faster"] <= student["times_faster_high"]
    assert found["teacher@50"]["times_faster"] == 1.0 < student["times_faster"]
    assert "times_faster" not in found["floor@real"]


def test_each_class_has_its_own_figures(run: Path) -> None:
    found, whole = read_json(run / "eval_classes.json"), read_json(run / "eval.json")
    assert found["left_out"] == {}
    student = found["entries"]["student@4"]
    assert list(student) == [str(number) for number in range(10)]
    assert all(set(figures) >= FIGURES for figures in student.values())
    shares = [7 if int(number) < 4 else 6 for number in student]  # 64 samples: six of each, and four more
    assert sum(shares) == 64
    mean = sum(figures["accuracy"] for figures in student.values()) / 10
    assert mean == pytest.approx(whole["student@4"]["accuracy"], abs=0.05)


def test_while_a_student_trains_its_fixed_samples_are_measured(run: Path) -> None:
    logged = {row["step"]: row for row in rows(run / "metrics.jsonl")}
    watched = {step for step, row in logged.items() if "watch/matched_error" in row}
    assert watched == {5, 10, 15, 20} and len(logged) == 20  # in the rows of those steps, and no rows more
    assert {key for key in logged[20] if key.startswith("watch/")} == {
        f"watch/{name}"
        for name in ("accuracy", "hue_entropy", "colour_variance", "saturation", "pairwise_share", "matched_error")
    }
    dump, told = read_tensors(run / "dumps" / "step-000020.safetensors")
    assert told["latents"] == "teacher student" and set(dump) == {"noise", "cond", "teacher", "student"}
    error = float((dump["student"] - dump["teacher"]).square().mean())
    assert logged[20]["watch/matched_error"] == pytest.approx(error, rel=1e-5)


def test_a_second_run_with_the_same_teacher_reads_no_reference_again(smoke: tuple[Done, Ladd], ladd: Ladd) -> None:
    folder = smoke[1].cache / "features"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    ladd("--seed", 1, "--train.steps", 2)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before and before


def test_missing_weights_are_said_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "exp4_specnorm.py", "smoke")
    metrics = (CleanFid(folder=str(tmp_path)),)
    recipe = dataclasses.replace(recipe, evaluate=dataclasses.replace(recipe.evaluate, metrics=metrics))
    with pytest.raises(ValueError, match=r"'clean_fid' needs the .*'digit_color' and 'kid'"):
        require_metrics(Run(recipe, Workspace(tmp_path, tmp_path, torch.device("cpu"))))


# The command


def test_a_run_measured_again_has_the_figures_of_its_eval_json(
    run: Path, evaluate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = evaluate()
    assert code == 0 and "student@4" in out and "matched_error" in out
    found, known = read_json(tmp_path / "found.json"), read_json(run / "eval.json")
    for entry in ("student@4", "student@1", "teacher@50", "floor@50"):
        measured = FIGURES & known[entry].keys() if entry == "floor@50" else FIGURES  # it has none to real images
        for key in measured:
            assert found["figures"][entry][key] == pytest.approx(known[entry][key], rel=1e-3, abs=1e-3), (entry, key)
    assert found["classes"]["entries"]["student@4"]["3"]["accuracy"] >= 0
    code, out, told = evaluate("--json")
    assert code == 0 and json.loads(out) == found and "measured before" in told


def test_metrics_steps_samples_and_seed_are_chosen_and_written_with_the_figures(
    evaluate: Callable[..., tuple[int, str, str]], tmp_path: Path, run: Path
) -> None:
    words = ("--metrics", "color,matched", "--steps", "2", "--num-samples", 20, "--seed", 7, "--levels", 80, 10, 1)
    code, out, _ = evaluate(*words, "--json", out=())
    found = json.loads(out)
    assert code == 0
    assert set(found["figures"]) >= {"student@2", "floor@50"} and "student@4" not in found["figures"]
    figures = found["figures"]["student@2"]
    assert figures["num_samples"] == 20 and figures["seed"] == 7
    assert "matched_error" in figures and "fd_real" not in figures
    assert found["evaluate"]["seed"] == 7 and [m["plugin"] for m in found["evaluate"]["metrics"]] == [
        "color",
        "matched",
    ]
    written = tmp_path / run.name / "evaluations" / f"{found['signature']}.json"
    assert read_json(written) == found


def test_levels_of_ones_own_make_a_student_of_as_many_steps(
    evaluate: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, _ = evaluate("--levels", 80, 10, 1, "--metrics", "color", "--json")
    found = json.loads(out)
    assert code == 0 and found["student"]["levels"] == {"student@3": [80.0, 10.0, 1.0]}


def teacher_alone(run: Path, cache: Path) -> float:
    """Squared difference of the guided teacher's samples, at the student's four levels and by its rule, to its many."""
    opened = open_run(run, cache=cache, device=torch.device("cpu")).run
    recipe, workspace, settings = opened.recipe, opened.workspace, opened.recipe.evaluate
    noise, cond = sample_starts(settings.seed, range(settings.num_samples), recipe.dataset.spec(), workspace.device)
    teacher = guided_teacher(recipe, load_teacher(Run(recipe, workspace)))
    with torch.inference_mode():
        source = added_noise(settings.seed, range(settings.num_samples))
        few = few_step_sample(teacher, noise, cond, recipe.levels(4), recipe.start.rule, source)
    many = load_file(Run(recipe, workspace).reference_folder / "samples.safetensors")["teacher@50"]
    return float((few - many).square().mean())


def test_a_hybrid_goes_from_the_student_to_its_teacher_and_says_what_it_costs(
    evaluate: Callable[..., tuple[int, str, str]], run: Path, smoke: tuple[Done, Ladd]
) -> None:
    metrics = "digit_color,manifold,diversity,matched"
    code, out, _ = evaluate("--steps", "4,2", "--hybrid", "0..4", "--metrics", metrics, "--json")
    found, known = json.loads(out), read_json(run / "eval.json")
    assert code == 0
    assert [(row["entry"], row["steps"], row["teacher_steps"], row["forwards"]) for row in found["hybrid"]] == [
        ("student@4", 4, 0, 4), ("hybrid@4:1", 4, 1, 5), ("hybrid@4:2", 4, 2, 6), ("hybrid@4:3", 4, 3, 7),
        ("hybrid@4:4", 4, 4, 8), ("student@2", 2, 0, 2), ("hybrid@2:1", 2, 1, 3), ("hybrid@2:2", 2, 2, 4),
    ]  # fmt: skip
    figures = found["figures"]
    for key in ("fd_real", "recall", "pairwise_distance", "matched_error"):
        assert figures["student@4"][key] == pytest.approx(known["student@4"][key], rel=1e-3, abs=1e-3), key
    assert figures["hybrid@4:4"]["matched_error"] == pytest.approx(teacher_alone(run, smoke[1].cache), rel=1e-3)
    assert len({figures[row["entry"]]["matched_error"] for row in found["hybrid"]}) == 8
    assert all(figures[row["entry"]]["s_per_image"] > 0 for row in found["hybrid"])
    code, table, told = evaluate("--steps", "4,2", "--hybrid", "0..4", "--metrics", metrics)
    assert "measured before" in told and re.search(r"hybrid@4:1 .* 4 .* 1 .* 5 ", table)


def test_figures_without_hybrids_keep_their_signature(evaluate: Callable[..., tuple[int, str, str]]) -> None:
    words = ("--steps", "1", "--metrics", "color", "--json")
    plain, hybrid = (json.loads(evaluate(*words, *more)[1]) for more in ((), ("--hybrid", "0,1")))
    assert plain["signature"] != hybrid["signature"] and plain["hybrid"] == []
    mine, theirs = (found["figures"]["student@1"] for found in (plain, hybrid))
    clock = {name for name in mine if name.startswith(("s_per_image", "times_faster"))}
    assert {**mine, **dict.fromkeys(clock)} == {**theirs, **dict.fromkeys(clock)}


def test_a_file_is_measured_against_the_run_it_is_like(
    evaluate: Callable[..., tuple[int, str, str]], run: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(run / "student.safetensors", tmp_path / "theirs.safetensors"))
    code, out, _ = evaluate("--like", run, "--metrics", "digit_color", "--json", source=file, out=())
    found = json.loads(out)
    known = read_json(run / "eval.json")["student@4"]
    assert code == 0 and found["figures"]["student@4"]["fd_real"] == pytest.approx(known["fd_real"], rel=1e-3)
    assert [path.name for path in tmp_path.glob("theirs-evaluation-*.json")]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--metrics", "colour"), 2, "unknown metric 'colour'; valid: color, class_features, clean_clip, clean_fid"),
        (("--steps", "3"), 2, "this student has levels for 4, 2, 1 steps"),
        (("--levels", "1", "2"), 2, "descending"),
        (("--num-samples", "-1"), 2, "--num-samples: must be at least 0, got -1"),
        (("--hybrid", "0..5"), 2, "--hybrid takes how many"),
        (("--steps", "0,1"), 2, "--steps[0]: must be at least 1 and at most 10000, got 0"),
        (("--like", "elsewhere"), 2, "--like goes with a student's file"),
        (("--metrics", "clean_fid"), 1, "the metric 'clean_fid' needs the"),
    ],
)
def test_what_cannot_be_measured_is_said_and_nothing_is_written(
    evaluate: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # no weights there, wherever somebody has them
    found, _, told = evaluate(*words)
    assert found == code and message in " ".join(told.split()), told
    assert not (tmp_path / "found.json").exists()


def test_a_file_alone_is_refused_with_what_it_needs(
    evaluate: Callable[..., tuple[int, str, str]], run: Path, tmp_path: Path
) -> None:
    code, _, told = evaluate(source=run / "student.safetensors")
    assert code == 2 and "name a run of the same data with --like RUN" in told
    code, _, told = evaluate("--cache", tmp_path / "nothing")
    assert code == 1 and "nothing does not exist: name the one of the run with --cache" in told


def test_a_cache_without_the_teacher_is_named(evaluate: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, told = evaluate("--cache", tmp_path / "empty")
    assert code == 1 and "--stages teacher" in told


def test_the_command_says_what_it_could_not_read(ladd: Ladd, tmp_path: Path) -> None:
    done = run_command(sys.executable, "-m", "ladd_dist.evaluate", tmp_path, cwd=tmp_path)
    assert done.code == 1 and "is no run's folder" in error_of(done)


# Noise of the samples


def test_a_batch_size_that_no_signature_knows_changes_no_figure(
    evaluate: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of a batch once had the noise of that row, whatever its sample: 250 re-noisings for 1,500 samples."""
    words = ("--metrics", "digit_color,matched", "--json", "--again", "--num-samples", 48, "--hybrid", 1)
    whole = json.loads(evaluate(*words)[1])["figures"]
    before = with_settings
    monkeypatch.setattr(
        "ladd_dist.evaluate.with_settings",
        lambda recipe, options: dataclasses.replace(
            settled := before(recipe, options), evaluate=dataclasses.replace(settled.evaluate, batch_size=7)
        ),
    )
    parts = json.loads(evaluate(*words)[1])["figures"]
    for entry in ("student@4", "student@2", "hybrid@4:1", "teacher@50"):
        for key in ("fd_teacher", "matched_error"):
            assert parts[entry][key] == pytest.approx(whole[entry][key], rel=1e-3, abs=1e-6), (entry, key)


# Several seeds


def test_several_seeds_give_the_means_of_their_figures_and_keep_each(
    evaluate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    words = ("--metrics", "digit_color", "--num-samples", 32, "--json", "--again")
    alone = {seed: json.loads(evaluate(*words, "--seed", seed)[1])["figures"] for seed in (11, 12)}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "figures").iterdir()}
    found = json.loads(evaluate(*words, "--seeds", "11,12")[1])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "figures").iterdir()} == kept
    assert found["evaluate"]["seeds"] == [11, 12]
    for entry in ("student@4", "student@1", "teacher@50", "floor@50", "floor@real"):
        own = found["figures"][entry]
        assert own["num_seeds"] == 2 and own["num_samples"] == 32
        for key in ("fd_real", "fd_teacher", "accuracy") if entry != "floor@50" else ("fd_teacher", "accuracy"):
            values = [alone[seed][entry][key] for seed in (11, 12)]
            assert [own["per_seed"][str(seed)][key] for seed in (11, 12)] == pytest.approx(values, rel=1e-6)
            assert own[key] == pytest.approx(sum(values) / 2)
            assert own[f"{key}_high"] - own[key] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)
    assert found["figures"]["student@4"]["fd_real"] != alone[11]["student@4"]["fd_real"]
    table = evaluate(*words[:-2], "--seeds", "11,12", "--again")[1]
    assert "num_seeds" in table and "per_seed" not in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "1,2", "--seed", "3"), "contradict each other"),
        (("--seeds", "1,1000003"), "must not hold `seed`"),
    ],
)
def test_seeds_that_cannot_be_are_refused(
    evaluate: Callable[..., tuple[int, str, str]], words: tuple[str, ...], message: str
) -> None:
    code, _, told = evaluate(*words)
    assert code == 2 and message in " ".join(told.split()), told


def test_seeds_are_a_list_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["11,12,13"], ["11", "12", "13"], ["11..13"]):
        assert read(Options, ["RUN", "--seeds", *words], prog="evaluate").seeds == (11, 12, 13)
    with pytest.raises(SystemExit) as ended:
        main(["RUN", "--seeds", "1,x"])
    assert ended.value.code == 2 and "--seeds: takes whole numbers" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_run_is_measured_on_all_its_seeds_and_readers_get_the_means(ladd: Ladd) -> None:
    run = ladd("--evaluate.seeds", 11, 12, "--train.steps", 2, "--evaluate.steps", 4).run
    found = read_json(run / "eval.json")
    both = found["student@4"]["per_seed"]
    assert list(both) == ["11", "12"] and both["11"]["fd_real"] != both["12"]["fd_real"]
    assert (
        from_folder(run).figures["student@4"]["fd_real"]
        == found["student@4"]["fd_real"]
        == pytest.approx((both["11"]["fd_real"] + both["12"]["fd_real"]) / 2)
    )
    assert set(from_folder(run).figures["student@4"]) == set(found["student@4"]) - {"per_seed", "features"}
    assert "2 × 64 pictures a row" in (run / "report.html").read_text()
    assert read_json(run / "eval_classes.json")["entries"]["student@4"]["3"]["accuracy"] >= 0
