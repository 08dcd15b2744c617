"""A training step under observation: who was called with what, and which update changed what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ladd_dist.core.types import Batch, NetOutput
from ladd_dist.engine.discriminator import FrozenCritic, Seen
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel import Trainable
from ladd_dist.targets import Pull, Target

Role = Literal["student", "heads", "teacher", "average"]
State = dict[Role, dict[str, Tensor]]


class StudentCall(NamedTuple):
    """One forward of the student."""

    x: Tensor
    sigma: Tensor
    cond: Tensor
    denoised: Tensor


class TeacherCall(NamedTuple):
    """One look of the teacher at re-noised images."""

    x0: Tensor
    cond: Tensor
    tau: Tensor
    eps: Tensor
    features: dict[str, Tensor]


class HeadsCall(NamedTuple):
    """One forward of the heads."""

    features: dict[str, Tensor]
    logits: dict[str, Tensor]
    frozen: bool


class Turn(NamedTuple):
    """One update."""

    role: Role
    before: State
    after: State
    gradients: dict[Role, list[str]]
    """Parameters, by network, that hold a gradient after it."""
    losses: list[float]
    """Of its micro-batches."""

    def moved(self, role: Role) -> list[str]:
        """Weights and buffers of a network that this update changed."""
        return [name for name, value in self.before[role].items() if not torch.equal(value, self.after[role][name])]


@dataclass
class Watch:
    """What happened, in order."""

    networks: dict[Role, nn.Module]
    average: Callable[[], Mapping[str, Tensor]] = dict
    students: list[StudentCall] = field(default_factory=list)
    teachers: list[TeacherCall] = field(default_factory=list)
    heads: list[HeadsCall] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)

    def state(self) -> State:
        """A copy of every weight and buffer."""
        found: State = {role: _copied(network.state_dict()) for role, network in self.networks.items()}
        return {**found, "average": _copied(self.average())}

    def gradients(self) -> dict[Role, list[str]]:
        """Parameters that hold a gradient."""
        return {
            role: [name for name, parameter in network.named_parameters() if parameter.grad is not None]
            for role, network in self.networks.items()
        }


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class WatchedNetwork:
    """A trainable that reports; see `Trainable`."""

    def __init__(self, inner: Trainable, role: Role, watch: Watch, offsets: Mapping[str, float] | None = None) -> None:
        """offsets: added to every logit of a head, so that heads differ and some are past a margin."""
        self.inner, self.role, self.watch, self.offsets = inner, role, watch, offsets or {}
        self.module, self.accumulate = inner.module, inner.accumulate
        self.is_frozen = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.inner(*args, **kwargs)
        if self.role == "student":
            x, sigma, cond = (value.detach() for value in args[:3])
            self.watch.students.append(StudentCall(x, sigma, cond, out.denoised.detach()))
            return out
        out = {tap: logits + self.offsets.get(tap, 0.0) for tap, logits in out.items()}
        logits = {tap: value.detach() for tap, value in out.items()}
        features = {tap: value.detach() for tap, value in args[0].items()}
        self.watch.heads.append(HeadsCall(features, logits, self.is_frozen))
        return out

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        before = self.watch.state()
        losses: list[float] = []

        def seen(micro: int) -> Tensor:
            loss = loss_of(micro)
            losses.append(float(loss.detach()))
            return loss

        norm = self.inner.update(seen)
        watch = self.watch
        watch.turns.append(Turn(self.role, before, watch.state(), watch.gradients(), losses))
        return norm

    @contextmanager
    def frozen(self) -> Iterator[None]:
        with self.inner.frozen():
            self.is_frozen = True
            try:
                yield
            finally:
                self.is_frozen = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class WatchedCritic:
    """A frozen critic that reports; see `FrozenCritic`."""

    def __init__(self, inner: FrozenCritic, watch: Watch) -> None:
        self.network, self.taps, self.renoises = inner.network, inner.taps, inner.renoises
        self.inner, self.watch = inner, watch

    def features(self, x0: Tensor, cond: Tensor, tau: Tensor, eps: Tensor) -> Seen:
        seen = self.inner.features(x0, cond, tau, eps)
        kept = {tap: value.detach() for tap, value in seen.features.items()}
        self.watch.teachers.append(TeacherCall(x0.detach(), cond, tau, eps, kept))
        return seen

    def __getattr__(self, name: str) -> Any:  # what a regulariser asks for is no comparison of real and fake
        return getattr(self.inner, name)


class WatchedTarget:
    """A target that reports; see `Target`."""

    def __init__(self, inner: Target, watch: Watch) -> None:
        self.inner, self.watch = inner, watch

    def __call__(self, *args: Any, **kwargs: Any) -> Pull:
        pull = self.inner(*args, **kwargs)
        self.watch.pulls.append(pull)
        return pull


class Echo:
    """A student that returns the teacher's own samples and learns nothing."""

    def __init__(self, inner: Trainable, batch: Batch) -> None:
        self.module, self.accumulate, self.batch = inner.module, 1, batch

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor) -> NetOutput:
        return NetOutput(self.batch.repeat(len(x) // len(self.batch.x0)).x0, {}, sigma)

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        return loss_of(0).detach()


def watched(
    step: LaddStep,
    average: Callable[[], Mapping[str, Tensor]] = dict,
    offsets: Mapping[str, float] | None = None,
    **changes: Any,
) -> tuple[LaddStep, Watch]:
    """The same step on the same networks, observed."""
    networks: dict[Role, nn.Module] = {
        "student": step.student.module, "heads": step.heads.module, "teacher": step.critic.network,
    }  # fmt: skip
    watch = Watch(networks, average)
    spied = dataclasses.replace(
        step,
        student=cast(Trainable, WatchedNetwork(step.student, "student", watch)),
        heads=cast(Trainable, WatchedNetwork(step.heads, "heads", watch, offsets)),
        critic=cast(FrozenCritic, WatchedCritic(step.critic, watch)),
        target=cast(Target, WatchedTarget(step.target, watch)),
        **changes,
    )
    return spied, watch
