"""Parts of a recipe that are right by themselves and wrong together are refused, with something that works."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladd_dist import launch
from ladd_dist.codecs.autoencoder_kl import AutoencoderKL
from ladd_dist.core.plugin import register, registered
from ladd_dist.core.serialize import RecipeError
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.levels.named import Karras
from ladd_dist.metrics.manifold import Manifold
from ladd_dist.networks import Network
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.parallel.compute import Compute
from ladd_dist.parallel.fsdp import Fsdp
from ladd_dist.parallel.zero import Zero2, Zero3
from ladd_dist.recipe import Recipe, validate
from ladd_dist.recipe.pairs import require_pairs
from ladd_dist.rollouts import Rollout
from ladd_dist.rollouts.policies import EveryStep, OffPolicy, OnPolicy
from ladd_dist.samplers.ancestral import Ancestral
from ladd_dist.samplers.karras import Euler
from ladd_dist.schedules import Schedule
from ladd_dist.sigmas import SigmaLaw
from ladd_dist.sigmas.timesteps import Timesteps
from ladd_dist.starts import Start
from ladd_dist.starts.couplings import Fresh, Ot, Stored
from ladd_dist.starts.couplings import Path as PathCoupling
from ladd_dist.targets import Target
from ladd_dist.targets.old import OldOrDenoised, OldSample
from ladd_dist.targets.pulls import Input, StoredSample, TeacherDenoised
from plugins.heads import SpectralNorm
from plugins.schedules import Constant, LinearWarmup, Piecewise
from recipes._base import BASE

REPO = Path(__file__).resolve().parents[2]
SMOKE = BASE.smoke


def changed(recipe: Recipe = SMOKE, **changes: Any) -> Recipe:
    """The recipe with fields replaced; `train__lr_final` is a field of a stage."""
    for name, value in changes.items():
        stage, _, field = name.rpartition("__")
        if stage:
            name, value = stage, dataclasses.replace(getattr(recipe, stage), **{field: value})
        recipe = dataclasses.replace(recipe, **{name: value})
    return recipe


# --- start, rollout and target ---

STARTS, TARGETS = (Fresh(), Ot(), Stored(), PathCoupling()), (StoredSample(), TeacherDenoised(), Input())
OLD = (OldSample(), OldOrDenoised())
"""Targets that need a share of old conditions, whose inputs keep their pairs (`test_tune_step.py`)."""
ROLLOUTS = (OffPolicy(), OnPolicy(share=0.0), OnPolicy(share=0.5), OnPolicy(share=1.0), EveryStep())


@pytest.mark.parametrize("target", TARGETS, ids=lambda it: it.name)
@pytest.mark.parametrize("rollout", ROLLOUTS, ids=str)
@pytest.mark.parametrize("start", STARTS, ids=lambda it: it.name)
def test_inputs_that_begin_at_new_noise_are_never_pulled_to_a_stored_sample(
    start: Start, rollout: Rollout, target: Target
) -> None:
    recipe = changed(start=start, rollout=rollout, target=target)
    own_steps = rollout.name == "every_step" or getattr(rollout, "share", 0) > 0
    if start.name in ("fresh", "ot") and own_steps and target.name == "stored":
        with pytest.raises(RecipeError, match=rf"recipe\.rollout: with start '{start.name}' the inputs .*new noise"):
            validate(recipe)
        for advice in ({"start": Stored()}, {"target": TeacherDenoised()}, {"rollout": OffPolicy()}):
            validate(changed(recipe, **advice))
        validate(changed(recipe, distill_weight=Constant(0.0)))
    else:
        assert validate(recipe) == recipe


def test_the_table_has_every_start_rollout_and_target_of_the_package() -> None:
    """A new one has to say whether it keeps pairs."""
    for kind, tried in (("start", STARTS), ("rollout", ROLLOUTS), ("target", (*TARGETS, *OLD))):
        ours = {name for name, cls in registered()[kind].items() if cls.__module__.startswith("ladd_dist.")}
        assert {item.name for item in tried} == ours


def test_inputs_without_pairs_have_nothing_to_do_with_the_stored_sample() -> None:
    """What the refusal rests on: the same noise and another sample give the same input."""
    from ladd_dist.core.rng import whole_batch
    from ladd_dist.core.types import Batch
    from ladd_dist.engine.draws import MicroBatches
    from ladd_dist.sigmas.laws import FixedSet

    levels = (80.0, 1.0)

    def inputs(start: Start, x0: Tensor) -> Tensor:
        cond = torch.zeros(len(x0), dtype=torch.int64)
        batch = Batch(x0, cond, torch.ones_like(x0), None, ())
        steps = MicroBatches(start, EveryStep(), FixedSet(), FixedSet(), levels, seed=0)
        student = lambda x, sigma, cond: x / 2  # noqa: E731
        return steps.split(batch, 0, whole_batch(len(x0)), count=1, student=student)[0].inputs.x

    one, other = torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2)
    assert torch.equal(inputs(Fresh(), one), inputs(Fresh(), other))


# --- weights ---


@pytest.mark.parametrize("name", ["adv_weight", "distill_weight"])
def test_a_weight_that_turns_negative_or_infinite_is_refused_at_its_step(name: str, own_tables: None) -> None:
    @register("falling")
    @dataclass(frozen=True)
    class Falling(Schedule):
        """A user's schedule."""

        at_last: float = -1.0

        def __call__(self, step: int) -> float:
            return self.at_last if step == SMOKE.train.steps - 1 else 1.0

    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RecipeError, match=rf"recipe\.{name}: schedule .* gives {bad} at step 19"):
            validate(changed(**{name: Falling(bad)}))


def test_two_weights_of_zero_train_nothing() -> None:
    with pytest.raises(RecipeError, match="both are 0 at every step"):
        validate(changed(adv_weight=Constant(0.0), distill_weight=LinearWarmup(steps=5, start_step=100)))
    validate(changed(adv_weight=Constant(0.0), distill_weight=Piecewise(((18, 0.0), (19, 1.0)))))


# --- the teacher and its samples ---


def test_guidance_needs_a_teacher_that_knows_no_class() -> None:
    alone = changed(teacher__label_dropout=0.0)
    with pytest.raises(RecipeError, match=r"recipe\.shards\.guidance: 4 mixes in .*--shards\.guidance 1, or --teacher"):
        validate(alone)
    validate(changed(alone, shards__guidance=1.0))


def test_a_sampler_never_begins_far_above_what_its_teacher_has_seen() -> None:
    linear, cosine = Timesteps("linear"), Timesteps("cosine")
    for law, sampler, fits in (
        (linear, Ancestral("linear", steps=50), True),
        (cosine, Ancestral("cosine", steps=50), True),
        (cosine, Ancestral("linear", steps=50), True),
        (Timesteps("linear", 500), Ancestral("linear", timesteps=1_000, steps=50), True),
        (linear, Ancestral("cosine", steps=50), False),
        (linear, Euler(sigma_max=1_000.0), False),
    ):
        recipe = changed(teacher__sigma=law, shards__sampler=sampler)
        if fits:
            validate(recipe)
        else:
            with pytest.raises(RecipeError, match=r"recipe\.shards\.sampler: begins at .* trains the teacher up to 15"):
                validate(recipe)


def test_a_path_needs_states_that_the_shards_can_hold() -> None:
    path = changed(start=PathCoupling())
    with pytest.raises(RecipeError, match=r"recipe\.levels: start 'path' needs the teacher's state at 80, .* at 14\.6"):
        validate(changed(path, shards__sampler=Euler(sigma_max=14.6)))
    validate(changed(path, shards__sampler=Euler(sigma_max=14.6), levels=Karras(sigma_max=14.6)))
    validate(changed(path, shards__source="there/*.tar"))  # what they hold is looked at when they are found


def test_a_sampler_that_clips_pixels_is_refused_for_latents() -> None:
    latents = changed(codec=AutoencoderKL(widths=(8, 8)), teacher__sigma=Timesteps())
    with pytest.raises(RecipeError, match=r"clips to the range of pixels.*use --shards\.sampler\.clip 0"):
        validate(changed(latents, shards__sampler=Ancestral(steps=50)))
    validate(changed(latents, shards__sampler=Ancestral(steps=50, clip=0.0)))


def test_a_checkpoint_does_not_know_the_latents_of_a_codec_that_is_trained_here() -> None:
    network: Network = Diffusers(source="there")
    with pytest.raises(RecipeError, match=r"recipe\.codec: 'autoencoder_kl' is trained here.*codec=vae or codec=pix"):
        validate(changed(network=network, codec=AutoencoderKL()))


def test_a_law_that_draws_what_is_no_level_is_refused(own_tables: None) -> None:
    @register("odd")
    @dataclass(frozen=True)
    class Odd(SigmaLaw):
        """A user's law."""

        value: float = 0.0

        def __call__(self, num: int, step: int, generator: torch.Generator, *, levels: tuple[float, ...]) -> Tensor:
            return torch.full((num,), self.value)

    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RecipeError, match=r"recipe\.renoise_sigma: law .* one finite level above 0 a sample"):
            validate(changed(renoise_sigma=Odd(value)))
    validate(changed(renoise_sigma=Odd(1.0)))


# --- strategies and figures ---


@pytest.mark.parametrize("stage", ["train", "teacher"])
def test_a_strategy_refuses_what_it_cannot_compute_before_the_teacher_is_trained(stage: str) -> None:
    half = {f"{stage}__compute": Compute(precision="fp16")}
    for strategy in (Fsdp(), Zero2(), Zero3()):
        with pytest.raises(RecipeError, match=rf"recipe\.{stage}\.compute: .*'{strategy.name}' does not do .* fp16"):
            validate(changed(parallel=strategy, **half))
    role = "student" if stage == "train" else "teacher"
    compiled = {f"{stage}__compute": Compute(compile=(role,))}  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=rf"recipe\.{stage}\.compute: parallel 'zero3' cannot compile the {role}"):
        validate(changed(parallel=Zero3(), **compiled))
    validate(changed(parallel=Zero2(), **compiled))


def test_figures_need_enough_samples_and_a_number_of_steps() -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.num_samples: metric 'manifold' needs at least 101, got 64"):
        validate(changed(evaluate__metrics=(Manifold(neighbours=100),)))
    with pytest.raises(RecipeError, match=r"recipe\.evaluate\.steps: give at least one number of steps"):
        validate(changed(evaluate__steps=()))


def test_mismatched_pairs_need_heads_that_see_the_condition_and_a_second_class() -> None:
    seeing = changed(head=SpectralNorm(conditioned=True), train__mismatched=0.5)
    validate(seeing)
    texts = dataclasses.replace(seeing, dataset=Prompts(channels=3, size=8, num_classes=1))
    with pytest.raises(RecipeError, match=r"recipe\.train\.mismatched: .* dataset 'prompts' has one class alone"):
        require_pairs(texts)
    require_pairs(dataclasses.replace(texts, dataset=Prompts(channels=3, size=8, num_classes=2)))
    require_pairs(dataclasses.replace(texts, train=SMOKE.train))


# --- the command line ---


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry run", "launch"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--swap rollout=on_policy", "recipe.rollout: with start 'fresh' the inputs of rollout 'on_policy' begin"),
        ("--swap start=ot rollout=every_step", "recipe.rollout: with start 'ot' the inputs of rollout 'every_step'"),
        ("--parallel zero2 --train.compute.precision fp16", "recipe.train.compute: parallel 'zero2' does not do"),
        (
            "--train.mismatched 0.5",
            "recipe.train.mismatched: 0.5 shows the heads real samples under a wrong condition, and "
            "head 'spectral_norm' does not see the condition; add --head.conditioned",
        ),
        (
            "--train.heads-see-level",
            "recipe.train.heads_see_level: head 'spectral_norm' does not see the level; add --hea",
        ),
        ("--adv-weight.value 0 --distill-weight.value 0", "recipe.adv_weight, recipe.distill_weight: both are 0"),
    ],
)
def test_a_launch_refuses_a_pair_before_anything_runs(
    words: str, message: str, dry: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    recipe = str(REPO / "recipes" / "exp4_specnorm.py")
    assert launch.main([recipe, "--scale", "smoke", *dry, *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []
