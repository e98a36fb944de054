"""A server for tests that speaks the part of Kubeflow Pipelines' REST API (v2beta1) that cliprd uses.

It is not Kubeflow: no cluster stands behind it, and a run goes through the Argo workflows that a test gives it. Its
answers have the shape that the API server of KFP 2.17.0, built from its source, gave to the same calls: field names,
absent empty lists, error bodies, task details without pod names, the workflow in the v1 API. What real installations
put in front of it, a test switches on: tokens, sign-in pages, redirects, slowness, broken connections.
"""

from __future__ import annotations

import datetime
import email.parser
import json
import re
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.kubeflow import argo
from tests.kubeflow.argo import v2_details

EPOCH = "1970-01-01T00:00:00Z"  # the end of a run that has not ended
LOGIN = b"<!doctype html><html><title>Sign in</title><form action='/dex/auth'></form></html>"


class KfpServer(ThreadingHTTPServer):
    """Its state is plain attributes; `requests` has what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, Any]] = []
        self.tokens: list[str] = []
        self.token: str | None = None
        self.multi_user = False
        self.trouble = ""
        self.trouble_at = ""
        self.troubles = 10**9
        self.troubles_at: list[tuple[str, str, str]] = []  # kind, method, part of the path
        self.old_api = True
        self.pipelines: list[dict] = []
        self.versions: list[dict] = []
        self.experiments: list[dict] = []
        self.runs: list[dict] = []
        self.jobs: list[dict] = []
        self.workflows_of: dict[str, dict] = {}  # run → its workflow
        self.workflows: list[dict] = [argo.Argo().manifest("Succeeded")]
        self.state = ""
        self.garbled = ""
        self.looked = 0
        self.logs: dict[str, str] = {}
        self.on_run = lambda: None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """A client that went away is part of some tests."""

    def workflow(self) -> dict:
        return self.workflows[min(self.looked, len(self.workflows)) - 1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KfpServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_GET

    def _answer(self) -> None:
        server = self.server
        path, _, query = self.path.partition("?")
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        server.requests.append((self.command, path, asked))
        server.tokens.append(self.headers.get("Authorization", ""))
        if server.trouble and server.trouble_at in path and server.troubles > 0:
            server.troubles -= 1
            return self._trouble(server.trouble)
        for kind, method, part in server.troubles_at:
            if method == self.command and part in path:
                return self._trouble(kind)
        if server.token is not None and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self._error(401, 16, "Request header error: there is no user identity header")
        for method, pattern, call in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return call(self, raw, asked, *match.groups())
        return self._send(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _trouble(self, kind: str) -> None:
        if kind == "login":
            return self._send(200, LOGIN, "text/html")
        if kind == "redirect":
            return self._send(302, b"", "text/html", Location="https://dex.example/auth?state=secret")
        if kind == "garbage":
            return self._send(200, b"hello", "text/plain")
        if kind == "slow":
            time.sleep(2)
            return self._send(200, b"{}", "application/json")
        if kind == "reset":
            self.close_connection = True
            return self.connection.close()
        if kind == "done, reset":  # the run is made, its answer gets lost
            self.server.trouble = ""
            self.server.runs.append({**_wanted_run(self.server), "run_id": "lost"})
            self.close_connection = True
            return self.connection.close()
        if kind == "page404":
            return self._send(404, b"<html>nginx</html>", "text/html")
        code = int(kind)
        grpc = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6}.get(code, 13)
        return self._error(code, grpc, f"told {code}")

    def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, tree: Any, status: int = 200) -> None:
        self._send(status, json.dumps(tree).encode(), "application/json")

    def _error(self, status: int, code: int, message: str) -> None:
        details = [{"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}]
        self._json({"code": code, "message": f"Failed: {message}", "details": details}, status)

    def _list(self, field: str, items: list[dict], asked: dict[str, str]) -> None:
        for predicate in json.loads(asked.get("filter") or "{}").get("predicates", []):
            assert predicate["operation"] == "EQUALS"
            items = [item for item in items if item[predicate["key"]] == predicate["stringValue"]]
        if asked.get("namespace"):
            items = [item for item in items if item.get("namespace") == asked["namespace"]]
        if asked.get("sort_by"):
            key, _, order = asked["sort_by"].partition(" ")
            items = sorted(items, key=lambda item: item.get(key, ""))
            items = items[::-1] if order == "desc" else items
        size, start = int(asked.get("page_size") or 10), int(asked.get("page_token") or 0)
        more = {"next_page_token": str(start + size)} if len(items) > start + size else {}
        self._json({field: items[start : start + size], "total_size": len(items), **more} if items else {})

    def healthz(self, _raw: bytes, _asked: dict) -> None:
        self._json({"commit_sha": "x", "tag_name": "2.17.0", "multi_user": self.server.multi_user})

    def list_pipelines(self, _raw: bytes, asked: dict) -> None:
        self._list("pipelines", self.server.pipelines, asked)

    def create_pipeline(self, raw: bytes, _asked: dict) -> None:
        tree = json.loads(raw)
        if any(tree["display_name"] == item["display_name"] for item in self.server.pipelines):
            return self._error(409, 6, f"The name {tree['display_name']} already exist.")
        self.server.pipelines.append({**tree, "pipeline_id": str(uuid.uuid4())})
        return self._json(self.server.pipelines[-1])

    def list_versions(self, _raw: bytes, asked: dict, pipeline: str) -> None:
        mine = [version for version in self.server.versions if version["pipeline_id"] == pipeline]
        self._list("pipeline_versions", mine, asked)

    def upload(self, raw: bytes, asked: dict) -> None:
        message = email.parser.BytesParser().parsebytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + raw
        )
        (part,) = message.get_payload()
        documents = list(yaml.load_all(part.get_payload(decode=True), yaml.CSafeLoader))
        same = [item for item in self.server.versions if item["pipeline_id"] == asked["pipelineid"]]
        if any(item["name"] == asked["name"] for item in same):
            return self._error(409, 6, "already exist")
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        self.server.versions.append(
            {
                "pipeline_id": asked["pipelineid"],
                "pipeline_version_id": str(uuid.uuid4()),
                "name": asked["name"],
                "display_name": asked["name"],
                "pipeline_spec": spec,
            }
        )
        return self._json(self.server.versions[-1])

    def delete_version(self, _raw: bytes, _asked: dict, _pipeline: str, version: str) -> None:
        if self._one(self.server.versions, "pipeline_version_id", version, "PipelineVersion") is not None:
            self.server.versions = [item for item in self.server.versions if item["pipeline_version_id"] != version]
            self._json({})

    def delete_pipeline(self, _raw: bytes, _asked: dict, pipeline: str) -> None:
        if any(item["pipeline_id"] == pipeline for item in self.server.versions):
            return self._error(400, 3, f"Failed to delete pipeline with id {pipeline} as it has existing versions")
        if self._one(self.server.pipelines, "pipeline_id", pipeline, "Pipeline") is not None:
            self.server.pipelines = [item for item in self.server.pipelines if item["pipeline_id"] != pipeline]
            self._json({})
        return None

    def list_experiments(self, _raw: bytes, asked: dict) -> None:
        self._list("experiments", self.server.experiments, asked)

    def create_experiment(self, raw: bytes, _asked: dict) -> None:
        self.server.experiments.append({**json.loads(raw), "experiment_id": str(uuid.uuid4())})
        self._json(self.server.experiments[-1])

    def create_run(self, raw: bytes, _asked: dict) -> None:
        made = {**_made(self.server, json.loads(raw)), "finished_at": EPOCH}
        self.server.runs.append({**made, "run_id": str(uuid.uuid4()), "state": "PENDING"})
        self._json(self.server.runs[-1])

    def list_runs(self, _raw: bytes, asked: dict) -> None:
        self._list("runs", self.server.runs, asked)

    def get_run(self, _raw: bytes, _asked: dict, run: str) -> None:
        found = self._one(self.server.runs, "run_id", run, "Run")
        if found is None:
            return
        self.server.looked += 1
        self.server.on_run()
        workflow = self.server.workflow()
        nodes = workflow.get("details") or workflow["status"].get("nodes") or {}
        phase = workflow["status"]["phase"]
        state = {"Error": "FAILED", "": "PENDING"}.get(phase, phase.upper())
        state = state if found["state"] == "PENDING" else found["state"]
        details = [{"run_id": run, **detail} for detail in v2_details(nodes)]
        self._json({**found, "state": self.server.state or state, "run_details": {"task_details": details}})

    def terminate_run(self, _raw: bytes, _asked: dict, run: str) -> None:
        found = self._one(self.server.runs, "run_id", run, "Run")
        if found is None:
            return None
        if found["state"] not in ("PAUSED", "PENDING", "RUNNING", "RUNTIME_STATE_UNSPECIFIED"):
            return self._error(400, 3, f"Failed to terminate a run {run}. Row not found")
        found["state"] = "CANCELING"
        return self._json({})

    def _one(self, items: list[dict], key: str, identity: str, kind: str) -> dict | None:
        """The item of this id; None, and KFP's answer, where there is none."""
        found = next((item for item in items if item[key] == identity), None)
        if found is None:
            self._error(404, 5, f"{kind} {identity} not found")
        return found

    def old_run(self, _raw: bytes, _asked: dict, run: str) -> None:
        if not self.server.old_api:
            return self._send(404, b"404 page not found\n", "text/plain")
        workflow = self.server.workflows_of.get(run) or self.server.workflow()
        manifest = {key: value for key, value in workflow.items() if key != "details"}
        runtime = {"pipeline_manifest": "{}", "workflow_manifest": self.server.garbled or json.dumps(manifest)}
        return self._json({"run": {"id": run}, "pipeline_runtime": runtime})

    def log(self, _raw: bytes, _asked: dict, _run: str, pod: str) -> None:
        if pod not in self.server.logs:
            return self._error(500, 13, "Failed to read logs")
        return self._send(200, self.server.logs[pod].encode(), "text/plain")

    def list_jobs(self, _raw: bytes, asked: dict) -> None:
        self._list("recurringRuns", self.server.jobs, asked)

    def create_job(self, raw: bytes, _asked: dict) -> None:
        made = _made(self.server, json.loads(raw))
        self.server.jobs.append({**made, "recurring_run_id": str(uuid.uuid4()), "status": "ENABLED"})
        self._json(self.server.jobs[-1])

    def switch_job(self, _raw: bytes, _asked: dict, job: str, verb: str) -> None:
        found = self._one(self.server.jobs, "recurring_run_id", job, "Job")
        if found is not None:
            on = verb == "enable"
            found.update(status="ENABLED" if on else "DISABLED", mode="ENABLE" if on else "DISABLE")
            self._json({})

    def delete_job(self, _raw: bytes, _asked: dict, job: str) -> None:
        if self._one(self.server.jobs, "recurring_run_id", job, "Job") is not None:
            self.server.jobs = [item for item in self.server.jobs if item["recurring_run_id"] != job]
            self._json({})


def _made(server: KfpServer, wanted: dict) -> dict:
    """What the server itself knows of a new run or recurring run: each request has a second of its own."""
    moment = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=len(server.requests))
    (group,) = (item for item in server.experiments if item["experiment_id"] == wanted["experiment_id"])
    return {**wanted, "created_at": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "namespace": group.get("namespace")}


def _wanted_run(server: KfpServer) -> dict:
    return {"display_name": "mine", "experiment_id": server.experiments[-1]["experiment_id"], "state": "PENDING"}


_V2 = "/apis/v2beta1"
_ROUTES = [
    ("GET", f"{_V2}/healthz", _Handler.healthz),
    ("GET", f"{_V2}/pipelines", _Handler.list_pipelines),
    ("POST", f"{_V2}/pipelines", _Handler.create_pipeline),
    ("GET", f"{_V2}/pipelines/([^/]+)/versions", _Handler.list_versions),
    ("DELETE", f"{_V2}/pipelines/([^/]+)/versions/([^/]+)", _Handler.delete_version),
    ("DELETE", f"{_V2}/pipelines/([^/]+)", _Handler.delete_pipeline),
    ("POST", f"{_V2}/pipelines/upload_version", _Handler.upload),
    ("GET", f"{_V2}/experiments", _Handler.list_experiments),
    ("POST", f"{_V2}/experiments", _Handler.create_experiment),
    ("POST", f"{_V2}/runs", _Handler.create_run),
    ("GET", f"{_V2}/runs", _Handler.list_runs),
    ("GET", f"{_V2}/runs/([^/]+)", _Handler.get_run),
    ("POST", f"{_V2}/runs/([^/]+):terminate", _Handler.terminate_run),
    ("GET", "/apis/v1beta1/runs/([^/]+)", _Handler.old_run),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", _Handler.log),
    ("GET", f"{_V2}/recurringruns", _Handler.list_jobs),
    ("POST", f"{_V2}/recurringruns", _Handler.create_job),
    ("POST", f"{_V2}/recurringruns/([^/]+):(enable|disable)", _Handler.switch_job),
    ("DELETE", f"{_V2}/recurringruns/([^/]+)", _Handler.delete_job),
]


@contextmanager
def running(certificate: Path | None = None) -> Iterator[KfpServer]:
    """Serve until the block ends; with TLS where a file of certificate and key is given."""
    server = KfpServer()
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
