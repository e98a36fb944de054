"""A cluster's API for the tests of following, of two kinds that take the same tests.

`stand_in` is a small HTTP server with the paths that `cliprd.kubeflow.trainjob` uses, and those by which a test plays
engine.
`real` is Kubernetes' own kube-apiserver on etcd, where both programs are on the PATH; no node and no controller stand
behind either. Of the jobs' kinds both know names only: their schemas belong to Kubeflow.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client

from tests.ports import free_port

TOKEN = "s3cret-token"
NO_RIGHTS = "weak-token"
RUNNER = "runner-token"
"""Of the service account pipeline-runner in namespace cliprd; at the real server only."""
KINDS = {"trainjobs": "TrainJob", "trainingruntimes": "TrainingRuntime", "pytorchjobs": "PyTorchJob"}
_PATH = re.compile(
    r"/(?:api|apis/[^/]+)/v1(?:alpha1)?/namespaces/default/(?P<kind>\w+)(?:/(?P<name>[\w.-]+))?(?P<status>/status)?"
)


def connect(host: str, token: str = TOKEN) -> client.ApiClient:
    made = client.Configuration()
    made.host, made.verify_ssl, made.retries = host, False, False
    made.api_key = {"authorization": f"Bearer {token}"}
    return client.ApiClient(made)


class _StandIn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        match = _PATH.fullmatch(path)
        with self.server.lock:
            if self.server.down:
                return self._send(503, {"reason": "ServiceUnavailable"})
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._send(403, {"reason": "Forbidden"})
            if match is None or match["kind"] in self.server.unknown:
                return self._send(404, {"reason": "NotFound"})
            if self.command == "POST" and self.server.denials:
                return self._send(403, {"reason": "Forbidden", "message": self.server.denials.pop(0)})
            status, answer = self._answer(self.command, match, body, dict(urllib.parse.parse_qsl(query)))
        self._send(status, answer)

    do_POST = do_DELETE = do_PATCH = do_GET

    def _answer(self, method, match, body, asked) -> tuple[int, dict]:
        objects = self.server.objects.setdefault(match["kind"], {})
        name = match["name"] or body.get("metadata", {}).get("name")
        if method == "GET" and not match["name"]:
            label, _, value = asked["labelSelector"].partition("=")
            found = [tree for tree in objects.values() if tree["metadata"].get("labels", {}).get(label) == value]
            return 200, {"items": found}
        if method == "POST":
            if name in objects:
                return 409, {"reason": "AlreadyExists"}
            begun = {"status": {"phase": "Pending"}} if match["kind"] == "pods" else {}
            objects[name] = {**body, **begun, "metadata": {**body["metadata"], "uid": uuid.uuid4().hex}}
            return 201, objects[name]
        if name not in objects:
            return 404, {"reason": "NotFound"}
        if method == "PATCH":
            objects[name]["status"] = body["status"]
        return 200, objects.pop(name) if method == "DELETE" else objects[name]

    def _send(self, status: int, tree: dict) -> None:
        data = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def stand_in() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _StandIn)
    server.daemon_threads, server.lock, server.objects = True, threading.Lock(), {}
    server.unknown, server.denials, server.down = set(), [], False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _SERVERS[host := f"http://127.0.0.1:{server.server_port}"] = server
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


_SERVERS: dict[str, Any] = {}


def server(host: str) -> Any:
    """The stand-in, to switch troubles on."""
    return _SERVERS[host]


@contextmanager
def real(folder: Path) -> Iterator[str]:
    programs = [shutil.which(name) for name in ("etcd", "kube-apiserver")]
    if None in programs:
        pytest.skip("no etcd and kube-apiserver on the PATH")
    ports = [free_port() for _ in range(3)]
    key = folder / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    runner = 'system:serviceaccount:cliprd:pipeline-runner,3,"system:serviceaccounts,system:authenticated"'
    users = (f"{TOKEN},admin,1,system:masters", f"{NO_RIGHTS},weak,2", f"{RUNNER},{runner}")
    (folder / "tokens.csv").write_text("\n".join(users) + "\n")
    store = f"http://127.0.0.1:{ports[0]}"
    peers = f"http://127.0.0.1:{ports[1]}"
    commands = [
        [programs[0], "--data-dir", folder / "etcd", "--listen-client-urls", store, "--advertise-client-urls", store,
         "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"],
        [programs[1], f"--etcd-servers={store}", f"--cert-dir={folder / 'certs'}", f"--secure-port={ports[2]}",
         "--bind-address=127.0.0.1", f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC",
         f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
         "--service-account-issuer=https://test", "--service-cluster-ip-range=10.0.0.0/24",
         "--disable-admission-plugins=ServiceAccount", "--allow-privileged"],
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        started = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
        try:
            host = f"https://127.0.0.1:{ports[2]}"
            urllib3.disable_warnings()
            _prepare(connect(host))
            yield host
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def retried(call, *more: type[Exception]):
    """What `call` gives, once the server gives it."""
    for _ in range(240):
        try:
            return call()
        except (client.ApiException, urllib3.exceptions.HTTPError, *more):
            time.sleep(0.5)
    return call()


def _prepare(api: client.ApiClient) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for plural, kind in KINDS.items():
        group, version = ("kubeflow.org", "v1") if kind == "PyTorchJob" else ("trainer.kubeflow.org", "v1alpha1")
        served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        tree = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind},
                "versions": [{**served, "subresources": {"status": {}}}],
            },
        }
        place = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        send = {"body": tree, "response_type": "object", "auth_settings": ["BearerToken"]}
        retried(lambda place=place, send=send: api.call_api(place, "POST", **send))
        look = client.CustomObjectsApi(api).list_namespaced_custom_object
        retried(lambda look=look, group=group, version=version, plural=plural: look(group, version, "default", plural))
    retried(lambda: client.CoreV1Api(api).read_namespace("default"))


def create(api: client.ApiClient, tree: dict, namespace: str = "", **query: str) -> dict:
    """Create an object of any kind, none of its fields unknown to the server; gives what the server made of it."""
    group = ("/apis/" if "/" in tree["apiVersion"] else "/api/") + tree["apiVersion"]
    send = {"response_type": "object", "auth_settings": ["BearerToken"]}

    def find() -> dict:
        """A kind whose definition has just come is served a moment later."""
        resources = api.call_api(group, "GET", **send)[0]["resources"]
        return next(one for one in resources if one["kind"] == tree["kind"] and "/" not in one["name"])

    found = retried(find, StopIteration)
    inside = f"/namespaces/{namespace or tree['metadata'].get('namespace')}" if found["namespaced"] else ""
    asked = [*{"fieldValidation": "Strict", **query}.items()]
    return api.call_api(f"{group}{inside}/{found['name']}", "POST", query_params=asked, body=tree, **send)[0]


class Engine:
    """What Kubeflow, Kubernetes' controllers and nodes would do, by the test's hand."""

    def __init__(self, host: str, job: dict) -> None:
        self.host, self.job = host, job
        api = connect(host)
        self._objects, self._pods = client.CustomObjectsApi(api), client.CoreV1Api(api)
        group, _, version = job["apiVersion"].partition("/")
        plural = next(plural for plural, kind in KINDS.items() if kind == job["kind"])
        self._made: set[str] = set()
        self._job = (group, version, "default", plural, job["metadata"]["name"])

    def found(self, kind: str = "") -> dict | None:
        *group, plural, name = self._job
        try:
            return self._objects.get_namespaced_custom_object(*group, kind or plural, name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def await_job(self, other_than: str = "") -> dict:
        for _ in range(600):
            if (found := self.found()) and found["metadata"]["uid"] != other_than:
                return found
            time.sleep(0.05)
        raise AssertionError("no job")

    def condition(self, kind: str, reason: str = "", message: str = "") -> None:
        now = "2026-01-01T00:00:00Z"
        one = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        self._objects.patch_namespaced_custom_object_status(*self._job, {"status": {"conditions": [one]}})

    def pod(self, name: str, label: str, status: dict) -> None:
        named = {"name": name, "labels": {label: self.job["metadata"]["name"]}}
        spec = {"containers": [{"name": "node", "image": "x"}]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": spec}
        try:
            self._pods.create_namespaced_pod("default", made)
        except client.ApiException as error:
            assert error.status == 409
        self._made.add(name)
        self._pods.patch_namespaced_pod_status(name, "default", {"status": status})

    def collect(self) -> None:
        """As Kubernetes' garbage collector: what is to go, and owns nothing more, goes."""
        *group, plural, name = self._job
        for kind in (plural, "trainingruntimes") if plural == "trainjobs" else (plural,):
            found = self.found(kind)
            if found and found["metadata"].get("deletionTimestamp"):
                patch = {"metadata": {"finalizers": None}}
                self._objects.patch_namespaced_custom_object(*group, kind, name, patch)

    def forget(self) -> None:
        """Remove the job, and its pods at once."""
        for name in self._made:
            self._pods.delete_namespaced_pod(name, "default", grace_period_seconds=0)
        self._made.clear()
        if self.found():
            self._objects.delete_namespaced_custom_object(*self._job, propagation_policy="Background")
            self.collect()
