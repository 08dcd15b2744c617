"""Bad input: one clear message, exit code 2 (command line, recipe) or 1 (a failure), nothing half-written."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import webdataset
from processes import LAUNCH, RECIPE, Done, Ladd, error_of, half_written, run_command, snapshot

from ladd_dist.core.types import ImageSpec
from ladd_dist.engine.shard_reader import ShardReader

Launch = Callable[..., Done]
BAD_HEADS = '''
from dataclasses import dataclass
from torch import nn
from ladd_dist.core.plugin import register
from ladd_dist.heads import Head

@register("map_head")
@dataclass(frozen=True)
class MapHead(Head):
    """Forgets to flatten its map."""

    def build(self, *, channels, cond_dim):
        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Conv2d(channels, 1, 1)

            def forward(self, features, cond_vec):
                return self.body(features)

        return Module()
'''

RECIPES = {
    "empty.py": "x = 1\n",
    "cut.py": "RECIPE = (\n",
    "typo.py": "from recipes.exp4_specnorm import RECIPE\nfrom no_such_package import Head\n",
    "text.py": "from dataclasses import replace\nfrom recipes._base import BASE, SMOKE\n"
    'RECIPE = BASE.at("smoke", train=replace(SMOKE.train, steps="many"))\n',
    "kind.py": "from recipes._base import BASE, SMOKE\nRECIPE = BASE.replace(head=SMOKE.distance)\n",
    "field.py": "from recipes._base import BASE\nRECIPE = BASE.replace(heads=3)\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Recipes and plug-ins with faults."""
    (tmp_path / "bad_heads.py").write_text(BAD_HEADS, encoding="utf-8")
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("bad_heads", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("zzz.py", r"recipe zzz\.py does not exist; files there: .*cut\.py.*text\.py"),
        ("exp4.py", r"recipe exp4\.py does not exist; did you mean exp4_specnorm\?"),
        ("nowhere/exp4.py", r"recipe nowhere/exp4\.py does not exist"),
        ("empty.py", r"recipe empty\.py must define RECIPE"),
        ("cut.py", r"recipe cut\.py failed while it was read: SyntaxError: .*cut\.py, line 1"),
        ("typo.py", r"recipe typo\.py failed while it was read: ModuleNotFoundError: .*no_such_package"),
        ("text.py", r"text\.py: RECIPE\.train\.steps: expected int, got str 'many'"),
        ("kind.py", r"kind\.py: RECIPE\.head: expected a head plug-in, got Mse"),
        ("field.py", r"recipe field\.py failed while it was read: .*heads"),
        ("RECIPE --swap head=max_pol", r"unknown head 'max_pol'; valid: max_pool, small_conv, spectral_norm"),
        ("RECIPE --swap haed=max_pool", r"no field 'haed'; plug-in fields: .*head"),
        ("RECIPE --swap head", r"--swap takes FIELD=NAME"),
        ("RECIPE --swap seed=max_pool", r"field 'seed' holds no plug-in"),
        ("RECIPE --swap taps=named --taps.names nonsense", r"unknown tap 'nonsense'; the network has: .*down0.*middle"),
        ("RECIPE --plugins no_such_heads", r"plug-in module 'no_such_heads' cannot be imported"),
        (
            "RECIPE --plugins bad_heads --swap head=map_head",
            r"head 'map_head' on tap 'down0' returned shape \(4, 1, 8, 8\), expected logits \[B, K\]",
        ),
        ("RECIPE --dataset.size 18", r"image size 18 is not divisible by 8"),
        ("RECIPE --train.steps 0", r"recipe\.train\.steps: must be at least 1 and at most 1000000000, got 0"),
        ("RECIPE --train.batch-size 4000", r"recipe\.train\.batch_size: 4000 is more than the 128 samples"),
        (
            "RECIPE --stages teacher,shard",
            r"--stages: unknown stage 'shard'; stages: features, autoencoder, teacher, shards, distill",
        ),
        ("RECIPE --threads -2", r"--threads: must be at least 0 and at most 1024, got -2"),
        ("RECIPE --device gpu", r"--device gpu: not usable here"),
        ("RECIPE --shards.source /nowhere/*.tar", r"shards\.source: nothing matches '/nowhere/\*\.tar'"),
    ],
)
def test_a_wrong_recipe_or_value_exits_with_2_and_one_message(
    folder: Path, launch_here: Launch, words: str, message: str
) -> None:
    known = snapshot(folder)
    done = launch_here(*words.replace("RECIPE", str(RECIPE)).split(), "--scale", "smoke")
    assert done.code == 2, done
    assert re.search(message, error_of(done)), done.stderr
    assert error_of(done).count("\n") == 0
    assert not (folder / "runs").exists() and not (folder / "cache").exists()
    assert all(name.startswith("__pycache__") for name in set(snapshot(folder)) - set(known))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "recipe"),
        ("--locked", "--locked"),
        ("RECIPE --scale huge", "smoke"),
        ("RECIPE --scael smoke", "--scale"),
        ("RECIPE --heads.width 16", "--head.width"),
        ("RECIPE --head.width wide", "wide"),
        ("RECIPE --swap head=max_pool --head.power-iterations 2", "--head.power-iterations"),
        ("RECIPE --network.widths 7 7", "multiples of 8"),
    ],
)
def test_a_wrong_flag_exits_with_2_and_says_what_would_work(
    folder: Path, launch_here: Launch, words: str, message: str
) -> None:
    done = launch_here(*words.replace("RECIPE", str(RECIPE)).split())
    assert done.code == 2, done
    assert message in done.stderr
    assert done.stdout == ""
    assert not (folder / "runs").exists() and not (folder / "cache").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("exp4.py", "exp4.py does not exist"),
        ("RECIPE --heads.width 16", "--head.width"),
        ("RECIPE --plugins bad_heads --swap head=map_head", "head 'map_head' on tap 'down0' returned shape"),
        ("RECIPE --swap taps=named --taps.names nonsense", "unknown tap 'nonsense'"),
    ],
)
def test_a_real_process_ends_with_2_without_a_traceback_or_a_folder(folder: Path, words: str, message: str) -> None:
    done = run_command(*LAUNCH, *words.replace("RECIPE", str(RECIPE)).split(), "--scale", "smoke", cwd=folder)
    assert done.code == 2, done
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists() and not (folder / "cache").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_exits_with_2(cold: Ladd) -> None:
    assert "--device cuda: not usable here" in error_of(cold("--device", "cuda", code=2))


def test_an_exception_in_a_head_keeps_its_traceback_and_says_where_it_came_from(folder: Path) -> None:
    text = BAD_HEADS.replace("return self.body(features)", "return self.no_such_layer(features)")
    (folder / "bad_heads.py").write_text(text, encoding="utf-8")
    words = ["--scale", "smoke", "--plugins", "bad_heads", "--swap", "head=map_head"]
    done = run_command(*LAUNCH, RECIPE, *words, cwd=folder)
    assert done.code == 1
    assert "no_such_layer" in done.stderr
    assert "a trial of the recipe's training step" in done.stderr
    assert not (folder / "runs").exists()


@pytest.fixture
def own(ladd: Ladd) -> Ladd:
    """A copy of the trained cache, to be damaged."""
    shutil.copytree(ladd.cache, ladd.cwd / "cache")
    return Ladd(ladd.cwd, ladd.cwd / "cache")


@pytest.fixture
def message_of(launch_here: Launch) -> Callable[..., str]:
    """The one message of a launch that fails with exit code 1."""

    def fail(ladd: Ladd, *args: object) -> str:
        done = launch_here(*ladd.words(*args))
        assert done.code == 1, done
        return error_of(done)

    return fail


def shard(ladd: Ladd) -> Path:
    (found,) = ladd.cache.glob("shards-*/000001.tar")
    return found


def test_a_truncated_shard_is_refused_and_made_again_by_its_stage(own: Ladd, message_of: Callable[..., str]) -> None:
    tar = shard(own)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    message = message_of(own, "--stages", "distill")
    assert f"{tar} is damaged" in message
    assert "run stage `shards` again" in message
    own("--stages", "teacher,shards")
    assert tar.read_bytes() == whole


def test_a_flipped_bit_in_a_shard_is_found_and_deleting_it_repairs_the_set(own: Ladd) -> None:
    tar = shard(own)
    whole = tar.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    tar.write_bytes(flipped)
    message = error_of(own("--train.steps", 2, code=1))
    assert f"{tar} is damaged: its sha256" in message
    assert "delete it" in message
    tar.unlink()
    own("--train.steps", 2, "--stages", "teacher,shards,distill")
    assert tar.read_bytes() == whole


def write_foreign(folder: Path, spoil: Callable[[np.ndarray], np.ndarray] = lambda image: image) -> str:
    """Shards as other people write them, one sample a member; `spoil` changes the third. Returns their glob."""
    folder.mkdir()
    source = np.random.default_rng(0)
    with webdataset.TarWriter(str(folder / "000.tar"), encoder=False) as writer:
        for index in range(32):
            image = source.uniform(-1, 1, (3, 16, 16)).astype(np.float32)
            data = io.BytesIO()
            np.save(data, spoil(image) if index == 2 else image)
            writer.write({"__key__": f"s{index:03d}", "npy": data.getvalue(), "cls": str(index % 10).encode()})
    return f"{folder}/*.tar"


def nan(image: np.ndarray) -> np.ndarray:
    image[0, 3, 3] = np.nan
    return image


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, r"sample 's002' of .*000\.tar .*: x0 .*NaN"),
        (lambda image: image[:, :8], r"sample 's002' of .*000\.tar .*: x0 has shape \(1, 3, 8, 16\), .* needs"),
    ],
)
def test_a_foreign_sample_with_nan_or_of_a_wrong_shape_is_named(
    ladd: Ladd, message_of: Callable[..., str], spoil: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    own = Ladd(ladd.cwd, ladd.cwd / "cache")
    said = message_of(own, "--stages", "shards", "--shards.source", write_foreign(own.cwd / "foreign", spoil))
    assert re.search(message, said), said
    assert not list(own.cache.glob("shards-*/*"))
    assert not half_written(own.cache)


def test_foreign_shards_that_are_sound_are_trained_on(own: Ladd) -> None:
    source = write_foreign(own.cwd / "foreign")
    done = own("--stages", "teacher,shards,distill", "--train.steps", 2, "--shards.source", source)
    assert (done.run / "student.safetensors").exists()


def test_shards_of_our_own_are_trained_on(own: Ladd, smoke: tuple[Done, Ladd]) -> None:
    (folder,) = smoke[1].cache.glob("shards-*")
    done = own("--stages", "teacher,shards,distill", "--train.steps", 2, "--shards.source", folder)
    assert (done.run / "student.safetensors").exists()
    (made,) = (path for path in own.cache.glob("shards-*") if path.name != folder.name)
    image, samples = ImageSpec(3, 16, 16, 10), []
    for found in (folder, made):
        reader = ShardReader(found)
        reader.verify(image)
        samples.append(reader.take(np.arange(len(reader))))
    for name in ("x0", "cond", "noise"):
        assert torch.equal(getattr(samples[0], name), getattr(samples[1], name))


def test_a_truncated_foreign_shard_is_named(ladd: Ladd, message_of: Callable[..., str]) -> None:
    own = Ladd(ladd.cwd, ladd.cwd / "cache")
    source = write_foreign(own.cwd / "foreign")
    tar = own.cwd / "foreign" / "000.tar"
    tar.write_bytes(tar.read_bytes()[:40_000])
    message = message_of(own, "--stages", "shards", "--shards.source", source)
    assert f"shard {tar} is truncated" in message
    assert not half_written(own.cache)


def test_a_training_that_diverges_says_which_figure_at_which_step_and_what_to_do(
    ladd: Ladd, message_of: Callable[..., str]
) -> None:
    said = message_of(ladd, "--train.lr-student", 1e30)
    assert re.search(
        r"distill: \S+ is (nan|inf) at step \d+; there is no checkpoint yet.*lower the learning rate", said
    ), said
    assert not list(ladd.runs.glob("*/student.safetensors"))


@pytest.mark.parametrize("name", ["eval.json", "eval_classes.json"])
def test_damaged_figures_are_made_again_as_the_message_about_them_says(
    ladd: Ladd, smoke: tuple[Done, Ladd], name: str
) -> None:
    shutil.copytree(smoke[1].runs, ladd.runs)
    run = ladd.runs / smoke[0].run.name
    (run / name).write_text("{")
    done = ladd("--stages", "evaluate")
    assert done.run == run and "[evaluate] sampling" in done.stdout
    before, now = (json.loads((folder / "eval.json").read_text()) for folder in (smoke[0].run, run))
    assert before.keys() == now.keys()
    assert {entry: own.get("fd_real") for entry, own in before.items()} == {
        entry: own.get("fd_real") for entry, own in now.items()
    }
    assert (run / "eval_classes.json").read_bytes() == (smoke[0].run / "eval_classes.json").read_bytes()


def test_a_student_that_makes_nan_is_not_measured(
    ladd: Ladd, smoke: tuple[Done, Ladd], message_of: Callable[..., str]
) -> None:
    shutil.copytree(smoke[1].runs, ladd.runs)
    run = ladd.runs / smoke[0].run.name
    for name in ("eval.json", "evaluate.done.json"):
        (run / name).unlink()
    weights = safetensors.torch.load_file(run / "student.safetensors")
    for factor, expected in (
        (1e30, r"error: student@4: 64 of 64 samples are NaN"),
        (math.nan, r".*holds NaN or infinity"),
    ):
        path = run / "student.safetensors"
        path.unlink()
        safetensors.torch.save_file({name: w * factor for name, w in weights.items()}, path)
        assert re.match(expected, message_of(ladd, "--stages", "evaluate"))
    assert not (run / "eval.json").exists()


def test_damaged_files_of_the_cache_are_named_with_what_to_do(
    own: Ladd, smoke: tuple[Done, Ladd], message_of: Callable[..., str]
) -> None:
    (teacher,) = own.cache.glob("teacher-*/teacher.safetensors")
    whole = teacher.read_bytes()
    teacher.write_bytes(whole[:5000])
    message = message_of(own, "--seed", 3, "--stages", "distill")
    assert str(teacher) in message and "delete its folder" in message
    teacher.write_bytes(whole)
    (reference,) = own.cache.glob("reference-*/samples.safetensors")
    reference.write_bytes(reference.read_bytes()[:5000])
    shutil.copytree(smoke[1].runs, own.runs, dirs_exist_ok=True)
    (own.runs / smoke[0].run.name / "evaluate.done.json").unlink()
    message = message_of(own, "--stages", "evaluate")
    assert str(reference.parent) in message and "delete the folder" in message
    (index,) = own.cache.glob("shards-*/index.json")
    index.write_text('{"format": 1, ')
    message = message_of(own, "--stages", "distill", "--seed", 3)
    assert str(index) in message and "is not valid JSON" in message
