"""A slide that is open: size, resolution, levels, and pixels of any level or in between."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from wsi_pipeline.cohort import SlideRef
from wsi_pipeline.errors import MppMissing, SlideError, SlideNotFound, SlideTooCoarse, SlideUnreadable
from wsi_pipeline.slides.damage import reports
from wsi_pipeline.slides.readers import Level, NotAPicture, OpenSlideReader, Reader, RGBImage, TiffSlideReader
from wsi_pipeline.slides.remote import StoreFailed
from wsi_pipeline.slides.resample import reduced, shrink, source_of
from wsi_pipeline.slides.tiffs import NOT_WHOLE, tiled
from wsi_pipeline.tiling import Bounds

PLAUSIBLE_MPP = (0.05, 20.0)
# Overviews (of DICOM series, say) rightly state up to about this; screen resolutions mistaken for mpp begin at 250.
OVERVIEW_MPP = 100.0
# A level this near to the wanted resolution is read as it is: resampling would blur and gain nothing.
NEAR_ENOUGH = 0.02
# The sides of a level may differ by this share from those of the slide made smaller.
SHAPE = 0.02
# The finest level may be coarser than the model's resolution by this factor, not more.
TOO_COARSE = 2.0
CHANGED = "became another file while it was worked on"
WHEN_CHANGED = "wait until it has been copied, then run again: it is predicted anew"
STORE_REMEDY = "look at the store and the network, then run again"
# A reduced picture is made from strips of at most about this many pixels.
STRIP_PIXELS = 32 * 2**20


class Slide:
    """One open slide. Use it as a context manager, or call `close`.

    Attributes
    ----------
    size
        Width and height in level-0 px.
    mpp
        µm per level-0 px, the mean of x and y; `mpp_source` is "file" or "config".
    levels
        Finest first.
    crop
        The rectangle (level-0 px) to which QuPath's OpenSlide reader would crop; None for the whole slide.
    notes
        What is odd about the slide, but no reason to refuse it.
    """

    def __init__(self, ref: SlideRef, reader: Reader, mpp: float, mpp_source: str, notes: tuple[str, ...] = ()) -> None:
        self.ref = ref
        self.notes = notes
        self.mpp = mpp
        self.mpp_source = mpp_source
        levels = (level for level in _levels(reader.level_sizes) if level.index not in reader.torn)
        self.levels = tuple(sorted(levels, key=lambda level: level.downsample))
        self.size = (self.levels[0].width, self.levels[0].height)
        self.crop = reader.crop
        self.reader = reader.name
        self._reader = reader
        self._fingerprint: str | None = None

    def read(self, bounds: Bounds, downsample: float) -> RGBImage:
        """A rectangle of the working level: the slide seen at `downsample` level-0 px to a pixel.

        The level nearest above is read once and averaged over each pixel's own area, on a grid anchored at the
        slide's corner: what a pixel shows does not depend on the rectangle it was asked for with. Beyond the
        slide's edge everything is white.

        Parameters
        ----------
        bounds
            In pixels of the working level; may reach beyond the slide.
        downsample
            1 or more.

        Returns
        -------
        uint8 (bounds.height, bounds.width, 3)

        Raises
        ------
        SlideUnreadable
            Pixels cannot be fetched or decoded.
        """
        level = self._level_for(downsample)
        ratio = downsample / level.downsample
        if abs(ratio - 1) < 1e-6:
            return self._padded(level, bounds)
        rows = max(1, int(STRIP_PIXELS / (bounds.width * ratio * ratio)))
        strips = (
            Bounds(bounds.x, top, bounds.right, min(top + rows, bounds.bottom))
            for top in range(bounds.y, bounds.bottom, rows)
        )
        parts = [shrink(self._padded(level, source_of(strip, ratio)), strip, ratio) for strip in strips]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def prefetch(self, bounds: Bounds, downsample: float) -> None:
        """Have what `read` will need come in the background, from a store elsewhere; does nothing for a file here.

        It returns at once. What it holds is bounded, so that it is for rectangles which are read soon.
        """
        level = self._level_for(downsample)
        inside = source_of(bounds, downsample / level.downsample).within(Bounds(0, 0, level.width, level.height))
        if inside.width and inside.height:
            self._reader.prefetch(level.index, inside)

    def thumbnail(self, max_side: int) -> RGBImage:
        """The whole slide, its longer side at most `max_side` px; memory does not grow with the slide."""
        downsample = max(1.0, max(self.size) / max_side)
        level = self._level_for(downsample)
        self._reader.prefetch(level.index, Bounds(0, 0, level.width, level.height))
        width, height = (max(1, round(side / downsample)) for side in self.size)
        return reduced(
            (level.width, level.height),
            (min(width, level.width), min(height, level.height)),
            self._reader.tile_size(level.index),
            lambda piece: self._level(level, piece),
        )

    def _level_for(self, downsample: float) -> Level:
        """The coarsest level that is at least as fine as asked for."""
        fine = [level for level in self.levels if level.downsample <= downsample * (1 + 1e-6)]
        return fine[-1] if fine else self.levels[0]

    def _padded(self, level: Level, bounds: Bounds) -> RGBImage:
        inside = bounds.within(Bounds(0, 0, level.width, level.height))
        if inside == bounds:
            return self._level(level, bounds)
        out = np.full((bounds.height, bounds.width, 3), 255, np.uint8)
        if inside.width and inside.height:
            y, x = inside.y - bounds.y, inside.x - bounds.x
            out[y : y + inside.height, x : x + inside.width] = self._level(level, inside)
        return out

    def _level(self, level: Level, bounds: Bounds) -> RGBImage:
        try:
            return self._reader.read(level.index, bounds)
        except Exception as error:
            raise SlideUnreadable(
                self.ref.slide_id,
                f"cannot be read at level {level.index}, x {bounds.x} to {bounds.right}, "
                f"y {bounds.y} to {bounds.bottom}: {_one_line(error)}",
                STORE_REMEDY if _store_failed(error) else "copy the file again, or leave the slide out",
            ) from error

    def fingerprint(self) -> str:
        """The same for copies of one slide under other names; 16 hex digits, as when it was asked for first.

        Raises
        ------
        SlideUnreadable
            Its bytes cannot be fetched.
        """
        if self._fingerprint is not None:
            return self._fingerprint
        try:
            found = self._reader.fingerprint()
        except Exception as error:
            raise SlideUnreadable(
                self.ref.slide_id,
                f"cannot be read: {_one_line(error)}",
                STORE_REMEDY if _store_failed(error) else "copy the file again, or leave the slide out",
            ) from error
        self._fingerprint = hashlib.sha256(found.encode()).hexdigest()[:16]
        return self._fingerprint

    def check_unchanged(self) -> None:
        """Raise `SlideUnreadable` when another slide lies there now than when its `fingerprint` was asked for.

        That a file was touched, or copied over with what it held, is no change.
        """
        if not self._reader.changed():
            return
        try:
            open_slide(self.ref, content=self.fingerprint()).close()
        except SlideError as error:
            # A store that does not answer says nothing of what lies there.
            if not _store_failed(error):
                raise SlideUnreadable(self.ref.slide_id, CHANGED, WHEN_CHANGED) from error

    def close(self) -> None:
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_slide(ref: SlideRef, *, needed_mpp: float | None = None, content: str | None = None) -> Slide:
    """Open a slide and check that it can be used.

    Parameters
    ----------
    needed_mpp
        The model's resolution in µm/px; None when any will do.
    content
        Its `Slide.fingerprint` when it was opened before; None when it may be any.

    Raises
    ------
    SlideNotFound
        There is nothing at the URI.
    SlideUnreadable
        A folder, an empty file, no slide, cut off, of a kind that no reader opens, or of another content.
    MppMissing
        The file states no mpp between 0.05 and 20 µm/px and the configuration gives none.
    SlideTooCoarse
        The finest level is more than twice as coarse as `needed_mpp`.
    """
    _exists(ref)
    reader = _open_reader(ref)
    try:
        mpp, source = _resolution(ref, reader, needed_mpp)
        notes = tuple(_notes(reader, mpp, source))
        if needed_mpp is not None and mpp > TOO_COARSE * needed_mpp:
            raise SlideTooCoarse(ref.slide_id, mpp, needed_mpp)
    except BaseException:
        reader.close()
        raise
    slide = Slide(ref, reader, mpp, source, notes)
    try:
        if content is not None and slide.fingerprint() != content:
            raise SlideUnreadable(ref.slide_id, CHANGED, WHEN_CHANGED)
    except BaseException:
        slide.close()
        raise
    return slide


def working_downsample(slide: Slide, mpp: float) -> float:
    """Level-0 px to a pixel at `mpp` µm/px.

    A level whose resolution is within 2 % of `mpp` is taken as it is: its own downsample is returned. A slide
    that is coarser than `mpp` is worked on at its own resolution.
    """
    wanted = mpp / slide.mpp
    for level in slide.levels:
        if abs(level.downsample / wanted - 1) <= NEAR_ENOUGH:
            return level.downsample
    return max(1.0, wanted)


def _levels(sizes: tuple[tuple[int, int], ...]) -> Iterator[Level]:
    """Levels with their downsample: the whole number that explains the size, where there is one.

    A level of 1/4 of 2222 px has 555 or 556 px: the ratio 4.0036 is rounding, the pixels are 4 wide. What has
    another shape than the slide is no level of it (an overview of the whole glass, say) and left out.
    """
    width, height = sizes[0]
    for index, (w, h) in enumerate(sizes):
        ratio = (width / w + height / h) / 2
        whole = round(ratio)
        explained = all(abs(full / whole - part) <= 1 for full, part in ((width, w), (height, h)))
        if explained or all(abs(full / ratio - part) <= 1 + SHAPE * part for full, part in ((width, w), (height, h))):
            yield Level(index, w, h, float(whole) if explained else ratio)


def _exists(ref: SlideRef) -> None:
    if not ref.is_local:
        return
    path = Path(ref.uri)
    try:
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode) and not os.access(path, os.R_OK):
            raise PermissionError
    except PermissionError as error:
        raise SlideUnreadable(ref.slide_id, f"{path} may not be read", "mend its permissions") from error
    except OSError as error:
        # Nothing there, or a link that leads nowhere or in a circle.
        raise SlideNotFound(
            ref.slide_id, f"there is no file {path}", "look at the path, or remove the slide"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        raise SlideUnreadable(ref.slide_id, f"{path} is a folder", "name the slide file")
    if not stat.S_ISREG(found.st_mode):
        # A pipe would be waited for without an end.
        raise SlideUnreadable(ref.slide_id, f"{path} is no file but a pipe or a device", "name the slide file")
    if found.st_size == 0:
        raise SlideUnreadable(ref.slide_id, f"{path} is empty", "copy the file again")


def _open_reader(ref: SlideRef) -> Reader:
    """tiffslide with tifffile's tiles where they can be read, else tiffslide alone, else openslide."""
    causes = []
    try:
        return _by_tiffslide(ref.uri)
    except FileNotFoundError as error:
        raise SlideNotFound(
            ref.slide_id, f"there is nothing at {ref.uri}", "look at the URL and your access"
        ) from error
    except NotAPicture as error:
        raise SlideUnreadable(ref.slide_id, error.cause, error.remedy) from error
    except Exception as error:
        if failure := _store_failed(error):
            raise SlideUnreadable(ref.slide_id, _one_line(failure), STORE_REMEDY) from error
        causes.append(f"tiffslide: {_one_line(error)}")
    if ref.is_local:
        try:
            return OpenSlideReader(ref.uri)
        except Exception as error:  # noqa: BLE001 - openslide and its loader raise several kinds
            causes.append(f"openslide: {_one_line(error)}")
    else:
        causes.append("openslide reads local files only")
    raise SlideUnreadable(
        ref.slide_id,
        f"is no slide that can be opened ({'; '.join(causes)})",
        "copy the file again if it should be one, else convert it, or leave it out",
    )


def _by_tiffslide(uri: str) -> Reader:
    """Raises `NotAPicture` where the file is not whole, or holds something else."""
    with reports() as damage:
        base = TiffSlideReader(uri)
        try:
            reader = tiled(base)
        except BaseException:
            base.close()
            raise
    if damage:
        reader.close()
        raise NotAPicture(damage[0], NOT_WHOLE)
    return reader


def _resolution(ref: SlideRef, reader: Reader, needed_mpp: float | None) -> tuple[float, str]:
    if ref.mpp is not None:
        return ref.mpp, "config"
    if reader.mpp is None:
        raise MppMissing(ref.slide_id, None)
    x, y = reader.mpp
    mpp = (x + y) / 2
    if needed_mpp is not None and all(PLAUSIBLE_MPP[1] < value <= OVERVIEW_MPP for value in (x, y)):
        raise SlideTooCoarse(ref.slide_id, mpp, needed_mpp)
    if not all(PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1] for value in (x, y)):
        raise MppMissing(ref.slide_id, mpp)
    return mpp, "file"


def _notes(reader: Reader, mpp: float, source: str) -> Iterator[str]:
    yield from reader.notes
    if reader.mpp is None:
        return
    x, y = reader.mpp
    stated = (x + y) / 2
    if abs(x - y) > NEAR_ENOUGH * stated:
        yield f"its pixels are not square ({x:.4g} by {y:.4g} µm): areas count with the mean, lengths are off"
    if source == "config" and PLAUSIBLE_MPP[0] <= stated <= PLAUSIBLE_MPP[1] and abs(stated / mpp - 1) > NEAR_ENOUGH:
        yield f"the file states {stated:.4g} µm/px, the configuration says {mpp:.4g} and counts"


def _store_failed(error: BaseException | None) -> StoreFailed | None:
    """The failure of a store behind an error, which libraries may have put their own around."""
    while error is not None and not isinstance(error, StoreFailed):
        error = error.__cause__ or error.__context__
    return error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not text or isinstance(error, LookupError):
        # The text of these is what was looked for, if there is one.
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 200 else text[:197] + "..."
