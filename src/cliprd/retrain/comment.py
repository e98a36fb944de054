"""Write the report into the pull request's comment: one comment, replaced in place at each run.

    python -m cliprd.retrain.comment < report.md

Environment: GITHUB_TOKEN (may write the pull request's comments), GITHUB_REPOSITORY, GITHUB_API_URL, PULL_REQUEST (its
number), and RUN_URL, whose page has the whole report as an artifact. Only the standard library: it runs before anything
is installed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

MARK = "<!-- cliprd retrain -->"
LONGEST = 65_000  # GitHub's limit is 65,536 characters
ATTEMPTS = 4


def main() -> int:
    """Post or replace."""
    comments = f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues/{int(os.environ['PULL_REQUEST'])}/comments"
    text = body(sys.stdin.read(), os.environ.get("RUN_URL", ""))
    mine = find(comments)
    if mine is None:
        call("POST", comments, {"body": text})
    else:
        call("PATCH", f"/repos/{os.environ['GITHUB_REPOSITORY']}/issues/comments/{mine}", {"body": text})
    print(f"comment: {'posted' if mine is None else 'replaced'}")
    return 0


def body(report: str, run: str) -> str:
    """The comment: the mark by which it is found again, the report, and where the whole of it is."""
    link = f"\n[This run]({run}) has the report's files as an artifact.\n" if run else ""
    report = report.strip() or "## Retraining: failed\n\nThere is no report; see the log."
    if len(report) > LONGEST - len(link):
        report = report[: LONGEST - len(link) - 200].rsplit("\n", 1)[0]
        report += f"\n{_open_fence(report)}\n\n… the rest is in the run's artifact."
    return f"{MARK}\n{report}\n{link}"


def _open_fence(report: str) -> str:
    """The backticks of the block of code that the text ends in; empty where it ends in none."""
    ticks = ""
    for line in report.splitlines():
        run = line[: len(line) - len(line.lstrip("`"))]
        if not ticks and len(run) >= 3:
            ticks = run
        elif ticks and len(run) >= len(ticks) and run == line.rstrip():
            ticks = ""
    return ticks


def find(comments: str) -> int | None:
    """Our comment's number: the first one that begins with the mark and was written by a bot, not by a person."""
    page = 1
    while found := call("GET", f"{comments}?per_page=100&page={page}"):
        for comment in found:
            if comment["body"].startswith(MARK) and comment["user"]["type"] == "Bot":
                return int(comment["id"])
        page += 1
    return None


def call(method: str, path: str, content: dict[str, Any] | None = None) -> Any:
    """One request; what may heal is tried again, which for a POST could at worst write the comment twice."""
    request = urllib.request.Request(  # noqa: S310 (the address is CI's own)
        os.environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        data=None if content is None else json.dumps(content).encode(),
        method=method,
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            if error.code < 500 or attempt == ATTEMPTS:
                raise SystemExit(f"comment: {method} {path}: {error.code} {said}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            if attempt == ATTEMPTS:
                raise SystemExit(f"comment: {method} {path}: {error}") from error
        time.sleep(2**attempt)


if __name__ == "__main__":
    sys.exit(main())
