"""A headless Chromium, driven over its DevTools pipe: no driver and no package besides the browser itself.

with Browser() as browser:
    page = browser.open(path, width=1280)
    page.evaluate("document.title")
    page.screenshot(Path("page.png"))
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--mute-audio",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
LIMIT = 60.0  # seconds for one answer


def executable() -> str:
    """Path of the browser; `CLIPRD_CHROMIUM` names another."""
    named = os.environ.get("CLIPRD_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(
            "No Chromium found. Install it with `apt-get install -y chromium`, or set CLIPRD_CHROMIUM to its path."
        )
    return found


class Browser:
    """One browser process with an empty profile."""

    def __enter__(self) -> Browser:
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        program = executable()
        # The protocol is spoken over descriptors 3 and 4. High copies first, so that dup2 overwrites none of the ends.
        script = 'exec "$0" "$@" 3<&"$R" 4>&"$W"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, program, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(read_commands, write_answers),
            env={**os.environ, "R": str(read_commands), "W": str(write_answers)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._next, self._rest, self.events = 0, b"", []
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.send("Browser.close")
        except (OSError, RuntimeError):
            self.process.kill()
        self.process.wait(timeout=LIMIT)
        os.close(self._commands)
        os.close(self._answers)
        self.profile.cleanup()

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and wait for its answer; events that come meanwhile are kept in `events`."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._next:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait(self, event: str, session: str) -> None:
        """Until an event of that name has come for the session."""
        while not any(e["method"] == event and e.get("sessionId") == session for e in self.events):
            self.events.append(self._receive())

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + LIMIT
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(f"{executable()} gave no answer (exit code {self.process.poll()})")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(
        self,
        path: Path | str,
        *,
        width: int,
        height: int = 900,
        scheme: str = "light",
        scripts: bool = True,
        media: str = "",
    ) -> Tab:
        """Load a file, or an address, in a new tab and wait until all of it is there."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.send(f"{domain}.enable")
        tab.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        tab.send(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        tab.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.send("Page.navigate", url=path if isinstance(path, str) else path.resolve().as_uri())
        self.wait("Page.loadEventFired", session)
        return tab


class Tab:
    """One page in its own session."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression, promises awaited."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.evaluate("1")  # what was on its way has come before this answer
        found = [e for e in self.browser.events if e["method"] == method and e.get("sessionId") == self.session]
        return [event["params"] for event in found]

    def errors(self) -> list[str]:
        """Uncaught exceptions, console errors, and what the browser itself refuses."""
        thrown = [json.dumps(e["exceptionDetails"]) for e in self._events("Runtime.exceptionThrown")]
        called = [
            json.dumps(e["args"]) for e in self._events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")
        ]
        logged = [
            e["entry"]["text"] for e in self._events("Log.entryAdded") if e["entry"]["level"] in ("error", "warning")
        ]
        return thrown + called + logged

    def requests(self) -> list[str]:
        """Addresses that were asked for, data: URIs aside."""
        urls = [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    def front(self) -> None:
        """Make it the tab that is seen: one in the background gets no frames and answers the pointer late."""
        self.send("Page.bringToFront")

    def move(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the viewport, or of the whole page."""
        shot = self.send(
            "Page.captureScreenshot", captureBeyondViewport=whole, **({"clip": self._clip()} if whole else {})
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self) -> dict[str, float]:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"])
