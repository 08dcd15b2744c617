"""A device computes what the CPU does: steps in each precision, compiled, channels_last, stopped and gone on with.

Each test runs on the CPU too, so that what it does is known to work before a GPU is at hand. There it compares the CPU
with itself, or with fewer options. The bars for CUDA are guesses until somebody has run them there. On a pretended
CUDA device, whose numbers are the CPU's, each shows that nothing of it is left on the wrong side.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ladd_toys import TAPS, difference, make_batch, make_step, network, weights
from pretend_device import is_pretended, pretended
from torch import Tensor

from ladd_dist.core.rng import Rows, RowSource
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.draws import MicroBatches
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.engine.shard_reader import to_device
from ladd_dist.launch import main as launch
from ladd_dist.parallel import Adam, Parallel
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.parallel.single import Single
from plugins.heads import SpectralNorm

REPO = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
ADAM = Adam(1e-3, (0.5, 0.99), weight_decay=0.01, clip=1.0)
STEPS = 3


@pytest.fixture(params=["cpu", "pretended", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device, with float32 in full precision: TF32 would hide what is looked for."""
    if request.param == "pretended":
        with pretended() as pretence:
            yield pretence
        return
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cudnn.allow_tf32 = before


class Sent:
    """Random numbers of the CPU on another device: generators of different devices draw different ones."""

    def __init__(self, source: RowSource, device: torch.device) -> None:
        self.source, self.device, self.rows = source, device, source.rows

    def normal(self, *shape: int) -> Tensor:
        return self.source.normal(*shape).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return self.source.uniform(*shape).to(self.device)


class DrawnOnHost(MicroBatches):
    """Micro-batches whose random numbers are the CPU's on any device."""

    def source(self, purpose: str, rows: Rows, *parts: int, device: torch.device, repeats: int = 1) -> Any:
        return Sent(super().source(purpose, rows, *parts, device=CPU, repeats=repeats), device)


def step_on(device: torch.device, compute: Compute, parallel: Parallel | None = None, **options: Any) -> LaddStep:
    """A step on a device, whose networks a strategy has built; the same weights and random numbers on each."""
    plain = make_step(**options)
    torch.manual_seed(1)
    heads = Heads(SpectralNorm(width=8, conditioned=True), network(), TAPS)
    common: dict[str, Any] = {"compute": compute, "ranks": SINGLE, "device": device}
    strategy = parallel or Single()
    drawn = {name: getattr(plain.micro_batches, name) for name in plain.micro_batches.__dataclass_fields__}
    fields = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    return LaddStep(**{
        **fields,
        "student": strategy.build(network(), role="student", adam=ADAM, **common),
        "heads": strategy.build(heads, role="heads", adam=ADAM, **common),
        "critic": FrozenCritic(strategy.freeze(network(), **common), TAPS),  # type: ignore[arg-type]
        "micro_batches": DrawnOnHost(**drawn),
    })  # fmt: skip


def trained(step: LaddStep, device: torch.device, steps: int = STEPS) -> list[dict[str, float]]:
    """The figures of some steps."""
    found = [step(to_device(make_batch(8, seed=number), device), number) for number in range(steps)]
    return [{name: float(value) for name, value in figures.items()} for figures in found]


def on_cpu(trainable: Any) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in weights(trainable).items()}


def compare(one: LaddStep, other: LaddStep, one_on: torch.device, other_on: torch.device, bar: float) -> None:
    """Train both and compare losses, gradient norms and weights."""
    first, second = trained(one, one_on), trained(other, other_on)
    for mine, yours in zip(first, second, strict=True):
        for name in ("loss/heads", "loss/distill", "loss/adversarial", "grad_norm/student", "grad_norm/heads"):
            assert mine[name] == pytest.approx(yours[name], rel=bar, abs=bar), name
    for role in ("student", "heads"):
        assert difference(on_cpu(getattr(one, role)), on_cpu(getattr(other, role))) < bar, role


@pytest.mark.parametrize("options", [{}, {"mode": "alternate", "head_updates": 2}], ids=["fused", "alternate"])
def test_steps_on_a_device_are_the_cpus(device: torch.device, options: dict[str, Any]) -> None:
    compare(step_on(CPU, Compute(), **options), step_on(device, Compute(), **options), CPU, device, bar=1e-3)


def test_steps_in_bf16_stay_near_those_in_fp32(device: torch.device) -> None:
    plain, half = step_on(device, Compute()), step_on(device, Compute("bf16"))
    compare(plain, half, device, device, bar=0.1)
    assert all(value.dtype == torch.float32 for value in weights(half.student).values())


def test_steps_in_fp16_go_on_after_the_loss_scale_has_been_found(device: torch.device) -> None:
    step = step_on(device, Compute("fp16"))
    figures = trained(step, device, steps=20)
    assert figures[-1]["skipped"] == 0.0
    assert figures[-1]["loss/distill"] < figures[0]["loss/distill"]


@pytest.mark.slow
def test_compiled_steps_are_the_plain_ones(device: torch.device) -> None:
    if device.type == "cpu" or is_pretended():
        pytest.skip("the CPU's compiler has a test of its own, in test_compute.py")
    compiled = Compute(compile=("student", "teacher", "heads"))
    compare(step_on(device, Compute()), step_on(device, compiled), device, device, bar=1e-3)


def test_pictures_stay_channels_last_through_a_network(device: torch.device) -> None:
    module, batch = network().to(device), to_device(make_batch(4), device)
    ones = torch.ones(4, device=device)
    with torch.no_grad():
        last, first = (
            module(x.to(device), ones, batch.cond, taps=TAPS)
            for x in (batch.x0, batch.x0.contiguous(memory_format=torch.contiguous_format))
        )
    assert batch.x0.is_contiguous(memory_format=torch.channels_last)
    for tap in TAPS:
        assert last.features[tap].is_contiguous(memory_format=torch.channels_last), tap
    torch.testing.assert_close(last.denoised, first.denoised, rtol=1e-4, atol=1e-5)


def test_a_network_ends_after_the_last_tap_with_the_same_features(device: torch.device) -> None:
    module, batch = network().to(device), to_device(make_batch(4), device)
    ones, calls = torch.ones(4, device=device), list[str]()
    for name, block in module.named_modules():
        if isinstance(block, torch.nn.Conv2d):
            block.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        whole = module(batch.x0, ones, batch.cond, taps=("down0",))
        all_calls, calls[:] = list(calls), []
        short = module(batch.x0, ones, batch.cond, taps=("down0",), denoise=False)
    assert torch.equal(whole.features["down0"], short.features["down0"])
    assert 0 < len(calls) < len(all_calls) / 2


def test_checkpointed_blocks_train_the_same(device: torch.device) -> None:
    thrifty = Compute(checkpoint=("student", "teacher", "heads"))
    compare(step_on(device, Compute()), step_on(device, thrifty), device, device, bar=1e-4)


def test_a_training_that_was_stopped_ends_like_one_that_was_not(device: torch.device, tmp_path: Path) -> None:
    words = [str(REPO / "recipes" / "exp6_stored_noise.py"), "--scale", "smoke", "--device", device.type]
    words += ["--cache", str(tmp_path / "cache"), "--teacher.steps", "4", "--shards.num-samples", "64"]
    words += [
        "--train.log-every",
        "1",
        "--train.checkpoint-every",
        "2",
        "--train.steps",
        "6",
        "--train.dump-every",
        "9",
    ]
    words += ["--stages", "teacher,shards,distill"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert launch([*words, "--out", str(whole)]) == 0
    (folder,) = (path for path in whole.iterdir() if path.is_dir())
    again = resumed / folder.name
    again.mkdir(parents=True)
    shutil.copytree(folder / "checkpoints", again / "checkpoints")  # it has those of steps 4 and 6, and no end
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    assert launch([*words, "--out", str(resumed)]) == 0
    first, second = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in (folder, again)
    )
    assert [row["step"] for row in second] == [5, 6]
    bar = 0.0 if device.type == "cpu" or is_pretended() else 1e-3  # convolutions on CUDA do not repeat bit by bit
    for mine, yours in zip(first[-2:], second, strict=True):
        for name in ("loss/heads", "loss/distill", "grad_norm/student"):
            assert mine[name] == pytest.approx(yours[name], rel=bar, abs=bar), name
