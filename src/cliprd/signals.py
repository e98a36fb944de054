"""SIGTERM and SIGHUP end a command as Ctrl-C does: resumable, with one line and exit code 128 + the signal's number.

Schedulers send SIGTERM and kill after 30 seconds. Process 1 of a container ignores SIGTERM unless it has a handler.
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
    """Raised in the main thread when a signal asks this process to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + int(getattr(stop, "number", signal.SIGINT))


def line(stop: KeyboardInterrupt) -> str:
    """The message for users."""
    cause = f"ended by {signal.Signals(stop.number).name}" if isinstance(stop, Ended) else "interrupted"
    return f"{cause}; run the same command to resume"


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block the signals raise `Ended`, unless they are ignored (`nohup`) or have a handler.

    If the main thread stays in C code, or loses the exception in a destructor, the process exits after `PATIENCE`.
    Files are written atomically, so this is as safe as a kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    if not numbers:  # an enclosing program or block handles them already
        yield
        return
    received = False

    def end(number: int, _: FrameType | None) -> None:
        nonlocal received
        if not received:  # a second signal must not interrupt the clean-up after the first
            received = True
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
    """Run a thread that sees signals even while the main thread is in C code."""
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
        with contextlib.suppress(ValueError):  # the descriptor is no longer ours
            signal.set_wakeup_fd(before)
        theirs.close()
        thread.join(1.0)
        ours.close()
