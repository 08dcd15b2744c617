"""A training step under observation: the arguments of every call, and the tensors that each update changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from ladd_dist.core.types import Batch, NetOutput
from ladd_dist.engine.discriminator import CriticOutput, FrozenCritic
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.parallel import Trainable
from ladd_dist.targets import Target, TargetSample

Role = Literal["student", "heads", "teacher", "average"]
State = dict[Role, dict[str, Tensor]]


class StudentCall(NamedTuple):
    """One forward of the student."""

    x: Tensor
    sigma: Tensor
    cond: Tensor
    denoised: Tensor


class TeacherCall(NamedTuple):
    """One forward of the critic on re-noised images."""

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
    """Parameters, by network, that hold a gradient after the update."""
    losses: list[float]
    """The loss of each micro-batch."""

    def moved(self, role: Role) -> list[str]:
        """Weights and buffers of a network that this update changed."""
        return [name for name, value in self.before[role].items() if not torch.equal(value, self.after[role][name])]


@dataclass
class Recorder:
    """The calls and updates of a step, in order."""

    networks: dict[Role, nn.Module]
    average: Callable[[], Mapping[str, Tensor]] = dict
    students: list[StudentCall] = field(default_factory=list)
    teachers: list[TeacherCall] = field(default_factory=list)
    heads: list[HeadsCall] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    targets: list[TargetSample] = field(default_factory=list)

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

    def __init__(
        self, inner: Trainable, role: Role, recorder: Recorder, offsets: Mapping[str, float] | None = None
    ) -> None:
        """offsets: added to every logit of a head, so that heads differ and some are past a margin."""
        self.inner, self.role, self.recorder, self.offsets = inner, role, recorder, offsets or {}
        self.module, self.accumulate = inner.module, inner.accumulate
        self.is_frozen = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.inner(*args, **kwargs)
        if self.role == "student":
            x, sigma, cond = (value.detach() for value in args[:3])
            self.recorder.students.append(StudentCall(x, sigma, cond, out.denoised.detach()))
            return out
        out = {tap: logits + self.offsets.get(tap, 0.0) for tap, logits in out.items()}
        logits = {tap: value.detach() for tap, value in out.items()}
        features = {tap: value.detach() for tap, value in args[0].items()}
        self.recorder.heads.append(HeadsCall(features, logits, self.is_frozen))
        return out

    def update(self, loss_of: Callable[[int], Tensor]) -> Tensor:
        before = self.recorder.state()
        losses: list[float] = []

        def seen(micro: int) -> Tensor:
            loss = loss_of(micro)
            losses.append(float(loss.detach()))
            return loss

        norm = self.inner.update(seen)
        recorder = self.recorder
        recorder.turns.append(Turn(self.role, before, recorder.state(), recorder.gradients(), losses))
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

    def __init__(self, inner: FrozenCritic, recorder: Recorder) -> None:
        self.network, self.taps, self.renoises = inner.network, inner.taps, inner.renoises
        self.inner, self.recorder = inner, recorder

    def features(self, x0: Tensor, cond: Tensor, tau: Tensor, eps: Tensor, sigma: Tensor) -> CriticOutput:
        output = self.inner.features(x0, cond, tau, eps, sigma)
        kept = {tap: value.detach() for tap, value in output.features.items()}
        self.recorder.teachers.append(TeacherCall(x0.detach(), cond, tau, eps, kept))
        return output

    def __getattr__(self, name: str) -> Any:  # what a regulariser asks for is no comparison of real and fake
        return getattr(self.inner, name)


class WatchedTarget:
    """A target that reports; see `Target`."""

    def __init__(self, inner: Target, recorder: Recorder) -> None:
        self.inner, self.recorder = inner, recorder

    def __call__(self, *args: Any, **kwargs: Any) -> TargetSample:
        target: TargetSample = self.inner(*args, **kwargs)
        self.recorder.targets.append(target)
        return target


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
) -> tuple[LaddStep, Recorder]:
    """The same step on the same networks, observed.

    Old rows keep their stored samples: what the student before training makes of their inputs is in no batch that the
    checks could compare with.
    """
    networks: dict[Role, nn.Module] = {
        "student": step.student.module, "heads": step.heads.module, "teacher": step.critic.network,
    }  # fmt: skip
    recorder = Recorder(networks, average)
    spied = dataclasses.replace(
        step,
        student=cast(Trainable, WatchedNetwork(step.student, "student", recorder)),
        heads=cast(Trainable, WatchedNetwork(step.heads, "heads", recorder, offsets)),
        critic=cast(FrozenCritic, WatchedCritic(step.critic, recorder)),
        target=cast(Target, WatchedTarget(step.target, recorder)),
        micro_batches=dataclasses.replace(step.micro_batches, before=None),
        **changes,
    )
    return spied, recorder
