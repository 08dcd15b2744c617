"""Low-rank adapters: strength, merging, state, and students of which they alone train."""

from __future__ import annotations

import copy

import pytest
import torch
from ladd_toys import IMAGE, network
from torch import Tensor, nn

from ladd_dist.core.types import Denoiser
from ladd_dist.parallel import Adam
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.ranks import SINGLE
from ladd_dist.parallel.single import Single
from ladd_dist.students.adapter import (
    adaptable,
    adapter_state,
    add_adapter,
    layers_of,
    merge_adapter,
    set_adapter,
    set_strength,
    targeted,
)
from ladd_dist.students.full import Full
from ladd_dist.students.lora import Lora


def adapted(rank: int = 3) -> tuple[Denoiser, Denoiser]:
    """A network, and a copy with an adapter that changes something."""
    plain = network()
    other = add_adapter(copy.deepcopy(plain), rank=rank, alpha=2.0 * rank, layers=adaptable(plain))
    source = torch.Generator().manual_seed(1)
    set_adapter(other, {k: 0.1 * torch.randn(v.shape, generator=source) for k, v in adapter_state(other).items()})
    return plain, other


@torch.no_grad()
def denoised(module: Denoiser) -> Tensor:
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    out = module(x, torch.tensor([0.1, 0.5, 2.0, 20.0]), torch.arange(4)).denoised
    assert out is not None
    return out


def test_a_new_adapter_and_strength_0_change_no_bit() -> None:
    plain, other = adapted()
    fresh = Lora(rank=2).prepare(copy.deepcopy(plain))
    assert torch.equal(denoised(fresh), denoised(plain))
    assert not torch.equal(denoised(other), denoised(plain))
    set_strength(other, 0.0)
    assert torch.equal(denoised(other), denoised(plain))
    set_strength(other, 1.0)
    assert not torch.equal(denoised(other), denoised(plain))


@pytest.mark.parametrize("strength", [-1.0, 0.0, 0.5, 2.0])
def test_merging_gives_what_running_with_the_same_strength_gives(strength: float) -> None:
    plain, other = adapted()
    set_strength(other, strength)
    expected = denoised(other)
    merged = merge_adapter(other)
    torch.testing.assert_close(denoised(merged), expected, rtol=1e-4, atol=1e-5)
    assert list(merged.state_dict()) == list(plain.state_dict())


def test_the_state_has_the_names_of_peft_and_comes_back() -> None:
    from peft import get_peft_model_state_dict

    plain, other = adapted()
    state = adapter_state(other)
    theirs = get_peft_model_state_dict(other, save_embedding_layers=False)
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in state.items()}
    assert layers_of(state) == adaptable(plain)
    again = add_adapter(copy.deepcopy(plain), rank=3, alpha=6.0, layers=layers_of(state))
    set_adapter(again, state)
    assert torch.equal(denoised(again), denoised(other))


def test_the_adapter_of_another_network_is_refused() -> None:
    plain, other = adapted()
    state = adapter_state(other)
    with pytest.raises(ValueError, match=r"has shape \[3, 16\], the network's is \[2, 16\]"):
        set_adapter(Lora(rank=2).prepare(copy.deepcopy(plain)), state)
    with pytest.raises(ValueError, match=r"only the adapter has downs"):
        set_adapter(Lora(rank=3, targets=("middle",)).prepare(copy.deepcopy(plain)), state)
    with pytest.raises(ValueError, match="has an adapter already"):
        Lora().prepare(other)


def test_targets_choose_layers_by_their_names() -> None:
    plain = network()
    chosen = targeted(plain, (r"qkv$", r"^embed"))
    assert chosen == [name for name in adaptable(plain) if name.endswith("qkv") or name.startswith("embed")]
    prepared = Lora(rank=2, targets=(r"qkv$",)).prepare(copy.deepcopy(plain))
    assert layers_of(adapter_state(prepared)) == ["middle.qkv"]
    with pytest.raises(ValueError, match=r"'attention' is in no layer's name; layers: embed\.level\.0"):
        Lora(targets=("attention",)).prepare(copy.deepcopy(plain))
    with pytest.raises(ValueError, match="is no regular expression"):
        Lora(targets=("(",))
    with pytest.raises(ValueError, match="rank: must be at least 1"):
        Lora(rank=0)


def test_convolutions_in_groups_get_none() -> None:
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 1))
    assert adaptable(layers) == ["1"]


def test_adapters_of_one_seed_are_equal_whatever_was_drawn_before() -> None:
    plain = network()
    first = adapter_state(Lora(rank=2).prepare(copy.deepcopy(plain)))
    torch.rand(7)
    before = torch.get_rng_state()
    second = adapter_state(Lora(rank=2).prepare(copy.deepcopy(plain)))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = adapter_state(Lora(rank=2, seed=1).prepare(copy.deepcopy(plain)))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_moves_the_adapter_and_no_bit_of_the_rest() -> None:
    plain = network()
    adam = Adam(1e-2, betas=(0.5, 0.99), weight_decay=0.1, clip=1.0)
    student = Lora(rank=2).prepare(copy.deepcopy(plain))
    trainable = Single().build(
        student, role="student", adam=adam, compute=Compute(), ranks=SINGLE, device=torch.device("cpu")
    )
    assert set(trainable.local("weight")) == {name for name, _ in student.named_parameters() if ".lora_" in name}
    before = adapter_state(student)
    x, sigma, cond = torch.randn(4, 3, 8, 8), torch.ones(4), torch.arange(4)
    for _ in range(3):
        trainable.update(lambda micro: student(x, sigma, cond).denoised.square().mean())
    after = adapter_state(student)
    assert all(not torch.equal(before[name], after[name]) for name in after)
    kept = {name.replace(".base_layer", ""): value for name, value in student.state_dict().items()}
    assert all(torch.equal(kept[name], value) for name, value in plain.state_dict().items())


def test_full_rank_can_be_any_update() -> None:
    """W + dW for any dW: A and B are a factorisation of dW, here by its singular values."""
    plain, layer = network(), "embed.level.0"
    weight = plain.get_submodule(layer).weight
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    left, values, right = torch.linalg.svd(change)
    form = Lora(rank=len(values), alpha=3.0, targets=(layer,))
    state = {
        f"{layer}.lora_A.weight": right,
        f"{layer}.lora_B.weight": left * values * len(values) / form.alpha,
    }
    student = form.restore(copy.deepcopy(plain), state)
    torch.testing.assert_close(student.get_submodule(layer).weight, weight + change)


def test_a_file_of_each_form_restores_the_student() -> None:
    plain = network()
    for form in (Full(), Lora(rank=2, alpha=5.0)):
        student = form.prepare(copy.deepcopy(plain))
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.05 if parameter.requires_grad else 0.0)
        held = form.weights(student)
        assert (
            sum(map(torch.numel, held.values())) < sum(map(torch.numel, plain.parameters())) or not form.needs_teacher
        )
        restored = form.restore(copy.deepcopy(plain), held)
        torch.testing.assert_close(denoised(restored), denoised(student), rtol=1e-4, atol=1e-5)
        assert restored.image == IMAGE
