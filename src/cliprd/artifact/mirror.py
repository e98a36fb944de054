"""A stage's output folder in S3: the stage works in a folder here, and commits each file that it has finished.

In S3 lie the committed files, `.work.json` while the work is unfinished, and `manifest.json`, which is uploaded last
and deleted first. A machine that begins the same work gets what is there and resumes from it, checkpoints included.

S3 has no locks. A writer begins with a `.work.json` that has a name of its own, and one that finds another's there when
it sends more stops: of several writers the last to begin goes on. What a stopped one had under way meanwhile does
no harm, as equal work gives equal files. Different work in the same folder can at worst leave a manifest that does not
match its files, which every reader refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
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
from cliprd.storage.transfer import ObjectInfo, abandon_uploads, copy, download, entries, head, modified, remove, upload

MARKER = ".work.json"
JOURNAL = ".mirror.jsonl"  # here only: which version of which file was sent, or came
ASIDE = ".aside"  # unfinished work of another identity
LOCK = ".lock"
_PRIVATE = {MARKER, JOURNAL, LOCK, ASIDE, manifest.NAME}  # not sent as the others are

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
        self._mark: ObjectInfo | None = None  # our own .work.json there
        self._sender: ThreadPoolExecutor | None = None
        self._late: list[str] = []  # committed, and not sent because the network failed
        self._taken_over: TakenOverError | None = None
        self._aside = False  # other work's files are kept there until a checkpoint of this work is

    def open(self, identity: Mapping[str, Any], checkpoints: Iterable[str] = ()) -> Any:
        """Take the folder over: bring what the same work has left there, if that is more than what is here.

        Leftovers of other work are removed from there, but unfinished work that has `checkpoints` (names of folders) is
        set aside. Leftovers here are the caller's business.

        Returns:
            The identity of the work that was set aside, else None.

        Raises:
            InputError: there are files that no stage has written.
        """
        there = entries(self.url)
        if there and not there.keys() & {MARKER, manifest.NAME}:
            raise InputError(
                f"{self.url} holds files that are not of a stage, {min(there)} among them.",
                "Give another --output, or remove them.",
            )
        before = None if manifest.NAME in there else self._work(MARKER, there)
        set_aside = None
        if before != identity:
            if before and any(name.startswith(f"{folder}/") for folder in checkpoints for name in there):
                set_aside = None if self._work(f"{ASIDE}/{MARKER}", there) == identity else before
            self._replace(identity, there, set_aside)
            there = entries(self.url)
        else:
            self._claim(identity)
        abandon_uploads(self.url)
        self._aside = any(name.startswith(f"{ASIDE}/") for name in there)
        there = {name: entry for name, entry in there.items() if name.split("/")[0] not in _PRIVATE}
        sent = self._recall(identity)
        if sent is not None and all(name in sent and sent[name][1] == entry.etag for name, entry in there.items()):
            # Nobody has written there since: this folder is as far or further.
            self._sent = {name: sent[name] for name in there}
            self._drop(name for name in there if not (self.path / name).exists())
        elif there:
            self._bring(there, identity)
        return set_aside

    def _replace(self, identity: Mapping[str, Any], there: Mapping[str, ObjectInfo], set_aside: Any) -> None:
        """Make the folder there this work's, restored where it had been set aside; a kill leaves it restartable."""
        own = {name for name in there if name.split("/")[0] not in (ASIDE, MARKER)}
        aside = {name for name in there if name.startswith(f"{ASIDE}/")}
        restored = manifest.NAME not in there and self._work(f"{ASIDE}/{MARKER}", there) == identity
        if set_aside:
            self._drop(iter(aside))
            for name in (*sorted(own), MARKER):  # the marker last: with it, all is there
                copy(join(self.url, name), join(self.url, f"{ASIDE}/{name}"))
        self._claim({})  # before anything is removed: what is left of it is known as a stage's, and as nobody's work
        if manifest.NAME in own:
            remove(join(self.url, manifest.NAME))  # first: what is half removed must not look finished
        self._drop(name for name in own if name != manifest.NAME)
        if restored:
            for name in aside - {f"{ASIDE}/{MARKER}"}:
                copy(join(self.url, name), join(self.url, name.removeprefix(f"{ASIDE}/")))
        self._claim(identity)
        if restored:
            self._drop(iter(aside))

    def start(self) -> None:
        """From now on files are sent as they are committed; first those that an earlier process here had not sent."""
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="cliprd-mirror")
        self.commit(".")

    def commit(self, *names: str) -> None:
        """Send files, or all that is in folders, in this order and in the background.

        Files that the network failed to take are sent with the next ones, at the latest by `finish`.

        Raises:
            TakenOverError: what was committed before has met another writer.
        """
        if self._taken_over is not None:
            raise self._taken_over
        if self._sender is not None:
            self._sender.submit(self._send, names)

    def finish(self, expected: Mapping[str, Mapping[str, Any]]) -> None:
        """Send what is not there yet, then the manifest; then remove there what is not here.

        Args:
            expected: the manifest's files.

        Raises:
            RetryableError: the network or the store failed. TakenOverError: another process goes on here.
        """
        self.close(sending=True)
        if self._taken_over is not None:
            raise self._taken_over
        self._deliver(name for name in self._files(".") if not _hidden(name))
        there = self._entries()
        for name, entry in expected.items():
            if name not in there or there[name].size != entry["size"]:
                raise RetryableError(f"{join(self.url, name)} did not arrive complete.", "Run the same command again.")
        upload(self.path / manifest.NAME, join(self.url, manifest.NAME))
        here = {*self._files("."), manifest.NAME}
        self._drop(name for name in there if _hidden(name) or name not in here)

    def tidy(self) -> None:
        """Remove what is left beside a finished manifest: hidden objects, and uploads that were begun before it."""
        if finished := modified(join(self.url, manifest.NAME)):
            abandon_uploads(self.url, before=finished)
        self._drop(name for name in entries(self.url) if _hidden(name))

    def close(self, *, sending: bool = False, last: bool = False) -> None:
        """End the sending. `sending`: once all that was committed is sent; `last`: all that is here, if possible."""
        if self._sender is None:
            return
        self._sender.shutdown(cancel_futures=not (sending or last))
        self._sender = None
        if last:
            self._send((".",))

    def discard(self) -> None:
        """Remove the folder here: the one there is complete."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _send(self, names: Iterable[str]) -> None:
        late, self._late = self._late, [*dict.fromkeys((*self._late, *names))]
        try:
            self._deliver(name for given in self._late for name in self._files(given))
            self._late = []
        except TakenOverError as error:
            self._taken_over = error
        except (CliprdError, OSError) as error:  # credentials too may be renewed; `finish` raises what has not passed
            if not late:
                print(f"cliprd: warning: {error} The work goes on; its files are sent later.", file=sys.stderr)

    def _deliver(self, names: Iterable[str]) -> None:
        """Send those that have changed, and remove there what is no longer here."""
        changed = [name for name in dict.fromkeys(names) if self._changed(name)]
        gone = {name for name in self._sent if not (self.path / name).exists()}
        if not changed and not gone:
            return
        there = self._entries()
        strays = {name for name in there if name.split("/")[0] not in _PRIVATE and not (self.path / name).exists()}
        self._drop(strays - gone)  # a stopped writer's: they do not fit to what is sent now
        for name in changed:
            if _hidden(name):  # notes and checkpoints: others resume from them
                self._check(s3.retrying(lambda: head(join(self.url, MARKER))))
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                stamp = _stamp(self.path / name)
                self._note(name, stamp, upload(self.path / name, join(self.url, name)).etag)
        self._drop(strays & gone)  # only now: there is always something to resume from
        for name in gone:
            del self._sent[name]
        if self._aside and any(map(_hidden, changed)):
            self._drop(name for name in there if name.startswith(f"{ASIDE}/"))
            self._aside = False

    def _changed(self, name: str) -> bool:
        try:
            return self._sent.get(name, ([], ""))[0] != _stamp(self.path / name)
        except FileNotFoundError:
            return False

    def _drop(self, names: Iterable[str]) -> None:
        remove(*(join(self.url, name) for name in sorted(names, key=lambda name: (not name.endswith(".json"), name))))

    def _entries(self) -> dict[str, ObjectInfo]:
        """What is there, if the folder is still ours."""
        there = entries(self.url)
        self._check(there.get(MARKER))
        return there

    def _check(self, mark: ObjectInfo | None) -> None:
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

    def _work(self, marker: str, there: Mapping[str, ObjectInfo]) -> Any:
        data = read_bytes(join(self.url, marker)) if marker in there else None
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

    def _bring(self, there: Iterable[str], identity: Mapping[str, Any]) -> None:
        """Make the folder here what is there."""
        for left in self.path.iterdir():
            if left.name != LOCK:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        self._sent = {}
        for name in there:
            path = below(self.path, name)
            with contextlib.suppress(Missing):
                # As it is now, not as it was listed: a writer that has not yet seen the takeover may send it again.
                entry = s3.retrying(lambda name=name, path=path: download(join(self.url, name), path))  # type: ignore[misc]
                self._note(name, _stamp(path), entry.etag)
        files.write_json(self.path / MARKER, identity)  # last: half of them are none

    def _note(self, name: str, stamp: Stamp, etag: str) -> None:
        self._sent[name] = (stamp, etag)
        with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, stamp, etag]) + "\n")

    def _files(self, name: str) -> Iterator[str]:
        """The file of that name, or those below the folder: hidden ones (notes, checkpoints) last, old ones first."""
        if not (self.path / name).is_dir():
            yield name
            return
        found = []
        for root, _, names in os.walk(self.path / name):
            for path in (Path(root, each) for each in names):
                relative = path.relative_to(self.path).as_posix()
                passing = path.name.startswith(".") and path.name.endswith((".tmp", ".part"))
                if not passing and relative.split("/")[0] not in _PRIVATE:
                    with contextlib.suppress(FileNotFoundError):
                        found.append((_hidden(relative), path.stat().st_mtime_ns, relative))
        yield from (relative for _, _, relative in sorted(found))


def _stamp(path: Path) -> Stamp:
    """Changes whenever the content does: a file is replaced, or appended to."""
    state = path.stat()
    return [state.st_ino, state.st_mtime_ns, state.st_size]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
