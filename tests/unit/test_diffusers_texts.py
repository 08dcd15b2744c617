"""Texts that a language model reads: FLUX.2, Qwen-Image and Z-Image encode them as their pipelines do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_texts import LANGUAGE_MODELS, write_pipeline
from torch import Tensor

from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.diffusers import Diffusers

pytest.importorskip("diffusers", minversion="0.39")  # which has the interfaces of these models

PROMPTS = ("a cat", "a dog on a mat", "")
TOKENS = 40
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    for family in LANGUAGE_MODELS:
        write_pipeline(folder / family, family)
    return folder


def encoded(source: Path, texts: Sequence[str], tokens: int = TOKENS) -> dict[str, Tensor]:
    parts = list(Diffusers(source=str(source), tokens=tokens).encode(texts, image=ImageSpec(3, 16, 16, 1), device=CPU))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def own_states(pipeline: Any, family: str, text: str) -> Tensor:
    """What the pipeline encodes a text to, alone in its batch."""
    more = {"do_classifier_free_guidance": False} if family == "z_image" else {}
    with torch.no_grad():
        found = pipeline.encode_prompt(text, device=CPU, max_sequence_length=TOKENS, **more)[0]
    states: Tensor = found[0]
    return states


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_a_row_is_what_the_librarys_pipeline_encodes(family: str, pipelines: Path) -> None:
    rows = encoded(pipelines / family, PROMPTS)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(pipelines / family)
    null = " " if family == "qwen_image" else ""
    for number, text in enumerate((*PROMPTS, null)):
        expected = own_states(pipeline, family, text)
        own = len(expected)
        torch.testing.assert_close(rows["prompt_embeds"][number, :own], expected)
        assert not rows["prompt_embeds"][number, own:].any()
        if "prompt_attention_mask" in rows:
            assert rows["prompt_attention_mask"][number].tolist() == [1] * own + [0] * (TOKENS - own)
    assert rows["prompt_embeds"].shape[:2] == (len(PROMPTS) + 1, TOKENS)
    assert not torch.equal(rows["prompt_embeds"][0], rows["prompt_embeds"][1])


@pytest.mark.parametrize("family", ["qwen_image", "z_image"])
def test_a_text_has_512_tokens_unless_the_recipe_says_otherwise(family: str, pipelines: Path) -> None:
    rows = encoded(pipelines / family, ["a cat"], tokens=0)
    assert rows["prompt_embeds"].shape == (2, 512, 16)
    assert rows["prompt_attention_mask"].sum(dim=1).max() < TOKENS


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_texts_that_are_too_long_are_told_once(family: str, pipelines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["a cat", "a long dog " * 30, "a longer dog " * 40]
    rows = encoded(pipelines / family, texts)
    assert len(rows["prompt_embeds"]) == len(texts) + 1
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "at least 1 of 3 texts are longer than the text encoder reads" in notes[0]
    assert "begins 'a longer dog a longer dog" in notes[0]


def num_made(source: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many tokens the library's pipeline makes of a text where nothing is cut, as its tokenizer is asked."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(source)
    kind, made = type(getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)), list[int]()
    plain = kind.__call__

    def heard(self: Any, *words: Any, **more: Any) -> Any:
        asked = {name: value for name, value in more.items() if name not in ("truncation", "max_length", "padding")}
        made.append(torch.as_tensor(plain(self, *words, **asked)["input_ids"]).shape[-1])
        return plain(self, *words, **more)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(kind, "__call__", heard)
        pipeline.encode_prompt(text, device=CPU, max_sequence_length=TOKENS)
    return made[0] - getattr(pipeline, "prompt_template_encode_start_idx", 0)


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_the_chat_around_a_text_counts(
    family: str, pipelines: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a cat [IMG] {0}" if family == "flux2_guided" else "a cat {0}"
    fits = num_made(pipelines / family, text, monkeypatch)
    assert fits > len(text.replace("[IMG]", ""))
    for tokens, is_told in ((fits, False), (fits - 1, True)):
        encoded(pipelines / family, [text], tokens=tokens)
        assert ("texts are longer than the text encoder reads" in capfd.readouterr().err) == is_told


def test_a_pipeline_that_the_installed_diffusers_does_not_have_is_named(
    pipelines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers, "Flux2KleinPipeline", None)
    with pytest.raises(ValueError, match=r"is a Flux2KleinPipeline, which diffusers [\d.]+ does not have: pip"):
        encoded(pipelines / "flux2", ["a cat"])
