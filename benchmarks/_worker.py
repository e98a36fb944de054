"""Two sides measured in turn: each in a process of its own, which waits while the other works.

A side is the same script started as `script --side NAME JSON`; it builds its things and calls `serve` with what it can
do. Separate processes, because both may be packages of one name, and because peak memory belongs to a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SIDE = "--side"


class Side:
    """A process that answers one request at a time."""

    def __init__(self, script: str, name: str, options: dict[str, Any]) -> None:
        command = [sys.executable, script, SIDE, name, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = name

    def ask(self, what: str, *arguments: Any) -> Any:
        """The answer of the side's `what`; ends the benchmark if the side has died."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it, so that its memory is free."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve(**can: Callable[..., Any]) -> None:
    """Answer requests from standard input until it ends. What the code prints goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(can[what](*arguments)), file=answers, flush=True)


def without_cuda() -> None:
    """`.cuda()` that stays on the CPU, for code that calls it on any machine."""
    import torch

    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
