"""A training step of a recipe without data: what it keeps in memory and how often its networks run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ladd_dist.builders.old_conditions import needs_old
from ladd_dist.builders.step import Frozen, build_critic, build_heads, build_step, freeze
from ladd_dist.builders.teacher import planned_network
from ladd_dist.core.types import Batch, Denoiser
from ladd_dist.costs.memory_model import NetProfile, StepProfile, Unit, buffer_bytes, units_of, weights_of
from ladd_dist.costs.memory_trace import Peak, count_calls, no_data, peak_bytes
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel import QUANTITIES, Adam, Trainable
from ladd_dist.parallel.compute import to_compute_dtype
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.parallel.single import Single
from ladd_dist.recipe import Recipe


@dataclass
class Trial:
    """The recipe's step on one process, to be run with any batch size."""

    recipe: Recipe
    step: LaddStep
    teacher: Denoiser
    frozen: Frozen
    student: Trainable
    heads: Trainable

    def own(self) -> list[Tensor]:
        """Tensors of networks and optimizers: all that is there between steps."""
        networks = (*self.frozen.networks(), self.student.module, self.heads.module)
        tensors: list[Tensor] = [tensor for network in networks for tensor in network.parameters()]
        tensors += [buffer for network in networks for buffer in network.buffers()]
        trained = (self.student, self.heads)
        return tensors + [part.tensor for net in trained for kind in QUANTITIES for part in net.local(kind).values()]

    def peak(self, batch_size: int) -> Peak:
        """Bytes that a step on a batch keeps besides networks, optimizers, gradients and the batch itself."""
        batch = self.batch(batch_size)
        data = [tensor for tensor in batch if isinstance(tensor, Tensor)]
        last = self.recipe.train.steps - 1  # the weights of a finished warm-up: both branches are computed
        return peak_bytes(lambda: self.step(batch, last), [*self.own(), *data])

    def batch(self, size: int) -> Batch:
        """A batch of zeros as the shards give it: images, classes, noise; states of the path and old rows if asked."""
        image, levels = self.recipe.latent(), self.recipe.path_levels()
        shape = image.shape
        x0 = torch.zeros(size, *shape).contiguous(memory_format=torch.channels_last)
        path = torch.zeros(size, len(levels), *shape) if levels else None
        old = torch.zeros(size, dtype=torch.bool) if needs_old(self.recipe) else None
        return Batch(x0, torch.zeros(size, dtype=torch.int64), torch.zeros(size, *shape), path, levels, old)

    def profile(self, batch_size: int) -> StepProfile:
        """The profile of a step on one rank whose share of the batch is `batch_size`."""
        compute = self.recipe.train.compute
        networks: dict[str, list[nn.Module]] = {
            "student": [self.student.module], "teacher": [*self.frozen.networks()],
        }  # fmt: skip
        with contextlib.ExitStack() as counting:
            counted = {
                name: [counting.enter_context(count_calls(module)) for module in modules]
                for name, modules in networks.items()
            }
            peak = self.peak(batch_size)
        micros = compute.accumulate
        nets = {
            name: NetProfile(
                tuple(_per_micro(unit, micros) for units in counted[name] for unit in units),
                sum(buffer_bytes(module) for module in modules),
                weights_of(parameter for module in modules for parameter in module.parameters()),
            )
            for name, modules in networks.items()
        }
        heads = self.heads.module
        tensors = [tensor for tensor in self.batch(batch_size) if isinstance(tensor, Tensor)]
        return StepProfile(
            student=nets["student"],
            teacher=nets["teacher"],
            heads=NetProfile(tuple(Unit(weights) for _, weights in units_of(heads)), buffer_bytes(heads)),
            activations=peak.saved,
            temporaries=peak.live - peak.saved,
            batch=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            accumulate=micros,
            head_updates=self.recipe.train.head_updates,
            recomputes="student" in compute.checkpoint,
            **{"whole_below": self.recipe.parallel.whole_below} if hasattr(self.recipe.parallel, "whole_below") else {},
        )


def _per_micro(unit: Unit, micros: int) -> Unit:
    return unit._replace(forwards=unit.forwards // micros, backwards=unit.backwards // micros)


@contextmanager
def trial(recipe: Recipe, *, with_data: bool = False) -> Iterator[Trial]:
    """The recipe's step, to be run inside: on tensors without data, or `with_data` on the CPU's (to compare)."""
    train = recipe.train
    # fp16 takes the memory of bf16, but its loss scale looks at numbers; compiling would measure the compiler.
    precision = "bf16" if train.compute.precision == "fp16" else train.compute.precision
    compute = dataclasses.replace(train.compute, precision=precision, compile=(), graph=False)
    with torch.device("cpu" if with_data else "meta"):
        teacher, student = planned_network(recipe), planned_network(recipe)
        critic = build_critic(recipe, teacher)
        heads = build_heads(recipe, critic)
        before = planned_network(recipe) if needs_old(recipe) else None
        still = [network for network in (teacher, critic, before) if network is not None]
        for network in still:
            to_compute_dtype(network, compute.dtype)
    with _nothing() if with_data else no_data(*dict.fromkeys(still), student, heads):
        single, cpu = Single(), torch.device("cpu")
        alone = dataclasses.replace(recipe, parallel=single)
        frozen = freeze(alone, teacher, critic, before, compute=compute, ranks=SINGLE, device=cpu)
        adam = Adam(0.0, (0.5, 0.99), 0.0, train.clip)
        build = functools.partial(single.build, adam=adam, compute=compute, ranks=SINGLE, device=cpu)
        trained_student = build(recipe.student.prepare(student), role="student")
        trained_heads = build(heads, role="heads")
        step = build_step(recipe, trained_student, trained_heads, frozen)
        yield Trial(recipe, step, teacher, frozen, trained_student, trained_heads)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
