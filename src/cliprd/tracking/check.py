"""What is known of the tracking server before any work begins: whether `tracking` can be right at all.

What no waiting cures is an error: an address that MLflow has no store for, a driver or folder that is missing, refused
credentials, something else than an MLflow server, a deleted experiment. A server that does not answer now is none of
these: what it misses is sent later (`tracking.follow`).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cliprd import storage
from cliprd.artifact import manifest
from cliprd.distill.sections import sections
from cliprd.errors import CliprdError, InputError, MachineError, ParamsError
from cliprd.extras import install, need
from cliprd.params import Params
from cliprd.storage import Location
from cliprd.tracking import parent, server
from cliprd.tracking.runs import RUN_FILE

LIMIT = 15.0  # seconds in which a server answers, or counts as one that is away
LONGEST_NAME = 256  # characters of an experiment's name that MLflow's database holds
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
CURE = "Name another place, or make it writable."
DRIVERS = {"psycopg2": "'cliprd[server]'", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}  # module → package
_FOR_NOW = (408, 425, 429)  # HTTP: ask again later
_NOT_MLFLOW = ("not in a valid JSON format", "Exceeded 30 redirects")
_NEVER = ("certificate verify failed", "SSLError", "WRONG_VERSION_NUMBER")
# A database that answers so is there and refuses; "starting up" and the like are left to pass.
_REFUSED = ("authentication failed", "does not exist", "no pg_hba.conf entry", "Access denied", "Unknown database")


class AwayError(Exception):
    """The server does not answer now; the message says how."""


def check_start(params: Params, student: Location) -> None:
    """`check` before a training; what is wrong with one that was begun before is a warning: it resumes without a log.

    Args:
        params: `tracking` and the training's are used.
        student: its folder.

    Raises:
        As `check`.
    """
    try:
        check(params, begin=True)
    except CliprdError as error:
        if not _was_begun(params, student):
            raise
        server.warn(f"the training in {student} is not tracked", error)


def _was_begun(params: Params, student: Location) -> bool:
    with contextlib.suppress(CliprdError):
        if storage.read_bytes(storage.join(student, RUN_FILE)) is not None:
            return True
        return manifest.read(student).params == sections(params)  # there is nothing left to train
    return False


def check(params: Params, *, begin: bool = False) -> str:
    """What `tracking` means now, in words for people.

    Args:
        params: `tracking` is used.
        begin: a training starts: its experiment is made where a server has none, if it has no other (`parent`).

    Raises:
        ParamsError: the address or the experiment's name cannot be right, or what it names refuses.
        InputError: the experiment was deleted, or the file is no database.
        MachineError: a folder cannot be written, or a driver is not installed.
    """
    uri, name = params.tracking.uri, params.tracking.experiment
    if not uri:
        above = parent.placed(params).tracking.uri
        return f"run {parent.run_id()} at {server.shown(above)}" if above else "none (tracking.uri is empty)"
    need("mlflow", _setting(uri))
    what = f"experiment '{name}' at {server.shown(uri)}"
    if not name.strip() or len(name) > LONGEST_NAME:
        raise ParamsError(
            f"tracking.experiment is {'empty' if not name.strip() else f'{len(name)} characters long'}.",
            f"Give a name of 1 to {LONGEST_NAME} characters.",
        )
    try:
        if not _look(uri):
            return f"{what} (made by the first training)"
        experiment = _within(LIMIT, lambda: _experiment(uri, name, begin and not parent.run_id()))
    except AwayError as error:
        return f"{what} does not answer now ({server.clean(str(error))[:120]}); records are kept and sent later"
    if experiment is None:
        return f"{what} (made by the first training)"
    if experiment.name != name:
        raise _refusal(uri, "answers, but not as an MLflow server does")
    if experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"MLflow's {what} was deleted.",
            f"Restore it (MLFLOW_TRACKING_URI={server.shown(uri)} mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}) or set tracking.experiment to another name.",
        )
    _check_artifacts(what, experiment.artifact_location)
    return what


def _look(uri: str) -> bool:
    """Whether there is something to ask: a database in a file may be made yet.

    Raises:
        AwayError: it does not answer. Else as `check`.
    """
    try:
        parts = urllib.parse.urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ParamsError(f"{_setting(uri)}: {error}.", "For example http://localhost:5000.") from error
    if parts.scheme in ("http", "https"):
        if not host:
            raise ParamsError(f"{_setting(uri)} names no server.", "For example http://localhost:5000.")
        try:
            server.probe(uri)
        except OSError as error:
            raise AwayError(str(error)) from error
        return True
    if parts.scheme.partition("+")[0] in DATABASES:
        return _look_at_database(uri)
    return True


def _look_at_database(uri: str) -> bool:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

    try:
        url = make_url(uri)
        engine = create_engine(url)  # needs the driver, and connects to nothing yet
        if url.get_backend_name() == "sqlite":
            if not _look_at_file(uri, url.database):
                return False
        elif url.host:
            server.reach(url.host, url.port or {"postgresql": 5432, "mysql": 3306}.get(url.get_backend_name(), 1433))
        with engine.connect() as connection:
            if url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("PRAGMA schema_version")
        engine.dispose()
    except (NoSuchModuleError, ArgumentError, ValueError) as error:
        raise ParamsError(
            f"{_setting(uri)}: {server.clean(str(error))[:200]}", "For example sqlite:///mlflow.db."
        ) from error
    except ModuleNotFoundError as error:
        raise MachineError(
            f"{_setting(uri)} needs a driver that is not installed: {error}.",
            f"Install it: pip install {DRIVERS.get(str(error.name), error.name)}. Or write another driver into the "
            "address, as postgresql+psycopg2://, or give an MLflow server's.",
        ) from error
    except OperationalError as error:
        if any(sign in str(error) for sign in _REFUSED):
            raise _refusal(uri, f"refuses: {error.orig}") from error
        raise AwayError(str(error.orig)) from error
    except DBAPIError as error:
        raise InputError(f"{_setting(uri)}: {error.orig}.", "Name an MLflow database.") from error
    except OSError as error:
        raise AwayError(str(error)) from error
    return True


def _look_at_file(uri: str, name: str | None) -> bool:
    """Whether SQLite's file has anything in it; where it has nothing, it can be made."""
    if name in (None, "", ":memory:"):
        raise ParamsError(f"tracking.uri = {uri} names no file.", "For example sqlite:///mlflow.db.")
    file = Path(str(name))
    if file.exists() and not file.is_file():
        raise InputError(f"tracking.uri = {uri}: {file} is no file.", "Name a file in it.")
    _check_folder(file.parent, f"tracking.uri = {uri}", CURE)
    if not file.exists():
        return False
    if not os.access(file, os.W_OK):
        raise MachineError(f"tracking.uri = {uri} cannot be written (it is read-only).", CURE)
    return file.stat().st_size > 0


def _experiment(uri: str, name: str, begin: bool) -> Any:
    """The experiment as MLflow has it; None where there is none yet.

    Raises:
        AwayError: the server does not answer. ParamsError: what it answers cannot be cured by waiting.
    """
    from mlflow.exceptions import MlflowException

    try:
        client = server.connect(uri)
        found = client.get_experiment_by_name(name)
        if found is None and begin:
            server.experiment_id(client, name)
        return found
    except MlflowException as error:
        text, status = str(error), error.get_http_status_code()
        away = uri.startswith(("http://", "https://")) and (status >= 500 or status in _FOR_NOW)
        if away and not any(sign in text for sign in (*_NOT_MLFLOW, *_NEVER)):
            raise AwayError(text) from error
        raise _refusal(uri, f"cannot be used: {text}") from error
    except ModuleNotFoundError as error:
        raise MachineError(f"{_setting(uri)}: {error}.", f"Install it: {install('mlflow')}") from error
    except OSError as error:  # among them what `requests` raises
        raise AwayError(str(error)) from error
    except Exception as error:
        raise _refusal(uri, f"cannot be used: {error}") from error


def _setting(uri: str) -> str:
    return f"tracking.uri = {server.shown(uri)}"


def _refusal(uri: str, what: str) -> ParamsError:
    remedy = "Correct tracking.uri, or set it empty to track nothing."
    scheme = uri.partition(":")[0] if "://" in uri else ""
    if "migrate-filestore" in what:
        what = "is a folder: MLflow no longer keeps runs in folders"
        remedy = "Use a database, tracking.uri=sqlite:///mlflow.db; `mlflow migrate-filestore` moves the runs there."
    elif scheme not in ("http", "https", *DATABASES) and ":" in uri and "://" not in uri:
        remedy = f"Did you mean http://{uri}? An empty one tracks nothing."
    elif any(sign in what for sign in ("401", "UNAUTHENTICATED", "PERMISSION_DENIED", "403")):
        remedy = "Check MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN, and the address."
    elif any(sign in what for sign in _NEVER):
        remedy = "Name its authority by MLFLOW_TRACKING_SERVER_CERT_PATH, or correct the address."
    elif "out-of-date database schema" in what:
        remedy = f"Make a backup, then run `mlflow db upgrade {server.shown(uri)}`."
    return ParamsError(f"{_setting(uri)} {server.clean(what)[:300].rstrip('.')}.", remedy)


def _check_artifacts(what: str, location: str) -> None:
    """Artifacts in a folder are written by us, whoever the server is."""
    parts = urllib.parse.urlsplit(location)
    if parts.scheme in ("", "file"):
        _check_folder(
            Path(urllib.parse.unquote(parts.path)),
            f"MLflow's {what} keeps artifacts in a folder of the client's own, {location}, which",
            "Serve it with --artifacts-destination, or set tracking.experiment to one whose artifacts lie elsewhere.",
        )


def _check_folder(path: Path, what: str, cure: str) -> None:
    """That a folder, or what is there of the path to it, can be written.

    Raises:
        MachineError: it cannot.
    """
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise MachineError(f"{what} cannot be written ({error.strerror}: {there}).", cure) from error


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """`call()`, in a thread that is left behind when it takes longer.

    Raises:
        AwayError: it took longer. Else whatever it raises.
    """
    import mlflow  # noqa: F401 — its import is no waiting for a server

    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True, name="cliprd-tracking-check").start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise AwayError(f"no answer within {seconds:g} s") from error
