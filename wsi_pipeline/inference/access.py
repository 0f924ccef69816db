"""A store on a path of this machine or on an object store: how it is reached, and what goes wrong in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from wsi_pipeline.errors import StoreError


def is_url(path: str | Path) -> bool:
    """Whether a store lies on an object store rather than on a path of this machine."""
    return isinstance(path, str) and "://" in path


def zarr_store(path: str | Path, *, read_only: bool) -> Store:
    """What zarr reads and writes."""
    if is_url(path):
        return FsspecStore.from_url(str(path), storage_options=_options(str(path)), read_only=read_only)
    return LocalStore(Path(path), read_only=read_only)


def files_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it that the URL names."""
    import fsspec

    files, folder = fsspec.core.url_to_fs(url, **_options(url))
    return files, folder.rstrip("/")


def _options(url: str) -> dict[str, Any]:
    """How a file system is asked: never what it remembers of a folder, and not for long when it is silent."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.startswith(("s3://", "s3a://")):
        from fsspec.config import conf

        # Without them a silent store would be waited for for half an hour; what the user's own settings say goes first.
        patience = {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 2, "mode": "standard"}}
        options["config_kwargs"] = {**patience, **conf.get("s3", {}).get("config_kwargs", {})}
    return options


def store_exists(path: str | Path) -> bool:
    """Whether there is a store at `path`, whole or not.

    Raises
    ------
    StoreError
        The place cannot be read.
    """
    if not is_url(path):
        return Path(path).exists()
    with told(path, "read"):
        files, folder = files_of(str(path))
        return bool(files.exists(f"{folder}/zarr.json"))


def remove_store(path: str | Path) -> None:
    """Delete the store at `path` with everything in it.

    Raises
    ------
    StoreError
        It cannot be deleted.
    """
    with told(path, "deleted"):
        if is_url(path):
            files, folder = files_of(str(path))
            files.rm(folder, recursive=True)
        else:
            shutil.rmtree(path)


@contextmanager
def told(path: str | Path, verb: str) -> Iterator[None]:
    """What zarr and file systems raise, as `StoreError` that names the store and the cause."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be {verb}: {error.strerror or error}{_remedy(path)}") from error
    except Exception as error:
        # Clients of object stores have trees of errors of their own.
        if not is_url(path) and not isinstance(error, ValueError | TypeError | KeyError | RuntimeError):
            raise
        # What is read and is not what it should be is damaged.
        damaged = verb == "read" and not is_url(path)
        remedy = "; delete the slide's folder in the run, then run again" if damaged else _remedy(path)
        raise StoreError(f"{path} cannot be {verb}: {' '.join(str(error).split())}{remedy}") from error


def _remedy(path: str | Path) -> str:
    return "; look at the store and your access to it, then run again" if is_url(path) else ""
