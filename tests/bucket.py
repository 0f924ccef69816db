"""A bucket on an S3 server of our own, on the loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest

from benchmarks.object_store import Line, environment, object_store


@contextmanager
def s3_bucket(name: str) -> Iterator[tuple[str, Line]]:
    """The bucket's URL, and the line to it, in which faults can be made."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with object_store() as line, pytest.MonkeyPatch.context() as patch:
        for key, value in environment(line).items():
            if key.startswith("AWS_"):
                patch.setenv(key, value)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
        try:
            yield f"s3://{name}", line
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()


def objects(url: str) -> dict[str, bytes]:
    """Every object below a URL, by its path from there."""
    fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    found: dict[str, Any] = fs.cat(fs.find(root)) if fs.exists(root) else {}
    return {path.removeprefix(root).lstrip("/"): data for path, data in found.items()}


def wait_for_objects(url: str, count: int, seconds: float = 120.0) -> None:
    """Until so many objects are there."""
    end = time.monotonic() + seconds
    while len(objects(url)) < count:
        assert time.monotonic() < end
        time.sleep(0.1)
