"""Adversarial losses, distances and penalties against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ladd_dist.core import gan
from ladd_dist.core.rng import Rows, RowSource, whole_batch
from ladd_dist.losses.adversarial import Bce, Hinge, Lsgan, Relativistic, Wgan
from ladd_dist.losses.distance import Mse, PseudoHuber, SmoothL1, sigma_weight
from ladd_dist.regularisers import HeadsFn, PenaltyInputs, Side
from ladd_dist.regularisers.penalties import R1, R1R2, R2, GradientPenalty, NoRegulariser

REAL, FAKE = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1.0, -2.0], [0.0, -0.5]])
GAMES = [Bce(), Bce(saturating=True), Hinge(), Lsgan(), Wgan(), Relativistic()]


def sigmoid_log(logits: Tensor) -> Tensor:
    return (1 / (1 + torch.exp(-logits))).log()


@pytest.mark.parametrize(
    ("game", "discriminator", "generator"),
    [
        (
            Bce(saturating=True),
            -sigmoid_log(REAL).mean() - (1 - FAKE.sigmoid()).log().mean(),
            (1 - FAKE.sigmoid()).log().mean(),
        ),
        (Bce(), -sigmoid_log(REAL).mean() - (1 - FAKE.sigmoid()).log().mean(), -sigmoid_log(FAKE).mean()),
        (Hinge(), torch.tensor((0 + 2 + 0.5 + 0) / 4 + (2 + 0 + 1 + 0.5) / 4), torch.tensor(1.5 / 4)),
        (Lsgan(), torch.tensor((1 + 4 + 0.25 + 4) / 4 + (1 + 4 + 0.25) / 4), torch.tensor((0 + 9 + 1 + 2.25) / 4)),
        (Wgan(), torch.tensor(-1.5 / 4 - 4.5 / 4), torch.tensor(1.5 / 4)),
        (Relativistic(), -sigmoid_log(REAL - FAKE).mean(), -sigmoid_log(FAKE - REAL).mean()),
    ],
    ids=lambda value: str(value) if not isinstance(value, Tensor) else "",
)
def test_losses_match_their_closed_form(game: Bce, discriminator: Tensor, generator: Tensor) -> None:
    torch.testing.assert_close(game.discriminator(REAL, FAKE), discriminator)
    torch.testing.assert_close(game.generator(FAKE, REAL), generator)


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_heads_are_pushed_apart_and_the_student_towards_real(game: Bce) -> None:
    real = torch.full((3, 1), 0.25, requires_grad=True)
    fake = torch.full((3, 1), 0.75, requires_grad=True)
    up_real, up_fake = torch.autograd.grad(game.discriminator(real, fake), [real, fake])
    (student,) = torch.autograd.grad(game.generator(fake, real.detach()), fake)
    assert (up_real < 0).all()
    assert (up_fake > 0).all()
    assert (student < 0).all()


def test_the_saturating_student_loses_its_gradient_where_the_heads_are_sure() -> None:
    fake = torch.tensor([[-12.0]], requires_grad=True)
    (saturating,) = torch.autograd.grad(Bce(saturating=True).generator(fake, REAL), fake)
    (plain,) = torch.autograd.grad(Bce().generator(fake, REAL), fake)
    assert abs(saturating.item()) < 1e-5
    assert plain.item() == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_losses_are_finite_float32_for_large_bfloat16_logits(game: Bce) -> None:
    real, fake = torch.full((2, 1), -1e4, dtype=torch.bfloat16), torch.full((2, 1), 1e4, dtype=torch.bfloat16)
    for loss in (game.discriminator(real, fake), game.generator(fake, real), game.generator(-fake, real)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()


def test_a_saturated_wrong_head_keeps_its_gradient_while_hinge_on_the_sum_starves_it() -> None:
    """Three sure heads are right and one is wrong by far; only the wrong one has something to learn."""
    logits = {tap: torch.tensor([[5.0]], requires_grad=True) for tap in ("a", "b", "c")}
    logits["wrong"] = torch.tensor([[-5.0]], requires_grad=True)
    fake = {tap: -value.detach() for tap, value in logits.items()}

    per_head = torch.autograd.grad(gan.over_heads(gan.hinge_discriminator, logits, fake), list(logits.values()))
    on_sum = gan.hinge_discriminator(torch.stack(list(logits.values())).sum(0), torch.stack(list(fake.values())).sum(0))
    summed = torch.autograd.grad(on_sum, list(logits.values()))

    assert [gradient.item() for gradient in per_head] == [0, 0, 0, -0.25]
    assert [gradient.item() for gradient in summed] == [0, 0, 0, 0]


def test_over_heads_averages_heads_whatever_their_number_of_logits() -> None:
    real = {"a": torch.zeros(2, 1), "b": torch.ones(2, 9)}
    loss = gan.over_heads(gan.hinge_generator, real)
    assert loss.item() == pytest.approx(-0.5)


def test_over_heads_refuses_no_heads_and_different_heads() -> None:
    with pytest.raises(ValueError, match="at least one head"):
        gan.over_heads(gan.hinge_generator, {})
    with pytest.raises(ValueError, match=r"\['a'\] and \['b'\]"):
        gan.over_heads(gan.hinge_discriminator, {"a": REAL}, {"b": FAKE})


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(4), r"returned shape \(4,\), expected logits \[B, K\] with B = 4"),
        (torch.zeros(4, 1, 2, 2), r"returned shape \(4, 1, 2, 2\)"),
        (torch.zeros(3, 1), r"returned shape \(3, 1\)"),
        (torch.zeros(4, 0), r"returned shape \(4, 0\)"),
        (torch.zeros(4, 1, dtype=torch.int64), r"returned torch.int64"),
        (None, r"returned a NoneType"),
    ],
)
def test_wrong_logits_are_refused_with_head_tap_and_expected_shape(logits: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"head 'mine' on tap 'down0' {message}"):
        gan.check_logits("down0", logits, 4, head="mine")


def test_right_logits_pass() -> None:
    gan.check_logits("down0", torch.zeros(4, 7), 4)


def test_mse_is_the_mean_over_pixels_and_batch() -> None:
    sample, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    sample[0] = 2.0
    assert Mse()(sample, target, torch.ones(2)).item() == pytest.approx(2.0)


def test_pseudo_huber_is_the_root_of_the_sum_with_a_constant_that_grows_with_size() -> None:
    sample, target = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    sample[0, 0, 0, 0] = 0.01
    c = 0.00054 * math.sqrt(48)
    expected = math.sqrt(0.01**2 + c**2) - c
    assert PseudoHuber()(sample, target, torch.ones(1)).item() == pytest.approx(expected, rel=1e-4)


def test_smooth_l1_is_quadratic_inside_beta_and_linear_outside() -> None:
    sample = torch.tensor([0.25, 3.0]).view(1, 1, 1, 2)
    expected = (0.25**2 / (2 * 0.5) + 3 - 0.25) / 2
    assert SmoothL1(beta=0.5)(sample, torch.zeros(1, 1, 1, 2), torch.ones(1)).item() == pytest.approx(expected)


def test_the_sigma_weight_is_1_at_power_0_and_falls_with_noise_otherwise() -> None:
    sigma = torch.tensor([0.0, 0.5, 80.0])
    assert sigma_weight(sigma, 0.5, 0.0).tolist() == [1, 1, 1]
    torch.testing.assert_close(sigma_weight(sigma, 0.5, 1.0), torch.tensor([1.0, 0.5, 1 / (1 + 160.0**2)]))


@pytest.mark.parametrize("make", [Mse, PseudoHuber, SmoothL1])
def test_the_sigma_weight_multiplies_each_sample_of_a_distance(make: Callable[..., Mse]) -> None:
    sample, target = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    plain = make()(sample, target, torch.tensor([0.0, 0.5]))
    weighted = make(sigma_power=1.0)(sample, target, torch.tensor([0.0, 0.5]))
    assert weighted.item() == pytest.approx(0.75 * plain.item())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mse(sigma_scale=0.0), "Mse.sigma_scale: must be above 0, got 0.0"),
        (lambda: Mse(sigma_power=math.nan), "Mse.sigma_power: must be finite, got nan"),
        (lambda: PseudoHuber(c_scale=-1.0), "PseudoHuber.c_scale: must be above 0"),
        (lambda: SmoothL1(beta=0.0), "SmoothL1.beta: must be above 0"),
        (lambda: GradientPenalty(weight=-1.0), "GradientPenalty.weight: must be at least 0, got -1.0"),
        (lambda: R1(gamma=math.inf), "R1.gamma: must be finite and at least 0, got inf"),
        (lambda: R2(gamma=-1.0), "R2.gamma: must be at least 0, got -1.0"),
        (lambda: R1R2(gamma=-1.0), "R1R2.gamma: must be at least 0, got -1.0"),
    ],
)
def test_bad_settings_name_the_field_and_the_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_distance_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="same shape"):
        Mse()(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(2))
    with pytest.raises(ValueError, match="one level a sample"):
        Mse()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(1))


def linear_heads(**weights: Tensor) -> Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]:
    return lambda features, _: {tap: features[tap].flatten(1) @ weight for tap, weight in weights.items()}


def features(*sizes: int) -> dict[str, Tensor]:
    return {f"tap{i}": torch.randn(5, size, 2, 2) for i, size in enumerate(sizes)}


COND = torch.zeros(5, 3)


def source(*, rows: Rows | None = None) -> RowSource:
    """Numbers for the rows of a batch of 5."""
    return RowSource(rows or whole_batch(5), "test")


def nearby(side: Side, rows: slice, eps: float) -> dict[str, Tensor]:
    raise AssertionError("the teacher was asked")


def inputs_of(heads: HeadsFn, real: dict[str, Tensor], fake: dict[str, Tensor]) -> PenaltyInputs:
    """Inputs of a penalty that asks no teacher."""
    return PenaltyInputs(heads, real, fake, COND, source(), nearby)


def test_r1_of_a_linear_head_is_half_gamma_times_its_squared_norm() -> None:
    weight = torch.randn(12, 1, generator=torch.Generator().manual_seed(0))
    penalty = R1(gamma=3.0)(inputs_of(linear_heads(tap0=weight), features(3), features(3)))
    assert penalty.item() == pytest.approx(1.5 * weight.square().sum().item(), rel=1e-5)


def test_r1_sums_over_logits_of_a_head_and_averages_over_heads() -> None:
    heads = linear_heads(tap0=torch.full((12, 2), 1.0), tap1=torch.full((4, 1), 3.0))
    penalty = R1(gamma=2.0)(inputs_of(heads, features(3, 1), features(3, 1)))
    assert penalty.item() == pytest.approx((12 * 2**2 + 4 * 3**2) / 2)


def test_r1_looks_at_real_features_only() -> None:
    real = {"tap0": torch.full((5, 1, 1, 1), 3.0)}
    fake = {"tap0": torch.full((5, 1, 1, 1), 100.0)}
    penalty = R1(gamma=2.0)(inputs_of(lambda seen, _: {"tap0": seen["tap0"].flatten(1) ** 2}, real, fake))
    assert penalty.item() == pytest.approx(6.0**2)


def test_r2_and_r1_r2_of_linear_heads_are_half_gamma_times_squared_norms() -> None:
    """The gradient of a linear head is its weight, for real and fake samples alike."""
    weight = torch.randn(12, 1, generator=torch.Generator().manual_seed(0))
    inputs = inputs_of(linear_heads(tap0=weight), features(3), features(3))
    assert R2(gamma=3.0)(inputs).item() == pytest.approx(1.5 * weight.square().sum().item(), rel=1e-5)
    assert R1R2(gamma=3.0)(inputs).item() == pytest.approx(3.0 * weight.square().sum().item(), rel=1e-5)
    heads = linear_heads(tap0=torch.full((12, 2), 1.0), tap1=torch.full((4, 1), 3.0))
    inputs = inputs_of(heads, features(3, 1), features(3, 1))
    assert R2(gamma=2.0)(inputs).item() == pytest.approx((12 * 2**2 + 4 * 3**2) / 2)


def test_r2_looks_at_fake_features_and_r1_r2_at_both() -> None:
    """Of the head h^2 the squared slope is 4 h^2. Each side has the condition of its own rows."""
    real, fake = {"tap0": torch.full((5, 1, 1, 1), 3.0)}, {"tap0": torch.arange(5.0).view(5, 1, 1, 1)}
    inputs = inputs_of(lambda seen, cond: {"tap0": seen["tap0"].flatten(1) ** 2 + cond[:, :1]}, real, fake)
    of_fake = 4 * (0 + 1 + 4 + 9 + 16) / 5
    assert R2(gamma=2.0)(inputs).item() == pytest.approx(of_fake)
    assert R1R2(gamma=2.0)(inputs).item() == pytest.approx(6.0**2 + of_fake)


@pytest.mark.parametrize("parts", [1, 3, 6])
@pytest.mark.parametrize(("cls", "slopes"), [(R1, (1, 25)), (R2, (4, 36)), (R1R2, (5, 61))])
def test_one_sample_in_four_is_looked_at_whoever_has_it(cls: type[R1], slopes: tuple[int, int], parts: int) -> None:
    """Of 6 samples those at 0 and 4. Of the head h^2 / 2 the squared slope is h^2."""
    values = torch.arange(1.0, 7.0).view(6, 1, 1, 1)
    found, looked = 0.0, set()

    def heads(seen: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        looked.add(len(seen["tap0"]))
        assert len(cond_vec) == len(seen["tap0"])
        return {"tap0": seen["tap0"].flatten(1) ** 2 / 2}

    for number in range(parts):
        rows = whole_batch(6).part(number, parts)
        own = values[rows.first : rows.stop]
        given = ({"tap0": own}, {"tap0": own + 1}, torch.zeros(len(own), 3), source(rows=rows), nearby)
        found += float(cls(gamma=2.0, every=4)(PenaltyInputs(heads, *given))) / parts
    assert found == pytest.approx(sum(slopes) / 2)
    assert max(looked) <= 2 * (2 if cls is R1R2 else 1)


def test_gradient_penalty_of_a_linear_head_is_its_distance_from_unit_norm() -> None:
    weight = torch.full((4, 1), 1.5)  # norm 3
    penalty = GradientPenalty(weight=10.0)(inputs_of(linear_heads(tap0=weight), features(1), features(1)))
    assert penalty.item() == pytest.approx(10 * (3 - 1) ** 2)
    unit = GradientPenalty()(inputs_of(linear_heads(tap0=weight / 3), features(1), features(1)))
    assert unit.item() == pytest.approx(0, abs=1e-10)


def test_gradient_penalty_is_averaged_over_heads() -> None:
    heads = linear_heads(tap0=torch.full((4, 1), 1.5), tap1=torch.full((4, 1), 0.5))
    penalty = GradientPenalty(weight=1.0)(inputs_of(heads, features(1, 1), features(1, 1)))
    assert penalty.item() == pytest.approx(((3 - 1) ** 2 + 0) / 2)


@pytest.mark.parametrize("num_logits", [2, 5])
def test_gradient_penalty_of_a_head_with_several_logits_is_of_their_mean(num_logits: int) -> None:
    """K logits of slope 3 each: a head of K equal opinions is no steeper than one of them."""
    heads = linear_heads(tap0=torch.full((4, num_logits), 1.5))
    penalty = GradientPenalty(weight=1.0)(inputs_of(heads, features(1), features(1)))
    assert penalty.item() == pytest.approx((3 - 1) ** 2)


def test_gradient_penalty_looks_between_real_and_fake_at_places_the_source_draws() -> None:
    seen = []

    def heads(inputs: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
        seen.append({tap: value.detach() for tap, value in inputs.items()})
        return {tap: value.flatten(1).sum(1, keepdim=True) for tap, value in inputs.items()}

    real = {"a": torch.ones(5, 1, 2, 2), "b": torch.ones(5, 3, 1, 1)}
    fake = {"a": torch.zeros(5, 1, 2, 2), "b": torch.zeros(5, 3, 1, 1)}
    for _ in range(2):
        GradientPenalty()(inputs_of(heads, real, fake))
    place = source().uniform()
    torch.testing.assert_close(seen[0]["a"], place.view(5, 1, 1, 1).expand(5, 1, 2, 2))
    torch.testing.assert_close(seen[0]["b"], place.view(5, 1, 1, 1).expand(5, 3, 1, 1))
    torch.testing.assert_close(seen[0], seen[1])


@pytest.mark.parametrize("penalty", [GradientPenalty(), R1(), R2(), R1R2()], ids=str)
def test_a_penalty_of_a_batch_is_the_mean_over_its_rows_whoever_computes_them(penalty: R1) -> None:
    real, fake = features(3), features(3)

    def heads(inputs: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
        return {tap: value.flatten(1).pow(3).sum(1, keepdim=True) for tap, value in inputs.items()}

    whole = penalty(inputs_of(heads, real, fake))
    rows = [Rows(number, number + 1, 5) for number in range(5)]
    alone = [
        penalty(
            PenaltyInputs(
                heads,
                {"tap0": real["tap0"][row.first : row.stop]},
                {"tap0": fake["tap0"][row.first : row.stop]},
                COND[:1],
                source(rows=row),
                nearby,
            )
        )
        for row in rows
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), whole)


@pytest.mark.parametrize("penalty", [GradientPenalty(), R1(), R2(), R1R2()], ids=str)
def test_a_penalty_reaches_the_weights_of_the_heads_and_not_the_features(penalty: R1) -> None:
    weight = torch.randn(12, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    real, fake = features(3), features(3)
    penalty(inputs_of(linear_heads(tap0=weight), real, fake)).backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    assert not real["tap0"].requires_grad and real["tap0"].grad is None


def test_no_regulariser_is_zero_and_never_calls_the_heads() -> None:
    def heads(inputs: dict[str, Tensor], cond_vec: Tensor) -> dict[str, Tensor]:
        raise AssertionError("called")

    assert NoRegulariser()(inputs_of(heads, features(1), features(1))).item() == 0
