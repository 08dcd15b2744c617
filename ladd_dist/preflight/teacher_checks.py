"""Checks of the plug-ins, the teacher and its samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from ladd_dist.builders.networks import denoiser
from ladd_dist.builders.step import build_critic
from ladd_dist.builders.teacher import guided_teacher
from ladd_dist.core.plugin import Plugin
from ladd_dist.datasets import Dataset
from ladd_dist.preflight.check import Check, Fail, Skip, Warn
from ladd_dist.preflight.fixture import Fixture
from ladd_dist.taps import TapLayout
from ladd_dist.testing import ContractError, check_basics, check_plugin, check_taps

SLACK = 0.05
"""Relative tolerance, in units of a sample's own size."""
MOST_S = 10.0
"""Seconds that computing samples again may take."""
LIKE = 0.9
MIDDLE = 0.3
"""A noise level at which a trained teacher removes noise, in units of x0."""
SAME_TASTE = 0.02
FEW = 8
COLLAPSED = 0.01


def rms(x: Tensor) -> float:
    """Root mean square of all elements."""
    return float(x.double().square().mean().sqrt())


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation over all elements; 0 if one tensor is constant."""
    one, other = (value.double().flatten() - value.double().mean() for value in (x, y))
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else 0.0


def plugins_of(node: object, path: str = "") -> Iterator[tuple[str, Plugin]]:
    """Every plug-in in a recipe, with its path there."""
    if isinstance(node, Plugin):
        yield path, node
    elif isinstance(node, tuple):
        for number, item in enumerate(node):
            yield from plugins_of(item, f"{path}[{number}]")
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from plugins_of(getattr(node, field.name), f"{path}.{field.name}".lstrip("."))


def check_plugins(fixture: Fixture) -> str:
    """Check that every plug-in of the recipe keeps the contract of its kind."""
    found = dict(plugins_of(fixture.recipe))
    for name, plugin in found.items():
        try:
            if isinstance(plugin, TapLayout):
                check_taps(plugin, build_critic(fixture.recipe, fixture.teacher).taps)
            elif isinstance(plugin, Dataset):
                check_basics(plugin)  # its files may be elsewhere, or a download: training looks at the images itself
            else:
                check_plugin(plugin)
        except ContractError as error:
            raise Fail(
                f"{name}: {error}",
                cause=f"{type(plugin).__module__}.{type(plugin).__qualname__} breaks the contract of its kind",
                cure="docs/plugins.md has the contract; `ladd plugins --check NAME` checks this one alone",
            ) from error
    return f"{len(found)} keep their contracts"


def check_frozen(fixture: Fixture) -> str:
    """Check that the teacher below the heads does not change and holds no gradient."""
    found = fixture.watched
    network = found.training.ladd_step.critic.network
    loose = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    cure = "FrozenCritic and Parallel.freeze must call requires_grad_(False), and eval()"
    if loose:
        raise Fail(
            f"{len(loose)} of the teacher's weights require a gradient, {loose[0]} the first",
            cause="they are trained or reduced along with the student, and cost its memory",
            cure=cure,
        )
    if any(module.training for module in network.modules()):
        raise Fail("the teacher is in training mode", cause="dropout and norms then depend on the batch", cure=cure)
    moved = [name for turn in found.watch.turns for name in turn.moved("teacher")]
    held = [name for turn in found.watch.turns for name in turn.gradients["teacher"]]
    if moved or held:
        raise Fail(
            f"after two steps {(moved or held)[0]} of the teacher {'has moved' if moved else 'holds a gradient'}",
            cause="an optimizer, or a forward in training mode, reaches it",
            cure=cure,
        )
    return f"{len(list(network.parameters()))} weights stand still"


def check_differentiable(fixture: Fixture) -> str:
    """Check that each tap passes a gradient to the image."""
    training, batch = fixture.untouched, fixture.batch
    teacher = training.ladd_step.critic
    x0 = batch.x0[:2].clone().requires_grad_()
    tau = torch.full((2,), 0.5, device=x0.device)
    seen = teacher.features(x0, batch.cond[:2], tau, torch.zeros_like(x0), tau)
    cure = "the network's forward must not detach, nor run under no_grad, on the way to this tap"
    for tap, value in seen.features.items():
        if not value.requires_grad:
            raise Fail(f"tap {tap!r} has no gradient", cause="the student learns nothing from its head", cure=cure)
        (gradient,) = torch.autograd.grad(value.square().sum(), x0, retain_graph=True)
        if not bool(gradient.isfinite().all()) or not bool(gradient.flatten(1).any(dim=1).all()):
            raise Fail(
                f"the gradient of tap {tap!r} is zero or not finite",
                cause="a dead or overflowing layer before this tap",
                cure=cure,
            )
    return f"gradients through {', '.join(seen.features)}"


def check_x0(fixture: Fixture) -> str:
    """Check that D(x0 + sigma n; sigma) is x0 at small sigma, and nearer to x0 than its input at a larger one."""
    teacher, batch = fixture.require_trained(), fixture.batch
    small = fixture.recipe.shards.sampler.levels()[-1]
    noise = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(0)).to(batch.x0)
    denoise = denoiser(teacher)
    errors = {}
    with torch.inference_mode():
        for sigma in (small, max(MIDDLE, small)):
            level = torch.full((len(batch.x0),), sigma, device=batch.x0.device)
            errors[sigma] = rms(denoise(batch.x0 + sigma * noise, level, batch.cond) - batch.x0)
    size = rms(batch.x0)
    cause = "what the network returns is not x0: a velocity, the noise, or x0 in other units"
    cure = "Denoiser.forward must return D(x; sigma), an estimate of x0 (x0 = x - sigma eps; x0 = x_t - t v)"
    if errors[small] > 3 * small + SLACK * size:
        raise Fail(f"at sigma {small:g} it is {errors[small] / size:.0%} of x0 away from x0", cause=cause, cure=cure)
    middle = max(errors)
    if errors[middle] > LIKE * middle:
        raise Warn(
            f"at sigma {middle:g} its error is {errors[middle]:.3f}: it takes next to no noise away",
            cause="a teacher of few steps (scale smoke), or weights of another network",
            cure="train it longer: --teacher.steps",
        )
    return f"error {errors[small]:.4f} at sigma {small:g}, {errors[middle]:.3f} at {middle:g}"


def check_guidance(fixture: Fixture) -> str:
    """Check that the teacher's samples are made with the recipe's guidance."""
    recipe, teacher, batch = fixture.recipe, fixture.teacher, fixture.batch
    if recipe.shards.source:
        raise Skip("the samples are imported (shards.source)")
    if recipe.shards.samples == "dataset":
        raise Skip("the samples are the dataset's pictures (shards.samples)")
    scale, rows = recipe.shards.guidance, slice(0, FEW)
    level = torch.full((len(batch.x0[rows]),), 1.0, device=batch.x0.device)
    x, cond = batch.x0[rows] * 1.5, batch.cond[rows]
    plain = denoiser(teacher)
    with torch.inference_mode():
        conditional = plain(x, level, cond)
        unconditional = plain(x, level, torch.full_like(cond, recipe.dataset.spec().num_classes))
        made = guided_teacher(recipe, teacher)(x, level, cond)
    expected = teacher.rescaled(unconditional + scale * (conditional - unconditional), conditional, x, level)
    reach = rms(conditional - unconditional)
    if rms(made - expected) > SAME_TASTE * reach + 1e-5 * rms(expected):
        raise Fail(
            f"what makes the samples is not D_uncond + {scale:g} (D_cond - D_uncond)",
            cause="references without guidance: the student then learns from worse samples than its teacher can make",
            cure="builders.teacher.guided_teacher must apply shards.guidance",
        )
    if scale == 1:
        raise Warn(
            "the samples are made without guidance (shards.guidance = 1)",
            cause="the recipe's choice; LADD's samples have it",
            cure="--shards.guidance 4",
        )
    return f"guidance {scale:g}"


def check_samples(fixture: Fixture) -> str:
    """Check that stored samples differ from each other and from their noise, which has unit variance."""
    reader, recipe = fixture.reader, fixture.recipe
    reader.verify(recipe.latent())
    batch = fixture.batch
    spread = float(batch.x0.std(dim=0).mean())
    again = "remove the folder of the shards and make them again: --stages shards"
    if spread < COLLAPSED:
        raise Fail(
            f"the teacher's samples are all alike (standard deviation {spread:.4f})",
            cause="a teacher that was not trained, or one and the same noise for every sample",
            cure="look at the teacher's samples; train it longer",
        )
    if batch.noise is None:
        if recipe.start.needs_pairs:
            raise Fail(
                f"start {recipe.start.name!r} needs the noise of each sample, and these shards hold none",
                cause="imported shards",
                cure="--swap start=fresh, or import shards with a noise member",
            )
        return f"{len(reader)} samples; no noise (imported)"
    alike = correlation(batch.x0, batch.noise)
    if alike > LIKE:
        raise Fail(
            f"the samples are the noise (correlation {alike:.2f})",
            cause="a sampler that returns its input, or mixed-up members of imported shards",
            cure=again,
        )
    if abs(rms(batch.noise) - 1) > SLACK:
        raise Fail(
            f"the stored noise has standard deviation {rms(batch.noise):.3f}, not 1",
            cause="noise that was stored already scaled by sigma_max, or imported in other units",
            cure="store unit noise: x = sigma_max n. Then " + again,
        )
    return f"{len(reader)} samples, unhurt; noise has unit variance"


def check_stored_noise(fixture: Fixture) -> str:
    """Check that the teacher makes the stored samples from their stored noise."""
    reader, teacher, batch = fixture.reader, fixture.require_trained(), fixture.batch
    recipe = fixture.recipe
    if recipe.shards.source or batch.noise is None:
        raise Skip("the samples are imported: their sampler is not known here")
    sampler = recipe.shards.sampler
    denoise = guided_teacher(recipe, teacher)
    with torch.inference_mode():
        started = time.monotonic()
        denoise(batch.noise[:2], torch.ones(2, device=batch.x0.device), batch.cond[:2])
        a_sample = (time.monotonic() - started) / 2 * sampler.num_calls()
        num = max(1, min(8, int(MOST_S / a_sample)))
        noise = batch.noise[:num].contiguous(memory_format=torch.channels_last)
        x0, path = sampler(denoise, noise, batch.cond[:num], record=recipe.path_levels())
    away = [rms(a - b) / rms(b) for a, b in zip(x0, batch.x0[:num], strict=True)]
    if batch.path is not None:
        away += [rms(a - b) / rms(b) for a, b in zip(path, batch.path[:num], strict=True)]
    if max(away) > SLACK:
        raise Fail(
            f"made again from its noise, a sample is {max(away):.0%} away from the stored one",
            cause="teacher, sampler or guidance are not those that made the shards, or noise and samples are mixed up",
            cure=f"remove {fixture.run.shards_folder} and make it again: --stages shards",
        )
    return f"{num} of {len(reader)} made again, at most {max(away):.1e} away"


CHECKS: list[Check[Fixture]] = [
    Check("plug-ins", "Every plug-in keeps the contract of its kind", check_plugins),
    Check("teacher-frozen", "The teacher stands still", check_frozen),
    Check("teacher-differentiable", "Gradients pass through the teacher, to every tap", check_differentiable),
    Check("teacher-x0", "At small sigma the teacher's x0 equals the data", check_x0),
    Check("guidance", "The teacher's samples are made with guidance", check_guidance),
    Check("samples", "What stands for real are pictures, and the noise beside them is noise", check_samples),
    Check("stored-noise", "Stored noise reproduces stored samples", check_stored_noise),
]
