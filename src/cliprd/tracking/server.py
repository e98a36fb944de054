"""The MLflow server as the rest of this room reaches it: quiet, quick to give up, and never believed to be there."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
from typing import Any

from cliprd.names import one_line, visible

# Only where nobody has said otherwise. MLflow itself would try for minutes; what fails here is sent later by our own
# means. Artifacts of more than MINIMUM_FILE_SIZE go through the server in parts, never whole through its memory.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(64 * 2**20),
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PROBE = 5.0  # seconds


def prepare() -> None:
    """Settings of MLflow's client in this process, before its first call."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # MLflow's first contact with a database prints every migration; people want to see the training.
    for name in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)


def connect(uri: str) -> Any:
    """An MlflowClient.

    Raises:
        OSError: a server does not answer at all, found out within seconds.
    """
    prepare()
    if uri.startswith(("http://", "https://")):
        probe(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def probe(uri: str) -> None:
    """A bare connection: how to prove who one is, and which authority to believe, is MLflow's business.

    Raises:
        OSError: nobody answers there.
    """
    place = urllib.parse.urlsplit(uri)
    if place.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(place.hostname or ""):
        return  # reached by way of another machine
    port = place.port or (443 if place.scheme == "https" else 80)
    reach(place.hostname or "", port)


def reach(host: str, port: int) -> None:
    """Connect and close.

    Raises:
        OSError: nobody answers there within seconds.
    """
    socket.create_connection((host, port), timeout=PROBE).close()


def experiment_id(client: Any, name: str) -> str:
    """The experiment's id; it is made where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another has made it meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def quoted(text: str) -> str:
    """A string in one of MLflow's filters."""
    return "'" + text.replace("'", "\\'") + "'"


def shown(uri: str) -> str:
    """An address without a password that may be in it."""
    head, at, tail = uri.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else uri


def clean(text: str) -> str:
    """On one line, and without the credentials of an address that it quotes."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", one_line(text))


def warn(what: str, error: BaseException, then: str = "") -> None:
    """One line on stderr: what is not tracked, why, and what becomes of it."""
    line = clean(str(error))[:200]
    print(
        visible(f"cliprd: warning: {what}: {type(error).__name__}: {line}{' ' + then if then else ''}"), file=sys.stderr
    )
