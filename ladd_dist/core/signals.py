"""Being stopped by a signal, as an exception that knows which one it was."""

from __future__ import annotations

import os
import signal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Ctrl-C; the end of a time limit or a shutdown; what schedulers send ahead of either (submitit's default)."""

RECEIVED: set[int] = set()
"""Every signal that came to this process: schedulers send several, and who acts at the end has to know them all."""


SAVED = "what is finished is saved: run the same command again to go on"


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; what is finished is saved."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"stopped by {self.number.name}")

    @property
    def code(self) -> int:
        """The exit code: 130 for Ctrl-C, else 75, with which schedulers start a job again."""
        return 130 if self.number == signal.SIGINT else os.EX_TEMPFAIL

    @property
    def text(self) -> str:
        """For the user."""
        return f"{self}; {SAVED}"
