"""Which MLflow run a student's is, and how what it lacks is sent.

`volatile/mlflow.json` lies in the student's folder, so that a training that is resumed elsewhere goes on in its run. It
names the run or, as long as there is none, describes what the run is to be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.artifact.pointer import resolve
from cliprd.params import Params
from cliprd.reading import parse_json
from cliprd.storage import Location
from cliprd.tracking import election, parent, server
from cliprd.tracking.records import Records, last_step, send
from cliprd.tracking.training import TRAINING, Training, ensure_run, settle

RUN_FILE = f"{manifest.VOLATILE_DIR}/mlflow.json"


@dataclasses.dataclass
class Note:
    """The content of RUN_FILE."""

    run_id: str | None
    experiment: str
    training: Training

    @classmethod
    def read(cls, student: Location) -> Note | None:
        """None where there is none; or, after a line, one of an older cliprd or a damaged one: nothing can be sent."""
        file = storage.join(student, RUN_FILE)
        try:
            if (data := storage.read_bytes(file)) is None:
                return None
            body: Mapping[str, Any] = parse_json(data)
            training = {**body["training"], "datasets": tuple(body["training"]["datasets"])}
            return cls(body["run_id"], body["experiment"], Training(**training))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            server.warn(f"{file} is damaged, or of another cliprd, and is left out", error)
            return None

    def write(self, student: Location) -> None:
        """Put it there."""
        storage.write_bytes(storage.join(student, RUN_FILE), json.dumps(dataclasses.asdict(self)).encode())


class Link:
    """A connection to a student's run, which is made where there is none.

    Args:
        uri: of the server.
        note: of the training; `_place` may change it.
        folder: the student's.
        resumed: see `ensure_run`.

    Raises:
        Exception: whatever the server or the network raises, also by the methods.
    """

    def __init__(self, uri: str, note: Note, folder: Location, *, resumed: bool) -> None:
        self._client = server.connect(uri)
        _place(self._client, note)
        self._training = note.training
        self.run_id = ensure_run(self._client, note.experiment, note.training, note.run_id, resumed=resumed)
        self._records = Records(folder, last_step(self._client, self.run_id))

    def send(self) -> None:
        """What has come since the last call; after a failure only a new Link knows what has arrived."""
        send(self._client, self.run_id, self._records.read())

    def become(self, status: str) -> None:
        """Set the run's status, and its parent's; what was done before is not done again."""
        run = self._client.get_run(self.run_id)
        if run.info.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status, end_time=self._records.latest)
        settle(self._client, run.info.experiment_id, self._training)


def _place(client: Any, note: Note) -> None:
    """Into the experiment of the run that the training was begun in (`parent`); without it where it is not there."""
    training = note.training
    if (above := training.ablation.get("above")) is None:
        return
    if run := parent.find(client, above, f"training {training.name}"):
        note.experiment = client.get_experiment(run.info.experiment_id).name
    else:
        ablation = {name: value for name, value in training.ablation.items() if name != "above"}
        note.training = dataclasses.replace(training, ablation=ablation)


def catch_up(params: Params, student: Location) -> str | None:
    """Send what MLflow lacks of a finished student, and return its run's id; None where it has none.

    Writes nothing here: the folder may be another's (DVC's, or in S3).

    Raises:
        Exception: whatever the server or the network raises.
    """
    student = resolve(student)
    if not params.tracking.uri or (note := Note.read(student)) is None:
        return None
    link = Link(params.tracking.uri, note, student, resumed=True)
    link.send()
    link.become("FINISHED")
    return link.run_id


def run_of(params: Params, student: Location) -> str | None:
    """Id of the run of a student, None where it has none (yet). Asks the server only where it must."""
    if not params.tracking.uri:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # an older cliprd has noted no more than this
        body = parse_json(storage.read_bytes(storage.join(student, RUN_FILE)) or b"{}")
        if body["run_id"] is not None:
            return str(body["run_id"])
    if (note := Note.read(student)) is None:
        return None
    client = server.connect(params.tracking.uri)
    _place(client, note)
    experiment = client.get_experiment_by_name(note.experiment)
    runs = election.found(client, experiment.experiment_id, TRAINING, note.training.key) if experiment else []
    return str(runs[0].info.run_id) if runs else None
