"""A server for tests that speaks the part of Kubeflow Pipelines' REST API (v2beta1) that cliprd uses.

It is not Kubeflow: no cluster stands behind it, and a run goes through the Argo workflows that a test gives it. Its
answers have the shape that the API server of KFP 2.17.0, built from its source, gave to the same calls: field names,
absent empty lists, error bodies, task details without pod names, the workflow in the v1 API. What real installations
put in front of it, a test switches on: tokens, sign-in pages, redirects, slowness, broken connections.
"""

from __future__ import annotations

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
        self.old_api = True
        self.pipelines: list[dict] = []
        self.versions: list[dict] = []
        self.experiments: list[dict] = []
        self.runs: list[dict] = []
        self.jobs: list[dict] = []
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
        if "desc" in asked.get("sort_by", ""):
            items = items[::-1]
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
        documents = list(yaml.safe_load_all(part.get_payload(decode=True)))
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

    def list_experiments(self, _raw: bytes, asked: dict) -> None:
        self._list("experiments", self.server.experiments, asked)

    def create_experiment(self, raw: bytes, _asked: dict) -> None:
        self.server.experiments.append({**json.loads(raw), "experiment_id": str(uuid.uuid4())})
        self._json(self.server.experiments[-1])

    def create_run(self, raw: bytes, _asked: dict) -> None:
        self.server.runs.append({**json.loads(raw), "run_id": str(uuid.uuid4()), "state": "PENDING"})
        self._json(self.server.runs[-1])

    def list_runs(self, _raw: bytes, asked: dict) -> None:
        self._list("runs", self.server.runs, asked)

    def get_run(self, _raw: bytes, _asked: dict, run: str) -> None:
        found = next(item for item in self.server.runs if item["run_id"] == run)
        self.server.looked += 1
        self.server.on_run()
        workflow = self.server.workflow()
        nodes = workflow.get("details") or workflow["status"].get("nodes") or {}
        phase = workflow["status"]["phase"]
        state = {"Error": "FAILED", "": "PENDING"}.get(phase, phase.upper())
        details = [{"run_id": run, **detail} for detail in v2_details(nodes)]
        self._json({**found, "state": self.server.state or state, "run_details": {"task_details": details}})

    def old_run(self, _raw: bytes, _asked: dict, run: str) -> None:
        if not self.server.old_api:
            return self._send(404, b"404 page not found\n", "text/plain")
        manifest = {key: value for key, value in self.server.workflow().items() if key != "details"}
        runtime = {"pipeline_manifest": "{}", "workflow_manifest": self.server.garbled or json.dumps(manifest)}
        return self._json({"run": {"id": run}, "pipeline_runtime": runtime})

    def log(self, _raw: bytes, _asked: dict, _run: str, pod: str) -> None:
        if pod not in self.server.logs:
            return self._error(500, 13, "Failed to read logs")
        return self._send(200, self.server.logs[pod].encode(), "text/plain")

    def list_jobs(self, _raw: bytes, asked: dict) -> None:
        self._list("recurringRuns", self.server.jobs, asked)

    def create_job(self, raw: bytes, _asked: dict) -> None:
        self.server.jobs.append({**json.loads(raw), "recurring_run_id": str(uuid.uuid4()), "status": "ENABLED"})
        self._json(self.server.jobs[-1])

    def delete_job(self, _raw: bytes, _asked: dict, job: str) -> None:
        self.server.jobs = [item for item in self.server.jobs if item["recurring_run_id"] != job]
        self._json({})


def _wanted_run(server: KfpServer) -> dict:
    return {"display_name": "mine", "experiment_id": server.experiments[-1]["experiment_id"], "state": "PENDING"}


_V2 = "/apis/v2beta1"
_ROUTES = [
    ("GET", f"{_V2}/healthz", _Handler.healthz),
    ("GET", f"{_V2}/pipelines", _Handler.list_pipelines),
    ("POST", f"{_V2}/pipelines", _Handler.create_pipeline),
    ("GET", f"{_V2}/pipelines/([^/]+)/versions", _Handler.list_versions),
    ("POST", f"{_V2}/pipelines/upload_version", _Handler.upload),
    ("GET", f"{_V2}/experiments", _Handler.list_experiments),
    ("POST", f"{_V2}/experiments", _Handler.create_experiment),
    ("POST", f"{_V2}/runs", _Handler.create_run),
    ("GET", f"{_V2}/runs", _Handler.list_runs),
    ("GET", f"{_V2}/runs/([^/]+)", _Handler.get_run),
    ("GET", "/apis/v1beta1/runs/([^/]+)", _Handler.old_run),
    ("GET", "/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", _Handler.log),
    ("GET", f"{_V2}/recurringruns", _Handler.list_jobs),
    ("POST", f"{_V2}/recurringruns", _Handler.create_job),
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
