"""SIGTERM and SIGHUP end a command as Ctrl-C does: resumable work, one line, and exit code 128 + the signal's number.

A scheduler sends SIGTERM and kills half a minute later. Process 1 of a container ignores it unless it has a handler.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGHUP)
PATIENCE = 25.0  # seconds from the signal to `os._exit`; Kubernetes kills after 30


class Ended(KeyboardInterrupt):
    """A signal asks this process to end; raised in the main thread, wherever that is.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """What a shell reports of a command that a signal has ended: 130 of SIGINT, 143 of SIGTERM, 129 of SIGHUP."""
    return 128 + int(getattr(stop, "number", signal.SIGINT))


def line(stop: KeyboardInterrupt) -> str:
    """In words."""
    cause = f"ended by {signal.Signals(stop.number).name}" if isinstance(stop, Ended) else "interrupted"
    return f"{cause}; the same command goes on from what is finished"


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block the signals raise `Ended`. Those that are ignored (`nohup`) or have a handler stay as they are.

    A main thread that does not come out of C code, or that loses the exception in a destructor, is ended after
    `PATIENCE` all the same. Files are moved into place whole, so that costs no more than a kill does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    if not numbers:  # the program around a command, or a command around a stage, hears already
        yield
        return
    asked = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if not asked:  # the second does not stop what the first has begun
            asked = True
            raise Ended(number)

    with _watched(end):
        for number in numbers:
            signal.signal(number, end)
        try:
            yield
        finally:
            for number in numbers:
                if signal.getsignal(number) is end:
                    signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _watched(handler: object) -> Iterator[None]:
    """A thread that hears of signals as they come, while the main one may be in C code."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    left = threading.Event()

    def watch() -> None:
        while number := ours.recv(1):
            if number[0] in NUMBERS and signal.getsignal(number[0]) is handler:
                if not left.wait(PATIENCE):
                    sys.stderr.write(f"cliprd: error: {line(Ended(number[0]))}\n")
                    sys.stderr.flush()
                    os._exit(128 + number[0])
                return

    thread = threading.Thread(target=watch, name="cliprd-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        with contextlib.suppress(ValueError):  # somebody else's by now
            signal.set_wakeup_fd(before)
        theirs.close()
        thread.join(1.0)
        ours.close()
