"""A reader beside a stage sends what the stage leaves behind; stages know nothing of MLflow.

While a student is trained, a thread reads the rows that the training appends to its history. Tracking never decides
over training: where the server is away, the history stays where it is, and what is missing is sent once the server is
back; or by the next `cliprd distill` of the same student, `cliprd benchmark` of it, or `cliprd compare`.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from cliprd import files, storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.artifact.workspace import Workspace
from cliprd.distill import machines
from cliprd.distill.history import HISTORY, THROUGHPUT
from cliprd.distill.sections import code, sections
from cliprd.names import visible
from cliprd.params import Params
from cliprd.storage import Location
from cliprd.tracking import parent, server
from cliprd.tracking.check import check_start
from cliprd.tracking.records import SYSTEM, SYSTEM_COLUMNS, Tail
from cliprd.tracking.runs import Link, Note, catch_up
from cliprd.tracking.system import Sampler
from cliprd.tracking.training import describe

LOOK = 0.2  # seconds between two looks whether the training has begun
INTERVAL = 5.0  # seconds in which records gather, so that a fast training sends few requests
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts to reach a server that is away
LAST_WAIT = 30.0  # seconds that the end of a training waits for its records to arrive
LAST_WAIT_STOPPED = 5.0  # where it was interrupted: somebody is waiting


@contextlib.contextmanager
def following(params: Params, stage: str, inputs: Mapping[str, Location], output: Location) -> Iterator[None]:
    """Around a call of a stage: its work goes to MLflow. Nothing happens where `tracking.uri` is empty, unless the
    process works in a run of others (`parent`).

    Args:
        params: the stage's.
        stage: its name; those but `distill`, `benchmark` and `compare` leave nothing for MLflow.
        inputs, output: the stage's.

    Raises:
        As `check`, before a training begins. Later there are warnings.
    """
    placed = parent.placed(params)
    if not placed.tracking.uri:
        yield
    elif stage == "distill":
        with _training(params, inputs, output):
            yield
    else:
        yield
        if stage == "benchmark":
            from cliprd.tracking import scores

            scores.log_scores(placed, inputs["model"], output, inputs.get("reference"))
        elif stage == "compare":
            from cliprd.tracking import scores

            scores.log_comparison(placed, inputs["benchmarks"], inputs["students"], output)


@contextlib.contextmanager
def _training(params: Params, inputs: Mapping[str, Location], output: Location) -> Iterator[None]:
    nodes = machines.among()
    if nodes is None and os.environ.get("RANK", "0") != "0":  # under torchrun: the first process speaks for all
        yield
        return
    check_start(params, output)
    if nodes and nodes.rank and not storage.is_s3(output):  # all machines see the folder: the first one reads it
        yield
        return
    reader = _Reader(parent.placed(params), inputs, output, nodes)
    status, wait = "FAILED", LAST_WAIT
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status, wait = "KILLED", LAST_WAIT_STOPPED
        raise
    finally:
        reader.end(status, wait)


class _Reader:
    """The thread beside a training."""

    def __init__(
        self, params: Params, inputs: Mapping[str, Location], output: Location, nodes: machines.Nodes | None
    ) -> None:
        self._params, self._inputs, self._output, self._nodes = params, inputs, output, nodes
        self._folder = Workspace(output, stage="distill", params={}, inputs={}).path  # where the training writes
        self._history = self._history_now()
        self._note: Note | None = None  # of the training once it has begun
        self._link: Link | None = None  # while the server answers
        self._resumed, self._warned, self._pause, self._next = False, False, 0.0, 0.0
        self._status = ""
        self._ended, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="cliprd-tracking", daemon=True)
        self._thread.start()

    def end(self, status: str, seconds: float) -> None:
        """The stage has ended; wait until all is sent, but no longer than that."""
        self._status = status
        self._ended.set()
        self._thread.join(seconds)
        self._given_up.set()  # nobody waits any more: the files are others' now
        if self._thread.is_alive():
            print(
                f"cliprd: warning: records of the training in {visible(self._output)} have not reached MLflow; they "
                "are kept there. `cliprd benchmark` of it, `cliprd compare` or the same `cliprd distill` sends them.",
                file=sys.stderr,
            )

    def _history_now(self) -> int | None:
        """Which file the history is: a training that begins replaces it."""
        try:
            return os.stat(self._folder / HISTORY).st_ino
        except OSError:
            return None

    def _follow(self) -> None:
        pause = LOOK
        while not self._ended.wait(pause):
            try:
                self._begin()
                if self._note is not None:
                    self._sample()
                    pause = min(INTERVAL, self._sampler.interval)
                    if time.monotonic() >= self._next:
                        self._send(self._folder)
            except Exception as error:  # a server, a network or a disk can raise anything; it may pass
                self._fail(error)
        try:
            self._finish()
        except Exception as error:
            self._fail(error)

    def _begin(self) -> None:
        """Note which run it is, once the history is this training's; again where the stage was tried again."""
        if (history := self._history_now()) in (None, self._history):
            return
        self._history, self._link = history, None
        note = Note.read(self._folder)
        self._resumed = note is not None
        if note is None:
            note = self._describe()
            note.write(self._folder)
        self._note, self._sampler = note, Sampler()
        self._pace = Tail(storage.join(self._folder, THROUGHPUT))

    def _describe(self) -> Note:
        from cliprd.distill import device
        from cliprd.distill.effective import effective
        from cliprd.models.student import student_config

        d, runtime = self._params.distill, device.resolve(self._params.distill)
        shards, cache = (manifest.read(resolve(self._inputs[name])) for name in ("shards", "cache"))
        work = Workspace(
            self._output, stage="distill", code=code(self._params), params=sections(self._params),
            inputs={"shards": shards.fingerprint, "cache": cache.fingerprint},
        )  # fmt: skip
        processes = (self._nodes.count if self._nodes else 1) * device.processes(d)
        training = describe(
            self._params, key=files.digest([work.place, work.identity]), shards=shards, cache=cache,
            device=device.words(runtime),
            processes=processes if self._nodes else int(os.environ.get("WORLD_SIZE") or processes),
            effective=effective(
                d, samples=shards.facts["samples"], student_dim=int(student_config(self._params.student)["embed_dim"]),
                teacher_dim=cache.facts["dim"], runtime=runtime,
            ),
        )  # fmt: skip
        return Note(None, self._params.tracking.experiment, training)

    def _sample(self) -> None:
        """Put the machine's figures beside the newest step, on the disk: they too outlive an outage."""
        self._sampler.sample()
        if (rows := self._pace.rows()) and (means := self._sampler.take()):
            file = self._folder / SYSTEM
            lines = [[int(rows[-1]["step"]), name, value] for name, value in means.items()]
            with file.open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows(lines if stream.tell() else [SYSTEM_COLUMNS, *lines])

    def _send(self, folder: Location) -> None:
        assert self._note is not None
        if self._link is None:
            link = Link(self._params.tracking.uri, self._note, folder, resumed=self._resumed)
            if link.run_id != self._note.run_id and not self._given_up.is_set():
                self._note.run_id = link.run_id
                self._note.write(folder)
            if not self._ended.is_set():
                link.become("RUNNING")
            self._link = link
        self._link.send()
        self._warned, self._pause = False, 0.0

    def _fail(self, error: Exception) -> None:
        if not self._warned:
            name = self._note.training.name if self._note else self._output
            server.warn(f"training {name} is not tracked for now", error, "It is kept, and sent later.")
        self._link, self._warned = None, True
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._next = time.monotonic() + self._pause

    def _finish(self) -> None:
        """What is left to send after the stage, also of a training that was finished before."""
        done = self._status == "FINISHED"
        self._begin()
        if self._note is None:
            if done and self._nodes is None:  # of several machines another one may have followed
                catch_up(self._params, self._output)
            return
        folder = self._output if done else self._folder  # an output in S3 is there now, and no longer here
        if folder != self._folder:
            self._link = None
        while not self._given_up.is_set():
            try:
                self._send(folder)
                assert self._link is not None
                return self._link.become(self._status)
            except Exception as error:
                self._fail(error)
                time.sleep(FIRST_PAUSE)
