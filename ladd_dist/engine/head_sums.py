"""What the heads answered, by head and noise level, summed on the device until somebody reads it.

Sums and counts are kept, not means: ranks, micro-batches and steps add up to the figures of one process on the whole
batch, and a mean over few logits weighs as little as it should.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ladd_dist.parallel.ranks import SINGLE, Ranks

EDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the bins of tau, in units of x0; an edge belongs to the bin above it."""
BINS = ("0-0.1", "0.1-0.3", "0.3-1", "1-3", "3-10", "10-inf")
QUANTITIES = 5
"""Logits of one side; real ones above 0, fake ones below 0; the sum of the real ones, of the fake ones."""


class HeadSums:
    """Sums since each of several readers last read; nothing here waits for the device but `read` and `take`."""

    def __init__(self, taps: tuple[str, ...]) -> None:
        self.taps = taps
        self.sums: dict[str, Tensor | None] = {"log": None}

    @torch.no_grad()
    def add(self, real: dict[str, Tensor], fake: dict[str, Tensor], tau: Tensor) -> None:
        """Logits [B,K] of each head at levels tau [B], of one micro-batch."""
        rows = [
            torch.stack(
                [
                    torch.full_like(tau, real[tap].shape[1], dtype=torch.float64),
                    (real[tap] > 0).sum(dim=1).double(),
                    (fake[tap] < 0).sum(dim=1).double(),
                    real[tap].double().sum(dim=1),
                    fake[tap].double().sum(dim=1),
                ],
                dim=1,
            )
            for tap in self.taps
        ]
        bins = torch.stack([tau >= edge for edge in EDGES]).sum(dim=0)
        # A product, because adding at indices has no fixed order on an accelerator.
        member = (bins == torch.arange(len(BINS), device=tau.device)[:, None]).double()  # [bins,B]
        self._add_all(torch.cat([(member @ torch.cat(rows, dim=1)).flatten(), member.new_zeros(len(self.taps) + 1)]))

    @torch.no_grad()
    def add_norms(self, norms: dict[str, Tensor]) -> None:
        """Squared norms of one update's gradients of each head, over all ranks; nothing where they are not known."""
        if set(norms) == set(self.taps):
            squares = torch.stack([norms[tap] for tap in self.taps]).double().square()
            self._add_all(torch.cat([squares.new_zeros(self._num_answers()), squares, squares.new_ones(1)]))

    def _add_all(self, more: Tensor) -> None:
        for reader in self.sums:
            before = self.sums[reader]
            self.sums[reader] = more if before is None else before + more

    def _num_answers(self) -> int:
        return len(BINS) * len(self.taps) * QUANTITIES

    def take(self, reader: str, ranks: Ranks = SINGLE) -> Tensor:
        """The sums over ranks since the reader last read, on the CPU, float64; every rank calls this."""
        own = self.sums[reader]
        size = self._num_answers() + len(self.taps) + 1
        return self._over_ranks(torch.zeros(size, dtype=torch.float64) if own is None else own.cpu(), ranks)

    def _over_ranks(self, own: Tensor, ranks: Ranks) -> Tensor:
        total = ranks.total(own)
        norms = total[self._num_answers() :]  # every rank had the same
        return torch.cat([total[: self._num_answers()], norms / ranks.size])

    def put(self, reader: str, sums: Tensor, device: torch.device, ranks: Ranks = SINGLE) -> None:
        """The inverse of `take`, for a run that goes on: rank 0 holds what all had."""
        own = sums.clone()
        if not ranks.is_first:
            own[: self._num_answers()] = 0.0
        self.sums[reader] = own.to(device)

    def read(self, reader: str, ranks: Ranks = SINGLE) -> dict[str, float]:
        """The figures since the last time, of all ranks, with one transfer; every rank calls this."""
        sums = self.take(reader, ranks)
        self.sums[reader] = None
        return figures(self.taps, sums)


def figures(taps: tuple[str, ...], sums: Tensor) -> dict[str, float]:
    """Figures of each head: `accuracy/TAP`, `gap/TAP`, `grad_norm/heads/TAP`, `grad_share/heads/TAP`.

    Accuracy is the share of logits on the right side of 0, gap the mean of real logits minus that of fake ones. Both
    are there for each noise bin that had samples too, `accuracy/TAP@LOW-HIGH`. Of the gradients, the root mean square
    over updates of the norm before clipping, and the share of the squared norm of all heads.
    """
    num = len(BINS) * len(taps) * QUANTITIES
    answers = sums[:num].view(len(BINS), len(taps), QUANTITIES)
    found: dict[str, float] = {}
    for place, tap in enumerate(taps):
        of_bins = zip((f"@{name}" for name in BINS), answers[:, place], strict=True)
        for name, row in (("", answers[:, place].sum(dim=0)), *of_bins):
            count, right_real, right_fake, real, fake = row.tolist()
            if count > 0:
                found[f"accuracy/{tap}{name}"] = (right_real + right_fake) / (2 * count)
                found[f"gap/{tap}{name}"] = (real - fake) / count
    squares = sums[num : num + len(taps)]
    if sums[-1] > 0 and squares.sum() > 0:
        shares = (squares / squares.sum()).tolist()
        norms = (squares / sums[-1]).sqrt().tolist()
        for tap, share, norm in zip(taps, shares, norms, strict=True):
            found |= {f"grad_norm/heads/{tap}": norm, f"grad_share/heads/{tap}": share}
    return found


def sides(taps: tuple[str, ...], sums: Tensor) -> dict[str, float]:
    """`heads/accuracy_real`, `heads/accuracy_fake` and `heads/gap`: means over the heads; nothing without logits."""
    answers = sums[: len(BINS) * len(taps) * QUANTITIES].view(len(BINS), len(taps), QUANTITIES).sum(dim=0)
    if not (answers[:, 0] > 0).all():
        return {}
    real, fake, gap = answers[:, 1] / answers[:, 0], answers[:, 2] / answers[:, 0], answers[:, 3] - answers[:, 4]
    means = torch.stack([real, fake, gap / answers[:, 0]]).mean(dim=1).tolist()
    return dict(zip(("heads/accuracy_real", "heads/accuracy_fake", "heads/gap"), means, strict=True))
