"""The heads of `plugins/`: sizes, settings, conditioning, what makes each of them itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ladd_dist.heads import Head
from plugins.heads import MaxPool, SmallConv, SpectralNorm

HEADS: list[type[Head]] = [SmallConv, MaxPool, SpectralNorm]


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.parametrize("width", [1, 17, 32])
def test_parameter_counts_follow_the_formulas_in_the_docstrings(channels: int, width: int) -> None:
    c, w = channels, width
    counts = {
        SmallConv(width=w): c * w + w**2 + 3 * w + 1,
        SmallConv(width=w, pool=2): c * w + 4 * w**2 + 3 * w + 1,
        MaxPool(width=w, blocks=3): 9 * c * w + 19 * w**2 + 5 * w + 1,
        SpectralNorm(width=w): 9 * c * w + 2 * w**2 + 3 * w + 1,
        SpectralNorm(width=w, blocks=2, spectral_classifier=False): 9 * c * w + 11 * w**2 + 4 * w + 1,
    }
    for head, expected in counts.items():
        assert num_parameters(head.build(channels=channels, cond_dim=8)) == expected, head


@pytest.mark.parametrize(
    ("cls", "taps", "target"),
    [
        (SmallConv, 4, 7.4e6),
        (MaxPool, 9, 14.7e6),
        (SpectralNorm, 9, 5.1e6),
        (SpectralNorm, 5, 5.1e6),
        (SpectralNorm, 5, 2.6e6),
    ],
)
def test_some_width_meets_the_reports_parameter_counts_within_5_percent(
    cls: type[SmallConv], taps: int, target: float
) -> None:
    channels = {
        4: (128, 256, 256, 384),
        5: (128, 256, 256, 384, 384),
        9: (128, 256, 256, 384, 384, 384, 256, 256, 128),
    }

    def total(width: int) -> int:
        return sum(num_parameters(cls(width=width).build(channels=c, cond_dim=512)) for c in channels[taps])

    low, high = 100, 1400
    while high - low > 8:  # spectral norm is slow to build: few widths are tried
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) < target else (low, middle)
    assert abs(total(high) - target) < 0.05 * target


@pytest.mark.parametrize("cls", HEADS)
def test_conditioning_adds_one_projection_of_the_embedding(cls: type[SmallConv]) -> None:
    plain = num_parameters(cls(width=8).build(channels=4, cond_dim=10))
    conditioned = num_parameters(cls(width=8, conditioned=True).build(channels=4, cond_dim=10))
    assert conditioned - plain == 10 * 8 + 8


@pytest.mark.parametrize("cls", HEADS)
def test_noise_level_and_class_matter_only_if_conditioned(cls: type[SmallConv]) -> None:
    torch.manual_seed(0)
    features, one, other = torch.randn(2, 4, 4, 4), torch.zeros(2, 6), torch.randn(2, 6)
    for conditioned in (False, True):
        head = cls(width=8, conditioned=conditioned).build(channels=4, cond_dim=6).eval()
        assert torch.equal(head(features, one), head(features, other)) is not conditioned


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("width", [0, -4])
def test_a_width_below_1_is_refused_with_the_valid_range(cls: type[SmallConv], width: int) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__}\.width: must be at least 1 and at most 65536, got {width}"):
        cls(width=width)


def test_other_sizes_are_validated_too() -> None:
    with pytest.raises(ValueError, match=r"MaxPool\.blocks: must be at least 1 and at most 256, got 0"):
        MaxPool(blocks=0)
    with pytest.raises(ValueError, match=r"SpectralNorm\.blocks: must be at least 1 and at most 256, got 0"):
        SpectralNorm(blocks=0)
    with pytest.raises(ValueError, match=r"SmallConv\.pool: must be at least 1, got 0"):
        SmallConv(pool=0)


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 5)])
def test_max_pool_takes_more_blocks_than_the_map_can_be_halved(blocks: int, size: tuple[int, int]) -> None:
    head = MaxPool(width=4, blocks=blocks).build(channels=3, cond_dim=2)
    assert head(torch.randn(2, 3, *size), torch.randn(2, 2)).shape == (2, 1)


def test_max_pool_sees_the_last_row_of_an_odd_map() -> None:
    torch.manual_seed(0)
    head = MaxPool(width=8, blocks=1).build(channels=1, cond_dim=2)
    features = torch.zeros(1, 1, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(head(features, torch.zeros(1, 2)).sum(), features)
    assert gradient[0, 0, -1].abs().sum() > 0


def test_small_conv_sees_positions_only_through_its_pooled_map() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 3, 4, 4)
    rolled = features.roll(1, dims=3)
    blind = SmallConv(width=8).build(channels=3, cond_dim=2)
    torch.testing.assert_close(blind(features, torch.zeros(1, 2)), blind(rolled, torch.zeros(1, 2)))
    seeing = SmallConv(width=8, pool=2).build(channels=3, cond_dim=2)
    assert not torch.allclose(seeing(features, torch.zeros(1, 2)), seeing(rolled, torch.zeros(1, 2)))


@pytest.mark.parametrize("spectral_classifier", [True, False])
def test_spectral_norm_keeps_the_largest_singular_value_of_its_layers_at_1(spectral_classifier: bool) -> None:
    torch.manual_seed(0)
    settings = SpectralNorm(width=8, blocks=2, conditioned=True, spectral_classifier=spectral_classifier)
    head = settings.build(channels=3, cond_dim=4)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(7.0)
    for _ in range(50):  # the power iteration finds the new singular vectors
        head(torch.randn(2, 3, 4, 4), torch.randn(2, 4))
    head.eval()
    for name, layer in head.named_modules():
        if isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.Linear) and spectral_classifier):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
            assert largest == pytest.approx(1, abs=0.05), name


def test_spectral_norm_moves_its_buffers_in_training_mode_and_not_in_eval_mode() -> None:
    """The reason why the frozen heads are put into eval mode on the student's turn."""
    torch.manual_seed(0)
    head = SpectralNorm(width=8).build(channels=3, cond_dim=4)
    inputs = torch.randn(2, 3, 4, 4), torch.randn(2, 4)

    def moved() -> bool:
        before = [buffer.clone() for buffer in head.buffers()]
        head(*inputs)
        return any(not torch.equal(old, new) for old, new in zip(before, head.buffers(), strict=True))

    assert moved()
    head.eval()
    assert not moved()


@pytest.mark.parametrize("cls", HEADS)
def test_a_gradient_penalty_can_be_differentiated_through_every_head(cls: type[SmallConv]) -> None:
    torch.manual_seed(0)
    head = cls(width=8, conditioned=True).build(channels=3, cond_dim=4)
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    logits = head(features, torch.randn(2, 4))
    (gradient,) = torch.autograd.grad(logits.sum(), features, create_graph=True)
    gradient.square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("cls", HEADS)
def test_channels_last_features_give_the_same_logits(cls: type[SmallConv]) -> None:
    torch.manual_seed(0)
    head = cls(width=8).build(channels=4, cond_dim=4).eval()
    features, cond_vec = torch.randn(2, 4, 6, 6), torch.randn(2, 4)
    last = features.to(memory_format=torch.channels_last)
    torch.testing.assert_close(head(features, cond_vec), head(last, cond_vec))
