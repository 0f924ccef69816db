"""Drives a headless Chromium over its debugging pipe: nothing but the standard library, no port, no network."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_S = 60.0


class Browser:
    """One page of one browser; messages of the DevTools protocol, one JSON text each, ended by a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = to_browser
        self._in = from_browser
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Open an empty page and listen to its console, its errors and its network."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, path: Path, *, width: int = 1400, height: int = 900) -> None:
        """Load a local page and wait until it and its pictures are there."""
        self.resize(width, height)
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._wait("Page.loadEventFired")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """`light` or `dark`, as the system would ask for it."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return result["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False, selector: str | None = None) -> None:
        """A PNG of the window, of the whole page, or of one element."""
        parameters: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole or selector is not None}
        if selector is not None:
            box = self.run(
                f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                " return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; })()"
            )
            parameters["clip"] = {**box, "scale": 1}
        elif whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            parameters["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **parameters)["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        printed = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(printed["data"]))

    def complaints(self) -> list[str]:
        """What the console, the log and uncaught exceptions said since the page was opened."""
        self.run("0")  # whatever is under way arrives before the answer
        texts = []
        for event in self.events:
            values: Mapping[str, Any] = event.get("params", {})
            if event.get("method") == "Log.entryAdded":
                texts.append(f"{values['entry']['level']}: {values['entry']['text']}")
            elif event.get("method") == "Runtime.exceptionThrown":
                texts.append(str(values["exceptionDetails"].get("exception", {}).get("description")))
            elif event.get("method") == "Runtime.consoleAPICalled":
                texts.append(f"console.{values['type']}")
        return texts

    def requests(self) -> list[str]:
        """Addresses that the page asked for since it was opened, without data inside the page."""
        self.run("0")
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def _wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser does not answer")
            self._rest += data
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """A browser with an empty profile of its own, ended with the block."""
    (command_read, command_write), (answer_read, answer_write) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # The protocol wants commands on file descriptor 3 and gives its answers on 4.
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, command_read, 3),
            (os.POSIX_SPAWN_DUP2, answer_write, 4),
        ]
        process = os.posix_spawn(executable, arguments, os.environ, file_actions=actions)
        os.close(command_read)
        os.close(answer_write)
        try:
            page = Browser(command_write, answer_read)
            page.attach()
            yield page
        finally:
            os.close(command_write)
            os.close(answer_read)
            os.kill(process, signal.SIGTERM)
            os.waitpid(process, 0)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends have numbers above those that the browser uses."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)
    return high[0], high[1]


def assert_sound_in_every_look(page: Browser, path: Path) -> None:
    """A page in light and dark and on a narrow screen: no complaint, no request but its own, nothing too wide."""
    for scheme, width in (("light", 1400), ("dark", 1400), ("light", 420)):
        page.prefer(scheme)
        page.open(path, width=width)
        assert page.complaints() == []
        assert page.requests() == [path.as_uri()]
        assert page.run("document.documentElement.scrollWidth") <= width
