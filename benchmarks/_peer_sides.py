"""The two training steps that `benchmarks.peer_step` compares, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from benchmarks._clock import wait
from benchmarks._peer import load_peer, peer_cycle, peer_data
from benchmarks._peer_networks import PeerDenoiser, PeerHeads
from ladd_dist.builders.step import Frozen, build_step
from ladd_dist.core.allocator import keep_freed_memory
from ladd_dist.core.types import Batch, Denoiser, ImageSpec
from ladd_dist.costs.flops import count_flops, count_parameters
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.losses.adversarial import Bce
from ladd_dist.parallel import Adam
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.recipe import Recipe
from plugins.taps import Named
from recipes import exp2_smallconv_warmup

PEER, OURS, STEP_ALONE = "peer", "ours", "our step alone"
SIDES = (PEER, OURS, STEP_ALONE)
"""`ours` keeps the memory of freed tensors, as every run of ours does on a CPU; `our step alone` leaves that memory to
the C library, as the peer does."""
ENDED_S = 30.0


class Order(NamedTuple):
    """What a side is asked to train."""

    side: str
    peer: Path
    batch_size: int
    threads: int
    device: torch.device


class Facts(NamedTuple):
    """What a side says of itself before its first cycle."""

    gflop: float
    """Billions of floating-point operations of a cycle, counted."""
    params: dict[str, int]
    commit: str
    """The peer's commit."""


class Side:
    """A side in a process of its own, so that no setting of one reaches the other."""

    def __init__(self, order: Order) -> None:
        """Start the process; it makes its networks at once."""
        self.order = order
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(order, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def facts(self) -> Facts:
        """What it says of itself; waits until it is ready.

        Raises:
            SystemExit: it could not be made; the message says why.
        """
        found = self._answer()
        if isinstance(found, str):
            raise SystemExit(found)
        return cast(Facts, found)

    def cycle(self, number: int) -> None:
        """Train one cycle, and wait for it."""
        self.pipe.send(number)
        self._answer()

    def end(self) -> int | None:
        """End the process; returns the most bytes that its tensors took on a GPU, None for a CPU."""
        self.pipe.send(None)
        peak = cast(int | None, self._answer())
        self.process.join(ENDED_S)
        return peak

    def _answer(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError as error:
            raise SystemExit(f"the process of {self.order.side!r} ended; its own message stands above") from error


def serve(order: Order, pipe: Connection) -> None:
    """Make a side and train its cycles as they are asked for, until None is."""
    torch.set_num_threads(order.threads)
    if order.side == OURS:
        keep_freed_memory()
    try:
        facts, cycle = make(order)
    except SystemExit as error:
        return pipe.send(str(error))
    pipe.send(facts)
    while (number := pipe.recv()) is not None:
        cycle(number)
        wait(order.device)
        pipe.send(None)
    pipe.send(torch.cuda.max_memory_allocated(order.device) if order.device.type == "cuda" else None)


def make(order: Order) -> tuple[Facts, Callable[[int], Any]]:
    """A side: what it is, and its cycle as a function of the cycle's number. All sides start from the same weights.

    Raises:
        SystemExit: the peer cannot be loaded; the message says why.
    """
    torch.manual_seed(0)
    model, commit = load_peer(order.peer, order.device)
    image = ImageSpec(model.net.img_channels, *2 * (model.net.img_resolution,), model.net.label_dim)
    source = torch.Generator().manual_seed(0)
    x0 = torch.randn(order.batch_size, *image.shape, generator=source).clamp(-1, 1).to(order.device)
    cond = (torch.arange(order.batch_size) % image.num_classes).to(order.device)
    params = {"student": count_parameters(model.net), "heads": count_parameters(model.discriminator)}

    def of_peer(number: int) -> None:
        peer_cycle(model, data, number)

    def of_ours(number: int) -> None:
        step(batch, first + number)

    if order.side == PEER:
        data, cycle = peer_data(model, x0, cond), of_peer
    else:
        step, first = our_step(model, order.batch_size, order.device)
        batch, cycle = Batch(x0, cond, None, None, ()), of_ours
    return Facts(count_flops(lambda: cycle(0)) / 1e9, params, commit), cycle


def our_step(model: Any, batch_size: int, device: torch.device) -> tuple[LaddStep, int]:
    """Our step on the networks and heads of the peer's model; and the number of its first call, past any warm-up."""
    student = PeerDenoiser(model.net, model.discriminator).train().requires_grad_(True)
    teacher = PeerDenoiser(model.teacher, model.discriminator)
    recipe = recipe_of(batch_size, tuple(student.taps))
    train = recipe.train
    common: dict[str, Any] = {"compute": train.compute, "ranks": SINGLE, "device": device}
    adam = Adam(train.lr_student, train.betas_student, train.weight_decay, train.clip)
    trainable = recipe.parallel.build(student, role="student", adam=adam, **common)
    module = PeerHeads(model.discriminator, tuple(student.taps)).train().requires_grad_(True)
    adam = replace(adam, lr=train.lr_heads, betas=train.betas_heads)
    heads = recipe.parallel.build(module, role="heads", adam=adam, **common)
    frozen = Frozen(cast(Denoiser, recipe.parallel.freeze(teacher, **common)), None)
    return build_step(recipe, trainable, heads, frozen), train.steps


def recipe_of(batch_size: int, taps: tuple[str, ...]) -> Recipe:
    """Settings of our step that make it do what the peer's does: its game, four steps, fresh noise, no regulariser."""
    recipe = exp2_smallconv_warmup.RECIPE.laptop
    return replace(recipe, adversarial=Bce(), taps=Named(taps), train=replace(recipe.train, batch_size=batch_size))
