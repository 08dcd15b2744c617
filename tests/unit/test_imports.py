"""What a command imports, and that what stands for PyTorch's own computes as that does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ladd_dist.costs.few_values import FewValues, TooManyValues
from ladd_dist.costs.flops import count_flops
from ladd_dist.parallel.adamw import EagerAdamW
from ladd_dist.recipe import load_recipe
from ladd_dist.stages import sizes
from ladd_dist.stages.sizes import is_large
from recipes import exp7_stored_smooth_l1

HEAVY = (
    "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.checkpoint", "sympy",
    "diffusers", "transformers", "peft", "scipy", "sklearn", "pandas", "wandb", "tensorboard", "torchvision",
    "deepspeed", "jinja2",
)  # fmt: skip
CODE = f"""
import contextlib, sys
from ladd_dist import launch
for words in (["--help"], ["--dry-run"]):
    with contextlib.suppress(SystemExit):
        launch.main([sys.argv[1], "--scale", "smoke", *words])
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.skipif(Version(torch.__version__) < Version("2.14"), reason="older PyTorch imports its compiler earlier")
def test_help_and_dry_run_of_a_recipe_import_no_compiler_and_nothing_else_that_is_heavy(tmp_path: Path) -> None:
    """PyTorch imports its compiler where a tensor without data is computed with, an optimizer made or FLOPs counted."""
    command = [sys.executable, "-c", CODE, str(exp7_stored_smooth_l1.__file__)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "exp7_stored_smooth_l1 at scale smoke, signature" in done.stdout, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("[")] == ["[]", "[]"], done.stderr


def trained(make: Callable[..., torch.optim.AdamW]) -> tuple[list[Tensor], str]:
    """Weights after three steps, the third by an optimizer that went on, and the state as text."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    settings = {"lr": 0.1, "betas": (0.5, 0.99), "weight_decay": 0.1, "fused": True}
    optimizer = make(net.parameters(), **settings)
    for step in range(3):
        if step == 2:
            state = optimizer.state_dict()
            optimizer = make(net.parameters(), **settings)
            optimizer.load_state_dict(state)
        net(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert all(weight.grad is None for weight in net.parameters())
    return [weight.detach() for weight in net.parameters()], json.dumps(optimizer.state_dict(), default=Tensor.tolist)


def test_the_optimizer_is_pytorchs_to_the_bit() -> None:
    (weights, state), (expected, expected_state) = trained(EagerAdamW), trained(torch.optim.AdamW)
    assert all(map(torch.equal, weights, expected))
    assert state == expected_state


def use() -> None:
    """Every operator that is counted, forward and backward, and some that are not."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.ConvTranspose2d(8, 4, 2))
    x = net(torch.randn(2, 3, 8, 8, requires_grad=True))
    x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    y = nn.Linear(14, 6)(x) @ torch.randn(6, 5)
    (torch.einsum("bchw,bcvw->bchv", y, y).sum() + nn.Bilinear(5, 5, 2)(y, y).sum()).backward()


def use_without_gradients(mode: Callable[..., torch.no_grad]) -> None:
    with mode():
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Upsample(scale_factor=2))
        y = nn.Linear(12, 6)(net(torch.randn(2, 3, 8, 8)))
        torch.matmul(y, y.transpose(-1, -2))


@pytest.mark.parametrize(
    "call",
    [use, lambda: use_without_gradients(torch.no_grad), lambda: use_without_gradients(torch.inference_mode)],
)
def test_flops_are_those_of_pytorchs_counter(call: Callable[[], None]) -> None:
    with FlopCounterMode(display=False) as counter:
        call()
    assert count_flops(call) == counter.get_total_flops() > 0


def test_a_network_is_built_with_data_up_to_its_bound_and_no_further() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(9, 10), nn.Linear(10, 3, bias=False), nn.BatchNorm1d(3))  # 130 + 12 values

    with FewValues(142):
        assert build()[0].weight.device.type == "cpu"
    for bound in (0, 99, 141):
        with pytest.raises(TooManyValues), FewValues(bound):
            build()
    for shape in ((2, 3), (torch.Size([6]),), ([1, 6],)):
        with FewValues(6):
            torch.ones(*shape)
        with pytest.raises(TooManyValues), FewValues(5):
            torch.ones(*shape)
    with pytest.raises(TooManyValues), FewValues(5):
        torch.zeros(size=(2, 3))


class Memory:
    """A machine's memory that notes what is compared with it."""

    def __init__(self, compared: list[float]) -> None:
        self.compared = compared

    def __truediv__(self, _: int) -> Memory:
        return self

    def __lt__(self, needed: float) -> bool:
        self.compared.append(needed)
        return False


def test_whether_a_recipe_is_large_does_not_depend_on_how_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, state = load_recipe(Path(exp7_stored_smooth_l1.__file__), "smoke"), torch.get_rng_state()
    needed: list[float] = []
    monkeypatch.setattr(sizes, "memory_bytes", lambda: Memory(needed))
    for few in (0, 100_000, sizes.FEW):  # nothing, the network alone, and all with data
        monkeypatch.setattr(sizes, "FEW", few)
        is_large(recipe, 2)
    assert needed[0] == needed[1] == needed[2] > 0
    assert torch.equal(torch.get_rng_state(), state)
