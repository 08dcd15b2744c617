"""A student in the latents of an autoencoder that was trained with it is tuned in these latents, on pictures."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import read_json
from safetensors.torch import load_file
from test_tune import TINY, Tune, run_folder, tune_in
from tuned import base_recipe, moved, write_pictures, write_teacher

from ladd_dist.builders.codec import FILE, decode, load_codec
from ladd_dist.builders.networks import save_weights
from ladd_dist.builders.sampling import sample_few
from ladd_dist.builders.student import save_student
from ladd_dist.builders.student_file import load_codec as load_own_codec
from ladd_dist.builders.student_file import load_student
from ladd_dist.builders.teacher import fresh_network
from ladd_dist.codecs import Codec
from ladd_dist.codecs.autoencoder_kl import AutoencoderKL
from ladd_dist.core.rng import added_noise, sample_noise
from ladd_dist.core.rundir import save_tensors
from ladd_dist.core.tensor_file import read_tensors
from ladd_dist.export import main as export
from ladd_dist.networks.cunet import CUNet
from ladd_dist.recipe import Recipe
from ladd_dist.sample import main as sample
from ladd_dist.stages.shards import make_shards
from ladd_dist.workspace.config import RunFacts, write_config
from ladd_dist.workspace.opening import open_run
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace, mark_done

CPU = torch.device("cpu")
ASK = ("runs/student", "--images", "pictures", "--classes", "3", *TINY)
FILES = Path("runs/student/student.safetensors")


def latent_recipe(codec: Codec | None = None) -> Recipe:
    """Ten classes of 16 px in four channels of 8 px."""
    network = CUNet(widths=(8, 8), blocks=1, patch=1, embed_dim=16, attention_heads=1)
    return dataclasses.replace(base_recipe(), codec=codec or AutoencoderKL(widths=(8, 8)), network=network)


def write_latent_student(folder: Path, name: str, recipe: Recipe, seed: int = 0) -> Run:
    """A finished run with its autoencoder and teacher, all as if trained; returns the run under its own name."""
    run = Run(recipe, Workspace(folder / "runs", folder / "cache", CPU))
    torch.manual_seed(seed)
    run.autoencoder_folder.mkdir(parents=True, exist_ok=True)
    autoencoder = recipe.codec.build(image=recipe.dataset.spec())
    autoencoder.scale.fill_(0.7)
    save_weights(run.autoencoder_folder / FILE, autoencoder)
    write_teacher(run.teacher_folder, recipe, seed)
    mark_done(run.teacher_folder / "done.json", recipe.teacher_signature(), space=recipe.autoencoder_signature())
    run.folder.create()
    facts = RunFacts(recipe.name, "smoke", recipe.distill_signature(), {}, (), {}, ())
    write_config(run, facts, path=Path("r.py"), plugins=(), command="ladd launch r.py")
    save_student(run.folder.student, moved(fresh_network(recipe), seed + 1), run)
    run.folder.path.rename(folder / "runs" / name)
    return run


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a student in latents, another in other latents, and twenty pictures."""
    folder = tmp_path_factory.mktemp("given")
    write_latent_student(folder, "student", latent_recipe())
    write_latent_student(folder, "other", latent_recipe(AutoencoderKL(widths=(8, 8), kl_weight=0.5)), 5)
    write_pictures(folder / "pictures", 20)
    return folder


@pytest.fixture
def tune(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_tables: None) -> Tune:
    """The command in a folder of its own with what was given."""
    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(tune_in, tmp_path)


@pytest.mark.slow
def test_a_student_in_latents_learns_pictures_and_its_file_alone_makes_them(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tune(*ASK)
    assert done.code == 0, done.stderr
    assert "[autoencoder]" not in done.stdout, "it is the student's own, and not trained again"
    monkeypatch.chdir(tmp_path)
    run = run_folder(tmp_path)
    before, own = read_tensors(FILES), read_tensors(run / FILES.name)
    codec = {name for name in before.tensors if name.startswith("codec.")}
    assert codec and all(torch.equal(own.tensors[name], before.tensors[name]) for name in codec)
    cards = [json.loads(content.metadata["ladd_dist"]) for content in (before, own)]
    assert cards[1]["space"] == cards[0]["space"] and cards[1]["codec"]["plugin"] == "autoencoder_kl"
    learned = set(own.tensors) - codec
    assert any(not torch.equal(own.tensors[name], before.tensors[name]) for name in learned & set(before.tensors))
    dump = load_file(max((run / "dumps").glob("*.safetensors")))
    assert dump["student"].shape[1:] == (3, 16, 16) and dump["student_latents"].shape[1:] == (4, 8, 8)
    assert "reconstruction" in read_json(run / "eval.json")

    expected = pictures_of(run)
    assert export([str(run), "--out", "alone.safetensors"]) == 0
    for gone in ("runs", "cache"):
        shutil.rmtree(tmp_path / gone)
    torch.testing.assert_close(pictures_of(tmp_path / "alone.safetensors"), expected)
    assert sample(["alone.safetensors", "--columns", "2", "--classes", "0", "--folder", "made"]) == 0
    assert Image.open(tmp_path / "made" / "class-0-00001.png").size == (16, 16)


def pictures_of(source: Path) -> torch.Tensor:
    """Four samples of the class 0, as pictures, from a student's run or file alone."""
    network, card = load_student(source, CPU)
    noise, cond = sample_noise(0, range(4), (4, 8, 8)), torch.zeros(4, dtype=torch.int64)
    made = sample_few(network, noise, cond, tuple(card["levels"]["4"]), card["rule"], added_noise(0, range(4)))
    return decode(load_own_codec(source, card, CPU), made, 4)


def test_real_ones_are_the_pictures_in_the_students_own_latents(tune: Tune, tmp_path: Path) -> None:
    from ladd_dist.builders.shards import open_shards

    done = tune(*ASK, "--dry-run")
    assert done.code == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("the same as a recipe"))
    assert "--swap codec=given codec.codec=autoencoder_kl --codec.codec.widths 8 8" in line
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        recipe = recipe_of(line)
        run = Run(recipe, Workspace(tmp_path / "runs", tmp_path / "cache", CPU))
        make_shards(run)
        batch = open_shards(run).take(torch.arange(8).numpy())
        first = open_run(tmp_path / "runs" / "student", device=CPU).run
        back = decode(load_codec(first), batch.x0.float(), 8)
        images = recipe.dataset.open(split="train", cache=tmp_path / "cache")
        shown = images.batch(torch.arange(len(images)))[0]
        known = decode(load_codec(first), load_codec(first).encode(shown), 8)
    nearest = (back[:, None] - known[None]).square().flatten(2).mean(2).amin(1)
    assert float(nearest.max()) < 1e-3 < float(known.var())


def recipe_of(line: str) -> Recipe:
    from ladd_dist.cli.recipe_arguments import RecipeOptions, parse

    words = line.partition("ladd launch ")[2].split()
    words = [word for word in words if word != "--dry-run"]
    cut = [words.index(flag) for flag in ("--device", "--threads")]
    words = [word for place, word in enumerate(words) if not any(place - at in (0, 1) for at in cut)]
    return parse(RecipeOptions, words, prog="x")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset.pictures.size", "17"), "image size 17 is not divisible by 2"),
        (("--dataset.pictures.size", "24"), "they do not go together"),
        (("--base", "runs/other"), "--base runs/other: works in the latents of another autoencoder"),
        (("--base", "other.safetensors"), "of another architecture than network.network"),
        (("--base", "cached"), "works in the latents of another autoencoder"),
        (("--codec.weights", "gone.safetensors"), "codec.weights: 'gone.safetensors' is no file"),
    ],
)
def test_what_is_in_no_latents_of_the_student_is_one_message(
    tune: Tune, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    write_teacher(tmp_path / "pixels", base_recipe()).rename(tmp_path / "other.safetensors")
    cached = next(path for path in tmp_path.glob("cache/teacher-*") if told(path) != told_by(tmp_path))
    done = tune(*ASK, *(str(cached / "teacher.safetensors") if word == "cached" else word for word in words))
    assert done.code in (1, 2) and message in done.stderr.replace("\n", " "), done.stderr
    assert done.stderr.count("error:") == 1 and not list(tmp_path.glob("runs/tune-*"))


def told(teacher: Path) -> str:
    return str(read_json(teacher / "done.json")["space"])


def told_by(folder: Path) -> str:
    return str(json.loads(read_tensors(folder / FILES).metadata["ladd_dist"])["space"])


def test_a_student_without_its_autoencoder_is_one_message(tune: Tune, tmp_path: Path) -> None:
    content = read_tensors(tmp_path / FILES)
    left = {name: tensor for name, tensor in content.tensors.items() if not name.startswith("codec.")}
    save_tensors(tmp_path / FILES, left, content.metadata)
    done = tune(*ASK)
    assert done.code == 1 and f"{FILES} does not hold its autoencoder's weights" in done.stderr.replace("\n", " ")
    assert done.stderr.count("error:") == 1 and not list(tmp_path.glob("runs/tune-*"))


def test_a_base_in_latents_is_none_of_a_student_on_pixels(tmp_path: Path, given: Path, own_tables: None) -> None:
    from tuned import write_student

    shutil.copytree(given, tmp_path, dirs_exist_ok=True)
    write_student(tmp_path).rename(tmp_path / "runs" / "pixels")
    done = tune_in(tmp_path, "runs/pixels", "--base", "runs/student", *ASK[1:])
    assert done.code == 1 and "works in the latents of another autoencoder" in done.stderr.replace("\n", " ")
