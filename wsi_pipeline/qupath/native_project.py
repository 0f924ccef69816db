"""The native backend: a QuPath project read and written without a JVM."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import ProjectError, QuPathFormatError
from wsi_pipeline.files import write_bytes
from wsi_pipeline.objects import PathClass, PathObject
from wsi_pipeline.qupath import project_file
from wsi_pipeline.qupath.affine import affine_of, invert, probe_slide
from wsi_pipeline.qupath.builders import file_name, local_path, slide_uri, uri_builder
from wsi_pipeline.qupath.data_files import DataFiles, backup_of
from wsi_pipeline.qupath.frames import depth_first, moved, plan_replacement
from wsi_pipeline.qupath.lookup import find_image
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata
from wsi_pipeline.qupath.project_file import Entry, ProjectFile, gson
from wsi_pipeline.qupath.protocol import Affine, ImageData, LevelLike, ProjectImage, Replaced
from wsi_pipeline.qupath.summary import server_block, summary_of
from wsi_pipeline.tiling import Bounds

IMAGE_TYPES = ("BRIGHTFIELD_H_E", "BRIGHTFIELD_H_DAB", "BRIGHTFIELD_OTHER", "FLUORESCENCE", "OTHER", "UNSET")
_THUMBNAIL_QUALITY = 90


class NativeImage:
    """One image of a native project; see `protocol.ProjectImage`."""

    def __init__(self, project: NativeProject, entry: Entry) -> None:
        self._project = project
        self._entry = entry
        self._affine: Affine | None = None

    def __repr__(self) -> str:
        return f"<image {self.entry_id} {self.name!r} of {self._project.path}>"

    @property
    def entry_id(self) -> int:
        return self._entry.entry_id

    @property
    def name(self) -> str:
        return self._entry.name

    @property
    def uri(self) -> str:
        return self._entry.uri

    @property
    def description(self) -> str | None:
        return self._entry.description

    @property
    def metadata(self) -> dict[str, str]:
        return self._entry.metadata

    @property
    def size(self) -> tuple[int, int] | None:
        return self._entry.size

    @property
    def image_type(self) -> str:
        data = self._project.read_data(self)
        return "UNSET" if data is None else data.image_type

    @property
    def affine(self) -> Affine:
        if self._affine is None:
            self._affine = affine_of(self._entry.builder, self.name)
        return self._affine

    def read_objects(self) -> list[PathObject]:
        return self.read().objects

    def read(self) -> ImageData:
        data = self._project.read_data(self)
        return ImageData([], {}) if data is None else ImageData(moved(data.objects, self.affine), data.properties)


class NativeProject:
    """A QuPath project that is read and written as files; see `protocol.Project`.

    Make one with `create` or `open`.
    """

    backend = "native"

    def __init__(self, file: ProjectFile, *, read_only: bool) -> None:
        self._file = file
        self._read_only = read_only
        self._data = DataFiles(file.path.parent)
        self._classes = project_file.read_classes(file.path.parent)
        self._images = {entry.entry_id: NativeImage(self, entry) for entry in file.entries}

    @classmethod
    def create(cls, path: Path) -> NativeProject:
        """A new, empty project in a folder (or at a .qpproj); `ProjectError` when there is one already."""
        target = path if path.suffix == ".qpproj" else path / project_file.FILE_NAME
        if target.exists():
            raise ProjectError(f"{target} exists already; open it instead")
        file = project_file.new_project_file(target)
        file.save()
        # QuPath does not open a project whose folder `classifiers` it can neither find nor make.
        project_file.classes_path(target.parent).parent.mkdir(parents=True, exist_ok=True)
        return cls(file, read_only=False)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> NativeProject:
        """An existing project: its folder or its .qpproj."""
        return cls(project_file.read_project_file(project_file.project_path(path)), read_only=read_only)

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def read_only(self) -> bool:
        return self._read_only

    @property
    def path_classes(self) -> tuple[PathClass, ...]:
        return self._classes

    @path_classes.setter
    def path_classes(self, classes: Iterable[PathClass]) -> None:
        self._writable()
        wanted = tuple(classes)
        project_file.check_classes(wanted)
        self._classes = wanted

    def images(self) -> tuple[NativeImage, ...]:
        return tuple(self._images.values())

    def image(self, entry_id: int) -> NativeImage:
        if entry_id not in self._images:
            raise ProjectError(f"{self.path} has no image with the id {entry_id}")
        return self._images[entry_id]

    def find(self, *, uri: str | None = None, name: str | None = None) -> NativeImage | None:
        return find_image(self.images(), self.path, uri, name)

    def add_image(
        self,
        uri: str,
        name: str,
        *,
        size: tuple[int, int],
        mpp: float,
        mpp_source: str = "file",
        levels: Sequence[LevelLike] = (),
        crop: Bounds | None = None,
        image_type: str = "UNSET",
        metadata: Mapping[str, str] | None = None,
        thumbnail: NDArray[Any] | None = None,
        here: str | None = None,
    ) -> NativeImage:
        self._writable()
        kind = checked_image_type(image_type)
        address = slide_uri(uri)
        builder = _builder(address, name, size, mpp, mpp_source == "config", levels, crop, here)
        entry = self._file.add(name, builder, metadata or {}, above=self._data.highest_id())
        image = self._images[entry.entry_id] = NativeImage(self, entry)
        folder = self._data.folder(entry.entry_id)
        write_bytes(folder / "server.json", gson(builder))
        if thumbnail is not None:
            write_bytes(folder / "thumbnail.jpg", jpeg(thumbnail))
        self._data.read(image.entry_id, image.name)
        self._write(image, QpData(image_type=kind, server_json=_header(builder)), size=size)
        return image

    def set_metadata(self, entry: int | ProjectImage, metadata: Mapping[str, str]) -> None:
        self._writable()
        self._file.entry(self._resolve(entry).entry_id).update_metadata(metadata)

    def add_objects(
        self,
        entry: int | ProjectImage,
        objects: Iterable[PathObject],
        *,
        properties: Mapping[str, str] | None = None,
    ) -> int:
        self._writable()
        image = self._resolve(entry)
        before = self._for_writing(image)
        data = before.with_properties(properties or {})
        present = {o.uuid for o in data.objects}
        fresh = [o for o in objects if o.uuid not in present]
        if fresh:
            new = moved(fresh, invert(image.affine))
            data = replace(data, objects=depth_first([*data.objects, *new], image.name))
        if data is not before:
            self._write(image, data)
        return len(fresh)

    def replace_run_objects(
        self,
        entry: int | ProjectImage,
        run_id: str,
        objects: Iterable[PathObject],
        snapshot: Iterable[PathObject],
        *,
        properties: Mapping[str, str] | None = None,
    ) -> Replaced:
        self._writable()
        image = self._resolve(entry)
        before = self._for_writing(image)
        data = before.with_properties(properties or {})
        change = plan_replacement(moved(data.objects, image.affine), run_id, objects, snapshot)
        if change.going or change.new:
            staying = [o for o in data.objects if o.uuid not in change.going]
            new = moved(change.new, invert(image.affine))
            data = replace(data, objects=depth_first([*staying, *new], image.name))
        if data is not before:
            self._write(image, data)
        return Replaced(replaced=len(change.going), kept=change.kept)

    def save_objects(self, entry: int | ProjectImage, objects: Iterable[PathObject]) -> int:
        """Replace all objects of an image (level-0 px), as a save in QuPath does; returns how many there are then.

        The file counts as saved by QuPath: the next write of this package copies it to the history first.
        """
        self._writable()
        image = self._resolve(entry)
        wanted = depth_first(moved(objects, invert(image.affine)), image.name)
        self._write(image, replace(self._for_writing(image), objects=wanted), ours=False)
        return len(wanted)

    def save(self) -> None:
        self._writable()
        if self._classes != project_file.read_classes(self.path.parent):
            project_file.write_classes(self.path.parent, self._classes)
        self._file.save()
        self._data.flush()

    def read_data(self, image: NativeImage) -> QpData | None:
        """Everything that data.qpdata holds, in QuPath's frame; None for an image that was never opened.

        Raises
        ------
        QuPathFormatError
            The file is damaged or of a kind that is not known; names the image, and the backup when there is one.
        """
        raw = self._data.read(image.entry_id, image.name)
        if raw is None:
            return None
        try:
            return read_qpdata(raw)
        except QuPathFormatError as error:
            path = self._data.qpdata(image.entry_id)
            hint = f"; QuPath's backup {backup_of(path).name} is beside it" if backup_of(path).exists() else ""
            raise QuPathFormatError(f"{image.name}: {path}: {error}{hint}") from error

    def entry(self, entry_id: int) -> Entry:
        """What project.qpproj says of an image."""
        return self._file.entry(entry_id)

    def _for_writing(self, image: NativeImage) -> QpData:
        """The image's data as they are on disk; `ProjectChanged` when they are not those that were read before."""
        if self._data.was_read(image.entry_id):
            self._data.check_unchanged(image.entry_id, image.name)
        data = self.read_data(image)
        return data or QpData(image_type="UNSET", server_json=_header(self._file.entry(image.entry_id).builder))

    def _write(
        self, image: NativeImage, data: QpData, *, ours: bool = True, size: tuple[int, int] | None = None
    ) -> None:
        """Write one image's data after reading it back from the bytes, then the summary beside it."""
        listed = {c.name: c.color for c in self._classes if c.color is not None}
        data = replace(data, class_colors={**listed, **data.class_colors})
        raw = checked_bytes(data, image.name)
        self._data.write(image.entry_id, image.name, raw, ours=ours)
        self._write_summary(image, data, size or image.size)

    def _write_summary(self, image: NativeImage, data: QpData, size: tuple[int, int] | None) -> None:
        path = self._data.folder(image.entry_id) / "summary.json"
        server = server_block(size) if size is not None else None
        if path.is_file():
            server = _old_server(path) or server
        written = self._data.qpdata(image.entry_id).stat().st_mtime_ns // 1_000_000
        summary = summary_of(data.objects, data.image_type, server, written)
        write_bytes(path, gson(summary, indent=False))

    def _resolve(self, entry: int | ProjectImage) -> NativeImage:
        return self.image(entry if isinstance(entry, int) else entry.entry_id)

    def _writable(self) -> None:
        if self._read_only:
            raise ProjectError(f"{self.path} was opened to be read only")


def checked_image_type(name: str) -> str:
    """QuPath's name of an image type, from the configuration's (`brightfield_h_e`) or its own."""
    if name.upper() not in IMAGE_TYPES:
        raise ProjectError(f"{name} is no image type of QuPath; known are {', '.join(IMAGE_TYPES).lower()}")
    return name.upper()


def checked_bytes(data: QpData, image: str) -> bytes:
    """The bytes of a data.qpdata, read back before anybody relies on them: the same objects must come out."""
    raw = write_qpdata(data)
    back = read_qpdata(raw)
    if [o.uuid for o in back.objects] != [o.uuid for o in data.objects]:
        raise ProjectError(
            f"{image}: {len(data.objects)} objects were to be written and {len(back.objects)} came back; "
            "nothing was changed"
        )
    return raw


def jpeg(pixels: NDArray[Any]) -> bytes:
    """A thumbnail, uint8 (h, w, 3), as JPEG: the same pixels, the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., :3], dtype=np.uint8)).save(
        buffer, "JPEG", quality=_THUMBNAIL_QUALITY
    )
    return buffer.getvalue()


def _builder(
    address: str,
    name: str,
    size: tuple[int, int],
    mpp: float,
    given: bool,
    levels: Sequence[LevelLike],
    crop: Bounds | None,
    here: str | None,
) -> dict[str, Any]:
    """How QuPath shall open a slide; `given` says that `mpp` replaces the file's own, `here` is its address here.

    QuPath 0.6 and 0.7 give the opened image the name of its entry, and where its metadata had another name (without
    any, that is the file's) they take the image for changed and ask at each closing whether to save it. So an image
    under another name (masked, or one of two of the same name) gets the whole metadata, as OpenSlide reads them.
    """
    # Only slides on this machine can be asked.
    is_remote = here is not None and "://" in here and not here.lower().startswith("file:")
    seen = address if here is None or is_remote else slide_uri(here)
    frame = probe_slide(seen) if local_path(seen) is not None else None
    no_crop = crop is not None or (frame is not None and frame.bounds is not None)
    if given:
        return uri_builder(address, name, size=size, mpp=mpp, levels=levels, no_crop=no_crop)
    if name == file_name(address) or frame is None or frame.size != size or not levels:
        return uri_builder(address, name, size=size, mpp=None, levels=levels, no_crop=no_crop)
    return uri_builder(
        address,
        name,
        size=size,
        mpp=mpp,
        levels=levels,
        no_crop=no_crop,
        pixel=frame.pixel,
        magnification=frame.magnification,
        tile=frame.tile,
    )


def _header(builder: Mapping[str, Any]) -> dict[str, Any]:
    return {"dataVersion": 3, "qupathVersion": project_file.VERSION, "server": dict(builder)}


def _old_server(path: Path) -> dict[str, Any] | None:
    """The size that QuPath noted before; nothing reads summary.json, so a damaged one is simply written anew."""
    try:
        value = project_file.parse_object(path.read_bytes(), path)
    except (ProjectError, OSError):
        return None
    server = value.get("server")
    return server if isinstance(server, dict) else None
