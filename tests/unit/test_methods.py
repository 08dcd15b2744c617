"""What the heads look at, what the student is pulled to, and what it is asked about."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path as File
from typing import Any

import pytest
import torch
from ladd_toys import IMAGE, LEVELS, Watched, assert_same, make_batch, make_step, network, weights, whole
from safetensors.torch import save_file
from torch import Tensor

from ladd_dist.builders.step import build_critic, build_heads
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.core.noise import few_step_inputs, few_step_sample
from ladd_dist.core.rng import RowSource, whole_batch
from ladd_dist.core.serialize import RecipeError
from ladd_dist.core.types import Autoencoder, Batch, Denoiser, ImageSpec
from ladd_dist.costs.flops import count_flops
from ladd_dist.critics.pixels import Pixels
from ladd_dist.engine.discriminator import FrozenCritic, Heads
from ladd_dist.engine.heads_update import critique
from ladd_dist.engine.ladd_step import LaddStep
from ladd_dist.losses.distance import Mse, sigma_weight
from ladd_dist.parallel.compute import Compute
from ladd_dist.recipe import load_recipe, validate
from ladd_dist.rollouts.policies import EveryStep, OffPolicy, OnPolicy
from ladd_dist.sigmas.laws import FixedSet, LogNormal
from ladd_dist.stages.dry_step import trial
from ladd_dist.stages.dry_values import random_batch
from ladd_dist.starts.couplings import Fresh, Ot, Path, Stored
from ladd_dist.targets.pulls import Input, StoredSample, TeacherDenoised
from plugins.heads import SmallConv
from plugins.taps import Downs

RECIPES = File(__file__).parents[2] / "recipes"
SD = 0.5


class Doubler(Autoencoder):
    """Latents are half the size of images, and half their brightness."""

    def encode(self, images: Tensor) -> Tensor:
        return images[..., ::2, ::2] / 2

    def decode(self, latents: Tensor) -> Tensor:
        return 2 * latents.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def gaussian(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
    """The perfect denoiser of N(0, sd^2): s^2 x / (s^2 + sigma^2)."""
    return x * (SD**2 / (SD**2 + sigma.square())).view(-1, 1, 1, 1)


def critic_of(plugin: Pixels, image: ImageSpec = IMAGE, codec: type[Autoencoder] | None = None) -> Denoiser:
    class Same(Autoencoder):
        def decode(self, latents: Tensor) -> Tensor:
            return latents

    return plugin.build(teacher=network(), image=image, codec=codec or Same)


def pixel_step() -> tuple[LaddStep, Denoiser]:
    """A step whose heads look at the shipped features."""
    critic, taps = critic_of(Pixels()), ("conv0", "conv2")
    torch.manual_seed(3)
    heads = Watched(Heads(SmallConv(width=4, conditioned=True), critic, taps), lr=1e-3, compute=Compute())
    return make_step(heads=heads, critic=FrozenCritic(critic, taps, renoises=False)), critic


# The defaults


def test_by_default_a_step_is_asked_what_it_always_was() -> None:
    """The coupling's input at the level drawn, the stored sample as target; nothing is run, repeated or drawn."""
    step, batch = make_step(), make_batch()
    part = whole(step, batch)
    assert torch.equal(part.inputs.x, step.micro_batches.start(batch, part.draws.sigma, part.draws.start_eps))
    assert part.inputs.sigma is part.draws.sigma
    found = step.target_of(torch.zeros_like(batch.x0), part, 0)
    assert found.x0 is part.batch.x0
    assert found.sigma is part.draws.sigma
    with pytest.raises(ValueError, match="needs_teacher"):
        step.teacher(batch.x0, part.draws.sigma, batch.cond)


def test_a_repeated_source_begins_with_the_numbers_of_one_that_is_not() -> None:
    rows = whole_batch(100).part(1, 2)  # across the border of a block
    once, thrice = RowSource(rows, "a", 1), RowSource(rows, "a", 1, repeats=3)
    first, all_three = once.normal(4), thrice.normal(4)
    assert torch.equal(all_three[:50], first)
    assert len(all_three.unique(dim=0)) == 150  # new numbers in every copy
    again = RowSource(whole_batch(100), "a", 1, repeats=3).normal(4)
    assert torch.equal(again.view(3, 100, 4)[:, 50:].reshape(150, 4), all_three)


# Rollouts


@pytest.mark.parametrize("start", [Stored(), Fresh(), Path()], ids=lambda start: start.name)
def test_every_step_asks_the_student_what_the_sampler_would(start: Any) -> None:
    step, batch = make_step(start=start, rollout=EveryStep()), make_batch()
    if start.needs_path:
        assert batch.noise is not None
        batch = batch._replace(path=torch.stack([level * batch.noise for level in LEVELS], dim=1))
    part = whole(step, batch)
    noise = batch.noise if start.rule == "ode" else part.draws.start_eps
    assert noise is not None
    asked: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        asked.append(x)
        return step.denoise(x, sigma, cond)

    source = RowSource(whole_batch(len(batch.x0)), "rollout_noise", step.micro_batches.seed, 0)
    with torch.no_grad():
        last = few_step_sample(denoise, noise, batch.cond, LEVELS, start.rule, source)
        fakes = step.fake(part)
    torch.testing.assert_close(part.inputs.x, torch.cat(asked), rtol=0, atol=1e-4)
    assert part.inputs.sigma.tolist() == pytest.approx([s for s in LEVELS for _ in batch.x0])
    torch.testing.assert_close(fakes[-len(batch.x0) :], last, rtol=1e-4, atol=1e-5)
    assert len(part.draws.tau) == len(LEVELS) * len(batch.x0)
    assert len(part.draws.tau.unique()) == len(part.draws.tau)


def test_on_policy_with_no_share_is_off_policy() -> None:
    off, on = make_step(), make_step(rollout=OnPolicy(share=0.0))
    for number in range(2):
        assert off(make_batch(seed=number), number) == on(make_batch(seed=number), number)
    assert_same(weights(off.student), weights(on.student))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_on_policy_gives_a_share_of_rows_their_own_state_at_their_own_level(share: float) -> None:
    step, batch = make_step(rollout=OnPolicy(share=share)), make_batch(64)
    part = whole(step, batch)
    assert batch.noise is not None
    with torch.no_grad():
        states = list(few_step_inputs(step.denoise, LEVELS[0] * batch.noise, batch.cond, LEVELS, "ode"))
    given = step.micro_batches.start(batch, part.draws.sigma, part.draws.start_eps)
    mine = 0
    for row, sigma in enumerate(part.inputs.sigma):
        own = states[min(range(4), key=lambda i, sigma=sigma: abs(LEVELS[i] - float(sigma)))][row]  # type: ignore[misc]
        is_own = torch.allclose(part.inputs.x[row], own, atol=1e-3)
        mine += is_own
        assert is_own or torch.equal(part.inputs.x[row], given[row])
    assert mine == 64 if share == 1 else 16 < mine < 48


def test_own_inputs_carry_no_gradient_and_the_step_trains_both_networks() -> None:
    step = make_step(rollout=EveryStep(), mode="fused")
    assert not whole(step, make_batch()).inputs.x.requires_grad
    before = weights(step.student), weights(step.heads)
    figures = step(make_batch(), 0)
    assert all(torch.as_tensor(value).isfinite() for value in figures.values())
    assert any(not torch.equal(value, weights(step.student)[name]) for name, value in before[0].items())
    assert any(not torch.equal(value, weights(step.heads)[name]) for name, value in before[1].items())


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="share: must be at least 0 and at most 1"):
        OnPolicy(share=1.5)


def test_own_inputs_need_the_students_own_levels() -> None:
    recipe = load_recipe(RECIPES / "on_policy.py", "smoke")
    with pytest.raises(RecipeError, match=r"rollout 'on_policy'.*student_sigma=fixed_set"):
        validate(dataclasses.replace(recipe, student_sigma=LogNormal()))


# Targets


def test_adds_target_is_the_teachers_denoising_at_levels_and_noise_of_its_own() -> None:
    """With Gaussian data the target is s^2 (fake + t eps') / (s^2 + t^2): its spread over eps' is known."""
    target, num = TeacherDenoised(mean=0.0, std=0.5), 4096
    fake = 0.3 + torch.zeros(num, 1, 2, 2)
    batch = Batch(fake, torch.zeros(num, dtype=torch.int64), None, None, ())
    level = torch.full((num,), 80.0)
    found = target(fake, fake, level, batch, teacher=gaussian, source=RowSource(whole_batch(num), "target", 0))
    assert float(found.sigma.log().mean()) == pytest.approx(0.0, abs=0.05)
    assert float(found.sigma.log().std()) == pytest.approx(0.5, rel=0.05)
    shrink = (SD**2 / (SD**2 + found.sigma.square())).view(-1, 1, 1, 1)
    noise = (found.x0 / shrink - fake) / found.sigma.view(-1, 1, 1, 1)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.03)
    assert len(noise.flatten().unique()) > num


def test_the_quartiles_that_adds_target_names_are_those_of_its_law_and_of_the_linear_schedule() -> None:
    quarters, target = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), TeacherDenoised()
    own = (target.mean + target.std * torch.special.ndtri(quarters)).exp()
    kept = (1 - torch.linspace(1e-4, 0.02, 1_000, dtype=torch.float64)).cumprod(dim=0)
    linear = SD * ((1 - kept) / kept).sqrt().quantile(quarters)  # in units of x0, whose standard deviation is SD
    for law in (own, linear):
        assert ", ".join(f"{value:.2f}".removeprefix("0") for value in law) in str(TeacherDenoised.__doc__)


def test_with_its_inputs_noise_the_target_is_the_samplers_next_step() -> None:
    """Levels are never above the input's; at that level the target is what the teacher makes of the input."""
    torch.manual_seed(0)
    num, level = 64, 3.0
    x, cond = 3 * torch.randn(num, 1, 4, 4), torch.zeros(num, dtype=torch.int64)
    sigma, source = torch.full((num,), level), RowSource(whole_batch(num), "target", 0)
    batch, fake = Batch(x, cond, None, None, ()), gaussian(x, sigma, cond)

    low = TeacherDenoised(mean=0.0, std=0.0, noise="input")(fake, x, sigma, batch, teacher=gaussian, source=source)
    assert low.sigma.unique().tolist() == [1.0]
    sampled = few_step_sample(gaussian, x / level, cond, (level, 1.0), "ode")
    torch.testing.assert_close(low.x0, sampled)

    high = TeacherDenoised(mean=9.0, std=0.5, noise="input")(fake, x, sigma, batch, teacher=gaussian, source=source)
    assert high.sigma.unique().tolist() == [level]
    torch.testing.assert_close(high.x0, gaussian(x, sigma, cond))


def test_no_gradient_passes_through_the_teachers_view_of_the_fake() -> None:
    """So the student's gradient is 2 (fake - target) / D, as for any fixed target."""
    step = make_step(target=TeacherDenoised(), teacher=gaussian)
    part = whole(step, make_batch())
    fake = torch.randn_like(part.batch.x0).requires_grad_()
    found = step.target_of(fake, part, 0)
    assert not found.x0.requires_grad
    (gradient,) = torch.autograd.grad(step.distance(fake, found.x0, found.sigma), fake)
    torch.testing.assert_close(gradient, 2 * (fake.detach() - found.x0) / fake.numel())


def test_the_distance_of_a_step_is_weighed_at_the_level_of_the_target() -> None:
    """The teacher's view of the fake is at a level of its own: the input's, 80 or .34, would weigh it otherwise."""
    distance = Mse(sigma_scale=0.5, sigma_power=1.0)
    step, batch = make_step(target=TeacherDenoised(), teacher=gaussian, distance=distance), make_batch()
    part = whole(step, batch)
    with torch.no_grad():
        fake = step.fake(part)
        found = step.target_of(fake, part, 0)
        expected, at_the_input = (float(distance(fake, found.x0, level)) for level in (found.sigma, part.inputs.sigma))
    assert expected != pytest.approx(at_the_input, rel=0.1)
    assert float(step(batch, 0)["loss/distill"]) == pytest.approx(expected, rel=1e-5)


def test_the_exponential_weight_of_add_is_alpha_of_its_level() -> None:
    sigma = torch.tensor([0.01, 0.5, 80.0])
    alpha = 1 / (1 + (sigma / SD).square()).sqrt()  # x_t = alpha (x0 + sigma eps) with data of unit variance
    torch.testing.assert_close(sigma_weight(sigma, 0.5, 0.5), alpha)


def test_the_input_as_target_has_the_datas_variance_at_every_level() -> None:
    num = 2000
    x0, eps = SD * torch.randn(2, num, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(x0, torch.zeros(num, dtype=torch.int64), None, None, ())
    for level in (0.01, 0.5, 80.0):
        sigma = torch.full((num,), level)
        x = Ot()(batch, sigma, eps / SD)
        found = Input()(x0, x, sigma, batch, teacher=gaussian, source=RowSource(whole_batch(num), "target", 0))
        assert float(found.x0.std()) == pytest.approx(SD, rel=0.03)
    torch.testing.assert_close(found.x0, eps, rtol=0, atol=0.05)  # at sigma 80: the noise, in the data's units


# Critics


def test_a_pixel_critic_sees_samples_as_they_are_and_passes_gradients_but_keeps_none() -> None:
    step, critic = pixel_step()
    part = whole(step, make_batch())
    x0 = part.batch.x0.clone().requires_grad_()
    seen = critique(step.critic, x0, part)
    louder = critique(step.critic, x0, part._replace(draws=part.draws._replace(tau=2 * part.draws.tau)))
    assert all(torch.equal(value, louder.features[tap]) for tap, value in seen.features.items())
    (gradient,) = torch.autograd.grad(sum(value.square().sum() for value in seen.features.values()), x0)
    assert bool(gradient.flatten(1).any(dim=1).all())
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    step(make_batch(), 0)
    assert_same(before, critic.state_dict())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in critic.parameters())
    assert not any(module.training for module in critic.modules())


def test_a_pixel_critic_looks_at_what_the_latents_decode_to() -> None:
    plain, decoded = critic_of(Pixels()), critic_of(Pixels(), ImageSpec(3, 16, 16, 10), codec=Doubler)
    latents, cond = make_batch().x0, make_batch().cond
    taps = ("conv1", "conv3")
    expected = plain(Doubler().decode(latents), torch.ones(6), cond, taps=taps, denoise=False)
    found = decoded(latents, torch.ones(6), cond, taps=taps, denoise=False)
    assert_same(expected.features, found.features)


def test_the_catalog_of_the_shipped_features_tells_their_shapes_and_the_class_is_one_hot() -> None:
    critic = critic_of(Pixels(), ImageSpec(3, 16, 16, 10))
    cond = torch.tensor([0, 9, 10])  # the last: no class
    out = critic(torch.zeros(3, 3, 16, 16), torch.ones(3), cond, taps=tuple(critic.taps), denoise=False)
    assert {tap: (v.shape[1], 16 // v.shape[2]) for tap, v in out.features.items()} == dict(critic.taps)
    assert out.cond_vec.argmax(dim=1).tolist() == cond.tolist()
    assert out.cond_vec.shape[1] == critic.cond_dim
    with pytest.raises(KeyError, match=r"unknown tap 'middle'.*conv0, conv1"):
        critic(torch.zeros(3, 3, 16, 16), torch.ones(3), cond, taps=("middle",), denoise=False)


def test_a_torchvision_model_by_name_stops_at_its_last_tap_and_reads_safetensors(tmp_path: File) -> None:
    from torchvision import models

    torch.manual_seed(0)
    model = models.get_model("resnet18", weights=None).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    plugin = Pixels(source="torchvision", model="resnet18", weights=str(tmp_path / "weights.safetensors"), size=32)
    critic = critic_of(plugin)
    images = make_batch().x0

    def look(*taps: str) -> dict[str, Tensor]:
        return critic(images, torch.ones(6), make_batch().cond, taps=taps, denoise=False).features

    seen = look("bn1", "layer1")
    assert count_flops(lambda: look("bn1", "layer1")) < 0.5 * count_flops(lambda: look("bn1", "layer4"))
    pixels = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normal = ((pixels + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(seen["bn1"], model.bn1(model.conv1(normal)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "torchvision", "model": "resnet1"}, "torchvision has no classifier 'resnet1'; it has alexnet"),
        ({"source": "torchvision", "model": "resnet18", "weights": "w.pth"}, "expected a .safetensors file"),
        ({"source": "torchvision"}, "named by source and model together"),
        ({"size": 32}, "a size of its own"),
    ],
)
def test_a_critic_that_cannot_be_made_says_why(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critic_of(Pixels(**fields))


def test_timm_that_is_not_installed_is_named_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install timm; or use --critic.source torchvision"):
        critic_of(Pixels(source="timm", model="resnet18"))


# Recipes


def test_the_recipes_say_what_they_are_called_for() -> None:
    """The coupling, target and rollout that a recipe's name promises, at every scale."""
    for scale in ("smoke", "laptop", "paper"):
        add, every, kandinsky, on, ot, path, paper, unpaired = (
            validate(load_recipe(RECIPES / f"{name}.py", scale))  # type: ignore[arg-type]
            for name in (
                "add_digits",
                "every_step",
                "kandinsky_digits",
                "on_policy",
                "ot_coupling",
                "path_coupling",
                "ladd_paper",
                "no_pairs",
            )
        )
        assert isinstance(add.critic, Pixels)
        assert isinstance(add.target, TeacherDenoised)
        assert every.rollout == kandinsky.rollout == EveryStep()
        assert (kandinsky.taps, kandinsky.distill_weight(0), kandinsky.adv_weight(0) > 0) == (Downs(), 0.0, True)
        assert isinstance(on.rollout, OnPolicy)
        assert (ot.start, ot.target) == (Ot(), Input())
        assert path.start == Path()
        assert (unpaired.start, unpaired.target.needs_teacher) == (Ot(), True)
        assert isinstance(paper.student_sigma, FixedSet)
        assert [phase.probabilities for phase in paper.student_sigma.phases] == [(0, 0, 0.5, 0.5), (0.7, 0.1, 0.1, 0.1)]
        assert (paper.target, paper.rollout, paper.distill_weight(0)) == (StoredSample(), OffPolicy(), 0.0)
        build_heads(add, build_critic(add, fresh_network(add)))


def test_kandinskys_discriminator_is_the_down_half_alone_whose_middle_and_up_half_are_never_computed() -> None:
    recipe = load_recipe(RECIPES / "kandinsky_digits.py", "smoke")
    with trial(recipe, with_data=True) as rehearsal:
        ran: list[str] = []
        for name, module in rehearsal.frozen.critic.named_modules():
            if name.partition(".")[0] in ("downs", "middle", "ups", "output"):
                module.register_forward_hook(lambda *_, name=name: ran.append(name.partition(".")[0]))
        batch = random_batch(rehearsal, 2)
        figures = rehearsal.step(batch, recipe.train.steps - 1)
    assert set(ran) == {"downs"}
    assert float(figures["loss/adversarial"]) != 0 and float(figures["loss/heads"]) > 0
