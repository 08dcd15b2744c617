"""Bytes of a table of text conditions on the disk, before any text is encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHARACTERS_A_TOKEN = 4
"""English characters that a token of T5 or Gemma stands for, about; each text ends with one token more."""
FLOAT32 = 4


@dataclass(frozen=True)
class TextsCost:
    """What the texts of a recipe take beside its shards."""

    prompts: int
    distinct: int
    """Number of texts that are encoded; equal ones are stored once."""
    table_bytes: int
    padded_bytes: int
    """Bytes that the table would take with a padded row in float32 for each prompt."""


def texts_cost(
    shapes: Mapping[str, tuple[int, ...]], texts: Sequence[str], *, item_bytes: int, reads_padding: bool
) -> TextsCost:
    """The cost of a table.

    Args:
        shapes: shape of one row of each tensor; those of `prompt_embeds` and its mask begin with the number of tokens.
        item_bytes: bytes of a number as it is stored; masks take one byte.
        reads_padding: whether all tokens are stored; otherwise a text takes about as many as it has.
    """
    distinct = dict.fromkeys(texts)
    tokens = shapes["prompt_embeds"][0]
    kept = [tokens if reads_padding else min(tokens, about_tokens(text)) for text in (*distinct, "")]
    held = padded = 0
    for name, shape in shapes.items():
        masks = "mask" in name
        entry, size = math.prod(shape[1:]), 1 if masks else item_bytes
        each = sum(kept) if name in ("prompt_embeds", "prompt_attention_mask") else len(kept) * shape[0]
        held += each * entry * size
        padded += (len(texts) + 1) * math.prod(shape) * (1 if masks else FLOAT32)
    return TextsCost(len(texts), len(distinct), held, padded)


def about_tokens(text: str) -> int:
    """Estimate of the number of tokens of an English text."""
    return 1 + math.ceil(len(text) / CHARACTERS_A_TOKEN)
