"""An S3 server on the loopback, a line in front of it that counts bytes and adds latency: a store far away, repeatable.

The server is moto's, in a process of its own, so that what it costs is not taken for the engine's.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

CHUNK = 64 * 1024
METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
SERVER = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
# S3 looks at a condition and writes in one step; moto's threads do not.
put, lock = S3Response.put_object, threading.Lock()
def put_object(self):
    with lock:
        return put(self)
S3Response.put_object = put_object
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class Line:
    """The way to the store.

    Attributes
    ----------
    port
        Where it begins, on the loopback.
    latency_s
        Added to each answer, once for all bytes that arrive together.
    refusing
        The store answers 503 to everything.
    sent, requests
        Bytes that came from the store (headers of HTTP included), and requests, so far.
    """

    port: int
    latency_s: float = 0.0
    refusing: bool = False
    sent: int = 0
    requests: int = 0


@contextmanager
def object_store() -> Iterator[Line]:
    """A store while the block runs; `environment` says how to reach it."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdout is not None
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        line = Line(0)
        there = int(server.stdout.readline())
        listening = asyncio.run_coroutine_threadsafe(_listen(line, there), loop).result()
        line.port = listening.sockets[0].getsockname()[1]
        yield line
        asyncio.run_coroutine_threadsafe(_close(listening), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        server.kill()
        server.wait()
        server.stdout.close()
        if server.stdin is not None:
            server.stdin.close()


def environment(line: Line) -> dict[str, str]:
    """What an S3 client of a process needs to know to use it."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}",
    }


async def _listen(line: Line, port: int) -> asyncio.Server:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        away_reader, away_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_up(reader, writer, away_writer, line), _down(away_reader, writer, line))
        except asyncio.CancelledError:
            # The line goes while somebody still holds it, or held it when it was killed.
            writer.close()
            away_writer.close()

    return await asyncio.start_server(take, "127.0.0.1", 0)


async def _up(
    reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter, line: Line
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            line.requests += data.startswith(METHODS)
            if line.refusing:
                if data.startswith(METHODS):
                    back.write(BUSY)
                continue
            writer.write(data)
            await writer.drain()
    writer.close()


async def _down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
    """Pass on what the store says, each piece later by the latency; pieces do not wait for each other."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            line.sent += len(data)
            loop.call_later(line.latency_s, _write, writer, data)
    loop.call_later(line.latency_s, writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def _close(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # Their sockets are closed in the loop's next turn.
    await asyncio.sleep(0)
