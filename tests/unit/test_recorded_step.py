"""A recorded step trains like the step itself: on the CPU with a tape for a graph, on CUDA with a graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ladd_toys import TAPS, difference, make_batch
from tape import Tape
from test_device import CPU, device, on_cpu, step_on
from torch import Tensor

from ladd_dist.core.serialize import RecipeError
from ladd_dist.engine.head_statistics import HeadSums
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.recorded_step import RecordedStep
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.engine.step_graph import WARM_UP, StepGraph, require_recorder
from ladd_dist.guards.judge import NO_CHANGE, GuardControl
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import load_recipe
from ladd_dist.recipe.consistency import require_consistent
from ladd_dist.regularisers.centring import Centring
from ladd_dist.regularisers.penalties import R1, R1R2, GradientPenalty
from ladd_dist.regularisers.total import Sum
from ladd_dist.stages.teacher import TeacherTraining
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace
from plugins.schedules import LinearWarmup

assert device  # the fixture

RECIPE = load_recipe(Path(__file__).resolve().parents[2] / "recipes" / "exp6_stored_noise.py", "smoke")
FROZEN, LATER = 8, 10
CONTROLS = {FROZEN: GuardControl(heads_learn=False), LATER: GuardControl(adv_factor=0.5)}
"""Steps at which a guard has had its say: one without a graph between two with one, and one with a lower weight."""
STEPS = 12
Outcome = tuple[list[dict[str, float]], dict[str, Tensor], dict[str, Tensor], Tensor]


class Always:
    """A recorder that computes everything anew."""

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        found: dict[str, Tensor] = {}

        def replay() -> None:
            found.update(work())

        return found, replay


def parts_of(compute: Compute, on: torch.device = CPU, **options: Any) -> tuple[LaddStep, HeadSums]:
    sums = HeadSums(TAPS)
    sums.open("guard")
    return step_on(on, compute, adv_weight=LinearWarmup(value=0.4, steps=9), head_sums=sums, **options), sums


def trained(step: LaddStep, sums: HeadSums, call: Any, on: torch.device = CPU) -> Outcome:
    """Figures, weights of both networks, and the sums that a guard would read, after steps of every sort."""
    rows = []
    for number in range(STEPS):
        for network in (step.student, step.heads):
            network.set_lr_factor(1 - number / (2 * STEPS))
        figures = call(to_device(make_batch(8, seed=number), on), number, None, CONTROLS.get(number, NO_CHANGE))
        rows.append({name: float(value) for name, value in figures.items()})
    return rows, on_cpu(step.student), on_cpu(step.heads), sums.take("guard")


GAMES: dict[str, dict[str, Any]] = {
    "fused": {},
    "alternate": {"mode": "alternate"},
    "fused, wrong conditions and r1": {"mismatched": 0.3, "regulariser": R1(gamma=0.5, every=4)},
    "alternate, wrong conditions and both": {
        "mode": "alternate", "mismatched": 0.3, "regulariser": Sum((R1R2(), Centring())),
    },
}  # fmt: skip


@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_trains_bit_by_bit_like_one_that_is_computed_anew(
    precision: Any, options: dict[str, Any]
) -> None:
    outcomes = []
    for recorder in (Tape(), Always()):
        step, sums = parts_of(Compute(precision, graph=True), **options)
        outcomes.append(trained(step, sums, RecordedStep(step, CPU, recorder)))
    one, other = outcomes
    assert one[0] == other[0]
    for place in (1, 2):
        assert all(torch.equal(value, other[place][name]) for name, value in one[place].items())
    assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("game", ["fused", "fused, wrong conditions and r1"])
def test_a_recorded_step_trains_like_the_step_itself(device: torch.device, game: str) -> None:
    """Weights and learning rates are rounded to float32; the figures are those of each step, not of the last one."""
    step, sums = parts_of(Compute(), device, **GAMES[game])
    plain = trained(step, sums, step, device)
    step, sums = parts_of(Compute(graph=True), device, **GAMES[game])
    recorded = trained(step, sums, RecordedStep(step, device, Tape() if device.type == "cpu" else None), device)
    bar = 1e-5 if device.type == "cpu" else 1e-3
    for mine, yours in zip(recorded[0], plain[0], strict=True):
        assert mine.keys() == yours.keys()
        for name in ("loss/heads", "loss/distill", "grad_norm/student", "weight/adversarial"):
            assert mine[name] == pytest.approx(yours[name], rel=bar, abs=bar), name
    assert difference(recorded[1], plain[1]) < bar and difference(recorded[2], plain[2]) < bar
    torch.testing.assert_close(recorded[3], plain[3], rtol=bar, atol=bar)


def refused(tape: Tape) -> list[str]:
    """Operations of a recording that CUDA refuses: they read a tensor, draw a number, or send one from the host."""
    found = re.compile(r"_local_scalar_dense|nonzero|lift_fresh|rand|normal_|uniform_|bernoulli|equal\.|_unique")
    return [name for name in tape.names if found.search(name)]


def average_of(training: TeacherTraining) -> dict[str, Tensor]:
    return {name: part.tensor.cpu() for name, part in training.average.parts().items()}


def test_a_recorded_teachers_step_trains_like_the_step_itself(device: torch.device, tmp_path: Path) -> None:
    """Its learning rate is rounded to float32; a step that is read and drawn anew is what the graph is given."""
    found = []
    for graph in (False, True):
        recipe = replaced(RECIPE, ["teacher", "compute", "graph"], graph)
        run = Run(recipe, Workspace(tmp_path, tmp_path / f"cache-{graph}", device))
        tape = Tape() if device.type == "cpu" else None
        training = TeacherTraining(run, tmp_path / f"teacher-{graph}", tape)
        rows = [training.step(number) for number in range(WARM_UP + 4)]
        figures = [{name: float(value) for name, value in row.items()} for row in rows]
        found.append((figures, on_cpu(training.trainable), average_of(training)))
        if graph and tape is not None:
            assert len(tape.names) > 100 and not refused(tape)
    (plain, weights, average), (recorded, own_weights, own_average) = found
    bar = 1e-5 if device.type == "cpu" else 1e-3
    for mine, yours in zip(recorded, plain, strict=True):
        assert mine == pytest.approx(yours, rel=bar, abs=bar)
    assert len({row["loss/teacher"] for row in recorded}) == len(recorded)
    assert difference(own_weights, weights) < bar and difference(own_average, average) < bar


@pytest.mark.parametrize("options", GAMES.values(), ids=GAMES)
def test_a_recording_reads_no_tensor_draws_no_number_and_sends_none_from_the_host(options: dict[str, Any]) -> None:
    """What CUDA refuses to record."""
    tape = Tape()
    step, sums = parts_of(Compute(graph=True), **options)
    trained(step, sums, RecordedStep(step, CPU, tape))
    assert len(tape.names) > 300
    assert not refused(tape)


def test_a_graph_gives_results_of_their_own_after_a_warm_up_without_it() -> None:
    graph, calls = StepGraph(Tape()), list[float]()

    def work(given: tuple[list[Tensor], str]) -> dict[str, Tensor]:
        calls.append(float(given[0][0].sum()) if len(calls) < WARM_UP else 0.0)
        return {"twice": 2 * given[0][0]}

    found = [graph(work, ([torch.full((2,), float(number))], "word"))["twice"] for number in range(6)]
    assert [value.tolist() for value in found] == [[2.0 * number] * 2 for number in range(6)]
    assert len(calls) == WARM_UP + 1


def test_a_step_that_asks_the_device_for_a_number_is_one_message_with_the_way_out() -> None:
    class Refusing(Tape):
        def record(self, work: Callable[[], Any]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be")

    graph = StepGraph(Refusing())
    for _ in range(WARM_UP):
        graph(lambda given: {}, ())
    with pytest.raises(RecipeError, match=r"cannot be recorded \(operation .* capturing\); .*--train.compute.no-graph"):
        graph(lambda given: {}, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.compute.graph": True, "train.head_updates": 2}, r"train\.compute\.graph: .*head_updates above 1"),
        ({"train.compute.graph": True, "train.compute.precision": "fp16"}, r"fp16, whose loss scale .*use bf16"),
        ({"train.compute.graph": True, "train.compute.checkpoint": ("student",)}, "activation checkpointing"),
        ({"train.compute.graph": True, "regulariser": GradientPenalty()}, "'gradient_penalty', which may draw"),
        ({"teacher.compute.graph": True, "teacher.compute.precision": "fp16"}, r"teacher\.compute\.graph: .* fp16"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    recipe: Any = RECIPE
    for path, value in changes.items():
        recipe = replaced(recipe, path.split("."), value)
    with pytest.raises(RecipeError, match=message):
        require_consistent(recipe)


def replaced(tree: Any, path: list[str], value: Any) -> Any:
    new = value if len(path) == 1 else replaced(getattr(tree, path[0]), path[1:], value)
    return dataclasses.replace(tree, **{path[0]: new})


def test_a_graph_needs_a_cuda_device_and_changes_no_signature() -> None:
    with pytest.raises(RecipeError, match=r"a CUDA graph, and this run is on cpu; leave it out, or choose --device"):
        require_recorder(CPU)
    graphed = replaced(RECIPE, ["train", "compute", "graph"], True)
    require_consistent(graphed)
    assert graphed.distill_signature() == RECIPE.distill_signature()
