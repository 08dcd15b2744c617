"""What a sweep says last of the jobs it has submitted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladd_dist.cluster import submission
from ladd_dist.cluster.submission import Outcome, carry_out_or_show, submitted_line


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ((), "no job was submitted: every run is done, waits or runs"),
        (("12",), "1 job submitted: 12"),
        (("12", "13_0", "13_1", "13_2"), "4 jobs submitted: 12, 13_[0-2]"),
        (("13_4", "13_0", "14_1"), "3 jobs submitted: 13_[0,4], 14_1"),
    ],
)
def test_the_ids_of_an_array_are_told_together(ids: tuple[str, ...], line: str) -> None:
    assert submitted_line(ids) == line


def test_a_sweep_ends_with_its_jobs_the_line_to_type_and_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = SimpleNamespace(folder=Path("runs/sweeps/my heads-0123456789"))
    replies = {"plan": planned, "try_runs": {}, "show": None, "carry_out": Outcome({"a": "7_0", "b": "7_1"}, {})}
    for name, reply in replies.items():
        monkeypatch.setattr(submission, name, lambda *args, reply=reply: reply)
    request: Any = SimpleNamespace(on=None)
    assert carry_out_or_show(request, dry_run=False, as_json=False) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 jobs submitted: 7_[0-1]",
        "watch them: ladd jobs 'runs/sweeps/my heads-0123456789' --watch",
        "runs/sweeps/my heads-0123456789",
    ]
    local = SimpleNamespace(executor="local")
    replies |= {"load_cluster": local, "check_cluster": None, "require_place": None}
    replies["carry_out"] = Outcome({"a": "12", "b": "13"}, {"b": "it\nfailed"})
    for name, reply in replies.items():
        monkeypatch.setattr(submission, name, lambda *args, reply=reply, **more: reply)
    here: Any = SimpleNamespace(on=Path("laptop"), out=None, cache=None)
    assert carry_out_or_show(here, dry_run=False, as_json=False) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == [
        "2 jobs ran here, 1 to the end",
        "compare the runs: ladd compare 'runs/sweeps/my heads-0123456789' --out compare.html",
    ]
    assert told.err == "b failed: failed\n"
    assert carry_out_or_show(request, dry_run=True, as_json=False) == 0
    assert capsys.readouterr().out == ""
