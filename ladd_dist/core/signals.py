"""`Stopped`, the exception that a signal raises, and the signals received so far."""

from __future__ import annotations

import os
import signal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Signals that stop a run: Ctrl-C; the end of a time limit or a shutdown; the warning that schedulers send before
either (submitit's default)."""

RECEIVED: set[int] = set()
"""All signals received so far. Schedulers send several; the exit path needs every one."""

SAVED = "what is finished is saved: run the same command again to go on"


class Stopped(KeyboardInterrupt):
    """Request by a signal to end the program; all finished work is saved."""

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"stopped by {self.number.name}")

    @property
    def code(self) -> int:
        """Exit code: 130 for Ctrl-C, otherwise 75, which makes schedulers start the job again."""
        return 130 if self.number == signal.SIGINT else os.EX_TEMPFAIL

    @property
    def text(self) -> str:
        """Message for the user."""
        return f"{self}; {SAVED}"
