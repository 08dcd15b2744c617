"""Whole runs on a pretended CUDA device: no stage leaves a tensor on the wrong side, with guard and dumps at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pretend_device import pretended
from processes import REPO, Done

FEW = (
    "--scale", "smoke", "--device", "cuda", "--teacher.steps", "4", "--shards.num-samples", "64", "--train.steps", "5",
    "--train.log-every", "1", "--guard.every", "2", "--train.evaluate-every", "2", "--train.dump-every", "2",
    "--evaluate.num-samples", "16", "--evaluate.num-references", "32",
)  # fmt: skip
TRAINED = ("--stages", "teacher,shards,distill")
WHOLE = ("--stages", "teacher,shards,distill,evaluate")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("exp6_stored_noise", *TRAINED, "--train.compute.data", "device"),
        ("exp6_stored_noise", *TRAINED, "--train.compute.data", "ahead"),
        ("ladd", *WHOLE, "--regulariser.every", "1"),
    ],
    ids=["exp6, device", "exp6, ahead", "ladd"],
)
def test_a_run_keeps_to_its_device(words: tuple[str, ...], launch_here: Callable[..., Done], tmp_path: Path) -> None:
    recipe = str(REPO / "recipes" / f"{words[0]}.py")
    with pretended():
        done = launch_here(recipe, *FEW, *words[1:], "--cache", str(tmp_path / "cache"))
    assert done.code == 0, done.stderr[-3000:]
