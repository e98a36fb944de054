"""A stage's output folder in S3: the stage works in a folder here, whose files follow into S3 while it runs.

In S3 lie the files of the folder, `.work.json` while the work is unfinished, and `manifest.json`, which comes last and
goes first. A machine that begins the same work gets what is there and goes on from it, checkpoints included.

S3 has no locks. Whoever begins writes `.work.json` with a name of its own, and whoever finds another's there when it
wants to send more stops: of several writers the last to begin goes on. What a stopped one had under way meanwhile does
no harm, as equal work gives equal files. Different work in the same place can at worst leave a manifest that does not
match its files, which every reader refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cliprd import files
from cliprd.artifact import manifest
from cliprd.errors import CliprdError, InputError, RetryableError
from cliprd.reading import parse_json, read_json
from cliprd.storage import s3
from cliprd.storage.paths import below, join, label, scratch
from cliprd.storage.s3 import Missing, TakenOverError
from cliprd.storage.streams import read_bytes
from cliprd.storage.transfer import Entry, abandon_uploads, download, entries, head, modified, remove, upload

MARKER = ".work.json"
JOURNAL = ".mirror.jsonl"  # here only: which version of which file was sent, or came
INTERVAL = 5.0  # seconds between two looks at the folder: about what a lost machine loses
LOCK = ".lock"
_PRIVATE = {MARKER, JOURNAL, LOCK, manifest.NAME}  # not sent as the others are

Stamp = list[int]


class Mirror:
    """The folder `path` here and its image at `url`.

    Args:
        url: of the output folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = scratch("outputs", label(url)) / url.rsplit("/", 1)[1]
        self._sent: dict[str, tuple[Stamp, str]] = {}  # name → stamp of the file here, ETag there
        self._mark: Entry | None = None  # our own .work.json there
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, identity: Mapping[str, Any]) -> None:
        """Take the place over: bring what the same work has left there, if that is more than what is here.

        Leftovers of other work are removed from there; those here are the caller's business.

        Raises:
            InputError: there are files that no stage has written.
        """
        there = entries(self.url)
        if there and not there.keys() & {MARKER, manifest.NAME}:
            raise InputError(
                f"{self.url} holds files that are not of a stage, {min(there)} among them.",
                "Give another --output, or remove them.",
            )
        same = manifest.NAME not in there and self._work(there) == identity
        self._claim(identity)  # before anything is removed: what is left of it is known as ours
        abandon_uploads(self.url)
        there.pop(MARKER, None)
        if not same:
            if there.pop(manifest.NAME, None):
                remove(join(self.url, manifest.NAME))  # first: what is half removed must not look finished
            remove(*(join(self.url, name) for name in there))
            there = {}
        sent = self._recall(identity)
        if sent is not None and all(name in sent and sent[name][1] == entry.etag for name, entry in there.items()):
            # Nobody has written there since: this folder is as far or further.
            self._sent = {name: sent[name] for name in there}
            self._drop(name for name in there if not (self.path / name).exists())
        elif there:
            self._bring(there, identity)

    def start(self) -> None:
        """From now on whole files are sent as they come, in a thread."""
        self._thread = threading.Thread(target=self._follow, name="cliprd-mirror", daemon=True)
        self._thread.start()

    def finish(self, expected: Mapping[str, Mapping[str, Any]]) -> None:
        """Send what is not there yet, then the manifest; then remove there what is not here.

        Args:
            expected: the manifest's files.

        Raises:
            RetryableError: the network or the store failed. TakenOverError: another process goes on here.
        """
        self.close()
        self._send(hidden=False)
        there = self._entries()
        for name, entry in expected.items():
            if name not in there or there[name].size != entry["size"]:
                raise RetryableError(f"{join(self.url, name)} did not arrive whole.", "Run the same command again.")
        upload(self.path / manifest.NAME, join(self.url, manifest.NAME))
        here = {name for name, _ in self._files()} | {manifest.NAME}
        self._drop(name for name in there if _hidden(name) or name not in here)

    def tidy(self) -> None:
        """Remove what is left beside a finished manifest: hidden objects, and uploads that were begun before it."""
        if finished := modified(join(self.url, manifest.NAME)):
            abandon_uploads(self.url, before=finished)
        self._drop(name for name in entries(self.url) if _hidden(name))

    def close(self, *, last: bool = False) -> None:
        """End the thread. `last`: after one more attempt to send what is whole, whatever comes of it."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        if last:
            with contextlib.suppress(CliprdError, OSError):
                self._send()

    def discard(self) -> None:
        """Remove the folder here: the one there is whole."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _follow(self) -> None:
        warned = False
        while not self._stop.wait(INTERVAL):
            try:
                self._send()
                warned = False
            except TakenOverError:
                return  # taken over; `finish` meets it again, and says so
            except (CliprdError, OSError) as error:  # it may heal, as even credentials do; `finish` raises what has not
                if not warned:
                    print(f"cliprd: warning: {error} The work goes on; its files are sent later.", file=sys.stderr)
                warned = True

    def _send(self, *, hidden: bool = True) -> None:
        """Send what has changed. Visible files go first: hidden ones (notes, checkpoints) speak of them as being there.

        A file that a writer is still at is sent as it is, and again once it has changed: until the manifest stands,
        only those who resume look at it, and they are made to doubt it.
        """
        here = dict(self._files())
        changed = [name for name, stamp in here.items() if name not in self._sent or self._sent[name][0] != stamp]
        gone = [name for name in self._sent if name not in here]
        if not changed and not gone:
            return
        there = self._entries()
        strays = [name for name in there if name not in here and name not in (MARKER, manifest.NAME)]
        # What we never sent came from a writer that was stopped, and does not fit to what we send now.
        self._drop(name for name in strays if name not in self._sent)
        for name in sorted(changed, key=lambda name: (_hidden(name), here[name][1])):
            if _hidden(name):
                if not hidden:
                    continue
                self._check(s3.retrying(lambda: head(join(self.url, MARKER))))
            try:
                sent = upload(self.path / name, join(self.url, name))
            except FileNotFoundError:
                continue  # removed since we looked
            self._note(name, here[name], sent.etag)
        self._drop(name for name in strays if name in self._sent)  # only now: there is always something to go on from
        for name in gone:
            self._sent.pop(name, None)

    def _drop(self, names: Iterator[str]) -> None:
        remove(*(join(self.url, name) for name in sorted(names, key=lambda name: (not name.endswith(".json"), name))))

    def _entries(self) -> dict[str, Entry]:
        """What is there, if the place is still ours."""
        there = entries(self.url)
        self._check(there.get(MARKER))
        return there

    def _check(self, mark: Entry | None) -> None:
        if mark != self._mark:
            raise TakenOverError(
                f"{self.url} is being written by another cliprd process, which began after this one.",
                "Wait for it, or give another --output.",
            )

    def _claim(self, identity: Mapping[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        mine = self.path / f".{uuid.uuid4().hex}.tmp"
        files.write_json(mine, {"work": identity, "writer": uuid.uuid4().hex})
        try:
            self._mark = upload(mine, join(self.url, MARKER))
        finally:
            mine.unlink()

    def _work(self, there: Mapping[str, Entry]) -> Any:
        data = read_bytes(join(self.url, MARKER)) if MARKER in there else None
        try:
            return parse_json(data or b"{}").get("work")
        except (ValueError, AttributeError):
            return None

    def _recall(self, identity: Mapping[str, Any]) -> dict[str, tuple[Stamp, str]] | None:
        """What was sent of the leftovers of the same work that are here; None where there are none."""
        sent: dict[str, tuple[Stamp, str]] = {}
        try:
            if read_json(self.path / MARKER) != identity:
                return None
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError, ValueError):  # a kill may have cut its last line
            for line in (self.path / JOURNAL).read_text(encoding="utf-8").splitlines():
                name, stamp, etag = json.loads(line)
                sent[name] = (stamp, etag)
        return sent

    def _bring(self, there: Mapping[str, Entry], identity: Mapping[str, Any]) -> None:
        """Make the folder here what is there."""
        for left in self.path.iterdir():
            if left.name != LOCK:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        self._sent = {}
        for name in there:
            path = below(self.path, name)
            with contextlib.suppress(Missing):
                # As it is now, not as it was listed: a writer that has not yet seen that we took over may send it anew.
                entry = s3.retrying(lambda name=name, path=path: download(join(self.url, name), path))  # type: ignore[misc]
                self._note(name, _stamp(path), entry.etag)
        if there:
            files.write_json(self.path / MARKER, identity)  # last: half of them are none

    def _note(self, name: str, stamp: Stamp, etag: str) -> None:
        self._sent[name] = (stamp, etag)
        with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, stamp, etag]) + "\n")

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        """What is to be sent. Hidden files are looked for first: what they speak of is then found as well."""
        for hidden in (True, False):
            for root, _, names in os.walk(self.path):
                for name in names:
                    path = Path(root, name)
                    relative = path.relative_to(self.path).as_posix()
                    passing = name.startswith(".") and name.endswith((".tmp", ".part"))
                    if _hidden(relative) == hidden and not passing and relative not in _PRIVATE:
                        with contextlib.suppress(FileNotFoundError):
                            yield relative, _stamp(path)


def _stamp(path: Path) -> Stamp:
    """Changes whenever the content does: a file is replaced, or appended to."""
    found = path.stat()
    return [found.st_ino, found.st_mtime_ns, found.st_size]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
