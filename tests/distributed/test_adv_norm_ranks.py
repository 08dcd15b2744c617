"""Two ranks divide the adversarial gradient by what one process divides by, under every strategy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_ranks_normalise_as_one_process_does_under_every_strategy(tmp_path: Path) -> None:
    """With a penalty that asks a sharded teacher about one sample in four."""
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.distributed.adv_norm_worker", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    found = json.loads(out.read_text())
    assert set(found) == {"ddp", "fsdp", "zero2", "zero3"}
    for name, away in found.items():
        assert away["roots"] < 1e-4, (name, away)
        assert away["weights"] < 1e-4, (name, away)
