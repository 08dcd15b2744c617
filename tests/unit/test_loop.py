"""The training loop: what it logs, when it saves, how it stops."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ladd_dist.core.signals import NUMBERS, Stopped
from ladd_dist.engine.loop import LEAST_SCALE, Bar, Figures, NotFiniteError, StopFlag, Window, note_of, train
from ladd_dist.parallel.ranks import SINGLE, Ranks


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """Ctrl-C and a closing terminal as in the foreground: shells and nohup leave them ignored in the background."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Recorded:
    """A run of `train` on a fake step; keeps what it was asked to do, in order."""

    def __init__(self, do_step: Callable[[int], Figures] | None = None, **options: Any) -> None:
        self.steps: list[int] = []
        self.saved: list[int] = []
        self.logged: dict[int, dict[str, float]] = {}
        self.after: list[int] = []
        self.do_step = do_step or (lambda step: {"loss/x": torch.tensor(float(step)), "weight/y": 0.5})
        self.options = {"num_steps": 10, "first_step": 0, "log_every": 4} | options
        every = self.options.pop("checkpoint_every", 3)
        self.options.setdefault("save_at", lambda updates: updates % every == 0)

    def __call__(self) -> None:
        def step(number: int) -> Figures:
            self.steps.append(number)
            return self.do_step(number)

        train(
            label="test",
            samples_per_step=8,
            do_step=step,
            save=self.saved.append,
            on_log=self.logged.__setitem__,
            after_step=self.after.append,
            **{"note": lambda figures: f"{figures['loss/x']:.1f}"} | self.options,
        )


def test_steps_are_counted_saved_and_logged_as_asked_and_at_the_end() -> None:
    run = Recorded()
    run()
    assert run.steps == list(range(10))
    assert run.saved == [3, 6, 9, 10]
    assert list(run.logged) == [4, 8, 10]
    assert run.after == list(range(1, 11))


def test_logged_figures_are_means_since_the_last_logged_step() -> None:
    run = Recorded()
    run()
    assert [figures["loss/x"] for figures in run.logged.values()] == [1.5, 5.5, 8.5]
    for figures in run.logged.values():
        assert figures["weight/y"] == 0.5
        assert figures["rate/samples_per_s"] == pytest.approx(8 * figures["rate/steps_per_s"])


def test_a_resumed_run_goes_on_at_its_step() -> None:
    run = Recorded(first_step=7)
    run()
    assert run.steps == [7, 8, 9]
    assert run.saved == [9, 10]
    assert list(run.logged) == [8, 10]


def test_a_finished_run_does_nothing() -> None:
    run = Recorded(first_step=10)
    run()
    assert (run.steps, run.saved, run.logged) == ([], [], {})


def test_a_step_that_is_to_be_saved_is_saved_once_also_at_the_end() -> None:
    run = Recorded(save_at=lambda updates: updates in (1, 4, 7, 10))
    run()
    assert run.saved == [1, 4, 7, 10]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
@pytest.mark.parametrize("at", [0, 4, 9])
def test_a_signal_lets_the_step_finish_saves_and_stops(number: signal.Signals, at: int) -> None:
    finished = []

    def step(current: int) -> Figures:
        if current == at:
            os.kill(os.getpid(), number)
        finished.append(current)
        return {"loss/x": 1.0}

    run = Recorded(step)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"stopped by {number.name}") as raised:
        run()
    assert raised.value.number is number  # the exit code is made of it
    assert finished == run.steps == list(range(at + 1))
    assert run.saved[-1] == at + 1
    assert run.after[-1] == at + 1
    assert signal.getsignal(number) is before


def test_what_schedulers_send_is_listened_to() -> None:
    """SIGTERM at the end of a time limit, SIGUSR2 (submitit) some minutes before, SIGHUP of a terminal that closes."""
    assert set(NUMBERS) == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP}


def test_being_stopped_is_no_error_that_a_handler_of_errors_would_swallow() -> None:
    assert issubclass(Stopped, KeyboardInterrupt)
    assert not issubclass(Stopped, Exception)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_the_same_signal_again_takes_the_default_way_out(number: signal.Signals, tmp_path: Path) -> None:
    """In a process of its own, which it ends."""
    heard = tmp_path / "heard"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with StopFlag().listen():
            os.kill(os.getpid(), number)
            heard.touch()
            os.kill(os.getpid(), number)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    assert heard.exists()  # the first one did not end it
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == number


def test_a_second_signal_in_a_step_stops_it_there_and_nothing_is_saved() -> None:
    def step(current: int) -> Figures:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal was swallowed")

    run = Recorded(step)
    with pytest.raises(KeyboardInterrupt) as raised:
        run()
    assert not isinstance(raised.value, Stopped)
    assert run.saved == []


def test_another_signal_after_the_first_still_lets_the_step_finish() -> None:
    """Ctrl-C, and then the end of the time limit: two different ones are no sign of impatience."""

    def step(current: int) -> Figures:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss/x": 1.0}

    run = Recorded(step)
    with pytest.raises(Stopped) as raised:
        run()
    assert raised.value.number is signal.SIGTERM
    assert run.saved == [1]


@dataclass(frozen=True)
class Two(Ranks):
    """This rank and another, which says what stands here."""

    size: int = 2
    says: dict[str, float] = field(default_factory=lambda: {"signal": 0, "figure": 4.0})

    def max(self, value: int) -> int:
        return max(value, int(self.says["signal"]))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return (values + self.says["figure"]) / 2


def test_a_signal_to_another_rank_stops_this_one_at_the_same_step() -> None:
    ranks = Two()

    def step(current: int) -> Figures:
        if current == 5:
            ranks.says["signal"] = signal.SIGUSR2
        return {"loss/x": 1.0}

    run = Recorded(step, ranks=ranks, log_every=100)
    with pytest.raises(Stopped, match="SIGUSR2"):
        run()
    assert run.saved == [3, 6]


def test_figures_are_means_over_ranks_and_the_first_alone_logs_them() -> None:
    runs = [Recorded(lambda step: {"loss/x": 2.0}, ranks=Two(rank)) for rank in (0, 1)]
    for run in runs:
        run()
    assert [figures["loss/x"] for figures in runs[0].logged.values()] == [3.0, 3.0, 3.0]
    assert runs[1].logged == {}
    assert runs[0].saved == runs[1].saved  # every rank writes its part


def test_a_figure_of_another_rank_that_is_not_finite_stops_this_one() -> None:
    run = Recorded(ranks=Two(1, says={"signal": 0, "figure": math.nan}))
    with pytest.raises(ValueError, match="is nan at step 3"):
        run()
    assert run.saved == []


def test_agreeing_alone_is_asking_oneself() -> None:
    stop = StopFlag()
    assert not stop.agree(SINGLE)
    stop.signal = signal.SIGTERM
    assert stop.agree(SINGLE)
    with pytest.raises(Stopped, match="SIGTERM"):
        stop.check()


def test_what_is_ignored_stays_ignored() -> None:
    """SIGHUP under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopFlag().listen() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        stop.check()


def test_a_flag_that_was_not_set_stops_nothing() -> None:
    with StopFlag().listen() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_a_figure_that_is_not_finite_stops_the_run(bad: float, as_tensor: bool) -> None:
    def step(current: int) -> Figures:
        value = bad if current == 5 else 1.0
        return {"loss/x": torch.tensor(value) if as_tensor else value, "loss/fine": 1.0}

    run = Recorded(step, log_every=2)
    with pytest.raises(ValueError, match=r"test: loss/x is (nan|inf|-inf) at step 6; lower the learning rate"):
        run()
    assert run.saved == [3]
    assert list(run.logged) == [2, 4]


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_no_checkpoint_is_written_after_a_figure_that_is_not_finite(log_every: int) -> None:
    """Also where a checkpoint falls between two logged steps: the message promises that the last one is whole."""
    run = Recorded(lambda step: {"loss/x": torch.tensor(math.nan if step >= 4 else 1.0)}, log_every=log_every)
    with pytest.raises(ValueError, match=r"loss/x is nan.*The last checkpoint is still whole \(step 3\)"):
        run()
    assert run.saved == [3]


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_figure_that_is_not_finite_from_the_start_is_promised_no_checkpoint(log_every: int) -> None:
    run = Recorded(lambda step: {"loss/x": math.nan}, log_every=log_every)
    with pytest.raises(ValueError, match=r"loss/x is nan.*there is no checkpoint yet") as caught:
        run()
    assert "still whole" not in str(caught.value) and run.saved == []


def test_an_interrupted_run_whose_figures_are_not_finite_is_not_saved() -> None:
    def step(current: int) -> Figures:
        if current == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {"loss/x": math.nan}

    run = Recorded(step)
    with pytest.raises(ValueError, match="loss/x is nan"):
        run()
    assert run.saved == []


def test_figures_stay_on_the_device_between_logged_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(8)
    for name in ("item", "tolist", "cpu", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a host sync in Window.add"))
    for value in (torch.ones(()), torch.zeros(())):
        window.add({"loss/x": value})
    monkeypatch.undo()
    assert window.close()["loss/x"] == 0.5


def test_a_window_averages_each_figure_over_the_steps_that_had_it() -> None:
    window = Window(2)
    window.add({"a": torch.tensor(1.0), "b": 3.0})
    window.add({"a": torch.tensor(2.0)})
    window.add({"a": torch.tensor(6.0), "b": 4.0})
    figures = window.close()
    assert (figures["a"], figures["b"]) == (3.0, 3.5)
    window.add({"a": torch.tensor(10.0)})
    assert {"a", "b"} & set(again := window.close()) == {"a"}
    assert again["a"] == 10.0


def test_a_window_does_not_keep_the_graph_or_change_the_figures() -> None:
    window, value = Window(1), torch.tensor(1.0)
    window.add({"a": value})
    window.add({"a": torch.tensor(5.0)})
    assert float(value) == 1.0
    assert window.close()["a"] == 3.0


# fp16

SKIP, KEEP = torch.tensor(True), torch.tensor(False)


def test_a_skipped_step_counts_for_no_mean_and_its_weights_are_still_told() -> None:
    window = Window(2)
    window.add({"loss/x": torch.tensor(1.0), "weight/y": 0.5, "skipped": KEEP})
    window.add(
        {"loss/x": torch.tensor(math.nan), "grad_norm/x": torch.tensor(math.inf), "weight/y": 0.7, "skipped": SKIP}
    )
    window.add({"loss/x": torch.tensor(4.0), "weight/y": 0.6, "skipped": KEEP})
    for figures in (window.means(), window.close()):
        assert {name: figures[name] for name in figures if not name.startswith("rate/")} == {
            "loss/x": 2.5, "weight/y": pytest.approx(0.6)
        }  # fmt: skip


def test_a_skipped_step_waits_for_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(8)
    for name in ("item", "tolist", "cpu", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a host sync in Window.add"))
    for skipped in (SKIP, KEEP):
        window.add({"loss/x": torch.ones(()), "skipped": skipped})
    monkeypatch.undo()
    assert window.close()["loss/x"] == 1.0


def test_a_row_of_skipped_steps_alone_has_no_losses_and_the_run_goes_on() -> None:
    def step(number: int) -> Figures:
        bad = number in (2, 3)
        return {"loss/x": torch.tensor(math.nan if bad else 1.0), "skipped": SKIP if bad else KEEP}

    run = Recorded(step, log_every=2, more=lambda: {"skipped/student": 2.0, "loss_scale/student": 4.0}, num_steps=6)
    run.options["note"] = lambda figures: note_of(figures, ("x", "loss/x", ".1f"))
    run()
    assert run.saved == [3, 6]
    assert ["loss/x" in figures for figures in run.logged.values()] == [True, False, True]
    assert all(figures["skipped/student"] == 2.0 for figures in run.logged.values())


def test_a_loss_that_is_no_number_and_was_not_skipped_still_stops_the_run() -> None:
    run = Recorded(lambda step: {"loss/x": torch.tensor(math.nan), "skipped": KEEP})
    with pytest.raises(NotFiniteError, match="loss/x is nan"):
        run()


@pytest.mark.parametrize(("scale", "stops"), [(LEAST_SCALE / 2, True), (LEAST_SCALE, False)])
def test_a_loss_scale_below_its_floor_stops_the_run_and_says_what_to_do(scale: float, stops: bool) -> None:
    run = Recorded(more=lambda: {"skipped/heads": 27.0, "loss_scale/heads": scale})
    if not stops:
        run()
        return
    with pytest.raises(NotFiniteError) as raised:
        run()
    said = str(raised.value)
    assert said.startswith("test: the gradients of the heads overflow in fp16 whatever the loss scale, which fell to")
    assert "by step 4 (27 updates skipped); use precision bf16 or fp32" in said
    assert raised.value.step == 4


def test_a_note_tells_what_there_is_and_how_many_updates_were_skipped() -> None:
    shown = (("heads", "loss/heads", ".2f"), ("distill", "loss/distill", ".1f"))
    assert note_of({"loss/heads": 1.0, "loss/distill": 2.0, "skipped/heads": 0.0}, *shown) == "heads 1.00  distill 2.0"
    assert note_of({"loss/heads": 1.0, "skipped/heads": 1.0, "skipped/student": 2.0}, *shown) == "heads 1.00  skipped 3"


def test_progress_off_a_terminal_is_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("teacher", 3) as bar:
        for done in (1, 2, 3):
            bar.update(done, f"loss {done}")
        bar.update(3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("teacher 3/3")
    assert lines[0].endswith("loss 3")
