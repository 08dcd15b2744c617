"""The training loop that teacher and student share: progress, logging, checkpoints, a clean stop."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ladd_dist.core.errors import UserError
from ladd_dist.core.screen import Screen
from ladd_dist.core.signals import RECEIVED, Process, Stopped, heard, let_go_of_terminal
from ladd_dist.engine.step_metrics import SKIPPED
from ladd_dist.parallel.ranks import SINGLE, Ranks

PLAIN_LINE_EVERY_S = 10.0
LEAST_SCALE = 2.0**-10
"""The least scale of a loss in fp16, which begins at 2^16: what overflows below it does so by its own size."""
Figures = dict[str, Tensor | float]


class StopFlag:
    """A flag that a signal that stops a run sets inside `listen`; the same again takes the default way out."""

    def __init__(self) -> None:
        # A stop that something before has swallowed is not lost: it ends what is about to begin, and lets it save.
        self.signal: int | None = Process.stop.number if Process.stop is not None else None
        Process.stop = None

    @contextlib.contextmanager
    def listen(self) -> Iterator[StopFlag]:
        """Turn signals into the flag, which lets a step run to its end."""
        before = {number: signal.getsignal(number) for number in heard()}

        def handle(number: int, frame: FrameType | None) -> None:
            let_go_of_terminal()
            self.signal = number
            RECEIVED.add(number)
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, handle)
        try:
            yield self
        finally:
            for number in before:
                signal.signal(number, before[number])

    def check(self) -> None:
        """Raise `Stopped` when the flag is set."""
        if self.signal is not None:
            raise Stopped(self.signal)

    def agree(self, ranks: Ranks) -> bool:
        """Whether the flag is set on any rank; sets it on all. A signal reaches ranks at different steps."""
        found = ranks.max(self.signal or 0)
        if found:  # otherwise what came in while they talked would be forgotten
            self.signal = found
        return found != 0


class Bar:
    """Progress on stderr (rate, ETA, a note): a live bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, label: str, total: int, done: int = 0, *, quiet: bool = False) -> None:
        self.label, self.total, self.first, self.done = label, total, done, done
        self.console = Screen(stderr=True)
        self.started = self.last_line = time.monotonic()
        self.note, self.quiet = "", quiet
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.progress.add_task(label, total=total, completed=done, note="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, done: int, note: str | None = None) -> None:
        """Show that `done` of `total` are done."""
        news, self.done = done > self.done, done
        self.note = self.note if note is None else note
        now = time.monotonic()
        rate = (done - self.first) / max(now - self.started, 1e-9)
        if not self.progress.disable:
            self.progress.update(self.task, completed=done, note=f"{rate:.1f}/s  {self.note}")
        elif not self.quiet and (now - self.last_line > PLAIN_LINE_EVERY_S or (done == self.total and news)):
            self.last_line = now
            left = (self.total - done) / rate if rate > 0 else 0.0
            line = f"{self.label} {done}/{self.total}  {rate:.1f}/s  ETA {left:.0f} s  {self.note}"
            print(line.rstrip(), file=sys.stderr, flush=True)


def train(
    *,
    label: str,
    num_steps: int,
    first_step: int,
    samples_per_step: int,
    log_every: int,
    save_at: Callable[[int], bool],
    do_step: Callable[[int], Figures],
    save: Callable[[int], None],
    on_log: Callable[[int, dict[str, float]], None],
    note: Callable[[dict[str, float]], str],
    after_step: Callable[[int], None] = lambda updates: None,
    more: Callable[[], dict[str, float]] = dict,
    is_over: Callable[[], bool] = lambda: False,
    ranks: Ranks = SINGLE,
) -> None:
    """Run steps first_step .. num_steps - 1. Figures are averaged on the device between logged steps: no host sync.

    Every rank runs the same steps; figures are means over ranks, `on_log` is called on rank 0. `more` is called on
    every rank at each logged step, for figures that are no means over steps and ranks. `is_over`, on which
    ranks agree, ends the training before its last step.

    Raises:
        Stopped: a signal came; the state is saved. NotFiniteError: see `require_finite` (nothing is saved).
    """
    window = Window(samples_per_step, ranks)
    poll_every, saved = 1, first_step
    with StopFlag().listen() as stop, Bar(label, num_steps, first_step, quiet=not ranks.is_first) as bar:
        for step in itertools.takewhile(lambda step: not is_over(), range(first_step, num_steps)):
            window.add(do_step(step))
            updates = step + 1
            ranks.beat(f"{label} step {updates}")
            logged = updates % log_every == 0 or updates == num_steps
            if logged:
                figures = window.close() | more()
                # About once a second: the ranks stop at the same step, without talking about it at each.
                poll_every = max(1, int(figures["rate/steps_per_s"])) if ranks.size > 1 else 1
                require_finite(label, figures, updates, saved)
                if ranks.is_first:
                    on_log(updates, figures)
            bar.update(updates, note(figures) if logged else None)
            after_step(updates)
            stopping = updates % poll_every == 0 and stop.agree(ranks)
            if save_at(updates) or updates == num_steps or stopping:
                if not logged:  # the one other host sync: a checkpoint of a broken network would be the newest
                    require_finite(label, window.means(), updates, saved)
                save(saved := updates)
            if stopping:
                stop.check()


class NotFiniteError(UserError):
    """A figure of the training is not finite at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def require_finite(label: str, figures: dict[str, float], updates: int, saved: int) -> None:
    """Refuse to go on with figures that are not finite, or with a loss scale that fell below `LEAST_SCALE`.

    Args:
        saved: updates of the newest checkpoint; 0: there is none.

    Raises:
        NotFiniteError: names the first figure that is not finite, or the network of the scale.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise NotFiniteError(f"{label}: {name} is {value} at step {updates}; {_remedy(saved)}", updates)
        network = name.removeprefix("loss_scale/")
        if network != name and value < LEAST_SCALE:
            raise NotFiniteError(
                f"{label}: the gradients of the {network} overflow in fp16 whatever the loss scale, which fell to "
                f"{value:.2g} by step {updates} ({figures[f'skipped/{network}']:.0f} updates skipped); use "
                "precision bf16 or fp32, or a lower learning rate or weight of the loss",
                updates,
            )


def _remedy(saved: int) -> str:
    """What to do about a training that diverged, whose newest checkpoint is that of `saved` updates, if any."""
    slower = "lower the learning rate or the adversarial weight, or clip harder"
    if saved:
        return f"{slower}. The last checkpoint is still whole (step {saved})"
    return f"there is no checkpoint yet. Look at data and plug-ins first (`ladd doctor RECIPE`), then {slower}"


def note_of(figures: dict[str, float], *shown: tuple[str, str, str]) -> str:
    """A note for the progress line: (word, name of the figure, format) of each that there is; and skipped updates."""
    words = [f"{word} {figures[name]:{form}}" for word, name, form in shown if name in figures]
    num_skipped = sum(value for name, value in figures.items() if name.startswith("skipped/"))
    return "  ".join([*words, *([f"skipped {num_skipped:.0f}"] if num_skipped else [])])


class Window:
    """Means of figures since the last logged step, over steps and ranks.

    A step with a skipped update (`SKIPPED`) counts for no figure that is a tensor; one that no step counts for is
    absent.
    """

    def __init__(self, samples_per_step: int, ranks: Ranks = SINGLE) -> None:
        self.samples_per_step, self.ranks = samples_per_step, ranks
        self._reset()

    def _reset(self) -> None:
        self.sums: Figures = {}
        self.counts: dict[str, int | Tensor] = {}
        self.steps = 0
        self.started = time.monotonic()

    def add(self, figures: Figures) -> None:
        """Add the figures of one step; tensors stay on their device."""
        self.steps += 1
        skipped = figures.get(SKIPPED)
        for name, value in figures.items():
            if name == SKIPPED:
                continue
            counted: int | Tensor = 1
            if isinstance(skipped, Tensor) and isinstance(value, Tensor):
                value, counted = torch.where(skipped, torch.zeros_like(value), value), (~skipped).long()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + counted

    def means(self) -> dict[str, float]:
        """The means so far, with one transfer from the device and one message between ranks; summed in float32."""
        return self._over_ranks({name: value / self.counts[name] for name, value in self.sums.items()})

    def close(self) -> dict[str, float]:
        """The means and the rates; starts the next window."""
        figures = {name: value / self.counts[name] for name, value in self.sums.items()}
        rate = self.steps / max(time.monotonic() - self.started, 1e-9)
        figures |= {"rate/steps_per_s": rate, "rate/samples_per_s": rate * self.samples_per_step}
        means = self._over_ranks(figures)
        self._reset()
        return means

    def _over_ranks(self, figures: Figures) -> dict[str, float]:
        on_device = {name: value.detach().float() for name, value in figures.items() if isinstance(value, Tensor)}
        values = {name: value for name, value in figures.items() if not isinstance(value, Tensor)}
        counts = {name: value.float() for name, value in self.counts.items() if isinstance(value, Tensor)}
        if on_device:
            read = torch.stack([*on_device.values(), *counts.values()]).tolist()
            values |= zip(on_device, read[: len(on_device)], strict=True)
            for name, count in zip(counts, read[len(on_device) :], strict=True):
                if count == 0:  # on every rank: they skip the same updates
                    del values[name]
        known = [name for name in figures if name in values]
        means = self.ranks.mean(torch.tensor([values[name] for name in known], dtype=torch.float64))
        return dict(zip(known, means.tolist(), strict=True))


def cosine_factor(step: int, steps: int, final: float) -> float:
    """1 at step 0, `final` at the end, along a half cosine."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
