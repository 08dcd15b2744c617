"""One job of several ranks that trains a small student and heads under every strategy, and writes what came out.

    python -m torch.distributed.run --standalone --nproc-per-node 2 tests/distributed/worker.py --out results.json

Everything is one process's work: starting ranks and importing costs more than the training. Results are differences to
`single` in one process on the same global batch, computed here, so that no tensor has to be written.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import plugins.heads  # noqa: F401  registers the heads
from ladd_dist.core.plugin import create
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.engine.discriminator import Heads
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import QUANTITIES, Adam, Parallel, Trainable
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ddp import Ddp
from ladd_dist.parallel.fsdp import Fsdp
from ladd_dist.parallel.gather import whole
from ladd_dist.parallel.ranks import SINGLE, Ranks, join
from ladd_dist.parallel.single import Single
from ladd_dist.parallel.zero import Zero1, Zero2, Zero3

IMAGE = ImageSpec(channels=3, height=8, width=8, num_classes=10)
LATENTS = ImageSpec(channels=4, height=8, width=8, num_classes=3)
TAPS = ("down0", "middle")  # early exit: the teacher's last blocks are not used
WIDE = ("unet", "sdxl", "pixart", "sd3", "sana")
"""Families that are trained on latents of 8 x 12."""
BATCH = 8
STEPS = 20
HALF = STEPS // 2
STRATEGIES: dict[str, Parallel] = {
    "ddp": Ddp(),
    "fsdp": Fsdp(),
    "zero1": Zero1(),
    "zero2": Zero2(),
    "zero3": Zero3(whole_below=0),
    "zero3_some_whole": Zero3(whole_below=1000),
}
MOVES = (
    ("fsdp", "zero3"), ("zero2", "ddp"), ("zero3", "fsdp"), ("ddp", "zero1"), ("zero1", "zero2"),
    ("ddp", "ddp"), ("fsdp", "fsdp"), ("zero1", "zero1"), ("zero2", "zero2"), ("zero3", "zero3"),
)  # fmt: skip
State = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is trained."""

    steps: int = STEPS
    head: str = "max_pool"
    clip: float = 0.0
    penalty: float = 0.0
    shard_teacher: bool = False
    fused: bool = False
    """Whether both updates share one forward pass of the student, made before them."""
    compute: Compute = field(default_factory=Compute)
    family: str = ""
    """A tiny model of diffusers in place of `CUNet`."""
    taps: tuple[str, ...] = TAPS
    width: int = 8
    """Of the images, whose height is 8."""
    only: tuple[str, ...] = ()
    """Strategies; all unless named."""

    @property
    def image(self) -> ImageSpec:
        return dataclasses.replace(LATENTS if self.family else IMAGE, width=self.width)


CASES = {
    "plain": Case(),
    "everything": Case(
        steps=6, head="spectral_norm", clip=0.5, penalty=0.1, shard_teacher=True,
        compute=Compute(accumulate=2, checkpoint=("student", "teacher")),
    ),
    "wide": Case(steps=4, shard_teacher=True, width=12),
    "fused": Case(steps=4, shard_teacher=True, fused=True),
    "bf16": Case(steps=4, shard_teacher=True, compute=Compute(precision="bf16")),
    "sd": Case(
        steps=2, shard_teacher=True, family="sd", taps=("down0", "middle"),
        compute=Compute(checkpoint=("student", "teacher")),
    ),
    "flux": Case(steps=2, shard_teacher=True, fused=True, width=12, family="flux", taps=("double00", "single00")),
    **{
        family: Case(
            steps=2, shard_teacher=True, width=12 if family in WIDE else 8, family=family, taps=taps,
            only=("ddp", "fsdp"),
        )
        for family, taps in {
            "unet": ("down0", "middle"), "class_unet": ("down0", "middle"), "sdxl": ("down0", "middle"),
            "kandinsky3": ("down0", "down1", "down2"), "pixart": ("block00", "block01"), "sd3": ("block00", "block01"),
            "sana": ("block00", "block01"), "flux2": ("double00", "single00"), "qwen_image": ("block00", "block01"),
            "z_image": ("refiner00", "block00"),
        }.items()
    },
}  # fmt: skip


def networks(case: Case) -> dict[str, nn.Module]:
    """The same on every rank. Noise on the weights: zero-initialised layers would hide whatever lies below them."""
    torch.manual_seed(0)
    if case.family:
        student, teacher = pretrained(case), pretrained(case)
    else:
        plain = CUNet(widths=(16, 16), blocks=1, patch=2, embed_dim=32)
        student, teacher = plain.build(image=case.image), plain.build(image=case.image)
    made = {"student": student, "teacher": teacher, "heads": Heads(create("head", case.head), teacher, case.taps)}
    for module in made.values():
        for parameter in module.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made


def pretrained(case: Case) -> Denoiser:
    """A network of diffusers with its texts."""
    from ladd_dist.core.conditions import Conditions
    from ladd_dist.networks.diffusers import Diffusers
    from tests.tiny_diffusers import TOKENS, tiny_table, write_model

    with tempfile.TemporaryDirectory() as folder:
        made = Diffusers(source=str(write_model(Path(folder), case.family)), tokens=TOKENS).load(image=case.image)
    if made.condition_shapes:
        made.attach(Conditions(tiny_table(made.condition_shapes)))
    return made


def draw(step: int, turn: int, micro: int, ranks: Ranks, case: Case, device: torch.device) -> dict[str, Tensor]:
    """This rank's samples of a micro-batch: all ranks' together are the same for any number of them."""
    generator = torch.Generator().manual_seed(1000 * step + turn)
    image = case.image
    images = torch.randn(4, BATCH, *image.shape, generator=generator)
    levels = torch.rand(BATCH, generator=generator) + 0.5
    cond = torch.randint(0, image.num_classes, (BATCH,), generator=generator)
    drawn = {"real": images[0].tanh(), "start": images[1], "eps": images[2], "tau": levels, "cond": cond}
    own = slice(micro, None, case.compute.accumulate), slice(ranks.rank, None, ranks.size)
    return {name: value[own[0]][own[1]].to(device) for name, value in drawn.items()}


class Training:
    """The smallest alternating training, written against `Trainable` alone."""

    def __init__(self, strategy: Parallel, case: Case, ranks: Ranks, device: torch.device, state: State | None) -> None:
        made = networks(case)
        self.case, self.ranks, self.device = case, ranks, device
        self.step = 0
        if state is not None:
            self.step = state["step"]
            for role in ("student", "heads"):
                made[role].load_state_dict(
                    {**made[role].state_dict(), **state[role]["weight"], **state[role]["buffers"]}
                )
        compute = case.compute
        self.trained: dict[str, Trainable] = {}
        for role, lr in (("student", 1e-3), ("heads", 2e-3)):
            adam = Adam(lr=lr, betas=(0.5, 0.99), weight_decay=0.01, clip=case.clip)
            self.trained[role] = strategy.build(
                made[role], role=role, adam=adam, compute=compute, ranks=ranks, device=device
            )
        self.student, self.heads = self.trained["student"], self.trained["heads"]
        if state is not None:
            self.restore(state)
        if case.shard_teacher and hasattr(strategy, "shard_teacher"):
            strategy = dataclasses.replace(strategy, shard_teacher=True)
        self.teacher = strategy.freeze(made["teacher"], compute=compute, ranks=ranks, device=device)
        self.shared: tuple[Tensor, dict[str, Tensor], Tensor] | None = None
        self.dtypes: set[str] = set()
        if not case.family:
            made["student"].middle.qkv.register_forward_hook(lambda _, __, out: self.dtypes.add(str(out.dtype)))
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.leaks: list[str] = []

    def fake(self, drawn: dict[str, Tensor]) -> Tensor:
        sigma = torch.full_like(drawn["tau"], 2.0)
        denoised: Tensor = self.student(2.0 * drawn["start"], sigma, drawn["cond"]).denoised
        return denoised

    def fake_and_seen(self, drawn: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        if self.shared is not None:
            return self.shared
        fake = self.fake(drawn)
        return fake, *self.seen(fake, drawn)

    def seen(self, x0: Tensor, drawn: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        noised = x0 + drawn["tau"].view(-1, 1, 1, 1) * drawn["eps"]
        out = self.teacher(noised, drawn["tau"], drawn["cond"], taps=self.case.taps, denoise=False)
        return {tap: value.float() for tap, value in out.features.items()}, out.cond_vec.float()

    def heads_loss(self, micro: int) -> Tensor:
        drawn = draw(self.step, 0, micro, self.ranks, self.case, self.device)
        with torch.no_grad():
            real, cond_vec = self.seen(drawn["real"], drawn)
            _, fake, _ = self.fake_and_seen(drawn)
        both = {tap: torch.cat([real[tap], fake[tap].detach()]) for tap in self.case.taps}
        logits = self.heads(both, torch.cat([cond_vec, cond_vec]))
        halves = [value.float().chunk(2) for value in logits.values()]
        loss = torch.stack([functional.softplus(-r).mean() + functional.softplus(f).mean() for r, f in halves]).mean()
        if self.case.penalty:
            inputs = {tap: value.detach().requires_grad_() for tap, value in real.items()}
            total = torch.stack([value.sum() for value in self.heads(inputs, cond_vec).values()]).sum()
            gradients = torch.autograd.grad(total, list(inputs.values()), create_graph=True)
            loss = loss + self.case.penalty * sum(gradient.square().flatten(1).sum(1).mean() for gradient in gradients)
        self.sum += loss.detach().double() / self.case.compute.accumulate
        return loss

    def student_loss(self, micro: int) -> Tensor:
        drawn = draw(self.step, 0 if self.case.fused else 1, micro, self.ranks, self.case, self.device)
        fake, features, cond_vec = self.fake_and_seen(drawn)
        with self.heads.frozen():
            logits = self.heads(features, cond_vec)
        loss = (fake - drawn["real"]).square().mean() - torch.stack([v.float().mean() for v in logits.values()]).mean()
        self.sum += loss.detach().double() / self.case.compute.accumulate
        return loss

    def run(self, until: int) -> Training:
        while self.step < until:
            self.shared = None
            if self.case.fused:
                self.shared = self.fake_and_seen(draw(self.step, 0, 0, self.ranks, self.case, self.device))
            for role, loss_of in (("heads", self.heads_loss), ("student", self.student_loss)):
                self.trained[role].set_lr_factor(1 / (1 + self.step))
                self.sum = torch.zeros((), dtype=torch.float64, device=self.device)
                self.norms.append(float(self.trained[role].update(loss_of)))
                self.losses.append(float(self.ranks.mean(self.sum.cpu())))
                for name, trained in self.trained.items():
                    self.leaks += [
                        f"{name}: {parameter} after the update of {role}"
                        for parameter, value in trained.module.named_parameters()
                        if value.grad is not None and bool(value.grad.any())
                    ]
            self.step += 1
        return self

    def save(self) -> State | None:
        """On rank 0, all there is to go on from; None on the others."""
        state: State = {"step": self.step}
        for role, trained in self.trained.items():
            state[role] = {quantity: whole(trained.local(quantity), self.ranks) for quantity in QUANTITIES}
            state[role]["counters"] = trained.counters()
            kept = trained.module.state_dict().keys() - trained.local("weight").keys()
            state[role]["buffers"] = {name: trained.module.get_buffer(name).cpu().clone() for name in kept}
        return state if self.ranks.is_first else None

    def restore(self, state: State) -> None:
        for role, trained in self.trained.items():
            for quantity in QUANTITIES[1:]:
                for name, part in trained.local(quantity).items():
                    part.fill(state[role][quantity][name].reshape(-1)[part.start : part.stop].to(self.device))
            trained.set_counters(state[role]["counters"])


def farthest(values: list[float], expected: list[float]) -> float:
    """Largest relative difference."""
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(values, expected, strict=True))


def apart(state: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative difference in the L2 norm of all tensors.

    Not of the worst element: Adam divides by the gradient's size, so where the gradient is nothing but rounding (the
    bias of attention's keys) two layouts walk apart at the full learning rate, without any effect on the loss.
    """
    assert list(state) == list(expected)
    assert all(state[name].shape == value.shape for name, value in expected.items())
    difference = sum(float((state[name] - value).double().square().sum()) for name, value in expected.items())
    return (difference / sum(float(value.double().square().sum()) for value in expected.values())) ** 0.5


def compare(training: Training, reference: Training, state: State | None, expected: State) -> dict[str, Any]:
    skipped = len(reference.losses) - len(training.losses)
    result: dict[str, Any] = {
        "loss": farthest(training.losses, reference.losses[skipped:]),
        "norm": farthest(training.norms, reference.norms[skipped:]),
        "bits": training.losses == reference.losses[skipped:],
        "leaks": training.leaks[:3],
        "dtypes": sorted(training.dtypes),
        "updates": {role: trained.counters()["updates"] for role, trained in training.trained.items()},
    }
    if state is not None:
        for role, quantity in itertools.product(("student", "heads"), QUANTITIES):
            result[f"{role}/{quantity}"] = apart(state[role][quantity], expected[role][quantity])
    sums = torch.stack([value.double().sum().cpu() for value in training.heads.module.buffers()] or [torch.zeros(())])
    result["buffers"] = float((training.ranks.mean(sums) - sums).abs().max())
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        # Strategies are compared, not the rounding of kernels: float32, and sums in the same order every time.
        torch.backends.cudnn.allow_tf32 = False
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    results: dict[str, Any] = {}
    with join("nccl" if device.type == "cuda" else "gloo", 120, device=device, needs_group=True) as ranks:
        for name in args.cases:
            run_case(name, args.strategies, ranks, device, results)
    if ranks.is_first:
        args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


def run_case(name: str, strategies: list[str], ranks: Ranks, device: torch.device, results: dict[str, Any]) -> None:
    case = CASES[name]
    reference = Training(Single(), case, SINGLE, device, None).run(case.steps)
    expected = reference.save()
    assert expected is not None
    halfway: dict[str, State] = {}
    whole_run: dict[str, Training] = {}
    if name != "plain":
        strategies = [
            label for label in strategies if label in (case.only or STRATEGIES) and label != "zero3_some_whole"
        ]
    for label in strategies:
        started = time.perf_counter()
        training = whole_run[label] = Training(STRATEGIES[label], case, ranks, device, None).run(case.steps // 2)
        if name == "plain":
            halfway[label] = shared(training.save(), ranks)
        built = time.perf_counter()
        training.run(case.steps)
        result = results[f"{name}/{label}"] = compare(training, reference, training.save(), expected)
        result["ms_per_step"] = round(1000 * (time.perf_counter() - built) / (case.steps - case.steps // 2), 1)
        result["first_half_s"] = round(built - started, 2)
    for source, target in MOVES if name == "plain" else ():
        if source in halfway and target in strategies:
            training = Training(STRATEGIES[target], case, ranks, device, halfway[source]).run(case.steps)
            against = whole_run[target] if source == target else reference
            results[f"{source} to {target}"] = compare(training, against, training.save(), expected)


def shared(state: State | None, ranks: Ranks) -> State:
    """Rank 0's, on all."""
    return ranks.from_rank0(lambda: state)  # type: ignore[return-value]


if __name__ == "__main__":
    main()
