"""Every file of a run, damaged in every way, read by every command that reads it: one message, or a sound result."""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import os
import random
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_report import write_run

from ladd_dist import compare, jobs
from ladd_dist.builders.texts import TEXTS, read_texts
from ladd_dist.cli.renamed import RENAMED
from ladd_dist.core.door import MOST_DEPTH, decode
from ladd_dist.core.errors import RecipeError, UserError
from ladd_dist.core.failure import read_failure
from ladd_dist.core.metrics_log import parse_row, read_rows
from ladd_dist.core.run_forms import RunConfig, read_evaluation
from ladd_dist.core.rundir import RunDir
from ladd_dist.core.serialize import from_data
from ladd_dist.evaluation.noise_seeds import means_of
from ladd_dist.recipe import Recipe, load_recipe
from ladd_dist.recipe.plugin_sources import describe_plugins
from ladd_dist.reports import charts, diagnosis_section
from ladd_dist.reports.closing import closing_line
from ladd_dist.reports.grids import grid_rows
from ladd_dist.reports.json_object import JsonObject
from ladd_dist.reports.page import write_report
from ladd_dist.reports.run_files import ShownConfig
from ladd_dist.reports.verdict import in_force
from ladd_dist.stages.guard_actions import _read as read_story
from ladd_dist.trackers.jsonl import JsonlLog
from ladd_dist.trackers.wandb import Card
from ladd_dist.workspace import lock as locks
from ladd_dist.workspace.config import RunFacts, add_timing, environment, tracked_config, write_config
from ladd_dist.workspace.opening import cache_folder, open_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.sweep_record import Record, RunEntry, read_record
from ladd_dist.workspace.workspace import Workspace, is_done

REPO = Path(__file__).parents[2]
CPU = torch.device("cpu")
Read = Callable[[Path], object]


@functools.cache
def the_recipe() -> Recipe:
    return load_recipe(REPO / "recipes" / "exp6_stored_noise.py", "smoke")


# --- a run's folder as the commands leave it ---


def small_run(out: Path) -> Path:
    """A finished run in `out` with every file that is read back, and a sweep that it belongs to."""
    recipe = the_recipe()
    run = Run(recipe, Workspace(out, out / "cache", CPU))
    folder = write_run(run.folder.path)
    (folder / "config.json").unlink()
    facts = RunFacts(recipe.name, "smoke", recipe.distill_signature(), {"student": 8}, ("down0",), {"step": 90}, ())
    write_config(run, facts, path=REPO / "recipes" / "exp6_stored_noise.py", plugins=("plugins",), command="ladd it")
    (out / "cache").mkdir()
    for grid in (folder / "samples").glob("step-000[0-2]*.png"):
        grid.unlink()
    figures = {"fd_real": 3.0, "accuracy": 0.5}
    write(
        folder / "eval_classes.json",
        {
            "left_out": {"color": "why"},
            "unfit": {},
            "entries": {"student@4": {"0": figures}},
            "shown": {"new": ["0", "0"], "old": ["1 (before: 0)"]},
        },
    )
    write(folder / "early_stop.json", {"format": 1, "figure": "kid", "kept": 20, "last": 30, "measured": [[20, 0.5]]})
    verdict = {"step": 30, "level": "collapsed", "headline": "why", "reasons": ["a"], "action": "warn", "since": 20}
    back = {"found": 30, "to": 20, "headline": "why"}
    guard = {"format": 1, "checked": 40, "level": "collapsed", "since": 20, "headline": "why"}
    write(folder / "guard.json", {**guard, "verdicts": [verdict], "rollbacks": [back]})
    write(folder / "diagnose.json", DIAGNOSIS)
    write(
        folder / "wandb.json",
        {"id": "a", "project": "p", "entity": "e", "group": "", "url": None, "mode": "offline", "last_step": 3},
    )
    write(folder / "distill.done.json", {"signature": recipe.distill_signature(), "finished": "2026-11-22T07:00:00Z"})
    write(folder / "evaluate.done.json", {"signature": recipe.evaluate_signature(), "finished": "2026-11-22T07:00:00Z"})
    failure = {"rank": 1, "code": 1, "kind": "failure", "message": "bad luck", "trace": "", "time": 0.0}
    write(folder / "logs" / "20261122T070000Z-1" / "rank1.json", {"ladd": failure})
    write(folder / TEXTS, {"table": {"name": "t", "bytes": 3, "sha256": "a", "texts": "b"}, "texts": ["a cat"]})
    lock_of(recipe, folder)
    entry = RunEntry(folder.name, "a", {"head": "x"}, 0, recipe.distill_signature(), "teacher-t", "shards-s")
    record = Record("heads", "0" * 10, runs=[entry], axes={"head": ["x"]}, seeds=[0])
    record.add("7", "run", folder.name, "debug")
    record.write(out / "sweeps" / "heads-0000000000")
    return folder


def lock_of(recipe: Recipe, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    locks.Lock(
        version=config["version"], environment=environment(CPU), recipe=config["recipe"],
        signatures=locks.signatures(recipe), plugin_classes=describe_plugins(recipe), data={"shards_index_sha256": ""},
        run=folder.name, recipe_path="r.py", scale="smoke", command="ladd", commit="c", plugins=("plugins",),
        student={"file_sha256": "0"}, eval=read_evaluation(folder / "eval.json"),
    ).write(folder / locks.FILE)  # fmt: skip


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


LEVEL = {
    "sigma": 80.0, "weight": 1.0, "spread": 0.0, "averaged": 9.0, "kept": 0.1, "share": 0.1, "in_class": 0.1,
    "classes": {"0": 0.1}, "colour_variance": 0.1, "verdict": "keeps", "trained": True,
}  # fmt: skip
DIAGNOSIS = {
    "format": 1, "recipe": "it", "signature": "0", "shards": "s", "start": "fresh", "rule": "r", "distance": "mse",
    "num_pairs": 9, "num_stored": 9, "deterministic": False, "measure": "kept", "stored": {"hue_entropy": 1.0},
    "levels": [LEVEL], "samples": {"optimum@4": {"share": 0.1, "levels": [80.0, 1.0], "num_samples": 3}},
    "threshold": None, "reproduced": None, "found_levels": None,
    "advice": [{"what": "a", "why": "b", "flags": "--c"}],
}  # fmt: skip


# --- the commands that read it ---


def page(run: Path) -> None:
    write_report(run)
    closing_line(run)


def opened(run: Path) -> None:
    """What `evaluate`, `diagnose`, `export`, `control` and `sample` begin with."""
    found = open_run(run, device=CPU)
    cache_folder(found.config)


def launched_again(run: Path) -> None:
    recipe = the_recipe()
    again = Run(recipe, Workspace(run.parent, run.parent / "cache", CPU))
    assert again.folder.path == run
    facts = RunFacts(recipe.name, "smoke", "0", {}, (), {}, ())
    write_config(again, facts, path=Path("r.py"), plugins=(), command="ladd again")
    tracked_config(recipe, RunDir(run))
    is_done(run / "distill.done.json", "0")
    add_timing(RunDir(run), "distill", 1.0)
    add_timing(RunDir(run), "report", 1.0)


def compared(run: Path) -> None:
    command(compare.main, [str(run), str(run.parent / "other"), "--json", "--skip-broken"])


def compared_on_a_page(run: Path) -> None:
    command(compare.main, [str(run), str(run.parent / "other"), "--out", str(run.parent / "compared.html")])


def shown_by_jobs(run: Path) -> None:
    command(jobs.main, [str(run.parent)])


def command(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Run a command, which ends with a result or one message."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as told:
        code = main(words)
    if code not in (0, 1, 2) or "Traceback" in told.getvalue():
        raise AssertionError(" ".join(told.getvalue().split())[-400:])


def locked(run: Path) -> None:
    lock = locks.read_lock(run)
    recipe = the_recipe()
    drifted, milder = locks.compare(lock, Run(recipe, Workspace(run.parent, run.parent / "cache", CPU)), "smoke")
    str([*map(str, drifted), *map(str, milder), *locks.warnings_of(lock)])


def renamed(run: Path) -> None:
    RENAMED["promote"][1]([str(run)])


def diagnosed(run: Path) -> None:
    from ladd_dist.reports.diagnosis_text import Optimum, level_rows, sample_rows

    means_of(read_evaluation(run / "eval.json"))
    if found := diagnosis_section._read(run / "diagnose.json"):
        level_rows(Optimum.of(found))
        sample_rows(Optimum.of(found), {})


READERS: dict[str, tuple[Read, ...]] = {
    "guard.json": (page, shown_by_jobs, lambda run: read_story(run / "guard.json")),
    "diagnose.json": (page, diagnosed),
    "wandb.json": (lambda run: Card.read(run / "wandb.json"),),
    "distill.done.json": (shown_by_jobs, launched_again),
    "logs/20261122T070000Z-1/rank1.json": (
        shown_by_jobs, lambda run: read_failure(run / "logs/20261122T070000Z-1/rank1.json"),
    ),
    TEXTS: (read_texts,),
    locks.FILE: (locked,),
    "../sweeps/heads-0000000000/sweep.json": (
        shown_by_jobs, lambda run: read_record(run.parent / "sweeps" / "heads-0000000000"),
    ),
    "samples/final.png": (page, compared_on_a_page),
    "config.json": (page, opened, launched_again, compared, shown_by_jobs, renamed),
    "eval.json": (page, compared, diagnosed),
    "eval_classes.json": (page,),
    "early_stop.json": (page,),
    "timings.json": (page, launched_again),
    "metrics.jsonl": (page, compared_on_a_page, shown_by_jobs, lambda run: JsonlLog(run / "metrics.jsonl", 50).close()),
}  # fmt: skip


# --- damage ---


class Damage(NamedTuple):
    what: str
    do: Callable[[Path], object]


DIGITS = "400 digits"
WRONG: tuple[Any, ...] = (
    "x", 7, -1, 2.5, None, True, [], {}, [1, "a"], {"a": 1}, [None], 1e300, 2**63, math.nan, DIGITS, "\0", "é" * 300,
)  # fmt: skip
MOST_PLACES = 6
"""Values below the top of a file that are damaged, drawn with a seed."""


def damages(path: Path) -> Iterator[Damage]:
    """Damage to a whole file, then to one of its values after another."""
    whole = path.read_bytes()

    def content(what: str, new: bytes) -> Damage:
        return Damage(what, lambda path: path.write_bytes(new))

    yield content("empty", b"")
    yield content("cut", whole[: len(whole) // 2])
    yield content("not UTF-8", whole.replace(b"e", b"\xe9", 3))
    yield content("UTF-16", whole.decode(errors="replace").encode("utf-16"))
    for text in (
        "[]",
        "{}",
        "null",
        "7",
        '"x"',
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ):
        yield content(f"JSON {text[:8]}", text.encode())
    yield content("nested", b'{"format": 1, "recipe": ' + b'{"head": ' * 400 + b"1" + b"}" * 401)
    yield content("zeros", b"\0" * 4096)
    yield Damage("folder", lambda path: (path.unlink(), path.mkdir()))
    yield Damage("pipe", lambda path: (path.unlink(), os.mkfifo(path)))
    yield Damage("circle", lambda path: (path.unlink(), path.symlink_to(path.name)))
    yield Damage("20 GB", lambda path: os.truncate(path, 20 * 10**9))
    if path.suffix == ".jsonl":
        lines = whole.splitlines(keepends=True)
        yield from (content(f"row {new}", b"".join([*lines[:3], new.encode() + b"\n", *lines[3:]])) for new in ROWS)
    elif path.suffix in (".json", ".lock"):
        yield from _values(json.loads(whole))


ROWS = (
    "[]", "7", "{}", '{"step": null}', '{"step": "a"}', '{"step": -3}', '{"step": 1e308, "a": 1}',
    '{"step": 25, "a": "b"}',
    '{"step": 25, "loss/distill": NaN}', '{"step": 25, "loss/distill": -Infinity}',
    '{"step": 25, "loss/distill": 1e999}',
    '{"step": 25, "loss/distill": 1e308, "accuracy": -1e308, "weight/adversarial": 5e-324, "grad_norm/student": 1e308}',
    '{"step": 25, "loss/distill": ' + "9" * 400 + "}", '{"step": ' + "9" * 400 + "}", '{"step": 25, "accuracy": []}',
    '{"step": 25, "accuracy": null}', '{"step": 25, "rate/steps_per_s": 1e-320}',
    '{"step": 25, "rate/steps_per_s": -1}',
    '{"step": 25, "a\\ud800": 1}', '{"step": 25, "' + "k" * 2_000_000 + '": 1}',
)  # fmt: skip


def _values(data: Any) -> Iterator[Damage]:
    draw = random.Random(0)
    places = [place for place in _places(data) if len(place) == 1]
    deeper = [place for place in _places(data) if len(place) > 1]
    for where in places + draw.sample(deeper, min(MOST_PLACES, len(deeper))):
        new = draw.choice(WRONG)
        changed = copy.deepcopy(data)
        *above, last = where
        node = changed
        for key in above:
            node = node[key]
        node[last] = new
        text = json.dumps(changed).replace(f'"{DIGITS}"', "9" * 400)
        yield Damage(f"{'.'.join(map(str, where))} = {new!r}", lambda path, text=text: path.write_text(text))
    if isinstance(data, dict):
        for key in draw.sample(list(data), min(MOST_PLACES, len(data))):
            less = json.dumps({name: value for name, value in data.items() if name != key})
            yield Damage(f"without {key}", lambda path, text=less: path.write_text(text))
        more = json.dumps({**data, "of a later version": [{}]})
        yield Damage("another key", lambda path: path.write_text(more))


def _places(data: Any, most: int = 4) -> Iterator[tuple[Any, ...]]:
    parts = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    for key, value in parts:
        yield (key,)
        if most > 1:
            yield from ((key, *rest) for rest in _places(value, most - 1))


draw = charts.curves


def is_extreme(metrics: Any) -> bool:
    return any(0 < abs(value) < 1e-300 or 1e300 < abs(value) < math.inf for row in metrics for value in row.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    run = small_run(out)
    shutil.copytree(run, out / "other")
    config = json.loads((run / "config.json").read_text())
    config["recipe"]["seed"] = 5
    write(out / "other" / "config.json", config)
    return run


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_one_message_or_a_sound_result(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes most of a page's time: only extreme figures are drawn.
    monkeypatch.setattr(
        charts, "curves", lambda metrics, gap, **more: draw(metrics, gap, **more) if is_extreme(metrics) else []
    )
    monkeypatch.setattr(diagnosis_section, "heat_maps", lambda *_: [])
    monkeypatch.chdir(REPO)
    path = folder / name
    whole, faults = path.read_bytes(), []
    for damage in damages(path):
        for read in READERS[name]:
            damage.do(path)
            try:
                read(folder)
            except UserError as error:
                if "\n" in str(error) or len(str(error)) > 3_000:
                    faults.append(f"{damage.what}, {read.__name__}: {str(error)[:300]!r}")
            except BaseException as error:  # a test's timeout is an exception too
                faults.append(f"{damage.what}, {read.__name__}: {type(error).__name__}: {str(error)[:300]}")
            finally:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                path.write_bytes(whole)
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:60])


# --- what a file may hold that is no damage, or takes no memory ---


def test_a_long_line_is_one_broken_line_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 2}\n')
    with path.open("ab") as stream:
        stream.truncate(300 * 10**6)  # sparse: zeros without a line's end
        stream.seek(0, os.SEEK_END)
        stream.write(b'\n{"step": 2, "a": 3}\n')
    tracemalloc.start()
    found = read_rows(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ([{"step": 1, "a": 2}, {"step": 2, "a": 3}], 1)
    assert peak < 20 * 10**6


def test_figures_that_are_no_numbers_are_left_out_of_a_row_and_null_is_not_a_number() -> None:
    row = parse_row(b'{"step": 3, "a": "b", "c": [1], "d": true, "e": null, "f": -Infinity, "g": 1}')
    assert row is not None and list(row) == ["step", "e", "f", "g"]
    assert math.isnan(row["e"]) and row["f"] == -math.inf
    assert parse_row(b'{"step": 3, "a": ' + b"9" * 400 + b"}") == {"step": 3}


def test_a_number_that_no_float_holds_names_its_field() -> None:
    with pytest.raises(RecipeError, match=r"recipe\.distill_weight\.value: a number of 1329 bits"):
        from_data(Recipe, {"distill_weight": {"plugin": "constant", "value": 10**400}})


def test_content_is_read_to_a_depth_that_every_reader_can_walk() -> None:
    def nested(depth: int) -> str:
        return '{"a": [0, ' * (depth // 2) + '"]}]}"' + '], "b": 1}' * (depth // 2)

    assert decode(nested(MOST_DEPTH), dict[str, Any], "it")
    with pytest.raises(UserError, match="levels deep"):
        decode(nested(MOST_DEPTH + 4), dict[str, Any], "it")
    assert decode(json.dumps(["[" * 500]), list[str], "it") == ["[" * 500]  # brackets in a text


def test_a_schedule_of_another_form_takes_no_part_in_the_verdict() -> None:
    recipe = {"adv_weight": {"points": [1, "x", [2], [3, "y"], [4, 0.5], [5, 10**400]], "value": []}}
    assert in_force(ShownConfig(recipe=JsonObject(recipe)), [], "adversarial") == 0.5


def test_a_command_that_nobody_can_have_typed_names_no_cache() -> None:
    assert cache_folder(RunConfig(command="ladd launch 'r.py --cache x")) == Path("cache")


@pytest.mark.parametrize("text", ["7", '{"a": 1}', "[1]", "[" * 10_000, "\0"])
def test_a_grid_whose_labels_are_none_is_named(tmp_path: Path, text: str) -> None:
    info = PngInfo()
    info.add_itxt("rows", text)
    Image.new("RGB", (8, 8)).save(tmp_path / "final.png", pnginfo=info)
    with pytest.raises(UserError, match=r"final\.png"):
        grid_rows(tmp_path / "final.png")


def test_a_grid_of_a_billion_pixels_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = tmp_path / "final.png"
    Image.new("RGB", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"final\.png"):
        grid_rows(path)
