"""What a table of texts takes: `python -m benchmarks.conditions`.

A synthetic table of 8 GB on the disk (sparse files, which are read like others) is looked up in random batches, as a
training does whose table does not fit into memory: rows a second, and by how much the process grew, the mapped part of
files included. `--sizes` prints instead what the texts of each family take, before and now.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro
from rich.console import Console
from rich.table import Table

from ladd_dist.core.condition_index import TableIndex
from ladd_dist.core.conditions import Conditions
from ladd_dist.core.pack_rows import forms_of, write_piece
from ladd_dist.core.packed_table import PackedTable
from ladd_dist.core.types import ImageSpec
from ladd_dist.core.units import si
from ladd_dist.costs.texts import FLOAT32, texts_cost
from ladd_dist.datasets.prompt_writer import written_prompts
from ladd_dist.networks.diffusers.checkpoint import FAMILIES

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Stable Diffusion 1.5": ("UNet2DConditionModel", {"cross_attention_dim": 768}),
    "Stable Diffusion XL": ("UNet2DConditionModel", {
        "cross_attention_dim": 2048, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }),
    "Kandinsky 3": ("Kandinsky3UNet", {"encoder_hid_dim": 4096}),
    "PixArt-alpha": ("PixArtTransformer2DModel", {"caption_channels": 4096, "sample_size": 64}),
    "Stable Diffusion 3": ("SD3Transformer2DModel", {"joint_attention_dim": 4096, "pooled_projection_dim": 2048}),
    "Flux": ("FluxTransformer2DModel", {"joint_attention_dim": 4096, "pooled_projection_dim": 768}),
    "Sana": ("SanaTransformer2DModel", {"caption_channels": 2304}),
    "FLUX.2 klein 4B": ("Flux2Transformer2DModel", {"joint_attention_dim": 7680}),
    "Qwen-Image": ("QwenImageTransformer2DModel", {"joint_attention_dim": 3584}),
    "Z-Image": ("ZImageTransformer2DModel", {"cap_feat_dim": 2560}),
}  # fmt: skip
"""Class and text sizes of published models, from the configuration of each on the Hugging Face hub."""


@dataclass(frozen=True)
class Args:
    """Measure looking up texts in a table that is larger than memory should hold."""

    gigabytes: float = 8.0
    """Size of the table in 10^9 bytes."""
    batches: int = 200
    """Batches of 64 that are looked up."""
    sizes: bool = False
    """Print what the texts of each family take instead."""
    prompts: int = 100_000
    """Number of prompts for `--sizes`."""
    json: bool = False
    """Print one JSON object instead of a table."""


def sizes(num: int) -> list[dict[str, Any]]:
    """Bytes of each family's table for `num` written prompts: padded in float32, padded and packed in 16 bits."""
    texts, found = list(written_prompts(num)), []
    for name, (cls, config) in MODELS.items():
        family = FAMILIES[cls]({"in_channels": 4, **config}, ImageSpec(4, 8, 8, 1), 0, 0.0)
        shapes = family.condition_shapes()
        half = texts_cost(shapes, texts, item_bytes=2, reads_padding=True)
        now = texts_cost(shapes, texts, item_bytes=2, reads_padding=family.reads_padding)
        fewer = texts_cost(shapes, texts[:5000], item_bytes=2, reads_padding=family.reads_padding)
        found.append({
            "model": name, "tokens": shapes["prompt_embeds"][0], "reads_padding": family.reads_padding,
            "before_float32": now.padded_bytes, "before_16_bits": half.table_bytes, "now": now.table_bytes,
            "now_5000_distinct": fewer.table_bytes,
        })  # fmt: skip
    return found


def lookup(args: Args) -> dict[str, float]:
    """Rows a second and growth in bytes of a process that looks up random rows of a sparse table."""
    rows = {"prompt_embeds": torch.ones(128, 120, 1024), "prompt_attention_mask": torch.ones(128, 120).byte()}
    with tempfile.TemporaryDirectory() as folder:
        first = write_piece(Path(folder) / "conditions-0", rows)
        num = max(1, round(args.gigabytes * 1e9 / first.bytes))
        pieces = [dataclasses.replace(first, name=f"conditions-{number}") for number in range(num)]
        for piece in pieces[1:]:
            with (Path(folder) / piece.name).open("wb") as stream:
                stream.truncate(first.bytes)
        table = PackedTable(Path(folder), TableIndex(list(range(128 * num)), forms_of(rows), pieces))
        conditions, source = Conditions(table), torch.Generator().manual_seed(0)
        del rows
        draws = [torch.randint(0, table.num_rows, (64,), generator=source) for _ in range(args.batches + 5)]
        for ids in draws[:5]:
            conditions.take(ids)
        before, highest, began = psutil.Process().memory_info().rss, 0, time.perf_counter()
        for ids in draws[5:]:
            conditions.take(ids)
            highest = max(highest, psutil.Process().memory_info().rss)
        seconds = time.perf_counter() - began
    return {
        "table_bytes": table.nbytes, "files": num, "rows": 64 * args.batches, "seconds": seconds,
        "rows_a_second": 64 * args.batches / seconds, "growth_bytes": max(0, highest - before),
        "padded_row_bytes": FLOAT32 * 120 * 1024,
    }  # fmt: skip


def main(args: Args) -> None:
    """Measure, and print."""
    console = Console()
    if args.sizes:
        found = sizes(args.prompts)
        table = Table(*("model", "tokens", "padding read", "float32", "16 bits", "now", "now, 5,000 distinct"))
        for row in found:
            values = [si(row[name], "B") for name in list(row)[3:]]
            table.add_row(row["model"], str(row["tokens"]), "yes" if row["reads_padding"] else "no", *values)
        print(json.dumps(found)) if args.json else console.print(table)
        return
    measured = lookup(args)
    if args.json:
        print(json.dumps(measured))
    else:
        held, per_row, grown = (si(measured[name], "B") for name in ("table_bytes", "padded_row_bytes", "growth_bytes"))
        rate = f"{measured['rows_a_second']:,.0f} rows a second of {per_row}"
        console.print(f"{held} in {measured['files']} files: {rate}; the process grew by {grown}")


if __name__ == "__main__":
    main(tyro.cli(Args))
