"""Two ranks divide the adversarial gradient by what one process divides by, under every strategy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prepared import run_ranks

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_ranks_normalise_as_one_process_does_under_every_strategy(tmp_path: Path) -> None:
    """With a penalty that asks a sharded teacher about one sample in four."""
    out = tmp_path / "found.json"
    run_ranks(2, "tests.distributed.adv_norm_worker", out, cwd=REPO, out=tmp_path / "said.txt")
    found = json.loads(out.read_text())
    assert set(found) == {"ddp", "fsdp", "zero2", "zero3"}
    for name, away in found.items():
        assert away["roots"] < 1e-4, (name, away)
        assert away["weights"] < 1e-4, (name, away)
