"""Watches KFP's local runner: a line a step for the user, everything in a log, and no SUCCESS without its outputs.

The runner prints each step's whole output, and reports a container that vanished as a success. Here every step's
outputs are compared with their manifests before the next step may use them, those from the runner's cache as well.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.errors import InputError

FOLDERS = {"shards", "model", "embeddings", "results", "comparison", "decision"}  # outputs that are stage folders
SHOWN = re.compile(r"\d+%\||^cliprd: ")  # lines of a step's output for the user: progress, and cliprd's own
DISTINGUISHING = ("method", "seed", "part")  # inputs that distinguish two runs of the same step


class Observer:
    """Counts steps that ran or were reused, and reports them as they happen.

    Args:
        out: gets the lines for the user.
        log: gets all that is printed.

    Attributes:
        ran, reused: steps.
        problem: why a step's outputs were rejected, or a failed step's own last error.
    """

    def __init__(self, out: TextIO, log: TextIO) -> None:
        self._out, self._log = out, log
        self._names: dict[int, str] = {}  # thread → step
        self._lock = threading.Lock()
        self._local = threading.local()
        self.ran = self.reused = 0
        self.problem = ""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, KFP's local runner is watched."""
        from kfp.local import task_dispatcher
        from kfp.local.orchestrator import task_executor

        prints = builtins.print  # threads that KFP lets indent it leave it so
        execute, run = task_executor.execute_single_task, task_dispatcher.run_single_task_implementation

        def watched_execute(**arguments: Any) -> tuple[Mapping[str, Any], Any]:
            return self._execute(execute, arguments)

        def watched_run(**arguments: Any) -> Any:
            self._started(arguments["arguments"])
            return run(**arguments)

        task_executor.execute_single_task = watched_execute
        task_dispatcher.run_single_task_implementation = watched_run
        try:
            with contextlib.redirect_stdout(_Lines(self)):
                yield
        finally:
            builtins.print = prints
            task_executor.execute_single_task, task_dispatcher.run_single_task_implementation = execute, run

    def _execute(self, execute: Any, arguments: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
        from kfp.local.status import Status

        begun, runs = time.monotonic(), self._thread_runs()
        self._names[threading.get_ident()] = arguments["task_name"]
        expected = arguments["components"][arguments["task_spec"].component_ref.name].output_definitions

        def attempt() -> tuple[Mapping[str, Any], Any, str]:
            outputs, status = execute(**arguments)
            return outputs, status, _problem(expected, outputs) if status == Status.SUCCESS else ""

        outputs, status, problem = attempt()
        reused = self._thread_runs() == runs
        if problem and reused:
            self.say(f"{problem} Its step runs again.")
            reused = False
            outputs, status, problem = attempt()
        if problem:
            self.problem, status = problem, Status.FAILURE
            self.say(f"failed: the runner reports SUCCESS, but {problem}")
        elif status == Status.SUCCESS:
            self.say("was finished already" if reused else f"done in {time.monotonic() - begun:.0f} s")
        else:
            self.say(f"failed after {time.monotonic() - begun:.0f} s")
        with self._lock:
            self.reused += reused
            self.ran += not reused
        return (outputs if status == Status.SUCCESS else {}), status

    def _thread_runs(self) -> int:
        return getattr(self._local, "runs", 0)

    def _started(self, arguments: Mapping[str, Any]) -> None:
        self._local.runs = self._thread_runs() + 1
        thread = threading.get_ident()
        values = [arguments[name] for name in DISTINGUISHING if arguments.get(name) not in (None, "")]
        suffix = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        step = self._names.get(thread, "").split(" ")[0]
        self._names[thread] = f"{step} {suffix}".strip()
        self.say("started")

    def say(self, text: str) -> None:
        """A line for the user, of the step that runs in this thread."""
        step = self._names.get(threading.get_ident(), "")
        with self._lock:
            self._out.write(f"{time.strftime('%H:%M:%S')} {step:<24} {text}\n")
            self._out.flush()

    def printed(self, line: str) -> None:
        """A line that KFP or a step printed."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        with self._lock:
            self._log.write(plain)
            self._log.flush()
        if SHOWN.search(text := plain.strip()):
            if text.startswith("cliprd: error: "):
                self.problem = text.removeprefix("cliprd: error: ")
            self.say(text)


class _Lines(io.TextIOBase):
    """Standard output that passes complete lines to the observer, each thread's apart."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._local = threading.local()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._local, "rest", "") + text).split("\n")
        self._local.rest = rest
        for line in lines:
            self._observer.printed(line + "\n")
        return len(text)


def _problem(expected: Any, outputs: Mapping[str, Any]) -> str:
    """Why outputs are not those expected of a step, or nothing; an incomplete folder is removed."""
    if missing := sorted({*expected.artifacts, *expected.parameters} - set(outputs)):
        return f"output '{missing[0]}' is missing: its container vanished."
    for name, artifact in outputs.items():
        if name in FOLDERS and name in expected.artifacts:
            try:
                manifest.verify(resolve(artifact.uri))
            except InputError as error:
                shutil.rmtree(artifact.uri, ignore_errors=True)  # the runner's cache looks only whether it exists
                return error.problem
    return ""
