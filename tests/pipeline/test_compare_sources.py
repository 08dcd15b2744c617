"""Real runs compared: the same table from their folders, from W&B's files and from its server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from processes import REPO, Ladd
from wandb_server import Server

SWAPS = ("--swap", "tracker=wandb")


def compare(*words: object) -> dict[str, Any]:
    """What `compare --json` prints, without where the runs lie: that alone differs."""
    command = [sys.executable, "-m", "ladd_dist.compare", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for variant in found["variants"]:
        for run in variant["runs"]:
            assert run.pop("source")
    return found


@pytest.mark.slow
def test_folders_files_of_wandb_and_its_server_give_the_same_table(ladd: Ladd, wandb_server: Server) -> None:
    for seed in (0, 1):
        for head in ("spectral_norm", "max_pool"):
            assert ladd(*SWAPS, f"head={head}", "--seed", seed).code == 0
    table = compare(ladd.runs)
    assert [variant["finished"] for variant in table["variants"]] == [2, 2]
    assert {run["collapse"]["known"] for variant in table["variants"] for run in variant["runs"]} == {True}
    assert {item["entry"] for item in table["references"]} == {
        "teacher@50", "teacher@4:good", "teacher@4:karras", "untrained@4", "floor@50", "floor@real",
    }  # fmt: skip
    assert len([note for note in table["notes"] if "is measured in the features" in note]) == 1
    assert compare(f"wandb-offline:{ladd.runs}") == table
    assert compare("wandb:test/ladd") == table
