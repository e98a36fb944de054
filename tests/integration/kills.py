"""Runs a job again and again, killed by SIGKILL at one boundary of its file operations or requests after the other.

Usage: python -m tests.integration.kills JOB FOLDER MOST: one JSON line, {"boundaries": n, "killed": n, "faults": [...],
"left": what kills left that was to be swept}. Every attempt is a process of its own, forked from this one, which has
the imports behind it. A job is killed, then run to its end; then nothing but its files may be there, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cliprd import storage
from cliprd.artifact.workspace import Workspace
from cliprd.params import validate
from cliprd.promotion.promote import promote
from cliprd.stages import cache, distill, prepare
from cliprd.storage import transfer
from tests.distill import rooms
from tests.promotion import candidates

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
LOCKS = {".lock", ".champion.json.lock"}
BUCKET = "s3://kills"
PART = 5 << 20  # the least that S3 allows


@dataclass(frozen=True)
class Job:
    """What is run, and where its files are: `output` is new for each attempt, in S3 where it begins with s3://."""

    run: Callable[[str], None]
    output: str
    compare: str = ""  # a folder in the output; all of it where empty


def jobs(folder: Path) -> dict[str, Callable[[], Job]]:
    """Name → what makes the job ready."""

    def staged(stage: object, *inputs: str) -> Job:
        rooms.build(folder)
        tree, given = rooms.make_params(folder), {name: folder / name for name in inputs}
        return Job(lambda output: stage.run(tree, given, Path(output)) and None, str(folder / "output"))  # type: ignore[attr-defined]

    def promotion(place: str) -> Job:
        made = [candidates.write(folder, method, 0) for method in ("baseline", "clip_rd-exp")]
        for student, _ in made:
            (student / "volatile").mkdir(exist_ok=True)
            (student / "volatile" / "large.bin").write_bytes(bytes(2 * PART + 1))

        def run(output: str) -> None:
            tree = validate({"promote": {"champion": f"{output}/champion"}}, where="test")
            for number, (student, benchmark) in enumerate(made):
                if number == 0 and storage.read_bytes(f"{output}/champion/champion.json") is not None:
                    continue  # it was done before the kill
                promote(tree, student, [benchmark], f"{output}/decision-{number}", asked_by=candidates.ASKED)

        return Job(run, place, compare="champion")

    def in_s3() -> Job:
        def run(output: str) -> None:
            with Workspace(output, stage="any", params={}, inputs={}, resume_files=[".checkpoint"]) as work:
                if work.finished:
                    return
                for name in (".checkpoint/step", "weights"):
                    path = work.path / name
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(bytes(2 * PART + 1))
                    work.commit(name)
                    time.sleep(0.1)  # it is sent meanwhile
                work.finish()

        return Job(run, f"{BUCKET}/output")

    return {
        "prepare": lambda: staged(prepare),
        "cache": lambda: staged(cache, "shards", "teacher"),
        "distill": lambda: staged(distill, "shards", "cache"),
        "promote": lambda: promotion(str(folder / "output")),
        "promote-s3": lambda: promotion(f"{BUCKET}/output"),
        "workspace-s3": in_s3,
    }


def forked(work: Callable[[], None]) -> int:
    """Exit code of `work` in a process of its own; negative: the signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2) if not os.environ.get("CLIPRD_TEST_NOISE") else None
            work()
            os._exit(0)
        except BaseException:
            Path("/tmp", f"kills-{os.getppid()}.txt").write_text(traceback.format_exc())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counting(job: Job, end: int, report: Path) -> None:
    """Run, and kill this process before boundary `end`; 0: count them into `report`."""
    seen = 0
    inside, requests = os.path.dirname(job.output), job.output.startswith("s3://")

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = arguments
            boundary = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, boundary = arguments[0] if arguments else "", event in CHANGES
        within = isinstance(path, (str, Path)) and (not os.path.isabs(path) or str(path).startswith(inside))
        if (event == "http.client.send") if requests else (boundary and within and path != str(report)):
            seen += 1
            if seen == end:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    job.run(job.output)
    report.write_text(str(seen))


def clear(job: Job, folder: Path) -> None:
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    if storage.is_s3(job.output):
        storage.remove(*(storage.join(job.output, name) for name in storage.list_folder(job.output)))
        transfer.abandon_uploads(job.output)
    else:
        shutil.rmtree(job.output, ignore_errors=True)


def names(job: Job) -> Iterator[str]:
    if storage.is_s3(job.output):
        yield from storage.list_folder(job.output)
        bucket = transfer.split(job.output)[0]
        for upload in transfer._uploads(bucket, transfer.split(job.output)[1], job.output):
            yield f".upload/{upload['Key']}"
    else:
        root = Path(job.output)
        yield from (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def hidden(job: Job) -> list[str]:
    """What a finished folder must not hold."""
    return sorted(
        name
        for name in names(job)
        if name.rsplit("/", 1)[-1] not in LOCKS and any(p[0] == "." for p in name.split("/"))
    )


def kind(path: str) -> str:
    """Of a leftover: `upload`, `.tmp`, or a name such as `.progress`."""
    if path.startswith(".upload/"):
        return "upload"
    return ".tmp" if path.endswith(".tmp") else next(part for part in path.split("/") if part[0] == ".")


def content(job: Job) -> dict[str, str]:
    found = {}
    for name in names(job):
        if name.startswith(job.compare) and "volatile" not in name and name.rsplit("/", 1)[-1][0] != ".":
            found[name] = hashlib.sha256(storage.read_bytes(storage.join(job.output, name)) or b"").hexdigest()
    return found


def main(name: str, folder: Path, most: int) -> None:
    """See the module."""
    torch.set_num_threads(1)
    transfer.PART = PART
    os.environ["CLIPRD_SCRATCH"] = str(folder / "scratch")
    job, report = jobs(folder)[name](), folder / "report"
    assert forked(lambda: clear(job, folder)) == 0
    assert forked(lambda: counting(job, 0, report)) == 0
    boundaries = int(report.read_text())
    told = folder / "told"

    def tell(what: Callable[[], object]) -> object:
        assert forked(lambda: told.write_text(json.dumps(what())) and None) == 0
        return json.loads(told.read_text())

    right = tell(lambda: content(job))
    step = max(1, boundaries / most)
    points = sorted({1 + int(number * step) for number in range(most)} | {boundaries - n for n in range(4)})
    faults, left, killed, spared, dice = [], set(), 0, 0, random.Random(0)
    waiting = [point for point in points if 0 < point <= boundaries]
    for point in waiting:
        forked(lambda: clear(job, folder))
        code = forked(lambda point=point: counting(job, point, report))
        if code == 0:  # fewer requests than when they were counted: what is sent in one depends on the time
            boundaries = int(report.read_text())
            waiting += [dice.randint(1, boundaries)] * (spared < 3 * most)
            spared += 1
            continue
        killed += code == -signal.SIGKILL
        if storage.is_s3(job.output):
            time.sleep(1.1)  # the store's clock counts in seconds
        left |= {kind(path) for path in tell(lambda: hidden(job))}  # type: ignore[attr-defined]
        if (code := forked(lambda: job.run(job.output))) != 0:
            faults.append(f"{point}: the next run ended with {code}")
        elif (found := tell(lambda: hidden(job))) or tell(lambda: content(job)) != right:
            faults.append(f"{point}: {found or 'other bytes'}")
        elif strays := [path.name for path in folder.glob("scratch/**/.*.tmp")]:
            faults.append(f"{point}: {strays}")
    print(json.dumps({"boundaries": boundaries, "killed": killed, "faults": faults, "left": sorted(left)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
