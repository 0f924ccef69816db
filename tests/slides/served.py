"""A web server on the loopback that answers ranges, counts what it sends, and can fail like a busy store."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec


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
        How many of the next requests are answered with 503.
    silent
        How many of the next requests are not answered.
    short
        How many of the next ranges end early; `broken`: after the connection was cut.
    trouble
        What befalls the first requests of a file: its name, how many are answered well, and "busy" or "silent" for all
        that follow.
    etag
        What is said of the content of every file; None: nothing.
    deaf
        Ranges are not understood: the whole file is sent.
    """

    url: str
    sent: int = 0
    busy: int = 0
    silent: int = 0
    short: int = 0
    broken: bool = False
    trouble: tuple[str, int, str] | None = None
    etag: str | None = None
    deaf: bool = False
    ranges: list[tuple[int, int]] = field(default_factory=list)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve the files of a folder while the block runs."""
    lock = threading.Lock()
    over = threading.Event()

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
            with lock:
                silent, busy = served.silent > 0, served.busy > 0
                served.silent -= silent
                served.busy -= busy
                if served.trouble is not None and served.trouble[0] == path.name:
                    name, well, kind = served.trouble
                    served.trouble = (name, max(0, well - 1), kind)
                    silent, busy = (well == 0 and kind == "silent"), (well == 0 and kind == "busy")
            if silent:
                over.wait()
                self.close_connection = True
                return
            if busy:
                self._send(503, b"", {})
                return
            data = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted is None or served.deaf:
                self._send(200, data if body else b"", {"Accept-Ranges": "bytes", "Content-Length": str(len(data))})
                return
            if int(wanted[1]) >= len(data):
                with lock:
                    served.ranges.append((int(wanted[1]), int(wanted[1])))
                self._send(416, b"", {})
                return
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            with lock:
                short = served.short > 0
                served.short -= short
                served.ranges.append((start, end + 1))
            content, headers = data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            if short and served.broken:
                headers["Content-Length"] = str(len(content))
                self.close_connection = True
            self._send(206, content[: len(content) // 2] if short else content, headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            etag = {} if served.etag is None else {"ETag": served.etag}
            for name, value in {"Content-Length": str(len(body)), **etag, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            # Before the client can have it: a test that reads the count when it has all bytes must find them there.
            with lock:
                served.sent += len(body)
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        # Connections that fsspec keeps open would be reported as leaks when they are collected.
        fsspec.get_filesystem_class("http").clear_instance_cache()
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()
