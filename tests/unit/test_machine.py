"""What a process takes of its machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ladd_dist.core.environment import CORES
from ladd_dist.parallel.spawn import take_all_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rank_0_takes_the_cores_that_were_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv(CORES, "3")
    take_all_threads()
    assert torch.get_num_threads() == 3


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.delenv(CORES, raising=False)
    take_all_threads()
    assert torch.get_num_threads() == 2
