"""Calls of MLflow's registry: what is missing, what collides, and which failures are retryable."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from cliprd.errors import InputError, RetryableError
from cliprd.tracking import server

_RETRYABLE = {
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED",
    "DEADLINE_EXCEEDED", "CANCELLED",
}  # fmt: skip


@contextlib.contextmanager
def errors(place: str) -> Iterator[None]:
    """MLflow's failures as cliprd's, on one line, without credentials of an address."""
    import requests
    from mlflow.exceptions import MlflowException

    def line(error: Exception) -> str:
        return f"{place}: {server.clean(str(error))[:300]}"

    try:
        yield
    except MlflowException as error:
        if error.error_code in _RETRYABLE:
            raise RetryableError(line(error), "Check tracking.uri and the server, then try again.") from error
        raise InputError(line(error), "Check promote.champion, tracking.uri and your rights.") from error
    except (requests.exceptions.RequestException, ConnectionError, TimeoutError) as error:
        raise RetryableError(line(error), "Check tracking.uri and the network, then try again.") from error


def unless_missing(call: Callable[[], Any]) -> Any | None:
    """The call's result; None where what it asks for is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        # An alias that is not there is INVALID_PARAMETER_VALUE to some of MLflow's stores. Nothing else may pass for
        # "not there": a server that is down would have no champion, and every candidate be the first.
        absent = error.error_code == "INVALID_PARAMETER_VALUE" and re.search(r"alias \S+ not found", str(error))
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or absent:
            return None
        raise


def setting(write: Callable[..., None], *arguments: str) -> None:
    """Set a tag or an alias. Two that insert a new one at once collide in MLflow's database; again, it is an update."""
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments)
    except MlflowException as error:
        if not re.search(r"UniqueViolation|UNIQUE constraint|Duplicate entry", str(error)):
            raise
        write(*arguments)
