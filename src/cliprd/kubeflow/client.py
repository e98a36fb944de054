"""The connection to a Kubeflow Pipelines API: credentials, timeouts, and every error as one typed line.

kfp's own client makes the requests. It is kept from printing, and its transport is replaced by one that never hangs,
never follows a redirect (to a sign-in page, which would also get the token) and tells a web page from an answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kfp_server_api
import urllib3
from kfp import client as kfp_client
from kfp_server_api import rest

from cliprd.errors import CliprdError, InputError, ParamsError, RetryableError

TOKEN_VARIABLE = "KFP_TOKEN"  # noqa: S105 (its name)
ENDPOINT_VARIABLE = "KF_PIPELINES_ENDPOINT"  # kfp's own
PROJECTED_TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 (set in the notebooks of multi-user Kubeflow)
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
READ_ATTEMPTS = 3  # of a request that changes nothing on the server
FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled
PAGE = 100
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}  # states of a run
SIGN_IN = (
    f"Give a fresh token in {TOKEN_VARIABLE} or with --token-file. Behind a browser's sign-in (dex, oauth2-proxy, IAP) "
    "the API needs a service account's token, or a port-forward to ml-pipeline."
)


class NotFound(InputError):
    """The server answers 404."""


class Exists(InputError):
    """The server answers 409: it has one of this name already."""


class Unauthorized(InputError):
    """No token, an expired one, or a sign-in page instead of an answer."""


REFUSALS: dict[int, tuple[type[CliprdError], str, str]] = {
    401: (Unauthorized, "does not accept the token, or wants one", SIGN_IN),
    403: (InputError, "forbids this", "Check --namespace and the rights of the token's account in it."),
    404: (NotFound, "answers that it does not exist", "Check the name, --host and --namespace."),
    409: (Exists, "has this already", "Choose another name."),
}


class Api:
    """The requests of cliprd, through `kfp.Client`."""

    def __init__(self, client: Any, host: str, namespace: str | None) -> None:
        self.client = client
        self.host = host
        self.namespace = namespace

    def link(self, kind: str, identity: str) -> str:
        """Page of a run, recurring run or experiment in the UI."""
        return f"{self.client._get_url_prefix().rstrip('/')}/#/{kind}/details/{identity}"

    def find(self, lister: Callable[..., Any], field: str, name: str, **more: Any) -> Any | None:
        """The first of `find_all`, or None."""
        return next(iter(self.find_all(lister, field, name, **more)), None)

    def find_all(self, lister: Callable[..., Any], field: str, name: str, **more: Any) -> list[Any]:
        """All that `lister` lists under exactly this display name."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        items = self.pages(lister, field, filter=json.dumps({"predicates": [predicate]}), **more)
        return [item for item in items if item.display_name == name]

    def pages(self, lister: Callable[..., Any], field: str, **more: Any) -> Iterator[Any]:
        """All that `lister` lists, page by page; a page is asked for when it is needed."""
        token = ""
        while True:
            page = lister(page_size=PAGE, page_token=token, **more)
            yield from getattr(page, field) or []
            token = page.next_page_token or ""
            if not token:
                return

    def get(self, path: str) -> Any:
        """The JSON of a path that kfp's client has no call for."""
        return self.client._run_api.api_client.call_api(
            path, "GET", header_params={"Accept": "application/json"}, response_type="object",
            auth_settings=["Bearer"], _return_http_data_only=True,
        )  # fmt: skip

    def text(self, path: str) -> str:
        """The text of a path: a log."""
        api_client = self.client._run_api.api_client
        with api_client.rest_client.plain_text():
            answer = api_client.call_api(
                path, "GET", response_type="bytes", auth_settings=["Bearer"], _preload_content=False
            )
        return bytes(answer.data).decode("utf-8", errors="replace")


def connect(host: str | None, *, namespace: str | None, token_file: Path | None) -> Api:
    """A checked connection.

    Args:
        host: address of the API, as of its UI: `https://kubeflow.example/pipeline`. None: KF_PIPELINES_ENDPOINT.
        namespace: in multi-user Kubeflow: the profile. None: that of kfp's context file, or of this pod.
        token_file: read again for each request, since projected tokens change. None: KFP_TOKEN, or kfp's own.

    Raises:
        ParamsError: the host is no address; a namespace is needed. InputError: no KFP there, or it refuses us.
        RetryableError: it cannot be reached now.
    """
    address = _address(host)
    credentials = _credentials(token_file)
    secret = os.environ.get(TOKEN_VARIABLE, "").strip() if credentials is None else ""
    if secret and not _is_token(secret):
        raise ParamsError(f"{TOKEN_VARIABLE} holds no token (one line, no spaces).", "Set it to the bare token.")
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle and not Path(bundle).is_file():
        raise InputError(f"There is no CA bundle {bundle}.", "Correct SSL_CERT_FILE or REQUESTS_CA_BUNDLE.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "works with v2.0.0-beta.2 and later"
        try:
            client = _Client(
                host=address,
                namespace=namespace or "kubeflow",  # kfp's default
                existing_token=secret or None,
                credentials=credentials,
                ssl_ca_cert=bundle,
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"{kfp_client.Client._LOCAL_KFP_CONTEXT}, kfp's context file, is damaged.", "Correct or remove it."
            ) from error
        except OSError as error:
            raise InputError(
                f"Credentials cannot be read: {error}.", "Check kfp's context file, SSL_CERT_FILE."
            ) from error
    _install(client, address)
    health = client._healthz_api.healthz_service_get_healthz()
    if health.multi_user and not client.get_user_namespace():
        raise ParamsError(f"{address} is a multi-user Kubeflow: it needs to know your namespace.", "Give --namespace.")
    return Api(client, address, client.get_user_namespace() or None)


class _Client(kfp_client.Client):  # type: ignore[misc]
    """kfp's client without retries, sleeps and logging on start, and without writing a context file."""

    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """kfp calls this to learn whether a namespace is needed: "yes" makes it take this pod's, if this is a pod."""
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=True)

    def set_user_namespace(self, namespace: str) -> None:
        """For this process only."""
        self._context_setting["namespace"] = namespace


class _FileToken(kfp_client.TokenCredentialsBase):  # type: ignore[misc]
    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    def _read(self) -> str:
        try:
            token = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ParamsError(f"Token file {self._path} cannot be read: {reason}.", "Name another.") from error
        if not _is_token(token):
            raise ParamsError(f"Token file {self._path} holds no token (one line, no spaces).", "Write the bare token.")
        return token

    def refresh_api_key_hook(self, config: Any) -> None:
        """Called by kfp's client before each request."""
        config.api_key["authorization"] = self._read()


class _Transport(rest.RESTClientObject):  # type: ignore[misc]
    """Requests with timeouts; every failure is raised as an error of cliprd."""

    def __init__(self, configuration: Any, host: str) -> None:
        super().__init__(configuration)
        self._host = host
        self._json = True
        pool = self.pool_manager
        pool.request = functools.partial(pool.request, redirect=False, retries=False)

    @contextlib.contextmanager
    def plain_text(self) -> Iterator[None]:
        """A context in which answers need not be JSON."""
        self._json = False
        try:
            yield
        finally:
            self._json = True

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        """As kfp's, with retries of requests that change nothing."""
        options["_request_timeout"] = (CONNECT_SECONDS, READ_SECONDS)
        attempts = READ_ATTEMPTS if method == "GET" else 1
        for attempt in range(1, attempts + 1):
            try:
                return self._once(method, url, *arguments, **options)
            except _Unreachable:
                raise
            except RetryableError:
                if attempt == attempts:
                    raise
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _once(self, method: str, url: str, *arguments: Any, **options: Any) -> Any:
        try:
            answer = super().request(method, url, *arguments, **options)
        except kfp_server_api.ApiException as error:
            raise self._refusal(method, error) from None  # its headers hold the token
        except urllib3.exceptions.HTTPError as error:
            raise self._failure(method, error) from None
        if self._json:
            self._check(answer)
        return answer

    def _check(self, answer: Any) -> None:
        body = answer.data if isinstance(answer.data, bytes) else str(answer.data).encode()
        if _is_page(body):
            raise Unauthorized(f"{self._host} answers with a web page: a sign-in, or the wrong address.", SIGN_IN)
        try:
            json.loads(body or b"{}")
        except ValueError:
            raise InputError(
                f"{self._host} answers, but not as a Kubeflow Pipelines API.", "Check --host and its path."
            ) from None

    def _failure(self, method: str, error: urllib3.exceptions.HTTPError) -> CliprdError:
        """No answer: cliprd's error for urllib3's."""
        host, causes = self._host, urllib3.exceptions
        if isinstance(error, causes.NameResolutionError):
            if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno != socket.EAI_AGAIN:
                return InputError(f"No host is named {self._name()}.", "Check --host.")
            return _Unreachable(f"The name {self._name()} cannot be looked up now.", "Check --host, VPN, DNS.")
        if isinstance(error, causes.NewConnectionError):
            remedy = "Check --host; is a port-forward running?"
            return _Unreachable(f"{host} cannot be reached: {_reason(error)}.", remedy)
        if isinstance(error, causes.ConnectTimeoutError):
            remedy = "Check --host, VPN and firewall."
            return _Unreachable(f"{host} does not answer within {CONNECT_SECONDS:.0f} s.", remedy)
        if isinstance(error, causes.ReadTimeoutError):
            return _Unreachable(f"{host} took longer than {READ_SECONDS:.0f} s to answer.", _unsure(method))
        if isinstance(error, causes.ProtocolError):
            return RetryableError(f"{host} broke the connection: {_reason(error)}.", _unsure(method))
        if isinstance(error, causes.LocationValueError):
            return ParamsError(f"--host {host} is no address.", "For example https://kubeflow.example/pipeline")
        return RetryableError(f"{host}: {type(error).__name__}: {_reason(error)}.", _unsure(method))

    def _refusal(self, method: str, error: kfp_server_api.ApiException) -> CliprdError:
        """An answer other than success: cliprd's error for its status."""
        host, status, body = self._host, error.status, error.body or b""
        message = _message(body)
        if status == 0:  # kfp's status of a TLS error
            why = " ".join(str(error.reason).split()).removeprefix("SSLError ")
            plain = "WRONG_VERSION_NUMBER" in why or "record layer failure" in why
            remedy = "It may speak plain http://." if plain else "Name its CA's file in SSL_CERT_FILE."
            return InputError(f"{host}: TLS failed: {why[:200]}.", remedy)
        if 300 <= status < 400:
            location = urllib.parse.urlsplit((error.headers or {}).get("Location", ""))
            page = urllib.parse.urlunsplit((*location[:3], "", ""))  # the query may carry state of a sign-in
            problem = f"{host} sends on to {page or 'another page'} ({status}): a sign-in page, or the wrong address."
            return Unauthorized(problem, SIGN_IN)
        if status == 404 and (_is_page(body) or not message):
            remedy = "Check --host and its path (often /pipeline)."
            return NotFound(f"{host} has no Kubeflow Pipelines API (404).", remedy)
        if status in (408, 425, 429) or status >= 502 or (status == 500 and method == "GET"):
            return RetryableError(f"{host} cannot answer now ({status}{message}).", "Try again later.")
        if status >= 500:
            return RetryableError(f"{host} failed ({status}{message}).", "If it persists, look at ml-pipeline's log.")
        kind, problem, remedy = REFUSALS.get(
            status, (InputError, "refuses the request", "Check --namespace and your rights in it.")
        )
        return kind(f"{host} {problem} ({status}{message}).", remedy)

    def _name(self) -> str:
        return urllib.parse.urlsplit(self._host).hostname or self._host


class _Unreachable(RetryableError):
    """No server there, or too slow: a retry would only wait again."""


def _install(client: Any, host: str) -> None:
    """Give every API of the client our transport."""
    transport = _Transport(client._existing_config, host)
    for api in vars(client).values():
        if hasattr(api, "api_client"):
            api.api_client.rest_client = transport


def _address(host: str | None) -> str:
    name = host or os.environ.get(ENDPOINT_VARIABLE, "")
    if not name:
        raise ParamsError("No host.", f"Give --host https://kubeflow.example/pipeline, or set {ENDPOINT_VARIABLE}.")
    address = name if "://" in name else f"https://{name}"
    try:
        parts = urllib.parse.urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
        parts = urllib.parse.urlsplit("")
    if not good or any(character.isspace() for character in address):
        raise ParamsError(f"--host {name!r} is no address.", "For example https://kubeflow.example/pipeline")
    if parts.username or parts.password:
        raise ParamsError(
            "--host carries a user or password.", f"Give a token in {TOKEN_VARIABLE} or with --token-file."
        )
    # What people copy from the browser: the UI's page behind the '#'.
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _credentials(token_file: Path | None) -> _FileToken | None:
    if token_file is not None:
        return _FileToken(token_file)
    if not os.environ.get(TOKEN_VARIABLE) and (path := os.environ.get(PROJECTED_TOKEN_VARIABLE)):
        return _FileToken(Path(path))
    return None


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and not any(c.isspace() for c in text)


def _is_page(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<"


def _message(body: bytes | str) -> str:
    """The server's own message, short."""
    text = body.decode("utf-8", errors="replace") if isinstance(body, bytes) else body
    if not text.strip() or text.lstrip().startswith("<"):
        return ""
    with contextlib.suppress(ValueError):
        tree = json.loads(text)
        if isinstance(tree, dict):
            inner = next((part["message"] for part in tree.get("details") or [] if part.get("message")), "")
            text = str(inner or tree.get("error_message") or tree.get("message") or tree.get("error") or "")
    text = " ".join(text.split())
    return f": {text[:300]}" if text else ""


def _reason(error: BaseException) -> str:
    """The innermost message of urllib3's nested errors."""
    text = str(error)
    for part in (error.__cause__, error.__context__):
        if isinstance(part, OSError) and part.strerror:
            return part.strerror
    return text.rpartition(": ")[2].strip("() '\".") or type(error).__name__


def _unsure(method: str) -> str:
    return "Try again later." if method == "GET" else "Whether it was done is unknown: look in the UI, then try again."
