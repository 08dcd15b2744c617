"""Recipes: every file loads, wrong ones are refused with advice, signatures hash what each stage reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ladd_dist.builders.step import build_critic
from ladd_dist.core.plugin import PluginError, registered
from ladd_dist.core.rundir import write_bytes
from ladd_dist.core.serialize import RecipeError, from_data, to_data
from ladd_dist.datasets import Dataset
from ladd_dist.datasets.digits import Digits
from ladd_dist.datasets.folder import Folder
from ladd_dist.datasets.mnist import Mnist
from ladd_dist.datasets.with_old import WithOld
from ladd_dist.engine.discriminator import Heads
from ladd_dist.levels.named import Good, Karras
from ladd_dist.losses.adversarial import Hinge
from ladd_dist.losses.distance import PseudoHuber
from ladd_dist.metrics.color import Color
from ladd_dist.metrics.digit_color import DigitColor
from ladd_dist.networks.cunet import CUNet
from ladd_dist.parallel import Parallel
from ladd_dist.parallel.ddp import Ddp
from ladd_dist.recipe import SCALES, Recipe, Reported, Scale, Scales, load_recipe, swap, validate
from ladd_dist.regularisers.penalties import R1, GradientPenalty
from ladd_dist.samplers.karras import Euler, Heun
from ladd_dist.sigmas.laws import FixedSet, LogNormal, Phase
from ladd_dist.starts.couplings import Fresh, Stored
from ladd_dist.starts.couplings import Path as PathCoupling
from ladd_dist.trackers import Tracker
from plugins.heads import MaxPool, SmallConv, SpectralNorm
from plugins.schedules import Constant
from plugins.taps import Downs

REPO = Path(__file__).resolve().parents[2]
FILES = sorted((REPO / "recipes").glob("[!_]*.py"))
REPORTS = {
    "exp1_smallconv", "exp2_smallconv_warmup", "exp3_maxpool", "exp4_specnorm", "exp5_specnorm_5taps",
    "exp6_stored_noise", "control_fresh_adv_only", "control_stored_distill_only",
}  # fmt: skip


def load(name: str, scale: Scale = "laptop") -> Recipe:
    return load_recipe(REPO / "recipes" / f"{name}.py", scale)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load("exp6_stored_noise")


def change(node: Any, path: str, value: Any) -> Any:
    """A copy with the field at the dotted path replaced."""
    name, dot, rest = path.partition(".")
    return dataclasses.replace(node, **{name: change(getattr(node, name), rest, value) if dot else value})


def change_all(node: Any, changes: dict[str, Any]) -> Any:
    for path, value in changes.items():
        node = change(node, path, value)
    return node


def signatures(recipe: Recipe) -> dict[str, str]:
    names = ("teacher", "shards", "distill", "reference", "evaluate")
    return {name: getattr(recipe, f"{name}_signature")() for name in names}


# Files


def test_the_reports_recipes_are_there() -> None:
    assert {file.stem for file in FILES} >= REPORTS


def with_pictures(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with a folder of pictures where it needs one, of which none ship, and old classes beside them."""
    if isinstance(dataset, WithOld):
        pictures = with_pictures(dataset.pictures, folder)
        return dataclasses.replace(dataset, pictures=pictures, old_classes=0 if dataset.old_texts else 3)
    if not isinstance(dataset, Folder):
        return dataset
    names = ("a/1.png", "b/2.png")
    for name in names:
        write_bytes(folder / name, b"names suffice here")
    lines = [json.dumps({"file_name": name, "text": name}) for name in names]
    write_bytes(folder / "metadata.jsonl", "\n".join(lines).encode())
    return dataclasses.replace(dataset, root=str(folder))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_loads_validates_and_survives_its_config(file: Path, scale: Scale, tmp_path: Path) -> None:
    recipe = load_recipe(file, scale)
    recipe = dataclasses.replace(recipe, dataset=with_pictures(recipe.dataset, tmp_path))
    validate(recipe)
    assert recipe.name == file.stem
    assert recipe.note
    back = from_data(Recipe, json.loads(json.dumps(to_data(recipe))))
    assert back == recipe
    assert signatures(back) == signatures(recipe)
    with torch.device("meta"):
        network = recipe.network.build(image=recipe.latent())
        assert recipe.taps(build_critic(recipe, network).taps)


@pytest.mark.parametrize("scale", SCALES)
def test_recipes_with_the_same_data_share_teacher_and_shards(scale: Scale) -> None:
    names = ["exp2_smallconv_warmup", "exp3_maxpool", "exp4_specnorm", "exp5_specnorm_5taps", "control_fresh_adv_only"]
    recipes = [load(name, scale) for name in names]
    assert len({recipe.teacher_signature() for recipe in recipes}) == 1
    assert len({recipe.shards_signature() for recipe in recipes}) == 1
    assert len({recipe.distill_signature() for recipe in recipes}) == len(recipes)
    teachers = {load(name, scale).teacher_signature() for name in REPORTS}
    assert teachers == {recipes[0].teacher_signature()}


@pytest.mark.parametrize(
    ("name", "taps", "millions"),
    [
        ("exp2_smallconv_warmup", 4, 7.4),
        ("exp3_maxpool", 9, 14.7),
        ("exp4_specnorm", 9, 5.1),
        ("exp5_specnorm_5taps", 5, 5.1),
        ("exp6_stored_noise", 5, 2.6),
        ("exp7_stored_smooth_l1", 5, 2.6),
    ],
)
def test_heads_have_the_reports_number_of_parameters_at_paper_scale(name: str, taps: int, millions: float) -> None:
    recipe = load(name, "paper")
    with torch.device("meta"):
        network = recipe.network.build(image=recipe.dataset.spec())
        heads = Heads(recipe.head, network, recipe.taps(network.taps))
    assert len(heads.heads) == taps
    assert sum(parameter.numel() for parameter in heads.parameters()) == pytest.approx(millions * 1e6, rel=0.05)


@pytest.mark.parametrize("name", ["exp4_specnorm", "exp5_specnorm_5taps", "exp6_stored_noise", "exp7_stored_smooth_l1"])
def test_head_4_is_several_blocks_of_convolution_spectral_norm_and_leaky_relu_at_paper_scale(name: str) -> None:
    recipe = load(name, "paper")
    head = recipe.head.build(channels=3, cond_dim=4)
    layers = [type(module).__name__ for module in head.modules() if isinstance(module, nn.Conv2d | nn.LeakyReLU)]
    convs = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    assert len(convs) >= 2 and len(layers) == 2 * len(convs)  # each with its LeakyReLU
    assert all(torch.nn.utils.parametrize.is_parametrized(conv, "weight") for conv in convs)


# Loading


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_a_bare_recipe_serves_every_scale(tmp_path: Path) -> None:
    text = "from recipes.exp4_specnorm import RECIPE as SCALES\nRECIPE = SCALES.laptop\n"
    assert {load_recipe(write(tmp_path, text), scale) for scale in SCALES} == {load("exp4_specnorm")}


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"exp4_specnom\.py does not exist; did you mean .*exp4_specnorm\.py"):
        load("exp4_specnom")
    with pytest.raises(RecipeError, match=r"wavelets\.py does not exist; files there: .*exp4_specnorm\.py"):
        load("wavelets")
    with pytest.raises(RecipeError, match=r"none\.py does not exist$"):
        load_recipe(tmp_path / "nowhere" / "none.py", "smoke")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 1", r"mine\.py must define RECIPE .*it has none"),
        ("RECIPE = 'exp4'", r"must define RECIPE .*it has 'exp4'"),
        ("import nonsense_package", r"failed while it was read: ModuleNotFoundError: No module named 'nonsense"),
        ("RECIPE = (", r"failed while it was read: SyntaxError"),
        (
            "from plugins.heads import SmallConv\nSmallConv(width=0)",
            r"mine\.py: SmallConv\.width: must be at least 1 and at most 65536, got 0",
        ),
        (
            "from plugins.heads import SmallConv\nSmallConv(wide=3)",
            r"TypeError: .*unexpected keyword argument 'wide', at .*mine\.py:2: `SmallConv",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text), "smoke")


def test_scales_change_together_or_one_alone(recipe: Recipe) -> None:
    scales = Scales(recipe, recipe, recipe)
    assert {getattr(scales.replace(name="x"), scale).name for scale in SCALES} == {"x"}
    one = scales.at("paper", name="y")
    assert [getattr(one, scale).name for scale in SCALES] == [recipe.name, recipe.name, "y"]


# Validation


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("head", Constant(), r"recipe\.head: expected a head plug-in"),
        ("head", "max_pool", r"recipe\.head: expected a head plug-in, got str 'max_pool'"),
        ("train.steps", 1.5, r"recipe\.train\.steps: expected int"),
        ("train.lr_student", "fast", r"recipe\.train\.lr_student: expected float"),
        ("train.mode", "both", r"recipe\.train\.mode: expected one of 'fused', 'alternate'"),
        ("train.betas_heads", (0.5,), r"recipe\.train\.betas_heads: expected 2 values, got 1"),
        ("teacher.steps", True, r"recipe\.teacher\.steps: expected int"),
        ("evaluate.steps", [4], r"recipe\.evaluate\.steps: expected a tuple"),
        ("teacher.steps", 0, r"TeacherStage\.steps: must be at least 1 and at most 1000000000, got 0"),
        ("shards.samples_per_chunk", 0, r"ShardStage\.samples_per_chunk: must be at least 1"),
        ("train.head_updates", 0, r"DistillStage\.head_updates: must be at least 1"),
        ("train.mismatched", 1.0, r"DistillStage\.mismatched: must be at least 0 and below 1, got 1\.0"),
        ("train.log_every", -1, r"DistillStage\.log_every: must be at least 1"),
        ("train.keep_checkpoints", 0, r"DistillStage\.keep_checkpoints: must be at least 1"),
        ("evaluate.num_references", 0, r"EvaluateStage\.num_references: must be at least 1"),
        ("train.batch_size", 9_999, r"recipe\.train\.batch_size: 9999 is more than the 5000 samples"),
        ("student_steps", 3, r"recipe\.levels: the 'good' levels are known for 1, 2 and 4 steps, not 3"),
        ("evaluate.steps", (4, 3), r"recipe\.levels: the 'good' levels"),
        ("student_sigma", FixedSet(phases=(Phase(0, (0.5, 0.5)),)), r"recipe\.student_sigma: .*2 probabilities"),
        ("teacher.sigma", FixedSet(), r"recipe\.teacher\.sigma: .*needs the student's levels"),
        ("train.compute.precision", "fp8", r"train\.compute\.precision: expected one of 'fp32', 'bf16', 'fp16'"),
        ("train.compute.checkpoint", ("all",), r"train\.compute\.checkpoint\[0\]: expected one of 'student', 'heads'"),
        ("train.compute.accumulate", 0, r"Compute\.accumulate: must be at least 1, got 0"),
        (
            "teacher.compute.accumulate",
            7,
            r"recipe\.teacher\.compute\.accumulate: a batch of \d+ has no 7 micro-batches",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_field_and_the_reason(
    recipe: Recipe, path: str, value: Any, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(change(recipe, path, value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.compute.accumulate": 4},
            r"recipe\.train\.mode: 'fused' keeps the student's graph.*with accumulation.*--train\.mode alternate",
        ),
        (
            {"train.compute.accumulate": 3, "train.mode": "alternate"},
            r"recipe\.train\.compute\.accumulate: a batch of 64 has no 3 micro-batches of equal size",
        ),
        (
            {"train.compute.compile": ("student", "heads"), "regulariser": R1()},
            r"recipe\.train\.compute\.compile: regulariser 'r1' differentiates the heads twice.*leave 'heads' out",
        ),
        (
            {"train.compute.precision": "fp16", "regulariser": GradientPenalty()},
            r"recipe\.train\.compute\.precision: .*regulariser 'gradient_penalty' would vanish in fp16.*use bf16",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(
    recipe: Recipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        validate(change_all(recipe, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"train.compute.accumulate": 4, "train.mode": "alternate"},
        {"teacher.compute.accumulate": 2},
        {"train.compute.compile": ("student", "heads")},
        {"train.compute.compile": ("student", "teacher"), "regulariser": R1()},
        {"train.compute.precision": "fp16"},
        {"train.compute.precision": "bf16", "regulariser": R1()},
        {"train.compute.checkpoint": ("student", "heads", "teacher"), "regulariser": R1()},
    ],
)
def test_what_goes_together_is_taken(recipe: Recipe, changes: dict[str, Any]) -> None:
    """The advice of the refusals, and what lies next to them."""
    changed = change_all(recipe, changes)
    assert validate(changed) == changed


def test_path_coupling_needs_student_levels_that_the_shards_hold(recipe: Recipe) -> None:
    path = dataclasses.replace(recipe, start=PathCoupling())
    assert validate(path).path_levels() == path.student_levels()
    assert recipe.path_levels() == ()
    with pytest.raises(RecipeError, match=r"recipe\.student_sigma: start 'path' .*student_sigma=fixed_set"):
        validate(dataclasses.replace(path, student_sigma=LogNormal()))


def test_numbers_come_out_in_one_form_whatever_they_were_written_as(recipe: Recipe) -> None:
    written = change(recipe, "train.lr_final", 1)
    assert type(validate(written).train.lr_final) is float
    assert signatures(validate(written)) == signatures(validate(recipe))


# Swaps


def test_a_swap_replaces_a_plugin_by_name_also_deep_inside(recipe: Recipe) -> None:
    assert swap(recipe, "head=max_pool").head == MaxPool()
    assert swap(recipe, "shards.sampler=heun").shards.sampler == Heun()
    assert swap(recipe, "teacher.sigma=log_normal").teacher.sigma == LogNormal()
    assert swap(swap(recipe, "start=fresh"), "levels=karras") == dataclasses.replace(
        recipe, start=Fresh(), levels=Karras()
    )
    assert recipe.start == Stored()


@pytest.mark.parametrize("kind", ["adversarial", "regulariser"])
def test_every_loss_and_every_regulariser_is_a_choice_by_name(kind: str) -> None:
    recipe = load("exp7_stored_smooth_l1", "smoke")
    for name in registered()[kind]:
        swapped = validate(swap(recipe, f"{kind}={name}"))
        assert getattr(swapped, kind).name == name
        assert from_data(Recipe, json.loads(json.dumps(to_data(swapped)))) == swapped
        assert (swapped.distill_signature() == recipe.distill_signature()) == (getattr(recipe, kind).name == name)


@pytest.mark.parametrize(
    ("assignment", "error", "message"),
    [
        ("head=nonsense", PluginError, r"unknown head 'nonsense'; valid: max_pool, small_conv, spectral_norm"),
        ("shards.sampler=ddim", PluginError, r"unknown sampler 'ddim'; valid: ancestral, euler, heun"),
        ("hed=max_pool", RecipeError, r"no field 'hed'; plug-in fields: head, dataset, network, "),
        ("teacher.sigm=log_normal", RecipeError, r"no field 'sigm'; plug-in fields: sigma"),
        ("seed=max_pool", RecipeError, r"field 'seed' holds no plug-in; set it with --seed VALUE"),
        ("train=max_pool", RecipeError, r"field 'train' holds no plug-in"),
        ("seed.x=max_pool", RecipeError, r"no field 'x'"),
        ("head", RecipeError, r"takes FIELD=NAME, like head=max_pool, got 'head'"),
        ("head=", RecipeError, r"takes FIELD=NAME"),
        ("=max_pool", RecipeError, r"takes FIELD=NAME"),
        ("head=hinge", PluginError, r"unknown head 'hinge'"),
    ],
)
def test_a_wrong_swap_lists_what_would_have_worked(
    recipe: Recipe, assignment: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        swap(recipe, assignment)


# Signatures


class OtherTracker(Tracker):
    name = "other"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("teacher.checkpoint_every", 7),
        ("teacher.log_every", 7),
        ("shards.batch_size", 7),
        ("train.log_every", 7),
        ("train.dump_every", 7),
        ("train.evaluate_every", 7),
        ("train.checkpoint_every", 7),
        ("train.keep_checkpoints", 7),
        ("train.keep_steps", (7,)),
        ("train.compute.accumulate", 2),
        ("train.compute.checkpoint", ("student", "teacher")),
        ("train.compute.compile", ("student",)),
        ("teacher.compute.accumulate", 2),
        ("teacher.compute.checkpoint", ("teacher",)),
        ("teacher.compute.compile", ("teacher",)),
        ("parallel", Ddp(shard_teacher=True)),
        ("evaluate.batch_size", 7),
        ("name", "other"),
        ("note", "other"),
        ("reported", Reported(student_4=1.0)),
        ("parallel", Parallel()),
        ("tracker", Tracker()),
    ],
)
def test_what_changes_no_result_changes_no_signature(recipe: Recipe, path: str, value: Any) -> None:
    assert signatures(change(recipe, path, value)) == signatures(recipe)


ALL = {"teacher", "shards", "distill", "reference", "evaluate"}
OWN = {"distill", "evaluate"}


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("dataset", Mnist(size=16), ALL),
        ("dataset", Digits(size=8), ALL),
        ("network", CUNet(blocks=2), ALL),
        ("teacher.steps", 7, ALL),
        ("teacher.lr", 7.0, ALL),
        ("teacher.sigma", LogNormal(mean=7.0), ALL),
        ("teacher.ema.half_life", 7, ALL),
        ("teacher.seed", 7, ALL),
        ("shards.num_samples", 700, ALL - {"teacher", "reference"}),
        ("shards.sampler", Euler(steps=7), ALL - {"teacher"}),
        ("shards.guidance", 7.0, ALL - {"teacher"}),
        ("shards.seed", 7, ALL - {"teacher", "reference"}),
        ("shards.dtype", "float16", ALL - {"teacher", "reference"}),
        ("shards.samples", "dataset", ALL - {"teacher", "reference"}),
        ("levels", Karras(), OWN),
        ("start", Fresh(), OWN),
        ("student_sigma", FixedSet(phases=(Phase(0, (1.0, 0.0, 0.0, 0.0)),)), OWN),
        ("renoise_sigma", LogNormal(mean=7.0), OWN),
        ("taps", Downs(), OWN),
        ("head", SpectralNorm(width=7), OWN),
        ("head", SmallConv(), OWN),
        ("adversarial", Hinge(), OWN),
        ("distance", PseudoHuber(), OWN),
        ("regulariser", R1(), OWN),
        ("adv_weight", Constant(value=7.0), OWN),
        ("distill_weight", Constant(value=7.0), OWN),
        ("train.steps", 7, OWN),
        ("train.batch_size", 7, OWN),
        ("train.lr_heads", 7.0, OWN),
        ("train.mode", "alternate", OWN),
        ("train.head_updates", 7, OWN),
        ("train.mismatched", 0.5, OWN),
        ("train.heads_see_level", True, OWN),
        ("train.ema.half_life", 7, OWN),
        ("train.compute.precision", "bf16", OWN),
        ("train.compute.precision", "fp16", OWN),
        ("teacher.compute.precision", "bf16", ALL),
        ("student_steps", 2, OWN),
        ("seed", 7, OWN),
        ("evaluate.num_samples", 7, {"reference", "evaluate"}),
        ("evaluate.seed", 7, {"reference", "evaluate"}),
        ("evaluate.seeds", (5, 6), {"evaluate"}),
        ("evaluate.steps", (4, 1), {"evaluate"}),
    ],
)
def test_a_change_reaches_the_signatures_of_the_stages_that_read_it_and_no_others(
    recipe: Recipe, path: str, value: Any, changed: set[str]
) -> None:
    before, after = signatures(recipe), signatures(change(recipe, path, value))
    assert {name for name in before if before[name] != after[name]} == changed


def test_how_half_precision_is_accumulated_changes_no_signature_either(recipe: Recipe) -> None:
    half = change(recipe, "train.compute.precision", "bf16")
    assert signatures(change(half, "train.compute.accumulate", 2)) == signatures(half) != signatures(recipe)


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("exp2_smallconv_warmup", "laptop", "a9a53d606b 6864e70533 f8fbe06e61 df17565498 70af8c41ac"),
        ("exp6_stored_noise", "smoke", "bce1a2bc6d 93a216de26 82f32ae83c 922ed48dbb 05260d6d0b"),
        ("exp6_stored_noise", "laptop", "a9a53d606b 6864e70533 dfa80f3d84 df17565498 cf21058bce"),
        ("exp6_stored_noise", "paper", "58ae2f0772 0b0ce6425d eca831a773 427ea52d5f 8252d6c3d6"),
    ],
)
def test_signatures_are_those_of_the_runs_made_before_there_were_several_processes(
    name: str, scale: Scale, expected: str
) -> None:
    """Teachers, shards and finished runs on people's disks are found by them. A wanted change raises the version in
    the hash (`"teacher-1"`), and pins the new ones here. Measured then: the two metrics that there were."""
    recipe = change(validate(load(name, scale)), "evaluate.metrics", (DigitColor(), Color()))
    assert " ".join(signatures(recipe).values()) == expected


def test_the_folder_of_the_data_changes_no_signature(recipe: Recipe) -> None:
    here, there = (dataclasses.replace(recipe, dataset=Mnist(root=root)) for root in ("here", "there"))
    assert signatures(here) == signatures(there)


def test_every_field_of_a_recipe_is_in_some_signature_or_marked_neutral(recipe: Recipe) -> None:
    """A field added later and forgotten in `distill_signature` would make two different runs share a folder."""
    from ladd_dist.recipe.recipe import _DISTILL_FIELDS, _DISTILL_LATER

    elsewhere = {"codec", "dataset", "network", "teacher", "shards", "evaluate", "student_steps", "seed"}
    neutral = {field.name for field in dataclasses.fields(Recipe) if field.metadata.get("neutral")}
    assert {field.name for field in dataclasses.fields(Recipe)} == (
        elsewhere | neutral | {*_DISTILL_FIELDS, *_DISTILL_LATER}
    )


def test_with_path_coupling_the_shards_depend_on_the_students_levels(recipe: Recipe) -> None:
    path = dataclasses.replace(recipe, start=PathCoupling())
    assert path.shards_signature() != recipe.shards_signature()
    assert dataclasses.replace(path, levels=Karras()).shards_signature() != path.shards_signature()
    assert dataclasses.replace(recipe, levels=Karras()).shards_signature() == recipe.shards_signature()
    assert path.levels == Good()


def test_imported_shards_do_not_depend_on_the_teacher(recipe: Recipe) -> None:
    imported = change(recipe, "shards.source", "shards/*.tar")
    assert imported.shards_signature() != recipe.shards_signature()
    assert change(imported, "teacher.steps", 7).shards_signature() == imported.shards_signature()
    assert change(imported, "dataset", Digits(size=8)).shards_signature() != imported.shards_signature()
