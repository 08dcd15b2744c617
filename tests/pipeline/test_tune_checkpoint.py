"""A few-step checkpoint of diffusers, tuned on pictures with captions: its adapter goes into its own pipeline."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from processes import Done

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from test_export_diffusers import from_pipeline, near, opened_scheduler
from tiny_latents import unguided
from tiny_texts import write_pipeline
from tuned import write_pictures

from ladd_dist.builders.sampling import sample_few
from ladd_dist.builders.student_file import load_student
from ladd_dist.builders.texts import attach_texts
from ladd_dist.core.rng import added_noise, derive_seed, sample_noise
from ladd_dist.core.rundir import read_json
from ladd_dist.export import main as export
from ladd_dist.sample import main as sample
from ladd_dist.tune import main

TINY = (
    "--updates", "4", "--train.batch-size", "4", "--dataset.pictures.size", "16", "--train.early-stop.every", "2",
    "--train.early-stop.num-samples", "4", "--train.old.num-samples", "8", "--evaluate.num-samples", "8",
    "--evaluate.num-references", "8", "--shards.sampler.steps", "4", "--train.compute.precision", "fp32",
    "--train.dump-every", "4", "--train.lr-student", "0.02", "--train.ema.half-life", "0", "--head.width", "8",
    "--guard.samples", "8", "--student.targets", "to_q", "to_v", "--rank", "3", "--device", "cpu", "--threads", "1",
)  # fmt: skip


def tune_in(folder: Path, *words: str) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(words))
        except SystemExit as exit_:
            code = int(str(exit_.code))
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, own_tables: None) -> Path:
    write_pipeline(tmp_path / "base", "sd", 0)
    write_pipeline(tmp_path / "fast", "sd", 0)  # of the base's autoencoder and text encoder, as published ones are
    write_pipeline(tmp_path / "other weights", "sd", 3)
    shutil.rmtree(tmp_path / "fast" / "unet")
    (tmp_path / "other weights" / "unet").rename(tmp_path / "fast" / "unet")
    write_pictures(tmp_path / "pictures", 20, captions=2)
    (tmp_path / "old.txt").write_text("a cat\na dog\n")
    return tmp_path


ASK = ("fast", "--base", "base", "--images", "pictures", "--old-texts", "old.txt", "--steps", "2")


@pytest.mark.slow
def test_the_adapter_of_a_tuned_checkpoint_makes_its_pipeline_show_what_ladd_sample_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = tune_in(folder, *ASK, *TINY)
    assert done.code == 0, done.stderr
    (run,) = folder.glob("runs/tune-*")
    assert f"ladd export {run.relative_to(folder)} --to lora" in done.stdout
    out = folder / "exported"
    assert export([str(run), "--to", "lora", "--out", str(out)]) == 0
    student, card = load_student(run, torch.device("cpu"))
    texts = attach_texts(student, run, None)
    assert list(texts) == ["disc 0", "disc 1", "a cat", "a dog"]
    noise, cond = sample_noise(0, range(1), (4, 8, 8)), torch.zeros(1, dtype=torch.int64)
    expected = sample_few(student, noise, cond, tuple(card["levels"]["2"]), card["rule"], added_noise(0, range(1)))
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder / "fast")
    pipe.scheduler = opened_scheduler(out)
    asked = {"prompt": "disc 0"}
    assert not near(from_pipeline(pipe, "sd", noise, out, asked), expected)
    pipe.load_lora_weights(out)
    assert near(from_pipeline(pipe, "sd", noise, out, asked), expected)
    assert sample([str(run), "--steps", "2", "--classes", "0", "--columns", "1", "--folder", "made"]) == 0
    made = np.asarray(Image.open("made/class-0-00000.png"), dtype=np.int16)
    told = read_json(out / "student.json")
    own = told["initial_noise"]["2"] * sample_noise(derive_seed("sample", 0, 0), range(1), (4, 8, 8))
    call = {"latents": own, "height": 16, "width": 16, **asked, **unguided("sd"), **told["pipeline_arguments"]["2"]}
    assert np.abs(np.asarray(pipe(**call).images[0]) - made).max() <= 1, "a step of rounding"
    pipe.unload_lora_weights()
    assert np.abs(np.asarray(pipe(**call).images[0]) - made).max() > 1
    assert 'from_pretrained("fast"' in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fast", "--images", "pictures"), "name the base that it was distilled from with --base"),
        (("fast", "--base", "turbo", "--images", "pictures"), "is itself a few-step model, by 'turbo' in its name"),
        (("fast", "--base", "fast", "--images", "pictures"), "is the student itself, a few-step model"),
        (("fast", "--base", "base", "--images", "bare"), "has no captions, which this student reads"),
        (("fast", "--base", "base", "--images", "pictures", "--classes", "1"), "this one reads the captions"),
        (("fast", "--base", "other", "--images", "pictures", "--old-texts", "old.txt"), "another architecture"),
        ((*ASK[:-1], "3"), "known for 1, 2 and 4 steps, not 3"),
    ],
)
def test_a_checkpoint_that_cannot_be_tuned_is_one_message(folder: Path, words: tuple[str, ...], message: str) -> None:
    (folder / "turbo").symlink_to("base")
    write_pictures(folder / "bare", 6)
    write_pipeline(folder / "other", "sdxl")
    done = tune_in(folder, *words, *TINY)
    assert done.code in (1, 2) and message in " ".join(done.stderr.split()), done.stderr
    assert not list(folder.glob("runs/tune-*"))


def test_a_checkpoint_that_knows_classes_is_one_message(folder: Path) -> None:
    for name in ("classes", "fast classes"):
        write_pipeline(folder / name, "class_unet")
    words = ("fast classes", "--base", "classes", "--images", "pictures")
    done = tune_in(folder, *words, *TINY)
    assert done.code == 1 and "takes class numbers and reads no texts" in done.stderr.replace("\n", " "), done.stderr
    assert done.stderr.count("error:") == 1 and not list(folder.glob("runs/tune-*"))


def test_a_transformer_has_heads_on_its_blocks_and_levels_of_its_flow(folder: Path) -> None:
    write_pipeline(folder / "base3", "sd3", 0)
    write_pipeline(folder / "fast3", "sd3", 1)
    words = ("fast3", "--base", "base3", "--images", "pictures", "--old-texts", "old.txt")
    done = tune_in(folder, *words, *TINY, "--dry-run", "--network.tokens", "12")
    assert done.code == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("the same as a recipe"))
    assert "taps=named" in line and "--taps.names block00" in line
    high, *rest = map(float, line.partition("--levels.four ")[2].split()[:4])
    assert high == pytest.approx(199) and rest == pytest.approx([3.0, 1.0, 1 / 3])
