"""Classifies failed downloads from a model hub as retryable or not."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import logging

from cliprd.errors import CliprdError, InputError, MachineError, RetryableError
from cliprd.extras import install

_FINAL = {  # errors of huggingface_hub that a retry does not fix
    "RepositoryNotFoundError", "GatedRepoError", "DisabledRepoError", "RevisionNotFoundError",
    "RemoteEntryNotFoundError", "HFValidationError",
}  # fmt: skip
_NETWORK = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    ssl.SSLError,
    urllib.error.URLError,
    http.client.HTTPException,
)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline() -> str | None:
    """The environment variable that forbids access to the hub, if one is set."""
    return next((n for n in _OFFLINE if os.environ.get(n, "").upper() in {"1", "ON", "YES", "TRUE"}), None)


@contextmanager
def fetching(what: str, remedy: str = "") -> Iterator[None]:
    """For a block that loads something from a hub or its cache: converts its errors, silences its retries.

    Raises:
        RetryableError, InputError, MachineError: see `unreachable`.
    """
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    except Exception as error:  # transformers, open_clip, urllib and the hub's client raise their own
        raise unreachable(what, error, remedy) from error
    finally:
        logging.set_verbosity(level)


def unreachable(what: str, error: BaseException, remedy: str = "") -> CliprdError:
    """The error to raise for `what` (such as "The tokenizer 'x'"), which could not be loaded.

    Returns:
        RetryableError: the network or the hub failed. InputError: the environment forbids the hub, or the hub does
        not have it. MachineError: a package is missing, or the cache cannot be written.
    """
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    causes = list(_chain(error))
    if any(isinstance(cause, ImportError) for cause in causes):
        return MachineError(
            f"{what} cannot be loaded: {reason}", f"Install the package that it needs: {install('transformers')}"
        )
    if any(isinstance(cause, PermissionError) or getattr(cause, "errno", 0) == errno.ENOSPC for cause in causes):
        return MachineError(
            f"{what} cannot be stored: {reason}", "Free some disk space, or set HF_HOME to a writable folder."
        )
    remedy = remedy or "Download it once with network access; it stays in the Hugging Face cache."
    if variable := offline():
        return InputError(f"{what} is not on this machine, and {variable} is set.", remedy)
    if any(type(cause).__name__ in _FINAL or _refused(cause) for cause in causes):
        return InputError(
            f"{what} cannot be downloaded from its hub: {reason}", "Check its name, and access with HF_TOKEN."
        )
    if any(isinstance(cause, _NETWORK) or _of_network(cause) for cause in causes):
        return RetryableError(f"{what} is not on this machine and could not be downloaded: {reason}", remedy)
    return InputError(f"{what} cannot be loaded: {reason}", "Download it again, or check the installed versions.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException) -> bool:
    """An HTTP status that a retry does not change."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status in {401, 403, 404, 410}


def _of_network(error: BaseException) -> bool:
    """An error of an HTTP library, or of the hub's client over one."""
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    libraries = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
    hub = {"huggingface_hub.LocalEntryNotFoundError", "huggingface_hub.OfflineModeIsEnabled"}
    return bool(kinds & hub) or any(kind.split(".")[0] in libraries for kind in kinds)
