"""Whole tensors on rank 0, from the parts that ranks hold."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from ladd_dist.parallel import FlatShard
from ladd_dist.parallel.ranks import Ranks

Span = tuple[int, int]


def whole(parts: Mapping[str, FlatShard], ranks: Ranks) -> dict[str, Tensor] | None:
    """Every tensor in its own shape, float32 on the CPU, by name; on rank 0, None on the others.

    Every rank has to call it with the same names, except where all parts are copies: then there is nothing to send,
    and rank 0 may call it alone. One tensor at a time is gathered, so an accelerator needs room for one more.
    """
    cut = {name: part for name, part in parts.items() if not part.copies}
    spans = _spans(cut, ranks) if cut else {}
    gathered: dict[str, Tensor] = {}
    for name, part in parts.items():
        flat = _copied(part, ranks) if part.copies else _joined(part, spans[name], ranks)
        if flat is not None:
            gathered[name] = flat.to("cpu", torch.float32).view(part.shape)
    return gathered if ranks.is_first else None


def _spans(cut: dict[str, FlatShard], ranks: Ranks) -> dict[str, list[Span]]:
    """The ranges that the ranks hold of each tensor, by its name."""
    own = {name: (part.start, part.stop) for name, part in cut.items()}
    every: list[dict[str, Span]] = [own] * ranks.size
    if ranks.size > 1:
        dist.all_gather_object(every, own, group=ranks.groups.control)
    return {name: [held[name] for held in every] for name in own}


def _copied(part: FlatShard, ranks: Ranks) -> Tensor | None:
    return part.flat() if ranks.is_first else None


def _joined(part: FlatShard, spans: list[Span], ranks: Ranks) -> Tensor | None:
    """One flattened tensor from its ranges, on rank 0."""
    held = sum(stop - start for start, stop in spans)
    assert held == part.shape.numel(), f"ranks hold {held} of {part.shape.numel()} elements"
    pieces = [part.flat()]
    if ranks.size > 1:
        longest = max(stop - start for start, stop in spans)
        sent = pieces[0].new_zeros(longest)
        sent[: len(pieces[0])] = pieces[0]
        pieces = [torch.empty_like(sent) for _ in spans] if ranks.is_first else []
        dist.gather(sent, pieces if ranks.is_first else None, dst=0)
    if not ranks.is_first:
        return None
    flat = pieces[0].new_empty(part.shape.numel())
    for piece, (start, stop) in zip(pieces, spans, strict=True):
        flat[start:stop] = piece[: stop - start]
    return flat


def share_of(num: int, block: int, ranks: Ranks) -> list[Span]:
    """The rows first .. stop - 1 of `num` that each rank works on: whole blocks, as even as they go."""
    blocks = -(-num // block)
    edges = [min(blocks * rank // ranks.size * block, num) for rank in range(ranks.size + 1)]
    return list(itertools.pairwise(edges))


def joined_rows(own: Tensor, shares: list[Span], ranks: Ranks) -> Tensor:
    """All ranks' rows [N,...] in order, on the CPU of every rank, from this rank's [n,...]; every rank calls it.

    Args:
        shares: what `share_of` said; a rank's may be empty, its `own` then has no rows.
    """
    if ranks.size == 1:
        return own.cpu()
    longest = max(stop - first for first, stop in shares)
    sent = torch.zeros(longest, *own.shape[1:], dtype=own.dtype)
    sent[: len(own)] = own.cpu()
    received = [torch.empty_like(sent) for _ in shares]
    dist.all_gather(received, sent, group=ranks.groups.control)
    return torch.cat([part[: stop - first] for part, (first, stop) in zip(received, shares, strict=True)])
