"""A run takes no thread whose core another program holds, and one that goes on keeps the number it began with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from ladd_dist.core import threads
from ladd_dist.core.machine import usable_cores
from ladd_dist.core.threads import Watch, choose_threads


class Busy(Watch):
    """Cores that others keep busy, as if measured."""

    def __init__(self, cores: float) -> None:
        super().__init__()
        self.cores = cores

    def busy_cores(self) -> float:
        return self.cores


def chosen(monkeypatch: pytest.MonkeyPatch, config: Path, busy: float, usual: int = 4) -> tuple[int, list[str]]:
    """The threads that a run of four cores takes, and what it says."""
    said: list[str] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(usual)
        choose_threads(Busy(busy), config, said.append)
        return torch.get_num_threads(), said
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 4), (0.4, 4), (0.9, 3), (2.4, 2), (9.0, 1)])
def test_threads_are_the_cores_that_are_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: float, expected: int
) -> None:
    found, said = chosen(monkeypatch, tmp_path / "config.json", busy)
    assert found == expected
    assert bool(said) == (expected < 4) and (
        not said or f": {expected} thread{'s' if expected > 1 else ''} (choose with --threads)" in said[0]
    )


def test_what_the_user_chose_and_what_a_run_began_with_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"environment": {"threads": 3}}))
    assert chosen(monkeypatch, config, 0.0) == (3, [])
    assert chosen(monkeypatch, config, 3.0) == (3, [])
    config.write_text(json.dumps({"environment": {"threads": 64}}))  # begun on a larger machine
    assert chosen(monkeypatch, config, 3.0)[0] == 1
    assert chosen(monkeypatch, tmp_path / "none.json", 3.0, usual=1) == (1, [])
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    choose_threads(Busy(3.0), tmp_path / "none.json", lambda said: pytest.fail(said))
    assert torch.get_num_threads() == before


def test_a_busy_neighbour_is_seen_and_this_process_is_not() -> None:
    spins = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(spins) for _ in range(usable_cores())]
    try:
        time.sleep(0.5)  # they have started
        watch = Watch()
        time.sleep(1.0)
        assert watch.busy_cores() > 0.7 * usable_cores()
    finally:
        for process in neighbours:
            process.kill()
            process.wait()


def test_what_this_process_computes_itself_does_not_count() -> None:
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        watch, whole = Watch(), Watch()
        whole.process = psutil.Process(idle.pid)  # subtracts nothing of this process
        whole.before = whole._busy_s()
        began = sum(os.times()[:2])
        while sum(os.times()[:2]) - began < 1.0:
            pass
        elapsed = time.monotonic() - watch.started
        assert (whole.busy_cores() - watch.busy_cores()) * elapsed == pytest.approx(1.0, abs=0.3)
    finally:
        idle.kill()
        idle.wait()
