"""Measuring on two ranks: each samples and reads its share, and the figures are those of one process."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prepared import run_ranks

from ladd_dist.parallel.gather import share_of
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.recipe import load_recipe
from ladd_dist.stages.evaluate import evaluate
from ladd_dist.stages.table import stage_table

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / "recipes" / "exp4_specnorm.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("reading")
    run_ranks(2, "tests.distributed.reading_worker", folder, cwd=REPO, out=folder / "said.txt")
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.slow
def test_figures_are_the_same_on_one_and_on_two_ranks(results: dict[str, Any]) -> None:
    assert len(results["alone"]) > 30
    assert results["shared"] == results["alone"]


@pytest.mark.slow
def test_rank_0_reads_its_share_and_not_all(results: dict[str, Any]) -> None:
    assert 0 < results["read"] <= 0.6 * (1500 + 1100 + 1300)


@pytest.mark.slow
def test_what_two_ranks_read_is_kept_once_and_gives_the_same_figures_again(results: dict[str, Any]) -> None:
    assert results["kept"] == [results["alone"]] * 2
    assert results["files"] == 3


@pytest.mark.slow
def test_rows_are_joined_in_order_also_where_a_rank_has_none(results: dict[str, Any]) -> None:
    assert results["joined"] == [list(range(num)) for num in (1, 7, 8)]


@pytest.mark.parametrize("num", [0, 1, 511, 512, 513, 10_000])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_cover_all_rows_once_in_whole_blocks(num: int, size: int) -> None:
    shares = share_of(num, 512, Ranks(size=size))
    assert shares[0][0] == 0 and shares[-1][1] == num and len(shares) == size
    assert all(stop == first for (_, stop), (first, _) in itertools.pairwise(shares))
    assert all(first % 512 == 0 or first == num for first, _ in shares)


@pytest.mark.slow
def test_the_stage_gives_one_eval_json_on_one_and_on_two_ranks_and_in_batches_of_any_size(tmp_path: Path) -> None:
    """The student's rule adds noise on the way: a sample's noise depends on neither its batch nor its process."""
    command = [sys.executable, "-m", "ladd_dist.launch", str(RECIPE), "--scale", "smoke", "--out", "runs"]
    command += ["--cache", "cache", "--evaluate.batch-size", "16", "--teacher.steps", "4", "--train.steps", "2"]
    folder = tmp_path / run(command, tmp_path).splitlines()[-1]
    alone = {name: json.loads((folder / name).read_text()) for name in ("eval.json", "eval_classes.json")}

    def again(*words: str) -> dict[str, Any]:
        for path in (folder / "evaluate.done.json", folder / "eval.json", folder / "eval_classes.json"):
            path.unlink()
        for made in (*(tmp_path / "cache").glob("reference-*"), tmp_path / "cache" / "figures"):
            shutil.rmtree(made)
        run([*command, *words, "--stages", "evaluate"], tmp_path)
        return {name: json.loads((folder / name).read_text()) for name in alone}

    together, other_batches = again("--nproc", "2"), again("--evaluate.batch-size", "40")
    for found in (alone, together, other_batches):
        for entry in found["eval.json"].values():
            for clock in ("s_per_image", "times_faster", "times_faster_low", "times_faster_high"):
                entry.pop(clock, None)
    assert together == alone
    for name, entry in alone["eval.json"].items():
        assert other_batches["eval.json"][name].pop("features") == entry.pop("features")
        assert other_batches["eval.json"][name] == pytest.approx(entry, rel=1e-3, abs=2e-3), name


def test_the_stage_is_given_the_ranks() -> None:
    """With the ranks taken away each of them would sample and write everything, and the figures would be the same."""
    recipe = load_recipe(RECIPE, "smoke")
    assert stage_table(recipe)["evaluate"].run is evaluate
