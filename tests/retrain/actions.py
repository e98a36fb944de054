"""GitHub's workflows run for real, by act on this machine: no Docker, no network.

act runs the `run:` steps and the checkout. Other actions are skipped where act runs; it still wants their files, so
each pinned one is answered by an empty action.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.pipeline import ROOT, environment, run

WORKFLOWS = ROOT / ".github" / "workflows"
USES = re.compile(r"uses: ([\w./-]+@[0-9a-f]{40}) # v[\d.]+$", re.MULTILINE)
REPOSITORY = "me/mine"
MAIN = {"ref": "refs/heads/main", "repository": {"full_name": REPOSITORY, "default_branch": "main"}}
"""What GitHub tells of an event on the default branch, as far as the workflow asks."""
EMPTY = 'name: empty\nruns:\n  using: composite\n  steps: [{run: ":", shell: bash}]\n'


def pinned() -> set[str]:
    """Every action of the workflows, with the commit."""
    return {found for file in WORKFLOWS.glob("*.yml") for found in USES.findall(file.read_text())}


def act(
    repo: Path,
    event: str,
    content: Mapping[str, Any],
    *,
    room: Path,
    workflow: str = "retrain.yml",
    secrets: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a workflow of `repo`, as it is there, for an event with this content.

    Args:
        room: folder for what act keeps.
    """
    room.mkdir(parents=True, exist_ok=True)
    (room / "empty").mkdir(exist_ok=True)
    (room / "empty" / "action.yml").write_text(EMPTY)
    (room / "event.json").write_text(json.dumps(content))
    command = [
        *("act", event, "-C", str(repo), "-W", f".github/workflows/{workflow}", "-e", str(room / "event.json")),
        *("-P", "ubuntu-latest=-self-hosted", "--container-daemon-socket", "-", "--concurrent-jobs", "1"),
        *("--remote-name", "github", "-a", "somebody"),
        *(option for name in pinned() for option in ("--local-repository", f"{name}={room / 'empty'}")),
        *(option for name, value in (secrets or {}).items() for option in ("-s", f"{name}={value}")),
        *(option for name, value in (variables or {}).items() for option in ("--var", f"{name}={value}")),
        *(option for name, value in (env or {}).items() for option in ("--env", f"{name}={value}")),
        *(option for name, value in (inputs or {}).items() for option in ("--input", f"{name}={value}")),
    ]
    settings = {**environment(), "XDG_CACHE_HOME": str(room / "cache"), "OMP_NUM_THREADS": "1"}
    for name in [name for name in settings if name.startswith(("AWS_", "GITHUB_", "MLFLOW_"))]:
        del settings[name]
    return subprocess.run(command, env=settings, capture_output=True, text=True, cwd=room, timeout=1200)


def repository(repo: Path) -> None:
    """Let act take it for `REPOSITORY`; it is never asked for anything."""
    run(repo, "git", "remote", "add", "github", f"https://github.com/{REPOSITORY}.git")


def pull_request(number: int, *, base: str, fork: bool = False) -> dict[str, Any]:
    """What GitHub tells of it, as far as the workflow asks."""
    head = {"ref": "change", "repo": {"full_name": "other/mine" if fork else REPOSITORY}}
    return {
        "action": "synchronize",
        "number": number,
        "pull_request": {"number": number, "head": head, "base": {"ref": "main", "sha": base}},
        "repository": MAIN["repository"],
    }


class GitHub(ThreadingHTTPServer):
    """The part of GitHub's REST API that writes comments, for one token; `failures` answers come first."""

    daemon_threads = True
    token = "a-token"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.failures: list[int] = []
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, number: int, body: str, kind: str) -> dict[str, Any]:
        """A comment to a pull request, by a `User` or a `Bot`."""
        identity = 1 + sum(map(len, self.comments.values()))
        comment = {"id": identity, "body": body, "user": {"type": kind}}
        self.comments.setdefault(number, []).append(comment)
        return comment


@contextmanager
def github() -> Iterator[GitHub]:
    server = GitHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GitHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        path, _, query = self.path.partition("?")
        self.server.requests.append(f"{self.command} {path}")
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._say(401, {"message": "Bad credentials"})
        if self.server.failures:
            return self._say(self.server.failures.pop(0), {"message": "Server Error"})
        if found := re.fullmatch(rf"/repos/{REPOSITORY}/issues/(\d+)/comments", path):
            number = int(found[1])
            if self.command == "POST":
                return self._say(201, self.server.add(number, content["body"], "Bot"))
            options = dict(part.split("=") for part in query.split("&"))
            first = (int(options["page"]) - 1) * int(options["per_page"])
            return self._say(200, self.server.comments.get(number, [])[first : first + int(options["per_page"])])
        if found := re.fullmatch(rf"/repos/{REPOSITORY}/issues/comments/(\d+)", path):
            (comment,) = [c for some in self.server.comments.values() for c in some if c["id"] == int(found[1])]
            comment["body"] = content["body"]
            return self._say(200, comment)
        return self._say(404, {"message": "Not Found"})

    do_POST = do_PATCH = do_GET

    def _say(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
