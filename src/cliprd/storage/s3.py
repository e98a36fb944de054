"""The S3 client, its failures as ours, and trying again.

botocore repeats requests that fail (standard mode, jittered backoff). What it does not repeat are bodies that break off
and replies that cannot be read; `retrying` does.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cliprd.errors import InputError, MachineError, RetryableError

ATTEMPTS = 5
FIRST_PAUSE = 0.5  # seconds, doubled each time; the pause is drawn between nothing and that
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60  # seconds; of one connection, and of one silence

_LOGIN = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_PROFILE, and that they are meant for AWS_ENDPOINT_URL."
_EXPIRED = ("expired credentials", "Log in again or renew the token (AWS_SESSION_TOKEN), then run the same command.")
_CAUSES = {
    "NoSuchBucket": ("no such bucket", "Check the address and AWS_ENDPOINT_URL, or make the bucket."),
    "AccessDenied": (
        "access denied",
        "Ask for the right to read and write there, or check which credentials are used.",
    ),
    "InvalidAccessKeyId": ("unknown access key", _LOGIN),
    "XAdminUserNotFound": ("unknown access key", _LOGIN),  # versitygw's word for it, a 404
    "SignatureDoesNotMatch": ("wrong secret key", _LOGIN),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock."),
}
_HEAL = {  # 4xx, yet the same call may succeed: something broke off, or was replaced meanwhile
    "400",  # without a word of S3's own
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "NoSuchUpload",
    "OperationAborted",
    "PreconditionFailed",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_T = TypeVar("_T")


class Missing(InputError):
    """There is no such file or object."""


class TakenOverError(MachineError):
    """Another process has begun to write the same place after this one, and goes on with it."""


class Empty(InputError):
    """There are no bytes in the range that was asked for."""


@functools.cache
def client() -> Any:
    """boto3's client, from its usual places: environment, profile, instance or pod identity."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    config = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT)
    if session.get_config_variable("max_attempts") is None:
        config = config.merge(Config(retries={"mode": "standard", "max_attempts": ATTEMPTS}))
    try:
        made = boto3.session.Session(botocore_session=session).client("s3", config=config)
    except ValueError as error:
        raise InputError(f"S3: {_public(error)}", "Check AWS_ENDPOINT_URL and AWS_REGION.") from error
    # Where the reply to `Expect: 100-continue` breaks off in the middle, botocore waits for its rest for ever.
    made.meta.events.register("before-send.s3", lambda request, **_: request.headers.pop("Expect", None) and None)
    return made


def retrying(call: Callable[[], _T]) -> _T:
    """`call()`, again after a jittered pause where it raised a RetryableError, `ATTEMPTS` times in all."""
    for attempt in itertools.count(1):
        try:
            return call()
        except RetryableError:
            if attempt == ATTEMPTS:
                raise
            pause(attempt)
    raise AssertionError  # unreachable


def pause(attempt: int) -> None:
    """Wait before the attempt behind number `attempt`."""
    time.sleep(random.uniform(0, FIRST_PAUSE * 2 ** (attempt - 1)))  # noqa: S311 (no secret)


@contextlib.contextmanager
def errors(url: str) -> Iterator[None]:
    """Failures of boto3 as one line of ours; a code and an address, never what was signed or with what.

    Raises:
        Missing: no such object. InputError: a wrong address or wrong credentials.
        RetryableError: the network or the store failed.
    """
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    login = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound)
    token = (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.SSOError)
    try:
        yield
    except boto.ClientError as error:
        raise _refused(url, error.response, error.operation_name) from error
    except login as error:
        raise InputError(f"{url}: no credentials.", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from error
    except token as error:
        raise InputError(f"{url}: {_EXPIRED[0]}.", _EXPIRED[1]) from error
    except (boto.ParamValidationError, boto.NoRegionError, boto.InvalidRegionError) as error:
        raise InputError(
            f"{url}: not a valid address: {_public(error)}", "Check the bucket's name, AWS_ENDPOINT_URL and AWS_REGION."
        ) from error
    except boto.FlexibleChecksumError as error:  # what was read before this is wrong, too: nothing to try again here
        raise InputError(f"{url} is damaged: it does not match its checksum.", "Upload it again.") from error
    except (boto.BotoCoreError, ResponseParserError, KeyError, ValueError) as error:  # the last three: cut replies
        raise RetryableError(
            f"{url}: {_public(error)}", "Check AWS_ENDPOINT_URL and the network, then try again."
        ) from error


def _refused(url: str, reply: dict[str, Any], operation: str) -> InputError | RetryableError:
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(reply.get("Error", {}).get("Code", status))
    if code in _CAUSES:
        words, remedy = _CAUSES[code]
        return InputError(f"{url}: {words} ({code}).", remedy)
    if status == 416:
        return Empty(f"{url} is shorter than it should be ({code}).", "Find out who replaced it.")
    if code in ("NoSuchKey", "NotFound", "404"):
        return Missing(f"{url} does not exist ({code}).", "Check the address and AWS_ENDPOINT_URL.")
    if operation == "CompleteMultipartUpload":  # what a part's reply should have told was cut off: send it again
        return RetryableError(f"{url}: {code}.", "Try again.")
    if 300 <= status < 500 and code not in _HEAL and status not in (408, 409, 412, 429):
        return InputError(f"{url}: {code}.", f"Check the address, AWS_ENDPOINT_URL and AWS_REGION. {_LOGIN}")
    return RetryableError(f"{url}: {code}.", "Try again.")


def _public(error: Exception) -> str:
    """A message of botocore on one line, without user names, passwords and queries of addresses."""
    line = " ".join(str(error).split())[:300]
    return re.sub(r"(https?://)[^/@\s\"]*@", r"\1", re.sub(r"\?[^\s\"]*", "", line))
