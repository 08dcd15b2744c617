"""What a table of texts takes, worked out before any text is encoded, against the table that is then written."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from benchmarks.conditions import sizes
from ladd_dist import plan
from ladd_dist.core.condition_index import TableIndex
from ladd_dist.core.pack_rows import forms_of, write_piece
from ladd_dist.costs.texts import TextsCost, about_tokens, texts_cost

SHAPES = {"prompt_embeds": (10, 6), "prompt_attention_mask": (10,), "pooled_prompt_embeds": (4,)}
TEXTS = [
    "a cat on",
    "a longer text about a cat",
    "a cat on",
    "a text that is longer than ten tokens of four letters each",
]


def test_the_cost_is_that_of_the_written_table(tmp_path: Path) -> None:
    lengths = [*(min(10, about_tokens(text)) for text in dict.fromkeys(TEXTS)), about_tokens("")]
    assert lengths == [3, 8, 10, 1]
    mask = torch.arange(10) < torch.tensor(lengths)[:, None]
    rows = {
        "prompt_embeds": torch.ones(4, 10, 6).masked_fill(~mask[:, :, None], 0).bfloat16(),
        "prompt_attention_mask": mask.byte(),
        "pooled_prompt_embeds": torch.ones(4, 4).bfloat16(),
    }
    index = TableIndex([0, 1, 0, 2, 3], forms_of(rows), [write_piece(tmp_path / "a", rows)])
    cost = texts_cost(SHAPES, TEXTS, item_bytes=2, reads_padding=False)
    assert cost == TextsCost(4, 3, index.nbytes, 5 * (4 * 60 + 10 + 4 * 4))
    whole = texts_cost(SHAPES, TEXTS, item_bytes=4, reads_padding=True)
    assert whole.table_bytes == 4 * (4 * 60 + 10 + 4 * 4)


def test_the_plan_says_what_the_texts_take(capsys: object) -> None:
    found = plan.Plan(
        recipe="a", gpus=1, gpus_per_node=1, gpu_memory_bytes=1, usable_bytes=1, batch_size=1, batch_per_gpu=1,
        accumulate=1, precision="fp32", params={}, bytes_per_sample=1, strategies=[], cheapest=None, advice="", data={},
        texts=TextsCost(100_000, 5_000, 700_000_000, 197_000_000_000),
    )  # fmt: skip
    with Console().capture():
        plan.show(found)
    said = " ".join(capsys.readouterr().out.split())  # type: ignore[attr-defined]
    assert "5,000 of 100,000 prompts are distinct; encoded they take about 700 MB beside the shards" in said


def test_every_family_says_whether_its_padding_is_stored() -> None:
    found = {row["model"]: row for row in sizes(50)}
    assert [name for name, row in found.items() if not row["reads_padding"]] == ["PixArt-alpha", "Sana"]
    assert found["Flux"]["before_float32"] == 51 * (512 * 4096 + 768) * 4
    assert found["Flux"]["now"] * 2 == found["Flux"]["before_float32"]
    assert found["Sana"]["now"] * 8 < found["Sana"]["before_16_bits"]
