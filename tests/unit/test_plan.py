"""`ladd plan`: closed forms of what a rank holds and sends, activations on tensors without data, the command."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ladd_dist import plan
from ladd_dist.core.types import Batch
from ladd_dist.costs.memory_model import (
    STRATEGIES,
    Memory,
    NetProfile,
    StepProfile,
    Strategy,
    Unit,
    Weight,
    memory,
    room,
)
from ladd_dist.costs.memory_trace import no_data, peak_bytes
from ladd_dist.costs.traffic import between_nodes, traffic
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe
from ladd_dist.stages.dry_step import trial
from recipes import exp4_specnorm, exp7_stored_smooth_l1

REPO = Path(__file__).parents[2]
P, H = 64 * 1024, 1024  # weights of student (and teacher), and of heads; every size below is divisible by them


def net(*sizes: int, item_bytes: int = 4) -> NetProfile:
    return NetProfile(tuple(Unit((Weight(torch.Size([64, size // 64]), item_bytes),)) for size in sizes))


def profile(**changes: Any) -> StepProfile:
    """A student of three units (the first outside of its blocks), with no tensor small enough to be kept whole."""
    nets = {"student": net(P // 2, P // 4, P // 4), "teacher": net(P // 2, P // 2), "heads": net(H)}
    return StepProfile(**{**nets, "activations": 1000, "temporaries": 100, "batch": 10, "whole_below": 0, **changes})


def held(strategy: Strategy, ranks: int, **changes: Any) -> Memory:
    return memory(strategy, profile(**changes), ranks)


# --- what a rank holds ---


@pytest.mark.parametrize("ranks", [1, 2, 8, 64])
def test_model_states_are_those_of_the_zero_paper(ranks: int) -> None:
    """Rajbhandari et al. 2020, figure 1, with weights in float32: 4 + 4 + 8 bytes a weight, spread stage by stage."""
    states = {name: held(name, ranks) for name in STRATEGIES}

    def state(name: str) -> int:
        of = states[name]  # type: ignore[index]
        return of.parameters + of.gradients + of.optimizer

    assert state("ddp") == state("single") == 16 * P
    assert state("zero1") == 8 * P + 8 * P // ranks
    assert state("zero2") >= 4 * P + 12 * P // ranks
    assert state("zero3") == state("fsdp") == 16 * P // ranks


def test_zero2_keeps_the_whole_gradients_of_the_tensors_that_its_range_touches() -> None:
    assert held("zero2", 2).gradients == 2 * P  # ranges that end where tensors do
    assert held("zero2", 4).gradients == 2 * P  # half of the first tensor's, and all of its gradient
    assert held("zero2", 64).gradients == 2 * P


def test_one_rank_holds_the_same_under_every_strategy_but_for_deepspeeds_second_copy() -> None:
    for name in STRATEGIES:
        one = held(name, 1)
        assert (one.parameters, one.gradients, one.optimizer, one.average) == (4 * P, 4 * P, 8 * P, 4 * P)
        assert one.master == (4 * P if name.startswith("zero") else 0)
        assert traffic(name, profile(), 1).total == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_that_do_not_train_have_no_gradients_moments_or_average(strategy: Strategy) -> None:
    """A student of which a quarter trains: the rest is held as before, and no more."""
    parts = [Weight(torch.Size([P // 4]), trains=trains) for trains in (False, True, False, False)]
    partly, whole = held(strategy, 2, student=NetProfile(tuple(Unit((part,)) for part in parts))), held(strategy, 2)
    for name in ("optimizer", "master", "average"):
        assert getattr(partly, name) == getattr(whole, name) // 4, name
    assert partly.gradients <= whole.gradients // 2 and partly.parameters == whole.parameters
    # How often a rank sends half of the gradients or of the updated weights; those that stay are 3 P bytes.
    moves = {"single": 0, "ddp": 2, "zero1": 3, "zero2": 3, "fsdp": 1, "zero3": 1}[strategy]
    everything = traffic(strategy, profile(), 2).student
    part = traffic(strategy, profile(student=NetProfile(tuple(Unit((part,)) for part in parts))), 2).student
    assert everything - part == moves * 3 * P // 2


def test_the_average_follows_the_weights() -> None:
    for name in STRATEGIES:
        assert held(name, 8).average == held(name, 8).parameters


def test_a_sum_is_a_sum() -> None:
    one = held("zero3", 4)
    assert one.total == sum(value for name, value in dataclasses.asdict(one).items() if name != "total")


def test_a_sharded_teacher_takes_its_share_and_room_for_what_is_gathered() -> None:
    replica, sharded = (memory("ddp", profile(), 8, shard_teacher=how) for how in (False, True))
    assert (replica.teacher, sharded.teacher) == (4 * P, 4 * P // 8)
    assert sharded.gathered - replica.gathered == 4 * P  # its only block, and what is outside of it


def test_rows_that_do_not_divide_are_padded_to_the_longest_part() -> None:
    odd = Weight(torch.Size([3, 10]))
    assert [odd.by_rows(ranks) for ranks in (1, 2, 3, 64)] == [120, 80, 40, 40]
    assert [odd.by_elements(ranks) for ranks in (1, 2, 4, 64)] == [120, 60, 32, 4]
    assert Weight(torch.Size([])).by_rows(2) == 4


def test_zero3_keeps_small_tensors_whole_besides_their_parts() -> None:
    assert held("zero3", 8, whole_below=P // 4).parameters == 4 * P // 8 + 4 * P // 2


def test_accumulation_makes_fsdp_wait_with_whole_gradients() -> None:
    assert held("fsdp", 8, accumulate=2).gathered - held("fsdp", 8).gathered == 4 * P


# --- what a rank sends ---


def test_a_ring_all_reduce_sends_twice_its_data_less_the_own_share() -> None:
    sent = traffic("ddp", profile(head_updates=3), 4)
    assert sent.student == 2 * 3 / 4 * 4 * P
    assert sent.heads == 3 * 2 * 3 / 4 * 4 * H


def test_sharded_weights_cost_half_as_much_again() -> None:
    for name in ("fsdp", "zero1", "zero2", "zero3"):
        assert traffic(name, profile(), 4).student == 1.5 * traffic("ddp", profile(), 4).student  # type: ignore[arg-type]


def test_micro_batches_gather_weights_again_but_ddp_reduces_once() -> None:
    once, twice = ({name: traffic(name, profile(accumulate=k), 4).student for name in STRATEGIES} for k in (1, 2))
    share = 3 / 4 * 4 * P
    assert twice["ddp"] == once["ddp"] and twice["zero1"] == once["zero1"]
    assert twice["fsdp"] - once["fsdp"] == 2 * share  # forward and backward
    assert twice["zero2"] - once["zero2"] == 2 * share  # an all-reduce
    assert twice["zero3"] - once["zero3"] == 3 * share


def test_a_node_sends_what_one_of_its_ranks_sends() -> None:
    assert [between_nodes(100, ranks, 8) for ranks in (1, 8, 16)] == [0, 0, 100]


# --- activations ---


def test_what_autograd_saves_is_counted_until_it_is_let_go() -> None:
    weight = torch.randn(4, 8, requires_grad=True)
    x = torch.randn(16, 4)

    def step() -> None:
        for _ in range(2):  # one after the other: the peak is that of one
            (x @ weight).relu().sum().backward()

    peak = peak_bytes(step, [weight, x])
    assert peak.saved == 16 * 8 * 4  # relu's output; x and the weight are the caller's own
    assert peak.live >= 2 * 16 * 8 * 4
    assert weight.grad is not None


def test_gradients_of_parameters_are_not_activations() -> None:
    weight = torch.randn(1000, 1000, requires_grad=True)
    x = torch.ones(1, 1000)
    kept: list[Any] = []
    peak = peak_bytes(lambda: [((x @ weight).sum().backward(), kept.append(torch.empty(100, 1000)))], [weight, x])
    assert peak.live < weight.numel() * 4 + 100 * 1000 * 4  # the gradient, or what comes after it; never both


CHECKPOINTED = Compute(checkpoint=("student", "teacher"))


@pytest.mark.parametrize(
    ("recipe", "compute"),
    [(exp7_stored_smooth_l1.RECIPE.smoke, Compute()), (exp4_specnorm.RECIPE.smoke, CHECKPOINTED)],
    ids=["as it is", "checkpointed"],
)
def test_activations_without_data_are_those_of_real_tensors(recipe: Recipe, compute: Compute) -> None:
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=compute))
    with trial(recipe) as hollow:
        planned = hollow.peak(4)
    with trial(recipe, with_data=True) as real:
        assert real.peak(4) == planned
    assert 0 < planned.saved <= planned.live


def test_blocks_that_run_again_in_the_backward_pass_see_the_same_precision() -> None:
    recipe = exp4_specnorm.RECIPE.smoke
    peaks = []
    for checkpoint in ((), CHECKPOINTED.checkpoint):
        compute = Compute(precision="bf16", checkpoint=checkpoint)
        with trial(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=compute))) as step:
            peaks.append(step.peak(12).saved)
    assert peaks[1] < 0.8 * peaks[0]


def test_activations_grow_with_the_batch_alone_and_checkpoints_shrink_them() -> None:
    recipe = exp4_specnorm.RECIPE.smoke
    with trial(recipe) as step:
        a, b, c = (step.peak(size).saved for size in (4, 8, 12))
    assert c - b == b - a > 0
    kept = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=CHECKPOINTED))
    with trial(kept) as step:
        assert step.peak(12).saved < 0.8 * c


def test_half_precision_halves_convolutions_but_norms_stay_in_float32_as_on_accelerators() -> None:
    norm, conv = nn.GroupNorm(1, 8, device="meta"), nn.Conv2d(8, 8, 1, device="meta")
    saved: list[torch.dtype] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.dtype)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with no_data(norm, conv), hooks, torch.autocast("cpu", torch.bfloat16):
        out = norm(conv(torch.zeros(2, 8, 4, 4)))
    assert out.dtype == torch.float32
    assert saved.count(torch.bfloat16) == 2  # the convolution's input and weight


def test_outside_of_a_step_without_data_everything_is_as_before() -> None:
    norm = nn.GroupNorm(1, 8, device="meta")
    with pytest.raises(KeyError), no_data(norm):
        raise KeyError
    own, x = nn.GroupNorm(1, 8), torch.zeros(2, 8, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert own(x).dtype == torch.bfloat16  # not in float32, as on accelerators
    assert own.to(torch.float64).weight.dtype == torch.float64


def test_the_step_says_how_often_weights_are_needed() -> None:
    recipe = exp4_specnorm.RECIPE.smoke
    for mode, student, teacher in (("fused", (1, 1), (2, 1)), ("alternate", (2, 1), (3, 1))):
        changed = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, mode=mode))  # type: ignore[arg-type]
        with trial(changed) as step:
            found = step.profile(4)
        assert {unit[1:] for unit in found.student.units} == {student}
        assert {unit[1:] for unit in found.teacher.units} == {teacher}
        assert isinstance(step.batch(4), Batch)


def test_a_teacher_that_stops_early_is_gathered_up_to_its_last_tap() -> None:
    with trial(exp7_stored_smooth_l1.RECIPE.smoke) as step:  # its taps: downs and middle
        units = step.profile(4).teacher.units
    assert units[-1].forwards == 0 and units[1].forwards == 2


# --- the command ---


def options(**changes: Any) -> plan.Options:
    return plan.Options(**{"recipe": Path("recipes/exp4_specnorm.py"), "gpus": 4, **changes})


def test_what_fits_is_decided_by_the_usable_memory_to_the_byte() -> None:
    smoke = exp4_specnorm.RECIPE.smoke
    rows = plan.plan(smoke, options()).strategies
    total = next(row for row in rows if row.flags == "--parallel ddp").memory.total
    gpu = 2_500_000_000
    while room(gpu) > total:
        gpu -= max((room(gpu) - total) // 2, 1)
    assert room(gpu) == total

    def fits(size: int) -> bool:
        found = plan.plan(smoke, options(gpu_memory_gb=size / 1e9)).strategies
        return bool(next(row for row in found if row.flags == "--parallel ddp").fits)

    assert fits(gpu) and not fits(gpu - 2)


def test_the_cheapest_that_fits_is_named_and_where_nothing_fits_so_is_what_helps() -> None:
    smoke = exp4_specnorm.RECIPE.smoke
    roomy, tight = plan.plan(smoke, options()), plan.plan(smoke, options(gpu_memory_gb=2.0))
    assert roomy.cheapest == "--parallel ddp" and "--parallel ddp" in roomy.advice
    assert tight.cheapest is None and not any(row.fits for row in tight.strategies)
    assert "Nothing fits" in tight.advice and "--train.compute.precision bf16" in tight.advice


def test_single_trains_the_whole_batch_on_one_gpu() -> None:
    rows = plan.plan(exp4_specnorm.RECIPE.smoke, options()).strategies
    single, ddp = rows[0], rows[1]
    assert (single.gpus, single.sent.total) == (1, 0)
    assert single.memory.activations > 3 * ddp.memory.activations > 0


def test_fp16_is_for_ddp_alone() -> None:
    recipe = exp4_specnorm.RECIPE.smoke
    fp16 = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compute=Compute(precision="fp16")))
    rows = plan.plan(fp16, options()).strategies
    assert {row.strategy for row in rows if row.fits} == {"single", "ddp"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PLAN_KEYS = (
    "recipe gpus gpus_per_node gpu_memory_bytes usable_bytes batch_size batch_per_gpu accumulate precision params "
    "bytes_per_sample strategies cheapest advice data texts"
)
ROW_KEYS = "strategy shard_teacher gpus flags fits refused memory sent largest_batch_per_gpu"
MEMORY_KEYS = "parameters gradients optimizer master average teacher heads activations temporaries gathered batch total"
SENT_KEYS = "student heads teacher total between_nodes_a_node"


def test_the_command_prints_json_and_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    command = ["recipes/exp4_specnorm.py", "--scale", "smoke", "--gpus", "16", "--swap", "head=max_pool"]
    assert plan.main([*command, "--json", "--batch-per-gpu", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["batch_size"], facts["batch_per_gpu"], len(facts["strategies"])) == (32, 2, 11)
    assert " ".join(facts) == PLAN_KEYS
    row = facts["strategies"][1]
    assert [" ".join(part) for part in (row, row["memory"], row["sent"])] == [ROW_KEYS, MEMORY_KEYS, SENT_KEYS]
    sent = row["sent"]
    assert sent["between_nodes_a_node"] == sent["total"] > 0
    found: list[plan.Plan] = []
    with monkeypatch.context() as patched:
        patched.setattr(plan, "show", found.append)
        assert plan.main(command) == 0
    plan.show(found[0])
    printed = capsys.readouterr().out
    for wanted in ("zero3", "sharded", "fits, sends least", "--parallel ddp", "A node of 8 GPUs", "GPUs of 80 GB"):
        assert wanted in printed
    assert "0.000" not in printed and re.search(r"│ +\d+(\.\d+)? kB │", printed), "sizes have the unit that suits them"
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # no colours
    with contextlib.redirect_stdout(Terminal()) as narrow:
        plan.show(found[0])
    lines = narrow.getvalue().splitlines()
    assert max(len(line) for line in lines if "│" in line) <= 80 and "…" not in narrow.getvalue()
    for name in ("single", "zero1", "zero2", "zero3"):
        assert any(line.startswith(f"│ {name} ") for line in lines), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpus", "5"], "--train.batch-size 15 or 20"),
        (["--gpus", "0"], "--gpus"),
        (["--gpu-memory-gb", "0"], "--gpu-memory-gb"),
    ],
)
def test_a_wrong_question_is_answered_with_what_would_work(
    flags: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    assert plan.main(["recipes/exp4_specnorm.py", "--scale", "smoke", *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_processes_hold_what_the_plan_says(tmp_path: Path) -> None:
    benchmark = REPO / "benchmarks" / "memory.py"
    command = [
        sys.executable,
        str(benchmark),
        "--json",
        "--widths",
        "64",
        "128",
        "--strategies",
        "ddp+",
        "fsdp",
        "zero2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == ["ddp+", "fsdp", "zero2"]
    for strategy, rows in result.items():
        for name, row in rows.items():
            assert row["ratio"] == pytest.approx(1.0, abs=0.1), (strategy, name, row)
    module = runpy.run_path(str(benchmark))
    read = {name: {key: module["Compared"](**row) for key, row in rows.items()} for name, rows in result.items()}
    module["show"](read, module["Args"]())
