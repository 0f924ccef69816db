"""A slide inside a zip archive: where it is stored as it is, it is a part of the archive's own bytes.

fsspec unpacks whatever it is asked for from the member's beginning on, so that a block from the end of a slide costs
the whole slide; from a store elsewhere it downloads it for every block.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO

from wsi_pipeline.slides.ranged import RangedFile

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1


def archive_of(uri: str) -> tuple[str, str] | None:
    """Member and archive of a URL like `zip://deep/a.tif::s3://bucket/a.zip`; None for other URLs."""
    link, _, archive = uri.partition("::")
    return (link.removeprefix("zip://").lstrip("/"), archive) if link.startswith("zip://") and archive else None


def stored_at(archive: IO[bytes], member: str) -> tuple[int, int] | None:
    """Start and length of the bytes of a member that is stored as it is; None where it is compressed or encrypted.

    Raises
    ------
    FileNotFoundError
        The archive has no such member.
    zipfile.BadZipFile
        It is none, or damaged.
    """
    with zipfile.ZipFile(archive) as opened:
        try:
            found = opened.getinfo(member)
        except KeyError:
            raise FileNotFoundError(f"there is no {member} in the archive") from None
    if found.compress_type != zipfile.ZIP_STORED or found.flag_bits & _ENCRYPTED:
        return None
    archive.seek(found.header_offset)
    header = archive.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"{member} does not begin where the archive says")
    # Name and extra field; the latter may be another one than in the archive's directory.
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return found.header_offset + _LOCAL_HEADER.size + name + extra, found.file_size


class Window(RangedFile):
    """A part of a file, to be read as if it were one; closes the file with itself."""

    def __init__(self, file: IO[bytes] | io.RawIOBase, start: int, size: int) -> None:
        super().__init__(size)
        self._file = file
        self._start = start

    def _bytes(self, start: int, end: int) -> bytes:
        self._file.seek(self._start + start)
        return self._file.read(end - start) or b""

    def close(self) -> None:
        self._file.close()
        super().close()
