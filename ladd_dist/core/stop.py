"""Being stopped by a signal, as an exception that knows which one it was."""

from __future__ import annotations

import signal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C; the end of a time limit or a shutdown; what schedulers send ahead of either (submitit's default)."""

RECEIVED: set[int] = set()
"""Every signal that came to this process: schedulers send several, and who acts at the end has to know them all."""


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; what is finished is saved."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"stopped by {self.number.name}")
