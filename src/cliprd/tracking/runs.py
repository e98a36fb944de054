"""One MLflow run a training, under its ablation's parent run: what happens while it trains.

Tracking never decides over training. Records are appended to `volatile/mlflow.jsonl` beside the student, and a thread
sends them on. Where the server is away they wait there: for it to come back; or for the next `cliprd distill` of the
same student, `cliprd benchmark` of it, or `cliprd compare`, whichever comes first (`flush`). `volatile/mlflow.json`
says which run it is, or, as long as there is none, what the run is to be. Both lie in the student's folder, so that a
training that goes on elsewhere goes on in its run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cliprd import files
from cliprd.artifact import manifest
from cliprd.artifact.folder import fetch_folder
from cliprd.distill.record import Record
from cliprd.names import key, visible
from cliprd.params import Params
from cliprd.reading import read_json
from cliprd.storage import Location
from cliprd.tracking import server, spool
from cliprd.tracking.election import found
from cliprd.tracking.sender import Sender, known_steps, send
from cliprd.tracking.spool import Spool
from cliprd.tracking.system import Sampler
from cliprd.tracking.training import TRAINING, Training, ensure_run, settle

RUN_FILE = f"{manifest.VOLATILE_DIR}/mlflow.json"
SPOOL_FILE = f"{manifest.VOLATILE_DIR}/mlflow.jsonl"
LAST_WAIT = 30.0  # seconds that the end of a training waits for its records to arrive
LAST_WAIT_STOPPED = 5.0  # where it was interrupted: somebody is waiting
Report = Callable[[Record], None]


def step_metrics(record: Record) -> dict[str, float]:
    """A record as MLflow metrics: `loss/<term>`, `loss/total`, `scale/<name>`, and the run's pace."""
    return {
        **{key(f"loss/{term}"): float(value) for term, value in record.terms.items()},
        "loss/total": float(sum(record.terms.values())),
        **{key(f"scale/{name.removesuffix('_scale')}"): float(value) for name, value in record.scales.items()},
        "grad_norm": float(record.grad_norm),
        "lr": float(record.lr),
        "epoch": float(record.epoch),
        "images_per_second": float(record.images_per_second),
        "data_wait": float(record.data_wait),
    }


@contextlib.contextmanager
def training_run(params: Params, folder: Path, describe: Callable[[], Training]) -> Iterator[Report]:
    """The run of the training in `folder`, begun or gone on with; yields what to call with each record.

    Args:
        params: `tracking` is used; an empty `uri` yields a function that does nothing.
        folder: the student's folder.
        describe: what the training is; called where the folder does not know it yet.
    """
    if not params.tracking.uri:
        yield lambda record: None
        return
    try:
        note, resumed = _noted(params, folder, describe)
        records = Spool(folder / SPOOL_FILE)
    except Exception as error:  # a disk, or a defect of ours: training is worth more than its log
        server.warn(f"the training in {folder} is not tracked", error)
        yield lambda record: None
        return
    training = note.training
    if resumed:
        records.append({"status": "RUNNING", "time": _now()})

    def open_run() -> tuple[Any, str]:
        client = server.connect(params.tracking.uri)
        run_id = ensure_run(client, note.experiment, training, note.run_id, resumed=resumed)
        if run_id != note.run_id and not sender.given_up:
            note.run_id = run_id
            note.write()
        return client, run_id

    sender, sampler = Sender(records, open_run, f"training {training.name}"), Sampler()
    broken = False

    def report(record: Record) -> None:
        nonlocal broken
        try:
            records.append({"step": record.step, "time": _now(), "metrics": {**step_metrics(record), **sampler.take()}})
            sender.wake()
        except Exception as error:
            if not broken:
                server.warn(f"from step {record.step} on, training {training.name} is not tracked", error)
            broken = True

    status, wait = "FAILED", LAST_WAIT
    try:
        yield report
        status = "FINISHED"
    except KeyboardInterrupt:
        status, wait = "KILLED", LAST_WAIT_STOPPED
        raise
    finally:
        sampler.stop()
        with contextlib.suppress(Exception):
            records.append({"status": status, "time": _now()})
            _end(params, note, records, sender, wait)


def _end(params: Params, note: _Note, records: Spool, sender: Sender, wait: float) -> None:
    arrived = sender.finish(wait)
    if not arrived:
        print(
            f"cliprd: warning: {records.left} records of training {note.training.name} have not reached MLflow; "
            f"they are kept in {visible(records.path)}. `cliprd benchmark` of it, `cliprd compare`, or the same "
            "`cliprd distill` again sends them.",
            file=sys.stderr,
        )
    else:
        client = server.connect(params.tracking.uri)
        settle(client, server.experiment_id(client, note.experiment), note.training)
    records.close(remove=arrived)


def flush(params: Params, folder: Path) -> str | None:
    """Send what a training has left in its spool, and return its run's id; None where it has none.

    Writes nothing here: the folder may be another's (DVC's, or a copy of one in S3). The server is asked what it has,
    so that nothing is sent twice however often this is called.

    Raises:
        Exception: whatever the server or the network raises.
    """
    note = _Note.read(folder / RUN_FILE)
    if not params.tracking.uri or note is None:
        return None
    left = list(spool.entries(folder / SPOOL_FILE))
    if note.run_id is not None and not left:
        return note.run_id
    client = server.connect(params.tracking.uri)
    run_id = ensure_run(client, note.experiment, note.training, note.run_id, resumed=True)
    known = known_steps(client, run_id)
    place = server.experiment_id(client, note.experiment)
    steps = {entry["step"] for entry in left if "step" in entry}
    ended = client.get_run(run_id).info.status == left[-1].get("status") if left else True
    if not (steps <= known and ended):
        send(client, run_id, left, known)
        settle(client, place, note.training)
    return run_id


def send_left(params: Params, student: Location) -> None:
    """`flush` of a finished student, wherever it lies; a failure is one warning."""
    if not params.tracking.uri:
        return
    try:
        flush(params, fetch_folder(student))
    except Exception as error:
        server.warn(f"what is left of the training in {student} is not tracked", error)


def run_of(params: Params, folder: Path) -> str | None:
    """Id of the run of the student in `folder`, None where it has none (yet). Asks the server only where it must."""
    if not params.tracking.uri:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # an older cliprd has noted no more than this
        if (run_id := read_json(folder / RUN_FILE)["run_id"]) is not None:
            return str(run_id)
    note = _Note.read(folder / RUN_FILE)
    if note is None:
        return None
    client = server.connect(params.tracking.uri)
    experiment = client.get_experiment_by_name(note.experiment)
    runs = found(client, experiment.experiment_id, TRAINING, note.training.key) if experiment else []
    return str(runs[0].info.run_id) if runs else None


@dataclasses.dataclass
class _Note:
    """The content of RUN_FILE."""

    file: Path
    run_id: str | None
    experiment: str
    training: Training

    @classmethod
    def read(cls, file: Path) -> _Note | None:
        """None where there is none; or, after a line, one of an older cliprd or a damaged one: nothing can be sent."""
        try:
            body: Mapping[str, Any] = read_json(file)
            told = {**body["training"], "datasets": tuple(body["training"]["datasets"])}
            return cls(file, body["run_id"], body["experiment"], Training(**told))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            server.warn(f"{file} is damaged, or of another cliprd, and is left out", error)
            return None

    def write(self) -> None:
        told = dataclasses.asdict(self.training)
        files.write_json(self.file, {"run_id": self.run_id, "experiment": self.experiment, "training": told})


def _noted(params: Params, folder: Path, describe: Callable[[], Training]) -> tuple[_Note, bool]:
    """What the folder knows of its run, and whether it knew it before."""
    file = folder / RUN_FILE
    if (found := _Note.read(file)) is not None:
        return found, True
    note = _Note(file, None, params.tracking.experiment, describe())
    note.write()
    return note, False


def _now() -> int:
    return int(time.time() * 1000)
