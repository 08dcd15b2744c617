"""Families with their text encoders: a packed table gives the numbers of the padded one that earlier versions wrote."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny_texts import PIPELINES, write_pipeline
from torch import Tensor

from ladd_dist.core.condition_index import INDEX, TableIndex
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.pack_rows import forms_of, write_piece
from ladd_dist.core.types import ImageSpec
from ladd_dist.networks.diffusers import Diffusers
from ladd_dist.networks.diffusers.denoiser import DiffusersDenoiser
from ladd_dist.networks.diffusers.family import Family

LONG = "a long line of words " * 9  # longer than every encoder reads
TEXTS = ["a", "a cat", "a dog on a mat by the sea", LONG]
FIXED_LENGTH = ("sd", "sdxl", "kandinsky3")
DROP_PADDING = ("pixart", "pixart_sized", "sana", "qwen_image", "z_image")
TOKENS = {"qwen_image": 60, "z_image": 60}  # their tiny models have too few positions for more
CPU = torch.device("cpu")


def rows_of(network: Diffusers) -> dict[str, Tensor]:
    """Rows of the texts and the null condition."""
    batches = list(network.encode(TEXTS, image=ImageSpec(3, 16, 16, len(TEXTS)), device=CPU))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("family", PIPELINES)
def test_a_packed_table_gives_the_numbers_of_the_padded_one(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_pipeline(tmp_path / "checkpoint", family)
    network = Diffusers(source=str(source), tokens=0 if family in FIXED_LENGTH else TOKENS.get(family, 100))
    rows = rows_of(network)
    piece = write_piece(tmp_path / "conditions-000000.safetensors", rows)
    (tmp_path / INDEX).write_text(json.dumps(asdict(TableIndex(list(range(5)), forms_of(rows), [piece]))))
    for adapter in Family.__subclasses__():
        monkeypatch.setattr(adapter, "reads_padding", True)
    padded, module = Conditions(rows_of(network)), network.load(image=ImageSpec(4, 8, 8, len(TEXTS))).eval()
    assert isinstance(module, DiffusersDenoiser)
    source_of = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(5, 4, 8, 8, generator=source_of), torch.linspace(0.1, 2.0, 5)
    taps, found = tuple(module.taps), []
    for conditions in (padded, Conditions.read(tmp_path / INDEX)):
        module.attach(conditions)
        found.append(module(x, sigma, torch.arange(5), taps=taps))
    old, new = found
    assert torch.equal(new.denoised, old.denoised)
    assert torch.equal(new.cond_vec, old.cond_vec)
    assert all(torch.equal(new.features[tap], old.features[tap]) for tap in taps)
    lengths = piece.lengths["prompt_embeds"]
    if family in DROP_PADDING:
        assert lengths[:4] == rows["prompt_attention_mask"].sum(dim=1).tolist()[:4] == sorted(set(lengths[:4]))
    else:
        assert set(lengths[:4]) == {rows["prompt_embeds"].shape[1]}
