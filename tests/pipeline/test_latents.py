"""A run in latents, whole: what is made where, that pictures are pictures, and that training never decodes."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from processes import REPO, read_json, without_rates
from safetensors.torch import load_file

from ladd_dist.builders.codec import decode
from ladd_dist.builders.codec import load_codec as load_own_codec
from ladd_dist.builders.sampling import sample_few
from ladd_dist.builders.shards import open_shards
from ladd_dist.builders.student_file import load_codec, load_student
from ladd_dist.codecs.autoencoder_kl import KLAutoencoder
from ladd_dist.core.rng import added_noise
from ladd_dist.core.serialize import from_data
from ladd_dist.core.tensor_file import read_tensors
from ladd_dist.launch import main
from ladd_dist.recipe import Recipe
from ladd_dist.sample import main as sample
from ladd_dist.stages import autoencoder
from ladd_dist.stages.autoencoder import AutoencoderTraining, train_autoencoder
from ladd_dist.stages.distill import Distillation
from ladd_dist.stages.teacher import TeacherTraining
from ladd_dist.workspace.run import Run
from ladd_dist.workspace.workspace import Workspace

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
LATENT, PIXELS = (4, 8, 8), (3, 16, 16)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    """The whole job at smoke scale, run once; read what it left, change nothing."""
    folder = tmp_path_factory.mktemp("latents")
    words = (REPO / "recipes" / "latent_digits.py", "--scale", "smoke", "--out", folder / "runs")
    words = (*words, "--cache", folder / "cache", "--evaluate.num-samples", 32, "--shards.num-samples", 64)
    assert main([str(word) for word in words]) == 0
    (config,) = folder.glob("runs/*/config.json")
    recipe: Recipe = from_data(Recipe, read_json(config)["recipe"])
    return recipe, Workspace(folder / "runs", folder / "cache", CPU)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a codec was built, and asked to encode and to decode."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        before = getattr(KLAutoencoder, name)

        def counting(*args: object) -> object:
            counts[name] += 1
            return before(*args)

        monkeypatch.setattr(KLAutoencoder, name, counting)

    for name in ("__init__", "encode", "decode"):
        count(name)
    return counts


def test_shards_hold_latents_and_dumps_hold_both_latents_and_pictures(latents: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = latents
    batch = open_shards(Run(recipe, workspace)).take(torch.arange(4).numpy())
    assert batch.x0.shape[1:] == LATENT
    path = max((Run(recipe, workspace).folder.dumps).glob("*.safetensors"))
    assert read_tensors(path).metadata["latents"] == "teacher_latents student_latents"
    dump = load_file(path)
    assert dump["student"].shape[1:] == dump["teacher"].shape[1:] == PIXELS
    assert dump["noise"].shape[1:] == LATENT
    assert dump["student_latents"].shape[1:] == dump["teacher_latents"].shape[1:] == LATENT
    pictures = decode(load_own_codec(Run(recipe, workspace)), dump["teacher_latents"], 250)
    torch.testing.assert_close(pictures, dump["teacher"], rtol=1e-4, atol=1e-5)


def test_figures_are_of_pictures_and_say_what_the_codec_costs(latents: tuple[Recipe, Workspace]) -> None:
    recipe, workspace = latents
    figures = read_json(Run(recipe, workspace).folder.eval)
    assert load_file(Run(recipe, workspace).reference_folder / "samples.safetensors")["teacher@50"].shape[1:] == PIXELS
    for entry in ("student@4", "student@1", "teacher@50", "untrained@4"):
        assert figures[entry]["s_decode_per_image"] > 0
        assert figures[entry]["fd_real"] > 0
    alone = figures["reconstruction"]
    assert alone["matched_error"] > 0
    assert "s_per_image" not in alone
    page = (Run(recipe, workspace).folder.path / "report.html").read_text()
    assert "Real images, encoded and decoded" in page
    assert {"strips.png", "attention.png"} <= {path.name for path in Run(recipe, workspace).folder.samples.iterdir()}
    assert set(read_json(Run(recipe, workspace).folder.timings)) >= {"autoencoder", "teacher", "report"}


def test_the_students_file_alone_makes_the_pictures_of_the_run(
    latents: tuple[Recipe, Workspace], tmp_path: Path
) -> None:
    recipe, workspace = latents
    file = Path(shutil.copy(Run(recipe, workspace).folder.student, tmp_path / "theirs.safetensors"))
    network, card = load_student(file, CPU)
    codec = load_codec(file, card, CPU)
    dump = load_file(max((Run(recipe, workspace).folder.dumps).glob("*.safetensors")))
    source = added_noise(1_000_003, range(len(dump["noise"])))
    few = sample_few(network, dump["noise"], dump["cond"], tuple(card["levels"]["4"]), card["rule"], source)
    torch.testing.assert_close(few, dump["student_latents"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decode(codec, few, 250), dump["student"], rtol=1e-4, atol=1e-5)
    assert sample([str(file), "--columns", "2", "--classes", "3", "--folder", str(tmp_path / "pictures")]) == 0
    from PIL import Image

    assert Image.open(tmp_path / "pictures" / "class-3-00001.png").size == PIXELS[1:]


def test_a_file_from_other_latents_is_not_measured(latents: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    from ladd_dist.evaluate import main as measure
    from ladd_dist.stages.distill import save_student

    recipe, workspace = latents
    network, _ = load_student(Run(recipe, workspace).folder.student, CPU)
    elsewhere = dataclasses.replace(recipe, codec=dataclasses.replace(recipe.codec, kl_weight=0.5))
    theirs = Workspace(workspace.runs, tmp_path, CPU)
    shutil.copytree(Run(recipe, workspace).autoencoder_folder, Run(elsewhere, theirs).autoencoder_folder)
    save_student(tmp_path / "theirs.safetensors", network, Run(elsewhere, theirs))
    assert measure([str(tmp_path / "theirs.safetensors"), "--like", str(Run(recipe, workspace).folder.path)]) == 1


def test_training_never_decodes(latents: tuple[Recipe, Workspace], counted: Counter[str], tmp_path: Path) -> None:
    recipe, workspace = latents
    workspace = dataclasses.replace(workspace, runs=tmp_path)
    Run(recipe, workspace).folder.create()
    training = Distillation(Run(recipe, workspace))
    counted.clear()
    for step in range(6):  # the guard looks after the fifth
        training.step(step)
    assert training.guarding.monitor is not None
    assert "student@1/class_distance" in training.guarding.monitor.seen
    assert not any("colour" in name for name in training.guarding.monitor.seen)
    assert counted == Counter()
    teacher = TeacherTraining(Run(recipe, workspace), tmp_path / "teacher")
    counted.clear()
    teacher.step(0)
    assert counted == Counter(encode=1)


def test_a_codecs_training_that_was_cut_off_ends_like_one_never_stopped(
    latents: tuple[Recipe, Workspace], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe, whole = latents
    cut = dataclasses.replace(whole, cache=tmp_path)
    step = AutoencoderTraining.step

    def dies(self: AutoencoderTraining, number: int) -> object:
        if number == 13:
            raise RuntimeError("power cut")
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTraining, "step", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            train_autoencoder(Run(recipe, cut))
    steps = []
    monkeypatch.setattr(AutoencoderTraining, "step", lambda self, number: steps.append(number) or step(self, number))
    train_autoencoder(Run(recipe, cut))
    assert steps[0] == 10
    one, two = Run(recipe, whole).autoencoder_folder, Run(recipe, cut).autoencoder_folder
    assert (one / autoencoder.FILE).read_bytes() == (two / autoencoder.FILE).read_bytes()
    assert without_rates(one / "metrics.jsonl") == without_rates(two / "metrics.jsonl")
    assert not (two / "checkpoints").exists()
