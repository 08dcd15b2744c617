"""Every family of diffusers: taps, early exit, parity with the library's own pipelines, texts, precision, planning."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import pytest
import torch
from tiny_diffusers import LATENTS, MODELS, PIPELINES, SCHEDULERS, TOKENS, tiny_model, tiny_table, write_model
from tiny_latents import pack, unguided, unpack
from torch import Tensor, nn

from ladd_dist.core.conditions import Conditions
from ladd_dist.core.noise import few_step_sample
from ladd_dist.core.types import Denoiser
from ladd_dist.costs.flops import count_flops
from ladd_dist.costs.memory_trace import no_data
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.compute import Compute, prepare, to_compute_dtype

ALL = list(MODELS)
TEXT_MODELS = list(PIPELINES)
CPU = torch.device("cpu")
FOLDER = tempfile.TemporaryDirectory(prefix="tiny-diffusers-")  # until the tests end


@functools.cache
def plugin(family: str) -> Diffusers:
    return Diffusers(source=str(write_model(Path(FOLDER.name) / family, family)), tokens=TOKENS)


@functools.cache
def denoiser(family: str) -> Denoiser:
    """Shared by the tests, which leave it as it is."""
    return fresh(family).requires_grad_(False)


def fresh(family: str) -> Denoiser:
    module = plugin(family).load(image=LATENTS)
    if module.condition_shapes:
        module.attach(Conditions(tiny_table(module.condition_shapes)))
    return module


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last), torch.tensor([0.05, 0.5, 3.0, 12.0]), torch.arange(4)


@pytest.mark.parametrize("family", ALL)
def test_taps_have_the_shapes_of_the_catalog_in_order_of_execution(family: str) -> None:
    module, (x, *rest) = denoiser(family), inputs()
    out = module(x, *rest, taps=tuple(module.taps))
    assert tuple(out.features) == tuple(module.taps)
    assert len(module.blocks()) == len(module.taps)
    for tap, (channels, stride) in module.taps.items():
        assert out.features[tap].shape == (4, channels, 8 // stride, 8 // stride), tap
    assert out.denoised.shape == x.shape
    assert out.cond_vec.shape == (4, module.cond_dim)
    assert torch.equal(out.denoised, module(x, *rest).denoised)


@contextlib.contextmanager
def running(module: Denoiser) -> Iterator[list[int]]:
    """Which blocks run inside."""
    ran: list[int] = []

    def watch(number: int) -> Any:
        return lambda *_: ran.append(number)

    handles = [block.register_forward_hook(watch(i)) for i, block in enumerate(module.blocks())]
    yield ran
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", ALL)
def test_early_exit_computes_nothing_after_the_last_tap(family: str) -> None:
    module = denoiser(family)
    whole, taps = module(*inputs(), taps=tuple(module.taps)), list(module.taps)
    costs: list[int] = []
    for position, tap in enumerate(taps):
        with running(module) as ran:
            early = module(*inputs(), taps=(tap,), denoise=False)
        assert ran == list(range(position + 1))
        assert early.denoised is None
        assert torch.equal(early.features[tap], whole.features[tap])
        assert torch.equal(early.cond_vec, whole.cond_vec)
        costs.append(count_flops(functools.partial(module, *inputs(), taps=(tap,), denoise=False)))
    costs.append(count_flops(lambda: module(*inputs())))
    assert costs == sorted(set(costs))
    assert count_flops(lambda: module(*inputs(), denoise=False)) < costs[0]  # the embedding alone


def test_taps_on_the_down_sampling_half_cost_less_than_half_of_kandinsky3() -> None:
    module = denoiser("kandinsky3")
    downs = tuple(tap for tap in module.taps if tap.startswith("down"))
    assert downs == ("down0", "down1", "down2")
    early = count_flops(lambda: module(*inputs(), taps=downs, denoise=False))
    assert early < 0.5 * count_flops(lambda: module(*inputs()))


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_what_early_exit_gives_up_is_freed_at_once(family: str) -> None:
    module = denoiser(family)
    last = list(module.taps)[-2]
    seen: list[weakref.ref[Tensor]] = []

    def watch(block: nn.Module, args: Any, out: Any) -> None:
        seen.append(weakref.ref(out[0] if isinstance(out, tuple) else out))

    handle = module.blocks()[0].register_forward_hook(watch)
    gc.disable()
    try:
        out = module(*inputs(), taps=(last,), denoise=False)
        assert seen[0]() is None
        assert out.features[last].isfinite().all()
    finally:
        gc.enable()
        handle.remove()


@pytest.mark.parametrize("family", ALL)
def test_no_sample_depends_on_another_of_its_batch(family: str) -> None:
    module, (x, sigma, cond) = denoiser(family), inputs()
    x.requires_grad_()
    sigma.requires_grad_()
    out = module(x, sigma, cond, taps=tuple(module.taps))
    for value in (out.denoised, *out.features.values()):
        for gradient in torch.autograd.grad(value[1].square().sum(), (x, sigma), retain_graph=True):
            assert gradient[1].abs().sum() > 0
            assert not gradient[[0, 2, 3]].any()


@pytest.mark.parametrize("family", [name for name in ALL if name != "unet"])
def test_condition_and_level_reach_output_and_embedding(family: str) -> None:
    module, (x, _, _) = denoiser(family), inputs()
    same, level = x[:1].expand(4, -1, -1, -1), torch.full((4,), 0.5)
    by_text = module(same, level, torch.arange(4))
    by_level = module(same, torch.tensor([0.1, 0.5, 1.0, 2.0]), torch.zeros(4, dtype=torch.int64))
    for found in (by_text.denoised, by_text.cond_vec, by_level.denoised, by_level.cond_vec):
        assert torch.pdist(found.flatten(1)).min() > 1e-5


@pytest.mark.parametrize(
    "family", ["pixart", "pixart_sized", "sana", "qwen_image", "z_image"]
)  # Kandinsky 3 itself pools over all tokens
def test_tokens_outside_the_mask_change_nothing(family: str) -> None:
    module = fresh(family)
    first = module(*inputs())
    table = tiny_table(module.condition_shapes)
    table["prompt_embeds"][table["prompt_attention_mask"] == 0] += 1.0
    module.attach(Conditions(table))
    second = module(*inputs())
    assert torch.allclose(first.denoised, second.denoised, atol=1e-5)
    assert torch.allclose(first.cond_vec, second.cond_vec, atol=1e-5)


class Sampling(NamedTuple):
    """Euler's method as the library has it."""

    scheduler: Any
    levels: tuple[float, ...]
    start: float  # standard deviation of the noise that the pipeline is given
    options: dict[str, Any]


def sampling(family: str) -> Sampling:
    """On the checkpoint's own schedule, at its own timesteps; of a flow from a level that still has a signal."""
    if family == "sana" or "FlowMatch" in type(SCHEDULERS[family]()).__name__:
        shares = (0.9, 0.6, 0.3)
        levels = tuple(share / (1 - share) for share in shares)
        return Sampling(diffusers.FlowMatchEulerDiscreteScheduler(), levels, 0.9, {"sigmas": list(shares)})
    # The pipeline of Kandinsky 3 does not scale its input, as Euler's schedulers want it; DDIM's steps are the same.
    cls = diffusers.DDIMScheduler if family == "kandinsky3" else diffusers.EulerDiscreteScheduler
    config = cls.load_config(Path(plugin(family).source) / "scheduler") | {"clip_sample": False}
    scheduler = cls.from_config(config, timestep_spacing="trailing")
    scheduler.set_timesteps(4)
    alpha_bar = scheduler.alphas_cumprod[scheduler.timesteps.long()].double()
    levels = tuple(((1 - alpha_bar) / alpha_bar).sqrt().tolist())
    scale = 1 / (1 + levels[0] ** 2) ** 0.5 if family == "kandinsky3" else 1 / float(scheduler.init_noise_sigma)
    return Sampling(scheduler, levels, levels[0] * scale, {})


@pytest.mark.parametrize("family", TEXT_MODELS)
def test_few_steps_give_what_the_librarys_pipeline_gives(family: str) -> None:
    module, cond, (scheduler, levels, start, options) = denoiser(family), torch.tensor([1]), sampling(family)
    pipe = PIPELINES[family](tiny_model(family), scheduler)
    pipe.set_progress_bar_config(disable=True)
    noise = inputs()[0][:1].contiguous()
    expected = few_step_sample(lambda x, s, c: module(x, s, c).denoised, noise, cond, levels, "ode")
    options |= pipeline_options(family, module, cond) | {"num_inference_steps": len(levels)}
    found = pipe(latents=pack(noise * start, family), output_type="latent", **options)[0]
    assert torch.allclose(unpack(found, family, noise), expected, atol=1e-4 * float(expected.abs().max()))


def pipeline_options(family: str, module: Denoiser, cond: Tensor) -> dict[str, Any]:
    """The same texts, given to a pipeline."""
    table = tiny_table(module.condition_shapes)
    rows = {name: tensor[cond] for name, tensor in table.items()}
    size = 32 if family == "sana" else 16
    options: dict[str, Any] = {"height": size, "width": size} | unguided(family)
    options |= {name: rows[name] for name in ("prompt_embeds", "pooled_prompt_embeds") if name in rows}
    if family == "z_image":
        kept = [
            row[mask.bool()] for row, mask in zip(rows["prompt_embeds"], rows["prompt_attention_mask"], strict=True)
        ]
        return options | {"prompt_embeds": kept, "guidance_scale": 0.0}
    if family == "qwen_image":
        return options | {"prompt_embeds_mask": rows["prompt_attention_mask"]}
    if "prompt_attention_mask" in rows:
        options["attention_mask" if family == "kandinsky3" else "prompt_attention_mask"] = rows["prompt_attention_mask"]
    if "pixart" in family or family == "sana":
        options["use_resolution_binning"] = False
    return options


def test_compiled_blocks_with_taps_are_refused() -> None:
    module = fresh("unet")
    prepare(module, Compute(compile=("teacher",)), "teacher", CPU)
    with pytest.raises(ValueError, match=r"take 'teacher' out of compute\.compile"):
        module(*inputs(), taps=("down0",), denoise=False)


@pytest.mark.parametrize("family", ALL)
def test_recomputed_blocks_give_the_same_gradients_and_features(family: str) -> None:
    plain, saving = fresh(family).train(), fresh(family).train()
    prepare(saving, Compute(checkpoint=("student",)), "student", CPU)
    taps = tuple(plain.taps)[:2]
    results = []
    for module in (plain, saving):
        module(*inputs()).denoised.square().mean().backward()
        out = module(*inputs(), taps=taps, denoise=False)
        sum(feature.square().mean() for feature in out.features.values()).backward()
        results.append({name: p.grad for name, p in module.named_parameters()})
    for name, gradient in results[0].items():
        assert gradient is not None, f"{name} is never used"
        torch.testing.assert_close(gradient, results[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ALL)
def test_bf16_is_near_float32(family: str) -> None:
    expected, module = denoiser(family), fresh(family)
    to_compute_dtype(module, torch.bfloat16)
    prepare(module, Compute(precision="bf16"), "teacher", CPU)
    x, _, cond = inputs()
    low = torch.full((4,), 0.5)
    found, exact = module(x, low, cond), expected(x, low, cond)
    assert found.denoised.dtype == torch.float32
    assert (found.denoised - exact.denoised).norm() < 0.1 * exact.denoised.norm()


@pytest.mark.parametrize(
    "family", ["class_unet", "sdxl", "pixart_sized", "flux", "flux2_guided", "qwen_image", "z_image"]
)
def test_a_network_is_planned_without_data(family: str) -> None:
    with torch.device("meta"):
        module = plugin(family).build(image=LATENTS)
    loaded = denoiser(family)
    assert {n: p.shape for n, p in module.named_parameters()} == {n: p.shape for n, p in loaded.named_parameters()}
    assert module.taps == loaded.taps
    if module.condition_shapes:
        module.attach(Conditions.blank(module.condition_shapes))
    with no_data(module):
        out = module(torch.zeros(2, 4, 8, 8), torch.ones(2), torch.zeros(2, dtype=torch.int64), taps=tuple(module.taps))
        out.denoised.sum().backward()
    assert out.denoised.shape == (2, 4, 8, 8)


def test_a_network_says_what_it_can_be_asked(tmp_path: Path) -> None:
    assert denoiser("sd").sigma_max == pytest.approx(14.6146, abs=1e-3)  # as published for Stable Diffusion
    assert denoiser("sd3").sigma_max == float("inf")
    source = str(write_model(tmp_path, "class_unet"))
    assert Diffusers(source=source).build(image=LATENTS).has_null
    assert not Diffusers(source=source).build(image=dataclasses.replace(LATENTS, num_classes=4)).has_null


def test_the_table_is_no_part_of_the_network_and_copies_share_it() -> None:
    module = fresh("sd")
    names = set(tiny_model("sd").state_dict())
    assert {name.removeprefix("model.") for name in module.state_dict()} == names
    assert copy.deepcopy(module).get_submodule("model") is not module.get_submodule("model")
    assert copy.deepcopy(module).conditions is module.conditions  # type: ignore[attr-defined]


def test_a_text_model_without_its_table_says_so() -> None:
    with pytest.raises(ValueError, match="reads texts, and has no table of conditions"):
        plugin("sd").load(image=LATENTS)(*inputs())


def test_a_table_of_another_model_is_refused_and_another_length_of_text_is_not() -> None:
    module = plugin("sd").load(image=LATENTS)
    with pytest.raises(ValueError, match=r"holds prompt_embeds \[6, 32\], .*the model reads prompt_embeds \[6, 16\]"):
        module.attach(Conditions.blank({"prompt_embeds": (6, 32)}))
    with pytest.raises(ValueError, match="was it made for another model"):
        module.attach(Conditions.blank({"prompt_embeds": (6, 16), "time_ids": (6,)}))
    with pytest.raises(ValueError, match="class ids, no table"):
        plugin("class_unet").load(image=LATENTS).attach(Conditions.blank({"prompt_embeds": (6, 16)}))
    module.attach(Conditions.blank({"prompt_embeds": (9, 16)}))
    assert module(*inputs()).denoised.shape == (4, 4, 8, 8)


def test_an_unknown_tap_is_a_key_error_that_lists_the_catalog() -> None:
    with pytest.raises(KeyError, match=r"unknown tap 'middle'; .*block00, block01, block02"):
        denoiser("sd3")(*inputs(), taps=("middle",), denoise=False)
