"""The parts of a trainable that all strategies share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ladd_dist.parallel import Adam, FlatShard, Quantity
from ladd_dist.parallel.adamw import EagerAdamW
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.power_iteration import Parametrizations


class BaseTrainable:
    """A network with an AdamW; see `Trainable`. Whatever the strategy, freezing and learning rates work like this."""

    optimizer: torch.optim.AdamW

    def __init__(self, module: nn.Module, adam: Adam, compute: Compute) -> None:
        self.module, self.accumulate, self.base_lr, self.recorded = module, compute.accumulate, adam.lr, compute.graph
        # Taken once: a sharded module shows other tensors between its forward and its backward pass.
        self.named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.parameters = list(self.named.values())
        self.power_iteration = Parametrizations(module)
        self.is_frozen = False
        self.groups: dict[str, list[nn.Parameter]] = getattr(module, "parameter_groups", dict)()
        self.group_norms: dict[str, Tensor] = {}
        self.skipped: Tensor | None = None

    def adamw(self, adam: Adam, kind: type[torch.optim.AdamW] = EagerAdamW) -> torch.optim.AdamW:
        """A new optimizer of the parameters; in a step that is recorded, its learning rate is a tensor (float32)."""
        lr = torch.tensor(adam.lr, device=self.parameters[0].device) if self.recorded else adam.lr
        return kind(
            self.parameters, lr=lr, betas=adam.betas, weight_decay=adam.weight_decay, fused=True,
            capturable=self.recorded,
        )  # fmt: skip

    def set_lr_factor(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.base_lr * factor)
            else:
                group["lr"] = self.base_lr * factor

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        was_training = self.module.training
        self.module.eval()
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self.is_frozen = True
        try:
            yield
        finally:
            self.is_frozen = False
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            self.module.train(was_training)

    def local(self, quantity: Quantity) -> dict[str, FlatShard]:
        return {name: self.part(name, parameter, quantity) for name, parameter in self.named.items()}

    def part(self, name: str, parameter: Tensor, quantity: Quantity) -> FlatShard:
        """This rank's part of one weight or moment."""
        raise NotImplementedError

    def moments(self, tensor: Tensor) -> dict[str, Tensor]:
        """AdamW's state of a tensor; zeros before its first step, as AdamW itself starts."""
        state: dict[str, Tensor] = self.optimizer.state[tensor]
        if not state:
            state["step"] = torch.zeros((), device=tensor.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(tensor), torch.zeros_like(tensor)
        return state

    def optimized(self) -> Sequence[Tensor]:
        """The tensors that AdamW works on."""
        raise NotImplementedError

    def counters(self) -> dict[str, float]:
        return {"updates": float(self.moments(self.optimized()[0])["step"])}

    def set_counters(self, counters: dict[str, float]) -> None:
        for tensor in self.optimized():
            self.moments(tensor)["step"].fill_(counters["updates"])


class ModuleTrainable(BaseTrainable):
    """A trainable with an ordinary PyTorch optimizer.

    Its forward goes through `call`: a wrapper, or the module itself.
    """

    def __init__(
        self, module: nn.Module, call: nn.Module, *, adam: Adam, compute: Compute, device: torch.device
    ) -> None:
        super().__init__(module, adam, compute)
        self.call, self.clip = call, adam.clip
        self.optimizer = self.adamw(adam)
        self.scaler = torch.amp.GradScaler(device.type, enabled=compute.precision == "fp16")
        if self.scaler.is_enabled():
            self.skipped = torch.tensor(False, device=device)
        self.num_skipped = torch.zeros((), dtype=torch.int64, device=device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = (self.module if self.is_frozen else self.call)(*args, **kwargs)
        self.power_iteration.freeze()
        return output

    def reduce_in(self, last: bool) -> AbstractContextManager[Any]:
        """Reduce gradients over ranks, inside, only if this is the last micro-batch."""
        return contextlib.nullcontext()

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        for micro in range(self.accumulate):
            with self.reduce_in(last=micro == self.accumulate - 1):
                self.scaler.scale(loss_of(micro) / self.accumulate).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = self.clip_gradients(self.clip if self.clip > 0 else float("inf"))
        self._note_overflow()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.power_iteration.resume(self.module.training)
        return norm

    def _note_overflow(self) -> None:
        """Keep and count whether the scaler skips this update, without waiting for the device as `get_scale` would."""
        if self.skipped is not None:
            found = self.scaler._found_inf_per_device(self.optimizer).values()  # ranks have equal gradients by now
            self.skipped = torch.stack(list(found)).any()
            self.num_skipped += self.skipped

    def clip_gradients(self, limit: float) -> Tensor:
        """Clip to a norm over all ranks; returns the norm before. Leaves the norms of named parts in `group_norms`."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not self.groups or not gradients:
            return nn.utils.clip_grad_norm_(self.parameters, limit)
        with torch.no_grad():  # in the steps of `clip_grad_norm_`, whose norms of single tensors serve twice
            norms = dict(zip(map(id, gradients), torch._foreach_norm(gradients), strict=True))
            total: Tensor = torch.linalg.vector_norm(torch.stack(list(norms.values())))
            nn.utils.clip_grads_with_norm_(self.parameters, limit, total)
            for name, group in self.groups.items():
                own = torch.stack([norms[id(p.grad)] for p in group if p.grad is not None])
                self.group_norms[name] = torch.linalg.vector_norm(own)
        return total

    def part(self, name: str, parameter: Tensor, quantity: Quantity) -> FlatShard:
        """The whole tensor, on every rank."""
        tensor = parameter if quantity == "weight" else self.moments(parameter)[quantity]
        return FlatShard(tensor, 0, parameter.numel(), parameter.shape, copies=True)

    def optimized(self) -> Sequence[Tensor]:
        return self.parameters

    def counters(self) -> dict[str, float]:
        counters = super().counters()
        if self.scaler.is_enabled():
            scaler = self.scaler.state_dict()
            counters |= {"scale": float(scaler["scale"]), "growth_tracker": float(scaler["_growth_tracker"])}
            counters["skipped"] = float(self.num_skipped)
        return counters

    def set_counters(self, counters: dict[str, float]) -> None:
        super().set_counters(counters)
        if self.scaler.is_enabled() and "scale" in counters:
            state = self.scaler.state_dict()
            state |= {"scale": counters["scale"], "_growth_tracker": int(counters["growth_tracker"])}
            self.scaler.load_state_dict(state)
            self.num_skipped.fill_(int(counters.get("skipped", 0)))  # older checkpoints did not count
