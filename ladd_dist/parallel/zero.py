"""Optimizer, gradients and weights spread over ranks (DeepSpeed ZeRO; Rajbhandari et al. 2020, arXiv 1910.02054).

Two networks are trained, so there are two engines. DeepSpeed hooks what an engine's forward returns, and takes each
backward pass through it for a part of this engine's update: wrong for the frozen heads, and for a penalty that
differentiates the heads' output a second time. So the engine's forward is the whole computation of a loss (`Losses`),
and inside it the networks are called bare.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ladd_dist.core.errors import UserError
from ladd_dist.core.plugin import register
from ladd_dist.core.ranges import CountOrZero
from ladd_dist.parallel import Adam, FlatShard, Quantity, Trainable
from ladd_dist.parallel.base import BaseTrainable
from ladd_dist.parallel.compute import Compute, Role, prepare
from ladd_dist.parallel.ddp import require_no_batch_norm
from ladd_dist.parallel.ranks import Ranks
from ladd_dist.parallel.shard import Spread, hush, make_contiguous

BUCKET = 25_000_000
"""Elements that one collective sends (100 MB); DeepSpeed's own 500 million would reserve 2 GB for a small network."""


@dataclass(frozen=True)
class ZeroOptimization:
    """DeepSpeed's settings of the same name."""

    stage: int
    reduce_bucket_size: int = BUCKET
    allgather_bucket_size: int = BUCKET
    contiguous_gradients: bool = True
    overlap_comm: bool = False
    """Off: reducing while the backward pass runs reads buffers that the next micro-batch writes."""


@dataclass(frozen=True)
class Zero3Optimization(ZeroOptimization):
    """DeepSpeed's settings of stage 3."""

    stage3_param_persistence_threshold: int = 0
    stage3_prefetch_bucket_size: int = BUCKET // 5
    stage3_max_live_parameters: int = 4 * BUCKET
    stage3_max_reuse_distance: int = 0
    """0: a layer is given up after use; by default only networks of over a billion weights would be."""


@dataclass(frozen=True)
class Throughput:
    """DeepSpeed's timer of samples a second; off, because it waits for the accelerator."""

    enabled: bool = False
    synchronized: bool = False


@dataclass(frozen=True)
class Timers:
    """DeepSpeed's timers."""

    throughput: Throughput = Throughput()


@dataclass(frozen=True)
class EngineConfig:
    """DeepSpeed's settings of one engine, by its own names.

    Accumulation and micro-batch size are bookkeeping alone: losses are means, and nothing is scaled by these.
    """

    gradient_accumulation_steps: int
    gradient_clipping: float
    zero_optimization: ZeroOptimization
    train_micro_batch_size_per_gpu: int = 1
    zero_allow_untested_optimizer: bool = True
    steps_per_print: int = 10**9
    timers: Timers = Timers()


@dataclass(frozen=True)
class Zero(Spread):
    """Base of the three stages."""

    stage: ClassVar[int]

    def build(
        self, module: nn.Module, *, role: Role, adam: Adam, compute: Compute, ranks: Ranks, device: torch.device
    ) -> Trainable:
        self.require(role, compute)
        stage = self._stage_of(role)
        require_no_batch_norm(module)
        prepare(module, compute, role, device)
        make_contiguous(module)
        _start(ranks, device)
        config = EngineConfig(compute.accumulate, max(adam.clip, 0.0), self.optimization(stage))
        trainable = Zero3Trainable if stage == 3 else Zero12Trainable
        return trainable(module, adam=adam, compute=compute, config=config)

    def _stage_of(self, role: Role) -> int:
        return 1 if role == "heads" else self.stage  # heads are small: only their moments are worth spreading

    def require(self, role: Role, compute: Compute) -> None:
        if compute.precision == "fp16":
            raise UserError(
                f"parallel {self.name!r} does not do precision fp16: DeepSpeed would keep the weights in fp16 and "
                "scale the loss in its own way; use --train.compute.precision bf16, or --parallel ddp"
            )
        if self._stage_of(role) == 3 and role in compute.compile:
            raise UserError(
                f"parallel {self.name!r} cannot compile the {role}: its weights come and go between the layers of a "
                "compiled block; use --parallel zero2 or fsdp, or do not compile it"
            )

    def optimization(self, stage: int) -> ZeroOptimization:
        """DeepSpeed's settings of how an engine of this stage spreads its network."""
        return ZeroOptimization(stage)


@register("zero1")
@dataclass(frozen=True)
class Zero1(Zero):
    """AdamW's moments spread over ranks (DeepSpeed ZeRO stage 1)."""

    stage = 1


@register("zero2")
@dataclass(frozen=True)
class Zero2(Zero):
    """Moments and gradients of the student spread over ranks (DeepSpeed ZeRO stage 2)."""

    stage = 2


@register("zero3")
@dataclass(frozen=True)
class Zero3(Zero):
    """Moments, gradients and weights of the student spread over ranks (DeepSpeed ZeRO stage 3)."""

    stage = 3
    whole_below: CountOrZero = 10_000
    """Tensors with at most so many elements are kept whole on every rank between layers: fewer, larger messages."""

    def optimization(self, stage: int) -> ZeroOptimization:
        if stage != 3:  # of the heads
            return super().optimization(stage)
        return Zero3Optimization(stage, stage3_param_persistence_threshold=self.whole_below)


def _start(ranks: Ranks, device: torch.device) -> None:
    """Import DeepSpeed for this device, silently, and let it use the process group that is there."""
    os.environ.setdefault("LOCAL_RANK", str(ranks.local_rank))  # not set when one process is alone
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    hush()
    # A filter and not a level: importing sets the level, and then talks.
    logging.getLogger("DeepSpeed").addFilter(_is_warning)
    import deepspeed  # type: ignore[import-untyped]

    if device.type == "cpu":
        # Used for inference alone, and compiling it takes minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


class Losses(nn.Module):
    """The module that an engine wraps: its forward computes a loss, with the network inside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *, loss_of: Callable[[], Tensor]) -> Tensor:
        """The value of `loss_of` (0-d)."""
        return loss_of()


class ZeroTrainable(BaseTrainable):
    """A network in a DeepSpeed engine, as a `Trainable`."""

    def __init__(self, module: nn.Module, *, adam: Adam, compute: Compute, config: EngineConfig) -> None:
        import deepspeed

        super().__init__(module, adam, compute)
        self.shapes = {name: parameter.shape for name, parameter in self.named.items()}  # stage 3 empties them
        settings = dataclasses.asdict(config)
        self.engine: Any = deepspeed.initialize(
            # Of this class itself: DeepSpeed warns of any other, a subclass too.
            model=Losses(module),
            optimizer=self.adamw(adam, torch.optim.AdamW),
            config=settings,
            dist_init_required=False,
        )[0]
        self.optimizer = self.engine.optimizer.optimizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.module(*args, **kwargs)
        self.power_iteration.freeze()
        return output

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        for micro in range(self.accumulate):
            loss = self.engine(loss_of=lambda micro=micro: loss_of(micro))
            self.engine.backward(loss)  # divides by the number of micro-batches
            self.engine.step()  # acts after the last one
        self.power_iteration.resume(self.module.training)
        return torch.as_tensor(self.engine.get_global_grad_norm())


class Zero12Trainable(ZeroTrainable):
    """Stages 1 and 2: every rank computes with whole weights, and owns a range of all of them laid end to end."""

    def optimized(self) -> Sequence[Tensor]:
        flats: list[Tensor] = self.engine.optimizer.single_partition_of_fp32_groups
        return flats

    def part(self, name: str, parameter: Any, quantity: Quantity) -> FlatShard:
        shape = self.shapes[name]
        if quantity == "weight":
            return FlatShard(parameter.detach(), 0, shape.numel(), shape, copies=True)
        (flat,) = self.optimized()  # one group of parameters, so one flat tensor
        moment = self.moments(flat)[quantity]
        if parameter._hp_mapping is None:  # this rank's range begins after this tensor, or ends before it
            return FlatShard(moment[:0], 0, 0, shape, copies=False)
        inside, held = parameter._hp_mapping.lp_fragment_address, parameter._hp_mapping.hp_fragment_address
        return FlatShard(
            moment.narrow(0, held.start, held.numel), inside.start, inside.start + held.numel, shape, copies=False
        )


class Zero3Trainable(ZeroTrainable):
    """Stage 3: every rank owns the same share of each tensor, the last one padded."""

    def optimized(self) -> Sequence[Tensor]:
        flats: list[Tensor] = self.engine.optimizer.fp32_partitioned_groups_flat
        return flats

    def part(self, name: str, parameter: Any, quantity: Quantity) -> FlatShard:
        if quantity == "weight":
            tensor = parameter.ds_tensor.detach()
        else:
            for flat in self.optimized():
                self.moments(flat)
            tensor, _ = parameter._z3_optimizer._get_fp32_opt_state_partition(
                parameter, release_swap_buffers=False, optim_state_key=quantity
            )
        whole, share = self.shapes[name].numel(), tensor.numel()
        start = min(torch.distributed.get_rank() * share, whole)
        return FlatShard(tensor, start, min(start + share, whole), self.shapes[name], copies=False)
