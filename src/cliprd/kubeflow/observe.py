"""What KFP's local runner does, watched: a line a step for people, everything in a log, and no SUCCESS believed.

The runner prints each step's whole output, and takes a container that vanished for a success. Here every step's outputs
are checked against their manifests before the next step may use them, those from the runner's cache as well.
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
TOLD = re.compile(r"\d+%\||^cliprd: ")  # of a step's output: its progress, and what cliprd itself says
SHOWN = ("method", "seed", "part")  # inputs that tell two runs of the same step apart


class Observer:
    """Counts what ran and what was reused, and tells it while it happens.

    Args:
        out: where the lines for people go.
        log: gets all that is printed.

    Attributes:
        ran, reused: steps.
        problem: why a step's outputs were not believed, or what a failed step itself said last.
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

        def executed(**given: Any) -> tuple[Mapping[str, Any], Any]:
            return self._execute(execute, given)

        def ran(**given: Any) -> Any:
            self._started(given["arguments"])
            return run(**given)

        task_executor.execute_single_task, task_dispatcher.run_single_task_implementation = executed, ran
        try:
            with contextlib.redirect_stdout(_Split(self)):
                yield
        finally:
            builtins.print = prints
            task_executor.execute_single_task, task_dispatcher.run_single_task_implementation = execute, run

    def _execute(self, execute: Any, given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
        from kfp.local.status import Status

        thread, begun, before = threading.get_ident(), time.monotonic(), self._thread_runs()
        self._names[thread] = given["task_name"]
        outputs, status = execute(**given)
        wanted = given["components"][given["task_spec"].component_ref.name].output_definitions
        reused = self._thread_runs() == before
        problem = _problem(wanted, outputs) if status == Status.SUCCESS else ""
        if problem and reused:
            self.say(f"{problem} Its step runs again.")
            outputs, status = execute(**given)
            problem = _problem(wanted, outputs) if status == Status.SUCCESS else ""
            reused = False
        if problem:
            self.problem, status = problem, Status.FAILURE
            self.say(f"failed: the runner says SUCCESS, but {problem}")
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
        given = [arguments[name] for name in SHOWN if arguments.get(name) not in (None, "")]
        which = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in given)
        step = self._names.get(thread, "").split(" ")[0]
        self._names[thread] = f"{step} {which}".strip()
        self.say("started")

    def say(self, text: str) -> None:
        """A line for people, of the step that runs in this thread."""
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
        if TOLD.search(text := plain.strip()):
            if text.startswith("cliprd: error: "):
                self.problem = text.removeprefix("cliprd: error: ")
            self.say(text)


class _Split(io.TextIOBase):
    """Standard output that hands whole lines to the observer; threads do not get into each other's lines."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._local = threading.local()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._local, "rest", "") + text).split("\n")
        self._local.rest = rest
        for line in lines:
            self._observer.printed(line + "\n")
        return len(text)


def _problem(wanted: Any, outputs: Mapping[str, Any]) -> str:
    """Why outputs are not what a step should have left, or nothing; a folder that is not whole is removed."""
    if missing := sorted({*wanted.artifacts, *wanted.parameters} - set(outputs)):
        return f"output '{missing[0]}' is missing: its container vanished."
    for name, artifact in outputs.items():
        if name in FOLDERS and name in wanted.artifacts:
            try:
                manifest.verify(resolve(artifact.uri))
            except InputError as error:
                shutil.rmtree(artifact.uri, ignore_errors=True)  # the runner's cache looks only whether it exists
                return error.problem
    return ""
