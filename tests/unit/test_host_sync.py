"""Between logged steps the real training loops ask no tensor for what it holds: on a device, they would wait for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import host_sync
from benchmarks.host_sync import Args, measure, watched_cpu


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_no_step_between_logged_ones_waits_for_the_device(device: str, tmp_path: Path) -> None:
    result = measure(Args(device=device), tmp_path)
    assert {name: case["found"] for name, case in result["cases"].items()} == {
        "exp6": {"teacher": {}, "student": {}}, "exp6, every option": {"student": {}}, "ladd": {"student": {}},
    }  # fmt: skip
    for case in result["cases"].values():
        assert set(case["steps"].values()) == {host_sync.STEPS - 2}


def test_the_audit_sees_every_way_to_read_a_tensor() -> None:
    x = torch.arange(6.0)
    reads = (
        lambda: x.sum().item(), lambda: bool(x[0] > 0), lambda: x.nonzero(), lambda: x[x > 2], lambda: x.tolist(),
        lambda: x.numpy(), lambda: x.cpu(), lambda: float(x[1]), lambda: torch.equal(x, x), lambda: x.unique(),
        lambda: x.masked_fill_(x > 2, 0) if x.max() > 0 else None,
    )  # fmt: skip
    for number, read in enumerate(reads):
        seen = Counter[str]()
        with watched_cpu(seen):
            read()
        assert seen, number
    quiet = Counter[str]()
    with watched_cpu(quiet):
        torch.where(x > 2, x, 0).sum() + x[torch.tensor([1, 2])].mean()
    assert not quiet
    assert torch.Tensor.tolist(x) == x.tolist()  # as it was before
