"""Trackers without a run: what is always written, what cannot stop a run, which mode and id W&B gets."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ladd_dist.core.metrics_log import read_rows
from ladd_dist.core.plugin import create
from ladd_dist.testing import check_basics
from ladd_dist.trackers import RunLog, Tracker
from ladd_dist.trackers.jsonl import Jsonl
from ladd_dist.trackers.opening import run_log, tracker_alone
from ladd_dist.trackers.tensorboard import Tensorboard
from ladd_dist.trackers.wandb import Card, Wandb, run_id
from ladd_dist.trackers.wandb_read import RunData, offline_runs

Calls = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Recording(Tracker):
    """Keeps what it is told; fails where it is asked to."""

    calls: Calls
    fails_at: str = ""

    def build(self, *, folder: Path, config: dict[str, Any], resume_step: int) -> RunLog:
        self.told("build", resume_step)
        return RecordingLog(self)

    def told(self, what: str, *values: Any) -> None:
        self.calls.append((what, *values))
        if what == self.fails_at:
            raise RuntimeError("no\nconnection")


class RecordingLog(RunLog):
    def __init__(self, tracker: Recording) -> None:
        self.tracker = tracker

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.tracker.told("log", step, metrics)

    def picture(self, step: int, name: str, path: Path) -> None:
        self.tracker.told("picture", step)

    def summary(self, figures: dict[str, float], pictures: dict[str, Path]) -> None:
        self.tracker.told("summary", figures)

    def alert(self, title: str, text: str) -> None:
        self.tracker.told("alert", title, text)

    def close(self, *, interrupted: bool = False) -> None:
        self.tracker.told("close", interrupted)

    def advice(self) -> str:
        return "carry it over by hand"


def use(tracker: Tracker, folder: Path) -> None:
    """Everything a run does with its log, twice."""
    with run_log(tracker, folder=folder, config={}, resume_step=0) as log:
        for step in (1, 2):
            log.log(step, {"loss/heads": 0.1 * step})
            log.picture(step, "samples", folder / "grid.png")
        log.alert("title", "text")
    with tracker_alone(tracker, folder=folder, config={}, resume_step=2) as log:
        log.summary({"eval/student@4/fd": 1.0}, {})


def test_metrics_jsonl_is_written_whatever_the_tracker(tmp_path: Path) -> None:
    calls: Calls = []
    use(Recording(calls), tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl")[0] == [{"step": s, "loss/heads": 0.1 * s} for s in (1, 2)]
    assert [call[0] for call in calls] == [
        "build", "log", "picture", "log", "picture", "alert", "close", "build", "summary", "close"
    ]  # fmt: skip


@pytest.mark.parametrize("fails_at", ["build", "log", "picture", "alert", "summary", "close"])
def test_a_tracker_that_fails_is_one_warning_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails_at: str
) -> None:
    use(Recording([], fails_at), tmp_path)
    assert len(read_rows(tmp_path / "metrics.jsonl")[0]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tracker : RuntimeError: no connection; training goes on")
    assert line.endswith("carry it over by hand") or fails_at == "build"


def test_the_tracker_jsonl_is_metrics_jsonl_alone(tmp_path: Path) -> None:
    use(Jsonl(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_rows_after_the_resumed_step_are_dropped_and_a_half_line_too(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "lo')
    with run_log(Jsonl(), folder=tmp_path, config={}, resume_step=2) as log:
        log.log(3, {"loss": 2.0})
    assert [row["loss"] for row in read_rows(tmp_path / "metrics.jsonl")[0]] == [1.0, 1.0, 2.0]


def test_a_training_that_fails_is_an_alert_and_a_stop_is_not(tmp_path: Path) -> None:
    calls: Calls = []
    with pytest.raises(ValueError), run_log(Recording(calls), folder=tmp_path, config={}, resume_step=0):
        raise ValueError("loss is nan")
    assert calls[1:] == [("alert", "ValueError in a run", "loss is nan"), ("close", True)]
    calls.clear()
    with pytest.raises(KeyboardInterrupt), run_log(Recording(calls), folder=tmp_path, config={}, resume_step=0):
        raise KeyboardInterrupt
    assert calls[1:] == [("close", True)]


@pytest.mark.parametrize("tracker", [Jsonl(), Wandb(), Wandb(tags=("a", "b"), mode="offline"), Tensorboard()])
def test_trackers_keep_the_contract_of_plug_ins(tracker: Tracker) -> None:
    check_basics(tracker)


KEYS = ("machine localhost login user password secret\n", "machine elsewhere login user password secret\n")


@pytest.mark.parametrize(
    ("mode", "variables", "netrc", "chosen"),
    [
        ("auto", {}, "", "offline"),
        ("auto", {"WANDB_API_KEY": "x"}, "", "online"),
        ("auto", {}, KEYS[0], "online"),
        ("auto", {}, KEYS[1], "offline"),
        ("auto", {}, "no netrc at all", "offline"),
        ("auto", {"WANDB_API_KEY": "x", "WANDB_MODE": "offline"}, "", "offline"),
        ("online", {"WANDB_MODE": "offline"}, "", "online"),
        ("offline", {"WANDB_API_KEY": "x"}, "", "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "", "disabled"),
        ("disabled", {"WANDB_API_KEY": "x"}, "", "disabled"),
    ],
)
def test_wandb_is_online_with_a_key_and_as_asked_otherwise(
    no_wandb_key: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    mode: Any, variables: dict[str, str], netrc: str, chosen: str,
) -> None:  # fmt: skip
    (tmp_path / "netrc").write_text(netrc)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found, reason = Wandb(mode=mode, base_url="http://localhost:8080").choose_mode()
    assert found == chosen
    assert bool(reason) == (mode == "auto" and chosen == "offline" and not variables)  # only what nobody asked for


def test_a_disabled_tracker_leaves_nothing(tmp_path: Path) -> None:
    use(Wandb(mode="disabled"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_the_id_follows_from_the_signature_or_an_agent(no_wandb_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    own = run_id(Card(), "0123456789")
    assert own == run_id(Card(), "0123456789") == run_id(Card(id=own), "another") != run_id(Card(), "another")
    monkeypatch.setenv("WANDB_RUN_ID", "trial")
    assert run_id(Card(id=own), "0123456789") == own  # somebody's export, not an agent's
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert run_id(Card(id=own), "0123456789") == "trial"


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        Wandb(timeout_s=0)


def test_eval_figures_come_back_in_the_form_of_eval_json() -> None:
    summary = {"eval/teacher@4:good/fd": 1.0, "eval/student@4/fd": 2.0, "loss/heads": 3.0}
    run = RunData("name", "0123456789", {}, summary, [], "here")
    assert run.evaluation() == {"teacher@4:good": {"fd_real": 1.0}, "student@4": {"fd_real": 2.0}}


def test_a_run_data_can_be_made_from_its_six_main_parts() -> None:
    required = [f.name for f in dataclasses.fields(RunData) if f.default is f.default_factory is dataclasses.MISSING]
    assert required == ["name", "signature", "config", "summary", "rows", "source"]


def test_the_tracker_of_the_page_works_as_printed(
    tmp_path: Path, own_tables: None, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "plugins.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if '@register("bell")' in block]
    exec(block, {"__name__": __name__})
    tracker = create("tracker", "bell")
    assert isinstance(tracker, Tracker)
    use(tracker, tmp_path)
    assert capsys.readouterr() == ("\a title text\n", "")


def test_a_folder_without_wandb_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        offline_runs(tmp_path)
