"""CUNet: sizes, taps, early exit, preconditioning, memory format, what an output may depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ladd_dist.core.noise import precondition
from ladd_dist.core.types import Denoiser, ImageSpec
from ladd_dist.costs.flops import count_flops
from ladd_dist.networks.cunet import CUNet

IMAGE = ImageSpec(channels=3, height=16, width=16, num_classes=10)
LAPTOP = CUNet()
CONFIGS = [
    (CUNet(widths=(16, 24, 32)), IMAGE),
    (CUNet(widths=(8, 16), blocks=2, patch=1), ImageSpec(1, 6, 6, 4)),
    (CUNet(widths=(16,), patch=4, attention_heads=2), ImageSpec(4, 12, 12, 2)),
    (CUNet(widths=(40, 24, 16, 16), patch=1, embed_dim=10, precondition="ddpm"), ImageSpec(2, 8, 8, 3)),
]


def build(network: CUNet = LAPTOP, image: ImageSpec = IMAGE, *, perturb: bool = True) -> Denoiser:
    """A network whose zero-initialised layers are woken up, so that nothing is hidden behind them."""
    torch.manual_seed(0)
    module = network.build(image=image).eval()
    if perturb:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def inputs(image: ImageSpec = IMAGE, num: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(num, *image.shape, generator=source)
    x = x.contiguous(memory_format=torch.channels_last)
    sigma = torch.logspace(-1, 1, num)
    return x, sigma, torch.arange(num) % image.num_classes


def denoise(module: Denoiser, *args: Tensor) -> Tensor:
    denoised = module(*args).denoised
    assert isinstance(denoised, Tensor)
    return denoised


@pytest.mark.parametrize(("network", "image"), CONFIGS)
def test_taps_have_the_shapes_of_the_catalog_and_the_output_that_of_the_input(network: CUNet, image: ImageSpec) -> None:
    module = build(network, image)
    x, sigma, cond = inputs(image)
    out = module(x, sigma, cond, taps=tuple(module.taps))
    assert out.denoised.shape == x.shape
    assert tuple(out.features) == tuple(module.taps)  # in order of execution
    levels = len(network.widths)
    expected = ["input", *(f"down{i}" for i in range(levels)), "middle", *(f"up{i}" for i in range(levels))]
    assert list(module.taps) == expected
    for tap, (channels, stride) in module.taps.items():
        assert out.features[tap].shape == (3, channels, image.height // stride, image.width // stride), tap
    assert out.cond_vec.shape == (3, module.cond_dim) == (3, network.embed_dim)


@pytest.mark.parametrize(("network", "image"), CONFIGS)
def test_output_and_features_are_channels_last(network: CUNet, image: ImageSpec) -> None:
    module = build(network, image)
    out = module(*inputs(image), taps=tuple(module.taps))
    for name, value in {"denoised": out.denoised, **out.features}.items():
        assert value.is_contiguous(memory_format=torch.channels_last), name
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in module.parameters() if p.ndim == 4)


@pytest.mark.parametrize(
    ("network", "size", "factor"), [(LAPTOP, 20, 8), (CUNet(patch=1), 18, 4), (CUNet(widths=(8, 8)), 6, 4)]
)
def test_a_size_that_does_not_divide_is_refused_with_the_numbers(network: CUNet, size: int, factor: int) -> None:
    message = rf"size {size} is not divisible by {factor} = patch {network.patch} x .* {len(network.widths)} levels"
    with pytest.raises(ValueError, match=message):
        network.build(image=ImageSpec(3, size, size, 10))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": ()}, "widths must be multiples of 8"),
        ({"widths": (32, 60)}, "widths must be multiples of 8"),
        ({"blocks": 0}, "CUNet.blocks: must be at least 1"),
        ({"patch": 0}, "CUNet.patch: must be at least 1"),
        ({"embed_dim": 7}, "embed_dim: must be at least 8"),
        ({"embed_dim": 9}, "embed_dim must be even, got 9"),
        ({"attention_heads": 3}, "not divisible by 3 heads"),
        ({"attention_heads": 0}, "attention_heads: must be at least 1"),
        ({"sigma_data": 0.0}, "sigma_data: must be above 0"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CUNet(**wrong)


@pytest.mark.parametrize("stop", [True, False])
def test_an_unknown_tap_is_a_key_error_that_lists_the_catalog(stop: bool) -> None:
    module = build()
    with pytest.raises(KeyError, match=r"unknown tap 'down9'; .*input, down0, down1, down2, middle, up0, up1, up2"):
        module(*inputs(), taps=("down0", "down9"), denoise=not stop)


@pytest.mark.parametrize("size", [16, 8])
def test_at_initialisation_the_edm_denoiser_only_scales_its_input(size: int) -> None:
    image = ImageSpec(3, size, size, 10)
    x, sigma, cond = inputs(image)
    found = denoise(build(image=image, perturb=False), x, sigma, cond)
    assert torch.allclose(found, precondition(sigma, "edm").skip.view(-1, 1, 1, 1) * x)


def test_edm_and_ddpm_wrap_the_same_network() -> None:
    x, sigma, cond = inputs()
    edm, ddpm = build(CUNet(precondition="edm")), build(CUNet(precondition="ddpm"))
    c = precondition(sigma, "edm")
    raw = (denoise(edm, x, sigma, cond) - c.skip.view(-1, 1, 1, 1) * x) / c.out.view(-1, 1, 1, 1)
    assert torch.allclose(denoise(ddpm, x, sigma, cond), x - sigma.view(-1, 1, 1, 1) * raw, atol=1e-4)


def test_stopping_at_the_last_tap_returns_the_same_features() -> None:
    module = build()
    for taps in (("input",), ("down0",), ("down0", "middle"), ("middle", "up0", "down1"), ("up2",)):
        whole, early = module(*inputs(), taps=taps), module(*inputs(), taps=taps, denoise=False)
        assert early.denoised is None
        assert set(early.features) == set(taps)
        for tap in taps:
            assert torch.equal(early.features[tap], whole.features[tap])
        assert torch.equal(early.cond_vec, whole.cond_vec)


def test_taps_change_nothing_in_the_output() -> None:
    module = build()
    assert torch.equal(denoise(module, *inputs()), module(*inputs(), taps=("down1", "up1")).denoised)


def flops(module: Denoiser, **options: Any) -> int:
    with torch.no_grad():
        return count_flops(lambda: module(*inputs(), **options))


def test_an_earlier_last_tap_costs_less() -> None:
    module = build()
    costs = [flops(module, taps=(tap,), denoise=False) for tap in module.taps] + [flops(module)]
    assert costs == sorted(set(costs))
    assert flops(module, taps=("up2", "input")) == flops(module)
    assert flops(module, taps=("down1", "input"), denoise=False) == flops(module, taps=("down1",), denoise=False)


@pytest.mark.parametrize("tap", ["input", "down0", "down2", "middle", "up1"])
def test_nothing_after_the_last_tap_is_computed(tap: str) -> None:
    module = build()
    position = list(module.taps).index(tap)
    stages = {"input": module.get_submodule("input"), "middle": module.get_submodule("middle")}
    stages |= {f"down{i}": block for i, block in enumerate(module.get_submodule("downs").children())}
    stages |= {f"up{i}": block for i, block in enumerate(module.get_submodule("ups").children())}
    ran: list[str] = []
    counted = 0

    def count(layer: nn.Module, args: Any, out: Tensor) -> None:
        nonlocal counted
        weight = layer.get_parameter("weight")
        counted += 2 * out.numel() * weight.shape[1:].numel()

    for name, block in [*stages.items(), ("output", module.get_submodule("output"))]:
        block.register_forward_hook(lambda m, a, o, name=name: ran.append(name))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    total = flops(module, taps=(tap,), denoise=False)
    assert ran == list(module.taps)[: position + 1]
    positions, width = (16 // 8) ** 2, 64
    attention = 3 * 4 * positions**2 * width if "middle" in ran else 0  # batch 3, two products
    assert total == counted + attention


def test_flops_count_attention_forward_and_backward() -> None:
    q = torch.randn(2, 4, 8, 16, requires_grad=True)
    forward = 2 * 2 * 4 * 8 * 8 * 16 * 2
    attend = nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(q, q, q)) == forward
    backward = count_flops(lambda: attend(q, q, q).sum().backward()) - forward
    assert 2 * forward <= backward <= 2.5 * forward


@pytest.mark.parametrize(("network", "image"), CONFIGS)
def test_no_sample_depends_on_another_of_its_batch(network: CUNet, image: ImageSpec) -> None:
    module = build(network, image).train()
    x, sigma, cond = inputs(image)
    x.requires_grad_()
    sigma.requires_grad_()
    out = module(x, sigma, cond, taps=tuple(module.taps))
    for name, value in {"denoised": out.denoised, **out.features}.items():
        gradients = torch.autograd.grad(value[1].square().sum(), (x, sigma), retain_graph=True)
        for gradient in gradients:
            assert gradient[1].abs().sum() > 0, name
            assert not gradient[[0, 2]].any(), name


def test_noise_level_and_class_matter_and_no_class_is_a_class_of_its_own() -> None:
    module = build()
    x, _, _ = inputs(num=1)
    x = x.expand(IMAGE.num_classes + 1, -1, -1, -1)
    classes = torch.arange(IMAGE.num_classes + 1)  # the last is "no class"
    same = torch.ones(len(x))
    features = module(x, same, classes, taps=("down0",), denoise=False).features["down0"].flatten(1)
    assert len({tuple(row[:8].tolist()) for row in features}) == len(x)
    levels = torch.logspace(-2, 2, len(x))
    found = module(x, levels, torch.zeros_like(classes)).cond_vec
    assert len({tuple(row[:8].tolist()) for row in found}) == len(x)


def test_every_parameter_is_used() -> None:
    module = build(CUNet(widths=(16, 24), blocks=2))
    x, sigma, _ = inputs(num=11)
    denoise(module, x, sigma, torch.arange(11)).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_state_dict_rebuilds_the_network() -> None:
    first, second = build(), LAPTOP.build(image=IMAGE).eval()
    assert not torch.equal(denoise(first, *inputs()), denoise(second, *inputs()))
    second.load_state_dict(first.state_dict())
    assert torch.equal(denoise(first, *inputs()), denoise(second, *inputs()))


def test_the_laptop_and_paper_networks_have_their_published_sizes() -> None:
    with torch.device("meta"):
        paper = CUNet(widths=(64, 128, 256, 256), blocks=2, patch=1, embed_dim=256).build(
            image=ImageSpec(3, 32, 32, 10)
        )
    assert sum(p.numel() for p in build().parameters()) == 751_500
    assert len([tap for tap in paper.taps if tap != "input"]) == 9
