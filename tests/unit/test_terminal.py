"""Every command, on files of somebody who hides escape sequences in their texts: none reaches a terminal."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_printable import OF_RICH, UNSAFE

from ladd_dist import compare, control, diagnose, doctor, evaluate, export, jobs, launch, plugins, sample
from ladd_dist.cluster.sweep_plan import Plan, PlannedJob, SweepRequest, show
from ladd_dist.core import plugin as registry
from ladd_dist.core.serialize import to_data
from ladd_dist.heads import Head
from ladd_dist.recipe import load_recipe
from ladd_dist.recipe.sweep import SweepRun
from ladd_dist.reports.page import write_report

REPO = Path(__file__).parents[2]
FILE = REPO / "recipes" / "exp6_stored_noise.py"
RECIPE = load_recipe(FILE, "smoke")
EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x1b[31mc\x9b2Jd\u202ee\x08f\x7fg[/]h[bold]i"
LINE = f"{EVIL}\nerror: forged"
"""Where a text is one line, its second one must not pass for a message of ours."""

Captured = Callable[..., str]


@pytest.fixture(params=["pipe", "terminal"])
def said(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Captured:
    """Runs a command; checks what it printed, without the styles of ours, and gives it."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "400")

    def run(command: Callable[..., int], *words: object, code: int | None = None) -> str:
        found = command([str(word) for word in words])
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert "Traceback" not in text, text
        assert found in ((0, 1, 2) if code is None else (code,)), text
        assert "\x1b[31mc" not in text
        bare = OF_RICH.sub("", text) if request.param == "terminal" else text
        assert UNSAFE.search(bare) is None, repr(UNSAFE.findall(bare)) + bare
        assert not re.search(r"^error: forged", bare, re.MULTILINE), bare
        return bare

    return run


def shows(text: str) -> bool:
    """Whether the evil text is there, for everybody to see."""
    return r"a\x1b]52;c;ZXZpbA==\x07b\x1b[31mc\x9b2Jd\u202ee" in text.replace("\n", "")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of two runs and a sweep, with evil texts wherever a text can be."""
    runs = tmp_path / "runs"
    for seed in range(2):
        folder = runs / f"x{EVIL.replace('/', '')}-000000000{seed}"
        folder.mkdir(parents=True)
        recipe = {**to_data(RECIPE), "seed": seed, "name": LINE, "note": LINE}
        recipe["head"] = {"plugin": LINE, EVIL: LINE}
        config = {
            "format": 1, "version": EVIL, "command": f"ladd launch {LINE}", "recipe_path": LINE, "scale": LINE,
            "signature": folder.name[-10:], "plugins": [], "recipe": recipe, "environment": {EVIL: LINE}, "sweep": LINE,
            "axes": {EVIL: LINE}, "params": {EVIL: 3}, "taps": [LINE],
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        figures = {EVIL: 1.0, "fd_teacher": 1.0 + seed, "accuracy": 0.9}
        (folder / "eval.json").write_text(json.dumps({"student@4": figures, f"student@{EVIL}": figures, EVIL: figures}))
        row = {"step": 10, EVIL: 1.0, "loss/heads": 1.0, "loss/adversarial": 1.0, "loss/distill": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        guard = {"level": LINE, "since": 3, "headline": LINE, "rollbacks": [], "rule": LINE}
        (folder / "guard.json").write_text(json.dumps(guard))
    sweep = runs / "sweeps" / "heads-0123456789"
    (sweep / "logs").mkdir(parents=True)
    run = {"label": LINE, "axes": {EVIL: LINE}, "seed": 0, "run": folder.name, "signature": None, "teacher": "t"}
    job = {"id": "12", "kind": "run", "of": folder.name, "cluster": "debug"}
    shared = {"id": "13", "kind": "teacher", "of": "t", "cluster": "debug"}
    data = {"format": 1, "name": LINE, "signature": EVIL, "runs": [run], "jobs": [job, shared], "cache": str(tmp_path)}
    (sweep / "sweep.json").write_text(json.dumps(data))
    for number in (12, 13):
        (sweep / "logs" / f"{number}_0_log.err").write_text(f"ValueError: {EVIL}\n")
    return runs


def test_jobs(out: Path, said: Captured, tmp_path: Path) -> None:
    text = said(jobs.main, out, code=0)
    assert shows(text) and "ValueError" in text
    assert json.loads(said(jobs.main, out, "--json", code=0))["sweeps"][0]["runs"][0]["label"] == LINE
    said(jobs.main, out / "sweeps" / "heads-0123456789", "--cancel", "--run", "none", code=2)
    said(jobs.main, tmp_path / EVIL.replace("/", ""), code=2)


def test_compare_its_table_and_its_page(out: Path, said: Captured, tmp_path: Path) -> None:
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    text = said(compare.main, out, "--csv", table, "--out", page, "--mixed", "--skip-broken", code=0)
    assert "fd_teacher" in text
    for path in (table, page):
        content = path.read_text(encoding="utf-8")
        assert UNSAFE.search(content) is None, path
        assert shows(content) or "\\u001b]52" in content
    assert shows(said(compare.main, out, "--csv", "/dev/stdout", "--mixed", code=0))
    said(compare.main, out, "--metric", EVIL)
    said(compare.main, out, "--sampler", EVIL)
    said(compare.main, out, "--json", code=0)


def test_the_table_of_a_comparison_holds_no_formula(said: Captured, out: Path, tmp_path: Path) -> None:
    for seed, folder in enumerate(sorted(out.glob("x*"))):
        config = json.loads((folder / "config.json").read_text())
        config["recipe"] |= {"head": {"plugin": "max_pool", "width": ("=1+1", "-1.5")[seed]}, "name": "=cmd()"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "eval.json").write_text(json.dumps({"student@4": {"fd_teacher": -1.5 - seed, "=x": 1.0}}))
    table = tmp_path / "table.csv"
    said(compare.main, out, "--csv", table, "--mixed", code=0)
    head, *rows = csv.reader(table.open(encoding="utf-8", newline=""))
    cells = [text for row in (head, *rows) for text in row]
    assert {"'=1+1", "-1.5", "-2.5"} <= set(cells)
    assert not [text for text in cells if text.startswith(("=", "+", "@", "\t", "-")) and not is_number(text)]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("main", [evaluate.main, sample.main, diagnose.main, export.main])
def test_commands_that_open_a_run(main: Callable[..., int], out: Path, said: Captured) -> None:
    """By a link: a command line with control characters is refused before anything is opened."""
    link = out / "plain"
    for folder in sorted(out.glob("x*")):
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        assert "error" in said(main, link)
    config = link / "config.json"
    data = json.loads(config.read_text())
    config.write_text(json.dumps({**data, "format": EVIL}))
    assert ("format" in said(main, config.parent)) == (main is not sample.main)  # which asks for a student first
    config.write_text(EVIL)
    said(main, config.parent)


def test_the_slider_commands(out: Path, said: Captured) -> None:
    for word in ("train", "apply", "transfer"):
        said(control.main, word, next(out.glob("x*")))


def test_a_launch_that_is_held_to_a_foreign_lock(said: Captured, tmp_path: Path) -> None:
    lock = {
        "format": 1, "recipe": {**to_data(RECIPE), "seed": LINE, EVIL: LINE}, "signatures": {"teacher": LINE},
        "plugin_classes": {}, "version": LINE, "environment": {"python": LINE}, "data": {EVIL: None},
    }  # fmt: skip
    path = tmp_path / "recipe.lock"
    path.write_text(json.dumps(lock))
    places = ("--scale", "smoke", "--out", tmp_path / "o", "--cache", tmp_path / "c", "--dry-run")
    assert shows(said(launch.main, FILE, "--locked", path, *places, code=2))
    path.write_text(json.dumps({**lock, "format": LINE}))
    said(launch.main, FILE, "--locked", path, *places, code=2)


def test_a_student_from_elsewhere(said: Captured, tmp_path: Path) -> None:
    folder, file = tmp_path / EVIL.replace("/", ""), tmp_path / "plain" / "student.safetensors"
    folder.mkdir()
    file.parent.symlink_to(folder)
    for card in ({}, {"network": {"plugin": LINE}, "recipe": LINE, "rule": LINE}):
        save_file({EVIL: torch.zeros(1)}, file, {"ladd_dist": json.dumps(card)})
        assert "its card" in said(sample.main, file)


def test_plug_ins_of_others(said: Captured, own_tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Evil(Head):
        name = "evil"

        def build(self, **_: Any) -> torch.nn.Module:
            raise ValueError(EVIL)

    Evil.__doc__ = EVIL
    monkeypatch.setitem(registry._tables["head"], "evil", Evil)
    assert shows(said(plugins.main, code=0))
    said(plugins.main, "--check", "evil")
    said(plugins.main, "--check", EVIL)
    said(launch.main, FILE, "--swap", f"head={EVIL}", code=2)


def test_the_plan_of_a_sweep(said: Captured, tmp_path: Path) -> None:
    from ladd_dist.cli.errors import run_guarded

    run = SweepRun(RECIPE, (("note", EVIL), (EVIL, EVIL)))
    request = SweepRequest(EVIL, (run,), "smoke", FILE, None, tmp_path, tmp_path, (), EVIL)
    planned = Plan(request, None, EVIL, [PlannedJob("run", EVIL, RECIPE, "new", run=run)])
    assert shows(said(lambda _: run_guarded(lambda: show(planned) or 0)))  # type: ignore[func-returns-value]


def test_a_folder_of_classes_and_the_doctor(said: Captured, tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "")
    folder.mkdir()
    places = ("--out", folder / "runs", "--cache", folder / "cache")
    said(doctor.main, "--only", "disk", *places)
    said(launch.main, FILE, "--scale", "smoke", *places, "--dry-run", "--train.batch-size", "0", code=2)


def test_the_pages_of_a_run(out: Path) -> None:
    folder = next(out.glob("x*"))
    page = write_report(folder).read_text(encoding="utf-8")
    assert UNSAFE.search(page) is None and shows(page)
    assert UNSAFE.search((folder / "report.md").read_text(encoding="utf-8")) is None
