"""A web server on the loopback that answers ranges, counts what it sends, and can fail like a busy store."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """What the server did, and what it should do.

    Attributes
    ----------
    url
        Of the folder.
    sent
        Bytes of bodies so far.
    busy
        How many of the next ranges are answered with 503.
    """

    url: str
    sent: int = 0
    busy: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve the files of a folder while the block runs."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = folder / self.path.split("?")[0].lstrip("/")
            if not path.is_file():
                self._send(404, b"", {})
                return
            data = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None:
                self._send(200, data if body else b"", {"Accept-Ranges": "bytes", "Content-Length": str(len(data))})
                return
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            with lock:
                refused = served.busy > 0
                served.busy -= refused
                served.ranges.append((start, end + 1))
            if refused:
                self._send(503, b"", {})
            else:
                self._send(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            with lock:
                served.sent += len(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
