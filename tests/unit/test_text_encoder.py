"""The text encoders of a checkpoint: what they say, the type of their rows, and what cannot be read."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from text_shards import recipe_in, workspace_in
from tiny_texts import write_pipeline

from ladd_dist.builders.networks import TABLE
from ladd_dist.codecs.vae import Vae
from ladd_dist.core.condition_index import read_table_index
from ladd_dist.core.rundir import read_json
from ladd_dist.datasets.prompts import Prompts
from ladd_dist.engine.loop import StopFlag
from ladd_dist.networks.diffusers.checkpoint import load_model, open_checkpoint
from ladd_dist.networks.diffusers.texts import BATCH, TextEncoder, encode
from ladd_dist.stages.shards import make_shards
from ladd_dist.stages.texts import encode_texts
from ladd_dist.workspace.run import Run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd") / "checkpoint", "sd")


def test_texts_that_are_too_long_are_told_once_and_not_by_the_libraries(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = TextEncoder(checkpoint, read_json(checkpoint / "unet" / "config.json"), 0, torch.device("cpu"))
    capfd.readouterr()  # the libraries' bars while they load
    texts = ["a cat", "a long dog " * 30, *["a cat"] * BATCH, "a longer dog " * 40]
    rows = list(encode(encoder, texts, ["prompt_embeds"], size=(16, 16)))
    assert sum(len(row["prompt_embeds"]) for row in rows) == len(texts) + 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith(f"note: at least 2 of {len(texts)} texts are longer than the text encoder reads")
    assert "begins 'a longer dog a longer dog" in said


def test_a_checkpoint_is_read_without_a_warning_of_the_libraries(checkpoint: Path) -> None:
    opened = open_checkpoint(str(checkpoint), subfolder="", revision="", weights=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(opened).dtype == torch.float32
        assert Vae(source=str(checkpoint)).build(image=Prompts(size=16).spec()) is not None
        TextEncoder(checkpoint, read_json(checkpoint / "unet" / "config.json"), 0, torch.device("cpu"))


def test_texts_that_fit_are_not_spoken_of(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = TextEncoder(checkpoint, read_json(checkpoint / "unet" / "config.json"), 0, torch.device("cpu"))
    capfd.readouterr()
    list(encode(encoder, ["a cat"], ["prompt_embeds"], size=(16, 16)))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("stored", "dtype"), [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (None, "F32")])
def test_rows_have_the_type_of_the_text_encoder(
    checkpoint: Path, tmp_path: Path, stored: torch.dtype | None, dtype: str
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    weights = source / "text_encoder" / "model.safetensors"
    if stored is not None:
        content = {name: tensor.to(stored) for name, tensor in safetensors.torch.load_file(weights).items()}
        safetensors.torch.save_file(content, weights, {"format": "pt"})
    recipe = recipe_in(tmp_path, source)
    encode_texts(Run(recipe, workspace_in(tmp_path)), tmp_path / "table", StopFlag())
    assert read_table_index(tmp_path / "table" / TABLE).tensors["prompt_embeds"].dtype == dtype


def test_a_checkpoint_without_text_encoders_is_told_before_anything_is_made(checkpoint: Path, tmp_path: Path) -> None:
    workspace = workspace_in(tmp_path)
    alone = shutil.copytree(checkpoint, tmp_path / "alone")
    (alone / "model_index.json").unlink()
    with pytest.raises(ValueError, match=r"has no text encoders \(there is no model_index\.json\)"):
        make_shards(Run(recipe_in(tmp_path, alone), workspace))
    lost = shutil.copytree(checkpoint, tmp_path / "lost")
    shutil.rmtree(lost / "text_encoder")
    with pytest.raises(ValueError, match=r"text_encoder is missing: the shard stage encodes the texts with it"):
        make_shards(Run(recipe_in(tmp_path, lost), workspace))
    pickled = shutil.copytree(checkpoint, tmp_path / "pickled")
    (pickled / "text_encoder" / "model.safetensors").rename(pickled / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only as a pickle \(pytorch_model\.bin\)"):
        make_shards(Run(recipe_in(tmp_path, pickled), workspace))
    index = json.loads((checkpoint / "model_index.json").read_text())
    foreign = shutil.copytree(checkpoint, tmp_path / "foreign")
    (foreign / "model_index.json").write_text(json.dumps(index | {"text_encoder": ["my_module", "Encoder"]}))
    with pytest.raises(ValueError, match=r"text_encoder is of 'my_module', supported is 'transformers'"):
        make_shards(Run(recipe_in(tmp_path, foreign), workspace))
