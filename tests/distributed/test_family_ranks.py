"""Two ranks and one process make the same of a checkpoint: table of texts, shards, losses, figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prepared import run_ranks
from tiny_texts import write_pipeline

from tests.distributed.family_worker import MANY_STEPS, STEPS, TAPS

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = ("ddp", "fsdp", "zero2")
CASES = [(family, name) for family in TAPS for name in (STRATEGIES if family not in STEPS else ("fsdp",))]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every family, by one process and by two under each strategy."""
    folder = tmp_path_factory.mktemp("families")
    for family in TAPS:
        write_pipeline(folder / family, family)
    (folder / "prompts.txt").write_text("\n".join(["a cat", *(f"a dog and {number} birds" for number in range(19))]))
    for ranks, jobs in ((1, [(family, "single") for family in TAPS]), (2, CASES)):
        words, said = ["/".join(job) for job in jobs], folder / f"said-{ranks}.txt"
        run_ranks(ranks, "tests.distributed.family_worker", folder, *words, cwd=ROOT, out=said)
    return folder


def rows(folder: Path, name: str, family: str) -> list[dict[str, Any]]:
    (path,) = (folder / name / "runs").glob(f"{family}-*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_two_ranks_see_the_losses_of_one_process(folder: Path, family: str, name: str) -> None:
    expected, found = (rows(folder, which, family) for which in ("single", name))
    assert len(found) == len(expected) == STEPS.get(family, MANY_STEPS)
    for mine, theirs in zip(found, expected, strict=True):
        for figure in (key for key in theirs if key.startswith("loss")):
            assert mine[figure] == pytest.approx(theirs[figure], rel=2e-3), (mine["step"], figure)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_two_ranks_make_the_same_shards_and_the_same_table_of_texts(folder: Path, family: str, name: str) -> None:
    expected, found = (
        sorted(
            path.relative_to(folder / which / "cache") for path in (folder / which / "cache").glob("shards-*/0*.tar")
        )
        for which in ("single", name)
    )
    num = sum(strategy == name for _, strategy in CASES)
    assert len(found) == 2 * num and set(found) <= set(expected)
    tables = sorted((folder / name / "cache").glob("shards-*/conditions*"))
    assert len(tables) == num * (2 * 2 + 1)  # two files, one a rank, their records and the index
    for path in tables:
        same = folder / "single" / "cache" / path.relative_to(folder / name / "cache")
        assert path.read_bytes() == same.read_bytes()


@pytest.mark.parametrize(("family", "name"), CASES)
def test_two_ranks_find_the_figures_of_one_process(folder: Path, family: str, name: str) -> None:
    expected, found = (
        json.loads(next((folder / which / "runs").glob(f"{family}-*/eval.json")).read_text())
        for which in ("single", name)
    )
    mine, theirs = (figures["student@2"]["matched_error"] for figures in (found, expected))
    assert mine == pytest.approx(theirs, rel=1e-2)
