"""How networks are computed - precision, activation checkpointing, compilation - and what that leaves as it is."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ladd_toys import IMAGE, LEVELS, NETWORK, TAPS, difference, make_batch, make_step, network, weights
from torch import Tensor, nn

from ladd_dist.core.types import Denoiser
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.step_metrics import scaling, skipped
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import Adam
from ladd_dist.parallel.base import ModuleTrainable
from ladd_dist.parallel.compute import Compute, Role, prepare, to_compute_dtype
from ladd_dist.parallel.ddp import build_replicated
from ladd_dist.parallel.ranks import SINGLE, Ranks
from ladd_dist.parallel.single import Single, replicate
from ladd_dist.regularisers.penalties import R1
from plugins.heads import MaxPool, SmallConv, SpectralNorm

CPU = torch.device("cpu")
ADAM = Adam(1e-3, (0.5, 0.99), weight_decay=0.0, clip=0.0)
TINY = CUNet(widths=(8,), blocks=1, patch=2, embed_dim=16)
DEEP = CUNet(widths=(16, 16, 16), blocks=2, patch=1, embed_dim=16)


def build(module: nn.Module, compute: Compute, role: Role = "student") -> ModuleTrainable:
    trainable = Single().build(module, role=role, adam=ADAM, compute=compute, ranks=SINGLE, device=CPU)
    assert isinstance(trainable, ModuleTrainable)
    return trainable


def loss_of(trainable: Callable[..., Any]) -> Tensor:
    batch = make_batch(4)
    denoised = trainable(batch.x0 + batch.noise, torch.tensor(LEVELS), batch.cond).denoised
    loss: Tensor = (denoised - batch.x0).square().mean()
    return loss


def gradients(trainable: ModuleTrainable) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its gradient by parameter name."""
    loss = loss_of(trainable)
    loss.backward()
    found = {name: p.grad.clone() for name, p in trainable.module.named_parameters() if p.grad is not None}
    trainable.module.zero_grad()
    return loss.detach(), found


def saved_bytes(compute: Callable[[], Any]) -> int:
    """What autograd keeps for the backward pass, every storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    del result
    return sum(kept.values())


# Activation checkpointing


def test_activation_checkpointing_gives_the_same_gradients_and_names_and_keeps_less() -> None:
    plain, thrifty = (build(network(DEEP), Compute(checkpoint=roles)) for roles in ((), ("student",)))  # type: ignore[arg-type]
    assert list(plain.module.state_dict()) == list(thrifty.module.state_dict())
    assert list(plain.local("weight")) == list(thrifty.local("weight"))
    first, second = gradients(plain), gradients(thrifty)
    assert torch.equal(first[0], second[0])
    for name, value in first[1].items():
        assert torch.equal(value, second[1][name]), name
    assert saved_bytes(lambda: loss_of(thrifty)) < 0.5 * saved_bytes(lambda: loss_of(plain))


def test_checkpointing_of_one_role_leaves_the_others_alone() -> None:
    compute = Compute(checkpoint=("teacher",))
    assert saved_bytes(lambda: loss_of(build(network(DEEP), compute))) == saved_bytes(
        lambda: loss_of(build(network(DEEP), Compute()))
    )


def test_a_checkpointed_teacher_passes_the_same_gradient_to_its_input() -> None:
    found, kept = [], []
    for roles in ((), ("teacher",)):
        frozen = replicate(network(DEEP), Compute(checkpoint=roles), CPU)  # type: ignore[arg-type]
        assert isinstance(frozen, Denoiser)
        teacher, batch = FrozenCritic(frozen, ("down1", "middle")), make_batch(4)
        x0 = batch.x0.clone().requires_grad_()

        def see(teacher: FrozenCritic = teacher, x0: Tensor = x0, batch: Any = batch) -> Tensor:
            levels = torch.tensor(LEVELS)
            seen = teacher.features(x0, batch.cond, levels, batch.noise, levels)
            return torch.stack([value.square().sum() for value in seen.features.values()]).sum()

        kept.append(saved_bytes(see))
        see().backward()
        found.append(x0.grad)
    assert found[0] is not None and found[1] is not None
    assert torch.equal(found[0], found[1])
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("head", [SmallConv(width=8), MaxPool(width=8), SpectralNorm(width=8)], ids=lambda h: h.name)
def test_checkpointed_heads_have_the_same_gradients(head: Any) -> None:
    found = []
    source = torch.Generator().manual_seed(0)
    seen = {tap: torch.randn(4, NETWORK.build(image=IMAGE).taps[tap].channels, 4, 4, generator=source) for tap in TAPS}
    for roles in ((), ("heads",)):
        torch.manual_seed(1)
        heads = build(Heads(head, network(), TAPS), Compute(checkpoint=roles), "heads")  # type: ignore[arg-type]
        logits = heads(seen, torch.zeros(4, 16))
        torch.stack([value.square().sum() for value in logits.values()]).sum().backward()
        found.append({name: p.grad for name, p in heads.module.named_parameters() if p.grad is not None})
        found.append(dict(heads.module.named_buffers()))
    gradients, buffers, again, buffers_again = found
    assert difference(gradients, again) < 1e-6
    # Spectral norm's vectors: the second computation of a forward must not move them once more.
    assert not buffers or difference(buffers, buffers_again) == 0.0


def test_a_whole_step_with_everything_checkpointed_trains_the_same() -> None:
    """A penalty differentiates the heads twice, through their second computation too."""
    plain, thrifty = (make_step(regulariser=R1(), head_updates=2) for _ in range(2))
    compute = Compute(checkpoint=("student", "heads", "teacher"))
    for role in compute.checkpoint:
        prepare(thrifty.critic.network if role == "teacher" else getattr(thrifty, role).module, compute, role, CPU)
    for number in range(2):
        for step in (plain, thrifty):
            step(make_batch(seed=number), number)
    for one, other in ((plain.heads, thrifty.heads), (plain.student, thrifty.student)):
        assert difference(weights(one), weights(other)) < 1e-6


# Precision


def watch_outputs(module: nn.Module, kind: type[nn.Module]) -> list[torch.dtype]:
    """The dtypes that layers of a kind will give."""
    seen: list[torch.dtype] = []
    for layer in module.modules():
        if isinstance(layer, kind):
            layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    return seen


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_inside_alone(precision: Any) -> None:
    half, full = build(network(), Compute(precision=precision)), build(network(), Compute())
    seen = watch_outputs(half.module, nn.Conv2d)
    loss, gradient = gradients(half)
    assert set(seen) == {half_dtype := Compute(precision=precision).dtype}
    assert half_dtype in (torch.bfloat16, torch.float16)
    assert loss.dtype == torch.float32
    assert {p.dtype for p in half.module.parameters()} == {torch.float32}
    assert {value.dtype for value in gradient.values()} == {torch.float32}
    assert {part.tensor.dtype for kind in ("exp_avg", "exp_avg_sq") for part in half.local(kind).values()} == {
        torch.float32
    }
    expected, exact = gradients(full)
    assert float(loss) == pytest.approx(float(expected), rel=0.01)
    assert loss != expected
    assert difference(exact, gradient) < 0.05


def test_fp32_is_no_autocast() -> None:
    trainable = build(network(), Compute())
    seen = watch_outputs(trainable.module, nn.Conv2d)
    gradients(trainable)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_kept_in_half_precision_give_the_bits_of_casting_them_each_time(precision: Any) -> None:
    """The frozen teacher: half the memory, and the same features."""
    compute = Compute(precision=precision)
    cast, kept = (prepare(network().eval(), compute, "teacher", CPU) for _ in range(2))
    to_compute_dtype(kept, compute.dtype)
    batch, sigma = make_batch(4), torch.tensor(LEVELS)
    with torch.no_grad():
        one, other = (module(batch.x0, sigma, batch.cond, taps=TAPS) for module in (cast, kept))
    assert torch.equal(one.denoised, other.denoised)
    assert torch.equal(one.cond_vec, other.cond_vec)
    for tap in TAPS:
        assert torch.equal(one.features[tap], other.features[tap]), tap
    convs = [layer for layer in kept.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert {layer.weight.dtype for layer in convs} == {compute.dtype}
    others = {p.dtype for layer in kept.modules() if isinstance(layer, nn.GroupNorm) for p in layer.parameters()}
    assert others <= {torch.float32}


def test_the_frozen_teacher_is_in_eval_mode_and_needs_no_gradient() -> None:
    frozen = Single().freeze(network().train(), compute=Compute(precision="bf16"), ranks=SINGLE, device=CPU)
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_fp16_scales_the_loss_and_not_what_comes_of_it() -> None:
    """Gradients that fp16 cannot hold survive; the update and the norm are those without a scale."""
    half, full = build(network(), Compute(precision="fp16")), build(network(), Compute())
    norms = [float(trainable.update(lambda micro, t=trainable: 1e-6 * loss_of(t))) for trainable in (half, full)]
    assert norms[0] == pytest.approx(norms[1], rel=0.02)
    assert norms[0] > 0
    first, second = (dict(trainable.module.named_parameters()) for trainable in (half, full))
    assert difference(first, second) < 1e-3
    counters = half.counters()
    assert counters["scale"] > 1_000
    assert counters["growth_tracker"] == 1
    assert "scale" not in full.counters()


def test_an_overflow_in_fp16_skips_the_update_and_lowers_the_scale() -> None:
    trainable = build(network(), Compute(precision="fp16"))
    before = copy.deepcopy(dict(trainable.module.named_parameters()))
    scale = trainable.counters()["scale"]
    trainable.update(lambda micro: loss_of(trainable) * float("inf"))
    assert difference(before, dict(trainable.module.named_parameters())) == 0.0
    assert trainable.counters() == {"updates": 0.0, "scale": scale / 2, "growth_tracker": 0.0, "skipped": 1.0}
    assert all(parameter.grad is None for parameter in trainable.parameters)


def test_an_update_says_whether_it_was_skipped_and_counts_it() -> None:
    trainable, full = build(network(), Compute(precision="fp16")), build(network(), Compute())
    assert full.skipped is None and skipped(full) == {} == scaling({"student": full})
    said = []
    for factor in (float("inf"), 1e-3, float("nan"), 1e-3):
        trainable.update(lambda _, factor=factor: loss_of(trainable) * factor)
        said.append(bool(skipped(trainable, full)["skipped"]))
    assert said == [True, False, True, False]
    assert scaling({"student": trainable, "heads": full}) == {"skipped/student": 2.0, "loss_scale/student": 16384.0}


def test_a_norm_that_is_too_large_without_an_overflow_is_no_skipped_update() -> None:
    """The scaler would not lower its scale: a run would go on for ever and learn nothing."""
    trainable = build(nn.Linear(2, 1, bias=False), Compute(precision="fp16"))
    weight = trainable.parameters[0]
    norm = trainable.update(lambda _: (weight * torch.tensor(2.0**100)).sum())
    assert norm.isinf() and not bool(trainable.skipped)


def test_what_an_older_checkpoint_did_not_count_is_none() -> None:
    trainable = build(network(), Compute(precision="fp16"))
    trainable.set_counters({"updates": 3.0, "scale": 8.0, "growth_tracker": 1.0})
    assert trainable.counters() == {"updates": 3.0, "scale": 8.0, "growth_tracker": 1.0, "skipped": 0.0}


# Updates


@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_an_update_is_on_the_mean_over_micro_batches(clip: float) -> None:
    """Clipped as a whole, not micro-batch by micro-batch; the norm is that before."""
    one, four = network(), network()
    adam = ADAM.__class__(1e-3, (0.5, 0.99), 0.0, clip)
    batch, sigma = make_batch(8), torch.ones(8)

    def loss(module: Any, rows: slice) -> Tensor:
        denoised = module(batch.x0[rows], sigma[rows], batch.cond[rows]).denoised
        found: Tensor = denoised.square().mean()
        return found

    asked: list[int] = []
    common: dict[str, Any] = {"role": "student", "adam": adam, "ranks": SINGLE, "device": CPU}
    plain = Single().build(one, compute=Compute(), **common)
    parted = Single().build(four, compute=Compute(accumulate=4), **common)
    norm = plain.update(lambda micro: loss(plain, slice(0, 8)))
    norms = parted.update(lambda micro: asked.append(micro) or loss(parted, slice(2 * micro, 2 * micro + 2)))
    assert asked == [0, 1, 2, 3]
    torch.testing.assert_close(norm, norms)
    assert (clip == 0.0) or norm > clip
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        first, second = ({name: p.flat() for name, p in t.local(kind).items()} for t in (plain, parted))
        assert difference(first, second) < 1e-4
    moments = torch.cat([part.flat() for part in plain.local("exp_avg").values()]).norm()
    if clip > 0:
        assert float(moments) == pytest.approx(0.5 * clip, rel=1e-3)  # (1 - beta_1) of the clipped gradient


def test_moments_and_counters_go_on_in_another_trainable() -> None:
    first, second = build(network(), Compute()), build(network(), Compute())
    for _ in range(3):
        first.update(lambda micro: loss_of(first))
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        for name, part in second.local(kind).items():
            with torch.no_grad():
                part.fill(first.local(kind)[name].flat())
    second.set_counters(first.counters())
    assert second.counters() == {"updates": 3.0}
    for trainable in (first, second):
        trainable.update(lambda micro, t=trainable: loss_of(t))
    assert difference(*(dict(trainable.module.named_parameters()) for trainable in (first, second))) == 0.0


def test_the_scale_of_fp16_goes_on_in_another_trainable() -> None:
    first, second = (build(network(), Compute(precision="fp16")) for _ in range(2))
    first.update(lambda micro: loss_of(first) * float("inf"))
    for _ in range(2):
        first.update(lambda micro: loss_of(first))
    counters = first.counters()
    second.set_counters(counters)
    assert second.counters() == counters == {"updates": 2.0, "scale": 32768.0, "growth_tracker": 2.0, "skipped": 1.0}


def test_the_learning_rate_factor_multiplies_the_base_rate() -> None:
    trainable = build(network(), Compute())
    for factor in (0.5, 0.25, 1.0):
        trainable.set_lr_factor(factor)
        assert trainable.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)


def test_one_process_alone_serves_one_rank() -> None:
    with pytest.raises(ValueError, match=r"parallel 'single' is for one process, there are 4; use --parallel ddp"):
        Single().build(network(), role="student", adam=ADAM, compute=Compute(), ranks=Ranks(1, 4), device=CPU)


# Compilation


@pytest.mark.slow
def test_compiled_networks_give_nearly_the_same_numbers() -> None:
    """Student and heads of the smallest network there is: the compiler takes a minute.

    In a process of its own: the compiler imports setuptools, which is lost where others have imported distutils before.
    """
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler (g++) on the CPU")
    here = Path(__file__).resolve()
    command = [sys.executable, "-c", f"import {here.stem}; {here.stem}.compare_compiled()"]
    path = os.pathsep.join([str(here.parent), str(here.parents[2])])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-3_000:]


def compare_compiled() -> None:
    """Loss, gradients and logits, with and without the compiler."""
    compute = Compute(compile=("student", "heads"))
    plain, compiled = build(network(TINY), Compute()), build(network(TINY), compute)
    assert list(plain.local("weight")) == list(compiled.local("weight"))
    first, second = gradients(plain), gradients(compiled)
    assert float(first[0]) == pytest.approx(float(second[0]), rel=1e-5)
    assert difference(first[1], second[1]) < 1e-4
    torch.manual_seed(1)
    heads = Heads(SpectralNorm(width=8), network(TINY), ("middle",))
    seen = {"middle": torch.randn(4, network(TINY).taps["middle"].channels, 4, 4)}
    logits = [build(copy.deepcopy(heads), c, "heads")(seen, torch.zeros(4, 16)) for c in (Compute(), compute)]
    torch.testing.assert_close(*(found["middle"] for found in logits))


def test_warnings_that_tell_the_user_nothing_are_left_out_and_no_others() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises((ValueError, RuntimeError), match="process group"):  # it needs one, after its filters
            build_replicated(nn.Linear(2, 2), role="heads", adam=ADAM, compute=Compute(), device=CPU)
        for text in ("Grad strides do not match bucket view strides. This may indicate ...", "gradients are wrong"):
            warnings.warn(text, UserWarning, stacklevel=1)
    assert [str(item.message) for item in heard] == ["gradients are wrong"]
