"""Sums of the heads' logits by head and noise level, kept on the device until somebody reads them.

Sums and counts are kept, not means: ranks, micro-batches and steps add up to the figures of one process on the whole
batch, and a mean over few logits weighs as little as it should.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ladd_dist.core.gan import Margins, threshold_margins
from ladd_dist.parallel.ranks import SINGLE, Ranks

EDGES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Edges of the bins of tau, in units of x0; an edge belongs to the bin above it."""
BINS = ("0-0.1", "0.1-0.3", "0.3-1", "1-3", "3-10", "10-inf")
QUANTITIES = 5
"""For each head: logits of one side, real and fake ones on their right side, the sum of the real and the fake ones."""


class _Window:
    """The sums since a reader last read; their parts are put together when somebody reads."""

    def __init__(self) -> None:
        self.answers: Tensor | None = None  # [bins, 1 + 4 logits of all heads]
        self.squares: Tensor | None = None  # [heads]
        self.updates: Tensor | int = 0  # that `squares` is a sum over
        self.restored: Tensor | None = None  # as `take` gives it


class HeadSums:
    """Sums since each of several readers last read; only `read` and `take` wait for the device."""

    def __init__(self, taps: tuple[str, ...]) -> None:
        self.taps = taps
        self.windows = {"log": _Window()}
        self.num_logits: list[int] = []
        """Logits of each head for a sample, known from the first logits."""
        self.edges: Tensor | None = None
        self.bins: Tensor | None = None  # [bins, 1], their numbers

    def open(self, reader: str) -> None:
        """Open or reset a reader; its sums begin at 0."""
        self.windows[reader] = _Window()

    @torch.no_grad()
    def add(
        self,
        real: dict[str, Tensor],
        fake: dict[str, Tensor],
        tau: Tensor,
        margins: Margins = threshold_margins,
    ) -> None:
        """Add the logits [B,K] of each head at levels tau [B], of one micro-batch; `margins` says which are right.

        Few operations for all heads together: at each step an accelerator is asked for a dozen small things, not a
        dozen a head.
        """
        if self.edges is None or self.bins is None:
            self.edges = torch.tensor(EDGES, dtype=tau.dtype, device=tau.device)
            self.bins = torch.arange(len(BINS), device=tau.device)[:, None]
            self.num_logits = [real[tap].shape[1] for tap in self.taps]
        reals, fakes = (torch.cat([side[tap] for tap in self.taps], dim=1) for side in (real, fake))
        ones = torch.ones_like(reals[:, :1])
        right_reals, right_fakes = (side > 0 for side in margins(reals, fakes))
        seen = torch.cat([ones, right_reals, right_fakes, reals, fakes], dim=1).double()
        bins = torch.bucketize(tau, self.edges, right=True)
        # A product, because adding at indices has no fixed order on an accelerator.
        member = torch.eq(bins, self.bins).double()  # [bins,B]; `one_hot` would look at the numbers
        answers = member @ seen
        for window in self.windows.values():
            window.answers = answers if window.answers is None else window.answers + answers

    @torch.no_grad()
    def add_norms(self, norms: dict[str, Tensor]) -> None:
        """Add the gradient norm of each head in one update, over all ranks; an empty mapping adds nothing."""
        if norms:
            squares = torch.stack([norms[tap] for tap in self.taps]).double().square()
            for window in self.windows.values():
                window.updates = window.updates + 1
                window.squares = squares if window.squares is None else window.squares + squares

    def take_update(self) -> dict[str, Tensor]:
        """The sums of the reader `log` as they lie on the device, by their part; it is reset. Of one update."""
        window = self.windows["log"]
        self.open("log")
        found = {"answers": window.answers, "squares": window.squares}
        return {name: value for name, value in found.items() if value is not None}

    @torch.no_grad()
    def add_update(self, sums: dict[str, Tensor], num_logits: list[int]) -> None:
        """Add what another one's `take_update` gave."""
        self.num_logits = num_logits
        for window in self.windows.values():
            for name, value in sums.items():
                before = getattr(window, name)
                setattr(window, name, value if before is None else before + value)
            window.updates = window.updates + ("squares" in sums)

    def windows_now(self) -> list[_Window]:
        """The sums as they are, for `go_back`."""
        return [copy.copy(window) for window in self.windows.values()]

    @torch.no_grad()
    def go_back(self, before: list[_Window], *, where: Tensor) -> None:
        """Leave out what was added since `before` if `where` (0-d, bool) says so; does not wait for the device."""
        for window, old in zip(self.windows.values(), before, strict=True):
            window.answers = _earlier(old.answers, window.answers, where)
            window.squares = _earlier(old.squares, window.squares, where)
            window.updates = torch.where(where, old.updates, window.updates)

    def take(self, reader: str, ranks: Ranks = SINGLE) -> Tensor:
        """The sums over ranks since the reader last read, on the CPU, float64; every rank calls this.

        First the answers [bins, heads, QUANTITIES], then the squared norms of each head and the number of updates.
        """
        window, taps = self.windows[reader], len(self.taps)
        answers = torch.zeros(len(BINS), taps, QUANTITIES, dtype=torch.float64)
        if window.answers is not None:
            seen = window.answers.cpu()
            counts = torch.tensor(self.num_logits, dtype=torch.float64)
            parts = [torch.split(part, self.num_logits, dim=1) for part in seen[:, 1:].chunk(4, dim=1)]
            sums = torch.stack([torch.stack([own.sum(dim=1) for own in part], dim=1) for part in parts], dim=2)
            answers = torch.cat([(seen[:, :1] * counts)[:, :, None], sums], dim=2)
        own = torch.cat([answers.flatten(), torch.zeros(taps + 1, dtype=torch.float64)])
        if window.restored is not None:
            own = own + window.restored
        total = ranks.sum(own)
        if window.squares is not None:  # every rank has the same
            total[answers.numel() :] += torch.cat([window.squares.cpu(), torch.tensor([float(window.updates)])])
        return total

    def put(self, reader: str, sums: Tensor, ranks: Ranks = SINGLE) -> None:
        """The inverse of `take`, for a run that goes on: rank 0 holds what all had."""
        window = _Window()
        window.restored = sums if ranks.is_first else torch.zeros_like(sums)
        self.windows[reader] = window

    def read(self, reader: str, ranks: Ranks = SINGLE) -> dict[str, float]:
        """The figures since the reader last read, over all ranks; every rank calls this."""
        sums = self.take(reader, ranks)
        self.open(reader)
        return figures(self.taps, sums)


def _earlier(before: Tensor | None, now: Tensor | None, where: Tensor) -> Tensor | None:
    if now is None:
        return None
    return torch.where(where, torch.zeros_like(now) if before is None else before, now)


def figures(taps: tuple[str, ...], sums: Tensor) -> dict[str, float]:
    """Figures of each head: `accuracy/TAP`, `gap/TAP`, `grad_norm/heads/TAP`, `grad_share/heads/TAP`.

    Accuracy is the share of logits on their right side, gap the mean of real logits minus that of fake ones. Both
    are there for each noise bin that had samples too, `accuracy/TAP@LOW-HIGH`. Of the gradients, the root mean square
    over updates of the norm before clipping, and the share of the squared norm of all heads.
    """
    num = len(BINS) * len(taps) * QUANTITIES
    answers = sums[:num].view(len(BINS), len(taps), QUANTITIES)
    found: dict[str, float] = {}
    of_bins, of_all = answers.tolist(), answers.sum(dim=0).tolist()
    for place, tap in enumerate(taps):
        rows = zip((f"@{name}" for name in BINS), (of_bin[place] for of_bin in of_bins), strict=True)
        for name, (count, right_real, right_fake, real, fake) in (("", of_all[place]), *rows):
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
