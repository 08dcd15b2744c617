"""Guards in real runs at smoke scale: what they tell, what they do, and that going on gives the same."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import Done, Ladd, read_json, rows, without_rates
from wandb_server import Server

from ladd_dist.reports.page import write_report

Launch = Callable[..., Done]
JUDGE = ("--guard.grace", 0)
"""A student of twenty steps gives class means in one step, as the teacher does that it was copied from."""
DISTILL = ("--stages", "distill")

TOO_HEAVY = '''
from dataclasses import dataclass
from ladd_dist.core.plugin import register
from ladd_dist.guards import Action, Finding, Guard


@register("too_heavy")
@dataclass(frozen=True)
class TooHeavy(Guard):
    """Finds adversarial weights above a limit, which no other guard minds."""

    limit: float = 0.6
    action: Action = "rollback"
    patience: int = 1

    def is_due(self, step, num_steps):
        return step % 5 == 0

    def is_full(self, step, num_steps):
        return True

    def num_samples(self):
        return 8

    def is_early(self, step, num_steps):
        return False

    def findings(self, figures):
        weight = figures["weight/adversarial"]
        return (Finding("weight", f"weight {weight:.2f}", "", "collapsed"),) if weight > self.limit else ()
'''
HEAVY = ("--plugins", "too_heavy", "--swap", "guard=too_heavy", "adv_weight=linear_warmup",
         "--adv-weight.value", 1, "--adv-weight.steps", 20, "--train.checkpoint-every", 7)  # fmt: skip


@pytest.fixture
def run(ladd: Ladd, launch_here: Launch) -> Callable[..., Done]:
    """The distillation, within this process, in the test's folder (or one below it), with an expected exit code."""

    def launch(*words: object, below: str = "", code: int = 0) -> Done:
        own = Ladd(ladd.cwd / below, ladd.cache)
        done = launch_here(*own.words(*DISTILL, *words))
        assert done.code == code, done
        return done

    return launch


@pytest.fixture
def too_heavy(tmp_path: Path) -> None:
    """A guard of somebody else's."""
    (tmp_path / "too_heavy.py").write_text(TOO_HEAVY)


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / "guard.json")
    return found


def figures(run: Path) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("guard/")}
            for row in without_rates(run / "metrics.jsonl")]  # fmt: skip


def only(folder: Path) -> Path:
    (found,) = folder.glob("*/metrics.jsonl")
    return found.parent


def forget_after(run: Path, step: int) -> None:
    """As if the run had been killed later than `step`, with that checkpoint the newest."""
    for name in ("distill.done.json", "student.safetensors"):
        (run / name).unlink(missing_ok=True)
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name.partition("-")[2]) > step:
            shutil.rmtree(path)


def test_a_guard_that_only_tells_changes_no_number_of_a_run(run: Callable[..., Done], ladd: Ladd) -> None:
    watched = run(*JUDGE, below="watched").run
    alone = run("--swap", "guard=none", below="alone").run
    assert watched.name == alone.name
    assert figures(watched) == figures(alone)
    assert (watched / "student.safetensors").read_bytes() == (alone / "student.safetensors").read_bytes()
    assert told(watched)["verdicts"] and not (alone / "guard.json").exists()


def test_a_verdict_is_one_line_a_row_in_the_file_and_a_place_on_the_page(
    run: Callable[..., Done], smoke: tuple[Done, Ladd], tmp_path: Path
) -> None:
    done = run(*JUDGE, "--swap", "start=fresh")
    lines = [line for line in done.stderr.splitlines() if line.startswith("guard at step")]
    verdict = told(done.run)["verdicts"][0]
    assert (verdict["step"], verdict["since"], verdict["level"], verdict["action"]) == (10, 5, "collapsed", "warn")
    assert re.search(r"of the teacher's since step 5: [\w ]+; distance weight is 1.0 at every", verdict["headline"])
    assert lines[0] == f"guard at step 10: collapsed: {verdict['headline']}"
    assert len(lines) == len(told(done.run)["verdicts"])
    checked = [row["step"] for row in rows(done.run / "metrics.jsonl") if "guard/student@1/class_distance" in row]
    full = [row["step"] for row in rows(done.run / "metrics.jsonl") if "guard/student@4/class_distance" in row]
    assert (checked, full) == ([5, 10, 15, 20], [20])
    copy = tmp_path / "page"
    shutil.copytree(smoke[0].run, copy)
    (copy / "guard.json").write_text(json.dumps(told(done.run)))
    page = write_report(copy).read_text()
    assert "What the guard said" in page and "; distance weight is 1.0 at every level with fresh noise" in page


def test_a_run_that_its_guard_stops_says_why_and_stays_stopped(run: Callable[..., Done], tmp_path: Path) -> None:
    words = (*JUDGE, "--guard.action", "stop")
    messages = [run(*words, code=1).stderr for _ in range(2)]
    folder = only(tmp_path / "runs")
    for message in messages:
        flat = " ".join(message.split())
        assert "the guard stopped this run at step 10: student@1 colour variance" in flat
        assert "guard.json" in flat and "--guard.action warn" in flat
    assert (folder / "checkpoints" / "step-00000010" / "meta.json").exists()  # saved before it left
    assert [row["step"] for row in rows(folder / "metrics.jsonl")][-1] < 10
    assert not (folder / "distill.done.json").exists()


@pytest.mark.parametrize("action", ["lower_adv", "freeze_heads"])
def test_a_run_that_goes_on_in_the_middle_comes_to_the_same_verdicts_actions_and_weights(
    run: Callable[..., Done], action: str
) -> None:
    """Checks every 4 steps and a checkpoint at 10: the window of the heads' figures is cut in two."""
    words = (*JUDGE, "--guard.every", 4, "--guard.action", action, "--train.keep-steps", 10)
    folder = run(*words).run
    whole = (told(folder), without_rates(folder / "metrics.jsonl"), (folder / "student.safetensors").read_bytes())
    weights = [row["weight/adversarial"] for row in whole[1]]
    if action == "lower_adv":
        assert weights[7] == pytest.approx(0.1) and weights[8] == pytest.approx(0.05)
    else:
        learned = ["grad_norm/heads" in row for row in whole[1]]
        assert learned == [True] * 8 + [False] * 12
    forget_after(folder, 10)
    run(*words)
    again = (told(folder), without_rates(folder / "metrics.jsonl"), (folder / "student.safetensors").read_bytes())
    assert again == whole


def test_a_rollback_goes_on_from_the_last_healthy_step_with_half_the_weight(
    run: Callable[..., Done], too_heavy: None
) -> None:
    folder = run(*HEAVY).run
    (back,) = told(folder)["rollbacks"]
    assert (back["found"], back["to"]) == (15, 10)
    logged = rows(folder / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(1, 21))
    halved = [0.5 if row["step"] > 10 else 1.0 for row in logged]
    assert [row["weight/adversarial"] for row in logged] == pytest.approx(
        [factor * min(1.0, (row["step"] - 1) / 20) for factor, row in zip(halved, logged, strict=True)]
    )
    student = (folder / "student.safetensors").read_bytes()
    forget_after(folder, 10)  # killed before there was another checkpoint: the file remembers
    run(*HEAVY)
    assert (folder / "student.safetensors").read_bytes() == student
    assert len(told(folder)["rollbacks"]) == 1


def test_rollbacks_end_in_a_stop_and_without_a_healthy_step_a_run_begins_anew(
    run: Callable[..., Done], tmp_path: Path
) -> None:
    done = run(*JUDGE, "--guard.action", "rollback", "--guard.max-rollbacks", 1, code=1)
    assert "the guard stopped this run at step 10" in " ".join(done.stderr.split())
    (back,) = told(only(tmp_path / "runs"))["rollbacks"]
    assert (back["found"], back["to"]) == (10, 0)


def test_a_diverged_run_is_rolled_back_too_and_ends_with_the_reason(run: Callable[..., Done], tmp_path: Path) -> None:
    broken = ("--train.lr-student", 1e30, "--train.clip", 1e30, "--guard.action", "rollback")
    done = run(*broken, "--guard.max-rollbacks", 1, code=1)
    assert "lower the learning rate" in " ".join(done.stderr.split())
    assert len(told(only(tmp_path / "runs"))["rollbacks"]) == 1


def test_an_alert_reaches_the_tracker(ladd: Ladd, wandb_server: Server) -> None:
    words = (*DISTILL, *JUDGE, "--swap", "tracker=wandb", "--tracker.timeout-s", 5)
    ladd(*words, "--guard.action", "alert")
    (alert,) = wandb_server.state()["alerts"]
    assert alert["title"] == "guard: collapsed at step 10"
    assert "colour variance" in alert["text"] and "since step 5" in alert["text"]


def test_two_ranks_with_micro_batches_see_what_one_process_sees(ladd: Ladd, run: Callable[..., Done]) -> None:
    """Figures of one rank's micro-batch have hidden a collapse before."""
    words = ("--train.mode", "alternate", "--train.steps", 6, "--train.log-every", 3, "--guard.every", 3, *JUDGE)
    alone = run(*words, below="alone").run
    parted = Ladd(ladd.cwd / "parted", ladd.cache)
    parted.cwd.mkdir()
    done = parted(*DISTILL, *words, "--nproc", 2, "--parallel", "ddp", "--train.compute.accumulate", 2)
    first, second = (without_rates(folder / "metrics.jsonl") for folder in (alone, done.run))
    for one, other in zip(first, second, strict=True):
        assert other.keys() == one.keys()
        assert sum("@" in key for key in one) > 20
        counted = [key for key in one if key.startswith("accuracy/")]
        assert {key: other[key] for key in counted} == pytest.approx({key: one[key] for key in counted}, abs=0.03)
        assert other == pytest.approx(one, rel=0.05, abs=0.01)
    both = [[{**verdict, "headline": "", "reasons": []} for verdict in told(folder)["verdicts"]]
            for folder in (alone, done.run)]  # fmt: skip
    assert both[0] == both[1] and both[0][0]["level"] == "collapsed"


def test_guard_and_config_are_told_which_gap_the_game_calls_large(run: Callable[..., Done], tmp_path: Path) -> None:
    text = TOO_HEAVY.replace("weight/adversarial", "heads/large_gap").replace("too_heavy", "large_gap")
    (tmp_path / "large_gap.py").write_text(text, encoding="utf-8")
    words = ("--plugins", "large_gap", "--swap", "guard=large_gap", "adversarial=lsgan", "--guard.action", "warn")
    done = run(*words, "--train.steps", 5)
    assert told(done.run)["headline"].startswith("weight 0.90")
    assert read_json(done.run / "config.json")["large_gap"] == 0.9
