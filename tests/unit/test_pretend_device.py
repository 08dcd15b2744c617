"""The pretended device refuses what CUDA refuses, and gives the CPU's numbers for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from pretend_cuda import Stream
from pretend_device import pretended
from torch import Tensor, nn
from torch.nn import functional

from ladd_dist.core.rng import generator
from ladd_dist.engine.ahead import Ahead

Work = Callable[[Tensor, Tensor], object]


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended() as device:
        yield device


MIXED: dict[str, Work] = {
    "sum": lambda here, there: here + there,
    "sum of a scalar of the device": lambda here, there: here + there.sum(),
    "into the CPU": lambda here, there: here[0].sum().add_(there.sum()),
    "product": lambda here, there: there @ here,
    "joined": lambda here, there: torch.cat([here, there]),
    "stacked scalars": lambda here, there: torch.stack([here.sum(), there.sum()]),
    "where": lambda here, there: torch.where(here > 0, there, there),
    "mask": lambda here, there: there.masked_fill(here > 0, 0.0),
    "device index of the CPU": lambda here, there: here[there[0].long()],
    "values put": lambda here, there: there.index_put_((torch.tensor([0]),), here[0]),
    "picked by an index of the CPU": lambda here, there: there.index_select(0, torch.tensor([0])),
    "embedding": lambda here, there: functional.embedding(torch.tensor([0]), there),
    "layer": lambda here, there: nn.Linear(2, 2)(there),
    "loss": lambda here, there: functional.mse_loss(there, here),
    "several at once": lambda here, there: torch._foreach_add_([there, there], [there, here]),
    "equal": lambda here, there: torch.equal(here, there),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_the_cpu_and_the_device_do_not_mix(device: torch.device, name: str) -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device=device)
    MIXED[name](here, here.clone().mul(0))  # on one side it is sound
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        MIXED[name](here, there.mul(0))


def test_what_cuda_allows_to_mix_mixes(device: torch.device) -> None:
    here, there = torch.arange(4.0), torch.arange(4.0, device=device)
    scalar, index = torch.tensor(2.0), torch.tensor([1, 2])
    for found in (
        there * scalar, there[index], torch.where(there > 1, there, scalar), there.copy_(here),
        there.masked_fill(there > 1, scalar), here.to(device), there.sum() * scalar, torch.zeros_like(there),
        there.new_zeros(2),
        torch.rand(2, device="cuda"),
    ):  # fmt: skip
        assert found.is_cuda and found.device == device
    for found in (
        there.cpu(),
        there.to("cpu"),
        here.copy_(there),
        torch.zeros_like(there, device="cpu"),
        torch.rand(2),
    ):
        assert not found.is_cuda and found.device.type == "cpu"
    assert there[1:].view(3).t().device == device  # a view lies where its memory lies
    assert (there.tolist(), there.sum().item()) == ([0.0, 1.0, 2.0, 3.0], 6.0)


def test_numpy_reads_the_cpu_alone(device: torch.device) -> None:
    there = torch.ones(2, device=device)
    for read in (lambda: there.numpy(), lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            read()
    assert there.cpu().numpy().sum() == 2


def test_a_generator_draws_on_its_own_device_alone(device: torch.device) -> None:
    there, here = generator("x", device=device), generator("x")
    assert there.device == device
    drawn = torch.randn(3, generator=there, device=device)
    assert torch.equal(drawn.cpu(), torch.randn(3, generator=here))
    for draw in (
        lambda: torch.randn(3, generator=here, device=device), lambda: torch.randn(3, generator=there),
        lambda: drawn.normal_(generator=here), lambda: torch.multinomial(drawn.abs(), 1, generator=here),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="device type for generator"):
            draw()


def test_training_on_the_device_is_the_cpus_and_its_gradients_and_moments_lie_there(device: torch.device) -> None:
    found = []
    for on in (torch.device("cpu"), device):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3)).to(on)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
        x = torch.linspace(-1, 1, 32).view(2, 1, 4, 4).to(on)
        for _ in range(2):
            with torch.autocast(on.type, torch.bfloat16):
                functional.cross_entropy(net(x), torch.tensor([0, 2], device=on)).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        moments = [value for state in optimizer.state.values() for value in state.values()]
        assert {tensor.device.type for tensor in (*gradients, *moments)} == {on.type}
        found.append([p.detach().cpu() for p in net.parameters()])
    assert all(map(torch.equal, *found))


def test_a_gradient_comes_back_from_the_other_side(device: torch.device) -> None:
    leaf = torch.ones(2, requires_grad=True)
    (leaf.to(device).square().sum() * 3).backward()
    assert leaf.grad is not None and leaf.grad.device.type == "cpu" and leaf.grad.tolist() == [6.0, 6.0]


@pytest.mark.skipif(torch.version.cuda is None, reason="a PyTorch without CUDA does not know what CUDA has")
def test_an_operation_without_a_kernel_for_cuda_is_refused(device: torch.device) -> None:
    torch.histogram(torch.arange(4.0), bins=2)
    with pytest.raises(NotImplementedError, match="'CUDA' backend"):
        torch.histogram(torch.arange(4.0, device=device), bins=2)


WAITS: dict[str, Work] = {
    "item": lambda here, there: there.sum().item(),
    "truth": lambda here, there: bool(there[0] > 0),
    "to the CPU": lambda here, there: there.cpu(),
    "to the device": lambda here, there: here.to("cuda"),
    "copied": lambda here, there: there.copy_(here),
    "a tensor of numbers": lambda here, there: torch.tensor([1.0], device="cuda"),
    "places": lambda here, there: there.nonzero(),
    "a mask": lambda here, there: there[there > 1],
    "an index of the CPU": lambda here, there: there[torch.tensor([1])],
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_of_the_host_is_refused_where_none_is_wanted(device: torch.device, name: str) -> None:
    here, there = torch.arange(4.0), torch.arange(4.0, device=device)
    WAITS[name](here, there)
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="called a synchronizing CUDA operation"):
        WAITS[name](here, there)
    here.pin_memory().to(device, non_blocking=True).mul_(2.0).add_(there[1:2])


def test_a_stream_that_reads_what_another_is_making_is_a_race(device: torch.device) -> None:
    side = Stream()
    with torch.cuda.stream(side):  # type: ignore[arg-type]
        made = torch.ones(2, device=device)
    with pytest.raises(RuntimeError, match="another stream"):
        made + 1
    torch.cuda.current_stream().wait_stream(side)  # type: ignore[arg-type]
    assert (made + 1).sum() == 4
    read = Ahead(lambda step: (torch.full((2,), float(step), device=device),), device, on=True, end=9)
    for step in range(3):
        assert (read.of(step)[0] + 1).sum() == 2 * step + 2
        read.prepare(step + 1)


def test_everything_is_as_before_afterwards() -> None:
    before = (torch.zeros, Tensor.to, Tensor.device, torch.Generator, torch.cuda.is_available, torch.autocast.__init__)
    with pretended():
        assert torch.zeros is not before[0]
    after = (torch.zeros, Tensor.to, Tensor.device, torch.Generator, torch.cuda.is_available, torch.autocast.__init__)
    assert after == before and torch.zeros(2).device.type == "cpu"
