"""A LADD step on toy networks, whose trainables keep the gradients of their last update."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.core.rng import whole_batch
from ladd_dist.core.types import Batch, Denoiser, ImageSpec
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.draws import MicroBatches, Part
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.heads import Head
from ladd_dist.losses.adversarial import Bce
from ladd_dist.losses.distance import Mse
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import Adam
from ladd_dist.parallel.base import ModuleTrainable
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import Recipe
from ladd_dist.regularisers.penalties import NoRegulariser
from ladd_dist.rollouts.policies import OffPolicy
from ladd_dist.sigmas.laws import FixedSet, LogNormal
from ladd_dist.starts.couplings import Stored
from ladd_dist.targets.pulls import StoredSample
from plugins.heads import SpectralNorm
from plugins.schedules import Constant

assert Recipe  # importing it registers every adversarial loss and regulariser of the core

IMAGE = ImageSpec(channels=3, height=8, width=8, num_classes=10)
NETWORK = CUNet(widths=(8, 16), patch=2, embed_dim=16)
LEVELS = (80.0, 3.92, 1.29, 0.34)
TAPS = ("down0", "down1", "middle")


class Watched(ModuleTrainable):
    """A trainable that keeps the gradients of its last update, and counts its updates."""

    gradients: dict[str, Tensor]
    updates = 0

    def __init__(self, module: nn.Module, *, lr: float, compute: Compute) -> None:
        adam = Adam(lr, betas=(0.5, 0.99), weight_decay=0.01, clip=0.0)
        super().__init__(module, module, adam=adam, compute=compute, device=torch.device("cpu"))
        self.optimizer.register_step_pre_hook(self._watch)

    def _watch(self, *_: Any) -> None:
        named = self.module.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
        self.updates += 1


def network(settings: CUNet = NETWORK, image: ImageSpec = IMAGE) -> Denoiser:
    """A network whose zero-initialised layers are woken up."""
    torch.manual_seed(0)
    module = settings.build(image=image)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def make_step(
    *,
    head: Head | None = None,
    taps: tuple[str, ...] = TAPS,
    lr_student: float = 1e-3,
    lr_heads: float = 1e-3,
    settings: CUNet = NETWORK,
    image: ImageSpec = IMAGE,
    accumulate: int = 1,
    **options: Any,
) -> LaddStep:
    """A step with a student like its teacher; `options` are fields of `LaddStep` or of its `MicroBatches`."""
    teacher = network(settings, image)
    student = copy.deepcopy(teacher)
    torch.manual_seed(1)
    heads = Heads(head or SpectralNorm(width=8, conditioned=True), teacher, taps)
    drawn: dict[str, Any] = {
        "start": Stored(),
        "rollout": OffPolicy(),
        "student_sigma": FixedSet(),
        "renoise_sigma": LogNormal(mean=-0.5, std=1.2),
        "levels": LEVELS,
        "seed": 5,
        "wrong_of": image.num_classes if options.get("mismatched") else 0,
    }
    drawn |= {name: options.pop(name) for name in drawn.keys() & options.keys()}
    fields: dict[str, Any] = {
        "micro_batches": MicroBatches(**drawn),
        "target": StoredSample(),
        "adversarial": Bce(),
        "distance": Mse(),
        "regulariser": NoRegulariser(),
        "adv_weight": Constant(value=0.3),
        "distill_weight": Constant(value=1.0),
        "mode": "fused",
        "head_updates": 1,
    }
    compute = Compute(accumulate=accumulate)
    own = {
        "student": Watched(student, lr=lr_student, compute=compute),
        "heads": Watched(heads, lr=lr_heads, compute=compute),
    }
    return LaddStep(**{"critic": FrozenCritic(teacher, taps), **own, **fields, **options})


def make_batch(num: int = 6, image: ImageSpec = IMAGE, seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    shape = (num, *image.shape)
    x0, noise = torch.randn(shape, generator=source).clamp(-1, 1), torch.randn(shape, generator=source)
    path = torch.stack([x0 + level * noise for level in LEVELS], dim=1)
    cond = torch.randint(image.num_classes, (num,), generator=source)
    return Batch(x0.contiguous(memory_format=torch.channels_last), cond, noise, path, LEVELS)


def whole(step: LaddStep, batch: Batch, number: int = 0) -> Part:
    """The batch as one micro-batch, with the random numbers of a step."""
    (part,) = step.parts(batch, number, whole_batch(len(batch.x0)))
    return part


def weights(trainable: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainable.module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], rtol: float = 0.0) -> None:
    """Equal, or equal to `rtol` of the largest value of each tensor."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        difference = float((value - second[name]).abs().max())
        assert difference <= rtol * float(value.abs().max()), (name, difference)


def difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The norm of the difference of all tensors together, as a share of the norm: noise in zeros weighs nothing."""
    assert first.keys() == second.keys()
    one, other = (torch.cat([tree[name].flatten().double() for name in first]) for tree in (first, second))
    return float((one - other).norm() / one.norm())
