"""What compare says of runs: seeds pooled, a winner only where the figures name one, and bad input named."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ladd_dist import compare
from ladd_dist.comparison import terminal
from ladd_dist.comparison.curves import bands
from ladd_dist.comparison.output import to_json
from ladd_dist.comparison.page import write_page
from ladd_dist.comparison.result import Comparison
from ladd_dist.comparison.result import compare as compare_variants
from ladd_dist.comparison.runs import from_folder, from_tracked
from ladd_dist.comparison.variants import group
from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.serialize import to_data
from ladd_dist.recipe import load_recipe
from ladd_dist.reports.collapse import as_number, from_number, onset
from ladd_dist.trackers.wandb_read import RunData

REPO = Path(__file__).parents[2]
RECIPE = to_data(load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke"))
TEACHER = {"teacher@50": 0.5, "teacher@4:good": 9.0, "teacher@4:karras": 30.0}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a run folder: its recipe changed at dotted paths, the student's distance at 4 steps."""

    def run(value: float | None, seed: int = 0, *, steps: int = 5, **changes: Any) -> Path:
        recipe = copy.deepcopy(RECIPE)
        for path, new in {"seed": seed, **changes}.items():
            *parents, last = path.split("__")
            node = recipe
            for parent in parents:
                node = node[parent]
            node[last] = new
        folder = tmp_path / "runs" / f"run-{len(list(tmp_path.glob('runs/*'))):010d}"
        folder.mkdir(parents=True)
        config = {"format": 1, "version": "0.1.0", "scale": "smoke", "signature": folder.name[4:], "recipe": recipe}
        (folder / "config.json").write_text(json.dumps(config))
        rows = [{"step": step, "loss/distill": 1 / step + seed} for step in range(1, steps + 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if value is not None:
            figures = {f"student@{n}": {"fd_teacher": value * 4 / n, "accuracy": 0.9} for n in (4, 2, 1)}
            figures |= {name: {"fd_teacher": distance} for name, distance in TEACHER.items()}
            (folder / "eval.json").write_text(json.dumps(figures))
        return folder

    return run


def told(*sources: Path, **options: Any) -> Comparison:
    return compare.compare_sources(compare.Options(source=tuple(map(str, sources)), **options))


def three(write: Write, values: tuple[float, ...], first: int = 0, **changes: Any) -> None:
    for index, value in enumerate(values):
        write(value, first + index, **changes)


def test_the_better_variant_wins_when_its_seeds_agree(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    three(write, (6.1, 7.0, 8.05), head__width=32)
    result = told(tmp_path / "runs")
    assert result.winner == "head.width=64"
    assert "wins by fd_teacher of student@4" in result.sentence
    called = result.rows[1].called
    assert called is not None and called.difference.method == "paired"
    assert called.difference.mean == pytest.approx(np.mean([1.1, 1.0, 1.05]))


def test_without_matching_seeds_the_same_figures_do_not_name_a_winner(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    three(write, (6.1, 7.0, 8.05), first=10, head__width=32)
    result = told(tmp_path / "runs")
    assert result.winner is None
    assert result.sentence.startswith("Not distinguishable")
    assert result.leaders == ("head.width=64", "head.width=32")


def test_intervals_that_straddle_zero_name_no_winner(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    three(write, (7.0, 6.0, 5.2), head__width=32)
    assert told(tmp_path / "runs").winner is None


def test_the_two_that_lead_are_named_when_others_are_worse(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 5.1, 5.2))
    three(write, (5.1, 5.0, 5.25), head__width=32)
    three(write, (8.0, 8.1, 8.2), head__width=16)
    result = told(tmp_path / "runs")
    assert set(result.leaders) == {"head.width=64", "head.width=32"}
    assert "the other is worse" in result.sentence


def test_the_more_variants_are_held_against_the_best_the_more_each_has_to_differ(write: Write, tmp_path: Path) -> None:
    """Five seeds, differences with p = .036: enough for one comparison at 5 %, not for two of them."""
    best, swing = np.array([5.0, 5.3, 5.1, 5.4, 5.2]), np.array([-0.1, -0.05, 0.0, 0.05, 0.1])
    three(write, tuple(best))
    three(write, tuple(best + 0.11 + swing), head__width=32)
    alone = told(tmp_path / "runs")
    assert alone.winner == "head.width=64"
    assert alone.rows[1].called is not None and alone.rows[1].called.difference.p == pytest.approx(0.036, abs=0.003)
    three(write, tuple(best + 0.111 + swing[::-1]), head__width=16)
    both = told(tmp_path / "runs")
    assert both.winner is None
    assert set(both.leaders) == {"head.width=64", "head.width=32", "head.width=16"}


def test_a_figure_that_is_not_finite_is_no_figure(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    path = tmp_path / "runs" / "run-0000000001" / "eval.json"
    path.write_text(path.read_text().replace("6.0", "null"))
    (row,) = told(tmp_path / "runs").rows
    assert row.figures["student@4"]["fd_teacher"][::3] == (6.0, 2)
    for value in ("NaN", "1e999", "1e300"):  # no figure that `ladd evaluate` writes
        path.write_text(path.read_text().replace("null", value, 1))
        with pytest.raises(ValueError, match=r"run-0000000001/eval\.json .*--skip-broken"):
            told(tmp_path / "runs")
        path.write_text(path.read_text().replace(value, "null", 1))


@pytest.mark.parametrize(("change", "rows"), [(1e-9, 1), (1e-3, 2)])
def test_references_that_differ_by_rounding_are_one(write: Write, tmp_path: Path, change: float, rows: int) -> None:
    write(10.0)
    other = write(11.0, seed=1, head__width=32)
    found = json.loads((other / "eval.json").read_text())
    found["teacher@50"]["fd_teacher"] *= 1 + change
    found["teacher@50"]["s_per_image"] = 3.0
    (other / "eval.json").write_text(json.dumps(found))
    shown = [item for item, _ in told(tmp_path / "runs").references if item.entry == "teacher@50"]
    assert len(shown) == rows
    assert sorted(map(len, (item.labels for item in shown))) == [0] * (rows == 1) + [1] * 2 * (rows == 2)


def test_of_one_seed_each_nothing_is_said(write: Write, tmp_path: Path) -> None:
    write(5.0)
    write(500.0, head__width=32)
    result = told(tmp_path / "runs")
    assert result.winner is None
    assert result.sentence.startswith("One seed each: nothing can be said")
    assert result.caveat == ""
    assert {terminal.called(row, result) for row in result.rows} == {""}


def test_higher_is_better_where_the_metric_says_so(write: Write, tmp_path: Path) -> None:
    write(5.0)
    write(3.0, head__width=32)
    assert told(tmp_path / "runs").better == "lower"
    assert told(tmp_path / "runs", metric="accuracy").better == "higher"
    first = told(tmp_path / "runs", better="higher").rows[0]
    assert first.variant.label == "head.width=64"


def test_the_order_of_the_runs_and_the_names_of_seeds_change_nothing(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    three(write, (6.1, 7.2, 8.05), head__width=32)
    runs = [from_folder(path) for path in sorted((tmp_path / "runs").iterdir())]

    def table(runs: list[Any]) -> Any:
        result = compare_variants(group(runs)[0], "fd_teacher", "student@4")
        return [(row.variant.label, row.figures, row.called) for row in result.rows], result.sentence

    assert table(runs[::-1]) == table(runs)
    renamed = [dataclasses.replace(run, seed=(5 * run.seed + 2) % 7) for run in runs]
    for (label, figures, called), other in zip(table(runs)[0], table(renamed)[0], strict=True):
        assert label == other[0]
        mine, theirs = figures["student@4"]["fd_teacher"], other[1]["student@4"]["fd_teacher"]
        assert tuple(mine) == pytest.approx(tuple(theirs))
        assert (called is None) == (other[2] is None)


def test_runs_that_differ_in_the_seed_and_in_what_changes_nothing_are_one_variant(write: Write) -> None:
    paths = [write(5.0, 0), write(6.0, 1, train__log_every=7, note="again", tracker={"plugin": "unheard_of"})]
    variants, twice = group([from_folder(path) for path in paths])
    assert (len(variants), twice) == (1, [])
    assert variants[0].values("student@4", "fd_teacher") == {0: 5.0, 1: 6.0}


def test_a_field_that_came_later_is_the_same_at_its_default(write: Write) -> None:
    old = write(5.0, 0)
    config = json.loads((old / "config.json").read_text())
    del config["recipe"]["train"]["compute"]
    (old / "config.json").write_text(json.dumps(config))
    assert len(group([from_folder(old), from_folder(write(6.0, 1))])[0]) == 1


def test_labels_are_the_fields_that_differ_and_a_plugins_name_stands_for_its_own(write: Write) -> None:
    paths = [write(5.0), write(6.0, head={"plugin": "max_pool", "width": 64}), write(7.0, train__lr_heads=1e-4)]
    labels = {variant.label for variant in group([from_folder(path) for path in paths])[0]}
    assert labels == {
        "head=spectral_norm, train.lr_heads=0.0005",
        "head=max_pool, train.lr_heads=0.0005",
        "head=spectral_norm, train.lr_heads=0.0001",
    }


def test_recipes_of_other_names_are_called_by_them(write: Write) -> None:
    paths = [write(5.0, name="one"), write(6.0, name="two", head__width=32), write(6.0, name="two", head__width=16)]
    labels = [variant.label for variant in group([from_folder(path) for path in paths])[0]]
    assert labels == ["one", "two, head.width=16", "two, head.width=32"]


def test_a_sweep_gives_its_own_labels_and_says_what_has_not_started(write: Write, tmp_path: Path) -> None:
    paths = [write(5.0), write(6.0, head__width=32)]
    runs = [
        {"label": name, "axes": {"size": name}, "seed": 0, "run": f"runs/{path.name}", "signature": ""}
        for name, path in zip(("big", "small"), paths, strict=True)
    ]
    runs.append({"label": "huge", "axes": {"size": "huge"}, "seed": 0, "run": "runs/none", "signature": ""})
    sweep = tmp_path / "sweeps" / "heads-0123456789"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"format": 1, "name": "heads", "runs": runs}))
    result = told(sweep)
    assert [row.variant.label for row in result.rows] == ["size=big", "size=small"]
    assert any(note.endswith("have not started: huge") for note in result.notes)


def test_the_table_is_the_same_from_folders_and_from_a_tracker(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0, 7.0))
    three(write, (6.1, 7.2, 8.05), head__width=32)
    folders = [from_folder(path) for path in sorted((tmp_path / "runs").iterdir())]
    tracked = []
    for path, run in zip(sorted((tmp_path / "runs").iterdir()), folders, strict=True):
        summary = {f"eval/{entry}/{key}": value for entry, x in run.figures.items() for key, value in x.items()}
        config = json.loads((path / "config.json").read_text())
        rows = [dict(row) for row in run.rows()]
        data = RunData(path.name, run.signature, config, {**summary, **rows[-1]}, rows, f"wandb {path.name}")
        tracked.append(from_tracked(data))

    def table(runs: list[Any]) -> Any:
        variants = group(runs)[0]
        data = to_json(compare_variants(variants, "fd_teacher", "student@4"))
        for variant in data["variants"]:
            for run in variant["runs"]:
                del run["source"]
        return data, [bands(variant) for variant in variants]

    assert table(tracked) == table(folders)


def test_the_teacher_always_stands_in_the_table(write: Write, tmp_path: Path) -> None:
    three(write, (10.0, 10.1, 10.2))
    result = told(tmp_path / "runs")
    entries = [item.entry for item, _ in result.references]
    assert entries == ["teacher@50", "teacher@4:good", "teacher@4:karras"]
    assert "teacher@4:good is better" in result.caveat
    held = dict(zip(entries, (gap for _, gap in result.references), strict=True))["teacher@4:good"]
    assert held is not None and held.mean == pytest.approx(9.0 - 10.1)


def test_an_unfinished_run_is_shown_as_such(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0))
    write(None, 2)
    write(None, head__width=32)
    result = told(tmp_path / "runs")
    assert [row.num_finished for row in result.rows] == [2, 0]
    assert any("2 of 4 runs are unfinished" in note for note in result.notes)


# --- collapse ---


def dump(run: Path, step: int, share: float) -> None:
    (run / "dumps").mkdir(exist_ok=True)
    colours = torch.linspace(0.2, 1, 8).view(8, 1, 1, 1).expand(8, 3, 1, 1) * torch.tensor([1, 0.6, 0.3]).view(3, 1, 1)
    teacher = (2 * colours - 1).expand(8, 3, 4, 4)
    hues = torch.stack([torch.roll(image, index, 0) for index, image in enumerate(teacher)])
    middle = hues.mean(dim=0, keepdim=True)
    student = middle + (hues - middle) * share**0.5
    save_file(
        {"student": student.contiguous(), "teacher": hues.contiguous()}, run / "dumps" / f"step-{step:06d}.safetensors"
    )


@pytest.mark.parametrize(
    ("shares", "step"),
    [
        ((1.0, 0.9, 0.8), None),
        ((1.0, 0.1, 0.1), 20),
        ((0.1, 0.1, 0.05), 10),
        ((0.1, 0.1, 0.9), None),  # recovered
        ((0.1, 0.9, 0.1), 30),
    ],
)
def test_the_collapse_begins_at_the_first_dump_from_which_colours_stay_lost(
    write: Write, shares: tuple[float, ...], step: int | None
) -> None:
    run = write(5.0)
    for index, share in enumerate(shares):
        dump(run, 10 * (index + 1), share)
    assert onset(run) == (True, step)
    assert from_number(as_number(onset(run))) == onset(run)


def test_without_dumps_that_can_be_read_nothing_is_known_of_a_collapse(write: Write) -> None:
    run = write(5.0)
    assert onset(run) == (False, None)
    (run / "dumps").mkdir()
    (run / "dumps" / "step-000010.safetensors").write_bytes(b"half")
    assert onset(run) == (False, None)


# --- curves ---


def test_a_band_is_mean_and_range_over_seeds(write: Write) -> None:
    variant = group([from_folder(write(5.0, seed)) for seed in (0, 1, 5)])[0][0]
    band = bands(variant)["loss/distill"]
    assert band.steps == [1, 2, 3, 4, 5]
    assert band.low == pytest.approx([1 / s for s in band.steps], rel=1e-3)
    assert band.high == pytest.approx([1 / s + 5 for s in band.steps], rel=1e-3)
    assert band.mean == pytest.approx([1 / s + 2 for s in band.steps], rel=1e-3)


def test_curves_are_thinned_and_an_unfinished_seed_ends_early(write: Write) -> None:
    variant = group([from_folder(write(5.0, 0, steps=1000)), from_folder(write(None, 1, steps=400))])[0][0]
    band = bands(variant, 100, 150)["loss/distill"]
    assert len(band.steps) <= 100
    assert band.mean[-1] == pytest.approx(band.low[-1]) and band.high[0] - band.low[0] == pytest.approx(1, abs=0.05)


# --- bad input ---


def test_a_half_written_last_line_is_left_out_and_a_broken_one_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2}\nnonsense\n{"step": 3, "a": 1}\n{"step": 3, "a": 7}\n{"step": 4, "lo')
    rows, broken = read_rows(path)
    assert (rows, broken) == ([{"step": 1, "a": 2}, {"step": 3, "a": 7}], 1)
    path.write_text('{"step": 1, "a": 2}\n\n{"step": 2, "a": NaN}\n')
    assert [row["step"] for row in read_rows(path)[0]] == [1, 2]


def test_a_run_killed_while_it_logged_is_compared_with_the_rows_it_has(write: Write, tmp_path: Path) -> None:
    three(write, (5.0, 6.0), steps=8)
    with (write(7.0, 2, steps=8) / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "loss/dist\xff')
    [row] = told(tmp_path / "runs").rows
    assert row.num_finished == 3
    assert [len(run.rows()) for run in row.variant.runs] == [8, 8, 8]
    assert bands(row.variant)["loss/distill"].steps == list(range(1, 9))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "eval.json").write_text('{"student@4": {"fd'), "eval.json is not valid JSON"),
        (
            lambda run: (run / "config.json").write_text('{"format": 2, "version": "9.1"}'),
            "format 2, this version reads 1: use ladd_dist 9.1",
        ),
        (lambda run: (run / "config.json").write_text('{"format": 1}'), "holds no recipe"),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_can_be_left_out(
    write: Write, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    three(write, (5.0, 6.0))
    broken = write(7.0, 2)
    damage(broken)
    with pytest.raises(ValueError, match=message) as caught:
        told(tmp_path / "runs")
    assert broken.name in str(caught.value) and "--skip-broken" in str(caught.value)
    result = told(tmp_path / "runs", skip_broken=True)
    assert result.rows[0].num_finished == 2
    assert any(broken.name in note for note in result.notes)


def test_the_same_run_twice_would_pass_for_two_seeds_and_is_refused(write: Write, tmp_path: Path) -> None:
    first = write(5.0)
    shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(ValueError, match="is the same recipe and seed as"):
        told(first, tmp_path / "copy")
    assert told(first, tmp_path / "copy", skip_broken=True).rows[0].num_finished == 1
    assert told(first, first, tmp_path / "runs").rows[0].num_finished == 1  # one folder, named three times


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate__num_samples": 7}, r"not measured alike.*evaluate.num_samples \(64, 7\)"),
        ({"dataset__seed": 5}, r"not measured alike.*dataset.seed"),
        ({"teacher__steps": 41}, r"different teachers.*--metric fd_real"),
    ],
)
def test_figures_that_do_not_mean_the_same_are_refused(
    write: Write, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write(5.0)
    write(6.0, **changes)
    with pytest.raises(ValueError, match=message):
        told(tmp_path / "runs")
    assert any("differe" in note or "not measured alike" in note for note in told(tmp_path / "runs", mixed=True).notes)


def test_runs_measured_at_other_numbers_of_steps_too_are_measured_alike(write: Write, tmp_path: Path) -> None:
    write(5.0)
    write(6.0, evaluate__steps=[4], head__width=32)
    result = told(tmp_path / "runs")
    assert len(result.rows) == 2 and not any("not measured alike" in note for note in result.notes)


def run_command(*arguments: object) -> int:
    return compare.main([str(argument) for argument in arguments])


def test_bad_command_lines_are_one_message(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    run = write(5.0)
    (tmp_path / "empty").mkdir()
    for code, arguments, message in (
        (2, (), "name what to compare"),
        (1, (tmp_path / "nowhere",), "does not exist"),
        (1, (tmp_path / "empty",), "is no run folder"),
        (1, (run, "--metric", "fdd"), "metrics of student@4: accuracy, fd_teacher"),
        (1, (run, "--sampler", "student@3"), "samplers: student@1, student@2, student@4, teacher@4:good"),
    ):
        assert run_command(*arguments) == code
        assert message in " ".join(capsys.readouterr().err.split())


# --- what is written ---


def test_json_csv_and_table_hold_the_same(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    three(write, (5.0, 6.0, 7.0))
    three(write, (6.1, 7.2, 8.05), head__width=32)
    table = tmp_path / "table.csv"
    assert run_command(tmp_path / "runs", "--json", "--csv", table) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"]["winner"] == "head.width=64"
    lines = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [line["kind"] for line in lines] == ["variant"] * 2 + ["reference"] * 3
    for line, variant in zip(lines, data["variants"], strict=False):
        assert line["label"] == variant["label"]
        assert float(line["student@4/fd_teacher"]) == variant["figures"]["student@4"]["fd_teacher"]["mean"]
    assert run_command(tmp_path / "runs") == 0
    text = capsys.readouterr().out
    assert "winner" in text and "teacher@4:good" in text and "wins by fd_teacher" in text


def test_the_page_needs_nothing_from_outside_and_cannot_be_injected_into(write: Write, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    write(5.0, name=evil)
    write(6.0, name="other", head__width=32)
    text = write_page(tmp_path / "compare.html", told(tmp_path / "runs")).read_text()
    assert evil not in text and "<img src=x" not in text
    assert text.count("<script") == 2
    for word in ("http://", "https://", 'src="/', "@import", "url("):
        assert word not in text.replace("http://www.w3.org/2000/svg", "")
