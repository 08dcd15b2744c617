"""Texts of different lengths, as some pipelines give them, in rows of one length with a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Rows = dict[str, Tensor]
"""Tensors [n,...] with one row a text, by the names of diffusers' pipelines."""


def filled(given: Mapping[str, Any], length: int) -> Rows:
    """Rows of a pipeline that returns a list of states [t_i,E] for each kind of text (Z-Image).

    Args:
        given: lists by name; an empty one is left out.
        length: number of tokens T of a row; states are [n,T,E], zero after the text's own tokens, and masks [n,T].
    """
    rows: Rows = {}
    for name, states in given.items():
        if states:
            rows[name], rows[name.replace("embeds", "attention_mask")] = _filled(states, length)
    return rows


def filled_batch(given: Mapping[str, Any], length: int) -> Rows:
    """Rows of a pipeline that fills up to the longest text of its batch, and returns no mask if all are as long.

    (Qwen-Image.) States are [n,T,E] for T = `length`, masks [n,T].
    """
    states = given["prompt_embeds"]
    mask = given.get("prompt_attention_mask")
    kept = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask.bool()
    return filled({"prompt_embeds": [row[own] for row, own in zip(states, kept, strict=True)]}, length)


def _filled(states: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    rows = states[0].new_zeros(len(states), length, states[0].shape[-1])
    together = pad_sequence(list(states), batch_first=True)
    rows[:, : together.shape[1]] = together
    lengths = torch.tensor([len(own) for own in states], device=rows.device)
    return rows, (torch.arange(length, device=rows.device) < lengths[:, None]).to(torch.int64)
