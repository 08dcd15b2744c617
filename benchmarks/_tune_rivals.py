"""What `benchmarks.tune` compares with: adapters that learn with the diffusion loss, put on another network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ladd_dist.builders.teacher import teacher_loss
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.rng import generator, sample_noise
from ladd_dist.core.types import Denoiser
from ladd_dist.samplers.karras import Euler
from ladd_dist.students.adapter import adapter_state, add_adapter, merge_adapter, set_adapter, targeted

RANK, BATCH, LR = 16, 16, 3e-4
Denoise = Callable[[Tensor, Tensor, Tensor], Any]
"""A network, or what stands for one: (x, sigma, cond) -> an output with `denoised`."""


def learned(network: Denoiser, images: Tensor, cond: Tensor, updates: int, seed: int) -> dict[str, Tensor]:
    """An adapter that the network, which is changed, has learned from images [N,C,H,W] with classes [N]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        add_adapter(network, rank=RANK, alpha=float(RANK), layers=targeted(network, ()))
    network.train()
    optimizer = torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], LR)
    for step in range(updates):
        source = generator("tune-rival", seed, step)
        rows = torch.randint(len(images), (BATCH,), generator=source)
        sigma = (1.4 * torch.randn(BATCH, generator=source) - 0.8).exp()
        eps = torch.randn(BATCH, *images.shape[1:], generator=source)
        loss = teacher_loss(network, images[rows], sigma, cond[rows], eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adapter_state(network)


def put_on(network: Denoiser, adapter: Mapping[str, Tensor]) -> Denoiser:
    """The network, which is changed, with an adapter merged into its weights; as it is without one."""
    if adapter:
        add_adapter(network, rank=RANK, alpha=float(RANK), layers=targeted(network, ()))
        set_adapter(network, adapter)
        merge_adapter(network)
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def samples_of(
    network: Denoise, cond: Tensor, shape: tuple[int, int, int], levels: tuple[float, ...],
    rule: Literal["sde", "ode"], steps: int, seed: int,
) -> Tensor:  # fmt: skip
    """Samples [N,C,H,W] of a shape (C,H,W) for classes cond [N], at the student's levels, or in many steps."""

    def denoise(x: Tensor, sigma: Tensor, classes: Tensor) -> Tensor:
        denoised: Tensor = network(x, sigma, classes).denoised
        return denoised

    noise = sample_noise(2_000_003 + seed, range(len(cond)), shape)
    if steps > len(levels):
        return Euler(steps=steps)(denoise, noise, cond)[0]
    source = generator("tune-samples", seed)

    class Source:
        def normal(self, *shape: int) -> Tensor:
            return torch.randn(len(cond), *shape, generator=source)

    return few_step_sample(denoise, noise, cond, levels, rule, Source())
