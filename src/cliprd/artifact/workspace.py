"""The life of a stage's output folder: begin, go on after a kill, finish.

    with Workspace(output, stage="cache", params=..., inputs=...) as work:
        if work.finished:                 # whole, same parameters, inputs and code: nothing to do
            return work.finished
        ...                               # finished files stay after a kill; the stage skips them
        work.commit("part-0")             # this one is finished
        return work.finish(facts=...)     # manifest last

What identifies the work is its stage, parameters, input fingerprints and code version, kept in `.work.json`. Leftovers
of other work are removed at the start, so a folder never mixes two. A stage whose files each prove what they were made
of may say which ones to keep, if they were made in the same `way` (parameters and code, all but their inputs); the way
is kept in `volatile/made.json`.

An output in S3 is made in `work.path`, a folder here; what is committed is sent at once (`artifact.mirror`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cliprd import files, storage
from cliprd.artifact import identity, manifest
from cliprd.artifact.manifest import Manifest
from cliprd.artifact.mirror import ASIDE, LOCK, MARKER, Mirror
from cliprd.errors import InputError, MachineError, of_system
from cliprd.formatting import flat
from cliprd.reading import read_json
from cliprd.storage import Location

MADE = f"{manifest.VOLATILE_DIR}/made.json"


class Workspace:
    """Owns `output` while a stage writes it.

    Args:
        code: module of the stage, and those of its plug-ins: the work is other work where the code that they reach is
            other (`cliprd.artifact.identity`).
        way: how files are made, beside what each is made of; with `keep`, which is asked before other work begins in a
            folder of files made in this way, and names those of its entries that are to outlive it.
        resume_files: hidden entries that only an interrupted run needs (checkpoints); they are removed once the
            manifest stands, by the next run where a kill came between. Unfinished work of another identity that has
            some is set aside until one of this work's is committed (not with `keep`, which decides instead).

    Attributes:
        path: where to write: `output` itself, or the folder here whose files follow to it.
        finished: the manifest, where this work is done already; there may then be nothing in `path`.
        resumed: whether leftovers of the same work are in `path`.

    Raises:
        MachineError: the folder cannot be made or written, the disk is full, or another process owns it.
        RetryableError: the output is in S3, and the network or the store failed.
    """

    def __init__(
        self,
        output: Location,
        *,
        stage: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, str],
        code: str | tuple[str, ...] = "cliprd.artifact.workspace",
        way: Mapping[str, Any] | None = None,
        keep: Callable[[Path], Iterable[str]] | None = None,
        resume_files: Collection[str] = (),
    ) -> None:
        place = storage.parse(output)
        self._mirror: Mirror | None = None
        if isinstance(place, Path):
            self.path = place
        else:
            self._mirror = Mirror(place)
            self.path = self._mirror.path
        self.stage = stage
        self.params = json.loads(files.canonical(dict(params)))
        self.inputs = dict(inputs)
        self.code = (code,) if isinstance(code, str) else code
        self._way = None if way is None else json.loads(files.canonical(dict(way)))
        self._keep = keep
        self._resume_files = resume_files
        self.finished: Manifest | None = None
        self.resumed = False

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same work."""
        return {
            "stage": self.stage,
            "params": self.params,
            "inputs": self.inputs,
            "code": dict(identity.closure(*self.code)),
        }

    @property
    def place(self) -> str:
        """Where the output is, among the places of all machines."""
        return self._mirror.url if self._mirror else f"{socket.gethostname()}:{self.path.resolve()}"

    def look(self) -> Manifest | None:
        """The manifest, where this work is done already; nothing is owned or written."""
        return self._whole(self._mirror.url if self._mirror else self.path)

    def __enter__(self) -> Workspace:
        self._lock = contextlib.ExitStack()
        try:
            self._lock.enter_context(files.alone(self.path / LOCK, self._busy))
        except OSError as error:
            raise _translated(error, self.path) from error
        try:
            return self._begin()
        except BaseException:
            self._lock.close()  # whoever tries again in this process must not meet our own lock
            raise

    def _busy(self, holder: str) -> Exception:
        return MachineError(
            f"{self.path} is being written by another cliprd process ({holder}).",
            "Wait for it, or give another --output.",
        )

    def _begin(self) -> Workspace:
        try:
            if self._mirror and (found := self._whole(self._mirror.url)):
                self.finished = found
                self._mirror.tidy()
                return self
            if self._mirror:
                self._report(self._mirror.open(self.identity, () if self._keep else self._resume_files))
            self.finished = self._whole(self.path)
            if self.finished is not None:
                self._tidy()
            elif self._same_leftovers() or self._restored():
                files.sweep_below(self.path)
            else:
                self._check_is_of_a_stage()
                self._set_aside()
                self._clear(self._worth_keeping())
                if self._way is not None:
                    files.write_json(self.path / MADE, self._way)
                files.write_json(self.path / MARKER, self.identity)
            if self._mirror and self.finished:
                self._mirror.finish(self.finished.files)  # a kill came when all but this was done
            elif self._mirror:
                self._mirror.start()
        except OSError as error:
            raise _translated(error, self.path) from error
        return self

    def _whole(self, place: Location) -> Manifest | None:
        if storage.read_bytes(storage.join(place, manifest.NAME)) is None:
            return None
        try:
            found = manifest.verify(place, stage=self.stage)
        except InputError as damage:
            print(f"cliprd: {damage.problem} It is made anew.", file=sys.stderr)
            return None
        work = (found.params, found.inputs, found.code)
        return found if work == (self.params, self.inputs, identity.digest(*self.code)) else None

    def _same_leftovers(self) -> bool:
        self.resumed = self._marker(self.path) == self.identity and not (self.path / manifest.NAME).exists()
        return self.resumed

    def _set_aside(self) -> None:
        """Keep unfinished work of another identity until the new work has something of its own; report what differs."""
        started = [name for name in self._resume_files if (self.path / name).exists()]
        marker = self._marker(self.path)
        if self._mirror or self._keep or not started or not marker or (self.path / manifest.NAME).exists():
            return
        aside = self.path / ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for entry in sorted(self.path.iterdir(), key=lambda path: path.name == MARKER):  # last: with it, all is there
            if entry.name not in (LOCK, ASIDE):
                os.replace(entry, aside / entry.name)
        self._report(marker)

    def _report(self, before: Mapping[str, Any] | None) -> None:
        """Print why unfinished work, if any, was set aside."""
        if before:
            print(
                f"cliprd: {self._mirror.url if self._mirror else self.path}: {difference(before, self.identity)}: the "
                f"work is restarted; what was unfinished stays in {ASIDE} until there is a checkpoint, and is resumed "
                "if the change is taken back.",
                file=sys.stderr,
            )

    def _restored(self) -> bool:
        """Whether what was set aside is this work, which is then resumed."""
        aside = self.path / ASIDE
        if self._marker(aside) != self.identity or (self.path / manifest.NAME).exists():
            return False
        self._clear((ASIDE,))
        for entry in sorted(aside.iterdir(), key=lambda path: path.name == MARKER):
            os.replace(entry, self.path / entry.name)
        aside.rmdir()
        self.resumed = True
        return True

    @staticmethod
    def _marker(folder: Path) -> Any:
        try:
            return read_json(folder / MARKER)
        except (OSError, ValueError):
            return None

    def _worth_keeping(self) -> Collection[str]:
        if self._way is None or self._keep is None:
            return ()
        try:
            made = read_json(self.path / MADE)
        except (OSError, ValueError):
            return ()
        return set(self._keep(self.path)) if made == self._way else ()

    def _check_is_of_a_stage(self) -> None:
        """What no stage has written is not cliprd's to remove."""
        entries = {entry.name for entry in self.path.iterdir()}
        foreign = sorted(name for name in entries if not name.startswith("."))
        if foreign and not entries & {MARKER, manifest.NAME}:
            raise InputError(
                f"{self.path} holds files that are not of a stage, {foreign[0]} among them.",
                "Give another --output, or remove them.",
            )

    def _clear(self, keep: Collection[str]) -> None:
        files.write_json(self.path / MARKER, {})  # what a kill leaves of the folder is known as a stage's
        (self.path / manifest.NAME).unlink(missing_ok=True)  # first: what is half removed must not look finished
        for entry in self.path.iterdir():
            if entry.name in (LOCK, MARKER, ASIDE) or entry.name in keep:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def commit(self, *names: str) -> None:
        """Files, or all in folders, are finished: an output in S3 gets them in this order, in the background.

        Commit what a rerun resumes from, a note or checkpoint behind the files that it speaks of. Every file of the
        folder is sent by `finish` at the latest.

        Raises:
            TakenOverError: another process has begun to write the same output.
        """
        if self._mirror:
            self._mirror.commit(*names)
        if any(name.split("/")[0] in self._resume_files for name in names):
            shutil.rmtree(self.path / ASIDE, ignore_errors=True)

    def finish(self, *, facts: Mapping[str, Any] | None = None) -> Manifest:
        """Write the manifest over all files in the folder; the work is then done."""
        files.sweep_below(self.path)
        written = manifest.write(
            self.path, stage=self.stage, params=self.params, inputs=self.inputs, facts=facts,
            code=identity.digest(*self.code),
        )  # fmt: skip
        if self._mirror:
            self._mirror.finish(written.files)
            self.finished = written
        self._tidy()
        return written

    def _tidy(self) -> None:
        """Remove what a finished folder does not need."""
        for name in (ASIDE, *self._resume_files):
            shutil.rmtree(self.path / name, ignore_errors=True)
        files.sweep_below(self.path)
        (self.path / MARKER).unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mirror:
            self._mirror.close(last=isinstance(error, Exception))
            if self.finished and error is None:
                self._mirror.discard()
        self._lock.close()
        if isinstance(error, OSError):
            raise _translated(error, self.path) from error


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, the first of what makes two works different: a parameter, an input or a module of the code."""
    kinds = {"params": "parameter", "inputs": "input", "code": "code of"}
    for kind, word in kinds.items():
        old, new = (dict(flat(tree.get(kind) or {})) for tree in (before, now))
        if changed := sorted(name for name in {*old, *new} if old.get(name) != new.get(name)):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            return f"{word} {changed[0]} has changed{more}"
    return "it is of another stage" if before.get("stage") != now.get("stage") else "nothing that shapes it has changed"


def _translated(error: OSError, path: Path) -> Exception:
    """An OS refusal as one line that says what to do; any other OSError as it is."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return MachineError(f"No space left on the disk of {path}.", "Free some, then run the same command again.")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return MachineError(
            f"{error.filename or path} cannot be written: {error.strerror}.",
            "Fix its permissions or give another --output.",
        )
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return MachineError(
            f"{error.filename or path} is a file where a folder is needed.", "Remove it or give another --output."
        )
    if error.errno == errno.EISDIR:
        return MachineError(
            f"{error.filename or path} is a folder where a file is needed.", "Remove it or give another --output."
        )
    return of_system(error, path) or error
