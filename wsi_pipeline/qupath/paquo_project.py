"""The paquo backend: the same project, read and written by QuPath's own code in a JVM.

The only module that imports paquo. Written against the sources of paquo 0.9 and of QuPath 0.4.4 to 0.6.0. Objects cross
the border in bulk and in the form in which QuPath stores them itself: GeoJSON would round shapes to 0.01 px and
measurements to float32, forget kinds of regions, and in QuPath 0.5 the metadata of detections.

What QuPath does in silence is checked here: paquo skips a save when the slide is out of reach, a damaged data.qpdata
hangs QuPath or opens as an empty image, and every save counts the objects that are in the file afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson
from numpy.typing import NDArray

from wsi_pipeline.errors import ProjectChanged, ProjectError, QuPathFormatError, WsiError
from wsi_pipeline.files import sha256_file
from wsi_pipeline.objects import PathClass, PathObject
from wsi_pipeline.qupath import project_file
from wsi_pipeline.qupath.affine import affine_of, invert, probe_slide
from wsi_pipeline.qupath.builders import builder_size, builder_uri, local_path, slide_uri, uri_builder
from wsi_pipeline.qupath.data_files import DataFiles
from wsi_pipeline.qupath.find import find_qupath
from wsi_pipeline.qupath.frames import depth_first, moved, plan_replacement
from wsi_pipeline.qupath.lookup import find_image
from wsi_pipeline.qupath.native.data import END, MARK, VERSION
from wsi_pipeline.qupath.native.qpdata import QpData, read_qpdata, write_qpdata
from wsi_pipeline.qupath.native_project import checked_image_type, jpeg
from wsi_pipeline.qupath.protocol import Affine, ImageData, LevelLike, ProjectImage, Replaced
from wsi_pipeline.tiling import Bounds

_JAVA_OPTIONS = ("-XX:MaxRAMPercentage=50",)


def start_jvm() -> Any:
    """Start the JVM of the QuPath that `find.find_qupath` names, once in a process; gives paquo's Java classes.

    Raises `ProjectError` when there is no QuPath that paquo supports.
    """
    info = find_qupath()
    if info.backend != "paquo" or info.qupath_dir is None:
        raise ProjectError(f"the paquo backend cannot be used: {info.reason}; use `backend: native`")
    use_own_settings()
    from paquo import jpype_backend

    jpype_backend.start_jvm(finder_kwargs={"qupath_dir": info.qupath_dir, "java_opts": list(_JAVA_OPTIONS)})
    from paquo import java

    return java


def use_own_settings() -> None:
    """Give paquo its own defaults for settings.

    It would look for a `.paquo.toml` in every folder above the current one, and whatever lies there would decide.
    """
    from dynaconf import Dynaconf  # type: ignore[import-untyped]
    from paquo import _config

    defaults = Path(_config.__file__).with_name(".paquo.defaults.toml")
    _config.settings = Dynaconf(preload=[str(defaults)], settings_files=[], core_loaders=["TOML"], envvar_prefix=False)


@contextmanager
def qupath_errors(subject: str) -> Iterator[None]:
    """Let what QuPath and paquo raise come out as one `ProjectError` about `subject`; our own errors pass."""
    import jpype

    try:
        yield
    except WsiError:
        raise
    except (jpype.JException, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        said = str(error).splitlines() or [repr(error)]
        raise ProjectError(f"{subject}: QuPath says: {said[0]}") from error


def same_classes(wanted: Sequence[PathClass], present: Sequence[PathClass]) -> bool:
    """Whether a class list is there already; a class that is wanted without a colour may have any."""
    return [c.name for c in wanted] == [c.name for c in present] and all(
        w.color is None or w.color == p.color for w, p in zip(wanted, present, strict=True)
    )


class PaquoImage:
    """One image of a project that QuPath holds; see `protocol.ProjectImage`."""

    def __init__(self, project: PaquoProject, image: Any) -> None:
        self._project = project
        self.paquo_image = image
        self._affine: Affine | None = None

    @property
    def builder(self) -> Mapping[str, Any]:
        """The server builder as it is now: QuPath adds the slide's metadata to it when it saves the image."""
        return self._project.builder_json(self.paquo_image.java_object)

    @property
    def entry_id(self) -> int:
        return int(self.paquo_image.entry_id)

    @property
    def name(self) -> str:
        return str(self.paquo_image.image_name)

    @property
    def uri(self) -> str:
        return builder_uri(self.builder)

    @property
    def description(self) -> str | None:
        return self.paquo_image.description or None

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.paquo_image.metadata)

    @property
    def size(self) -> tuple[int, int] | None:
        return builder_size(self.builder)

    @property
    def image_type(self) -> str:
        self._project.check_readable(self)
        with qupath_errors(self.name):
            return str(self.paquo_image.image_type.name)

    @property
    def affine(self) -> Affine:
        if self._affine is None:
            self._affine = affine_of(self.builder, self.name)
        return self._affine

    def read_objects(self) -> list[PathObject]:
        return moved(self._project.objects_in_frame(self), self.affine)

    def read(self) -> ImageData:
        return ImageData(self.read_objects(), self._project.properties_of(self))


class PaquoProject:
    """A QuPath project that is read and written by QuPath; see `protocol.Project`.

    Make one with `create` or `open`. Slides must be reachable to be written: QuPath saves no image without its slide.
    """

    backend = "paquo"

    def __init__(self, path: Path, mode: Literal["r", "r+", "x"]) -> None:
        self._java = start_jvm()
        from paquo.projects import QuPathProject

        self._read_only = mode == "r"
        with qupath_errors(str(path)):
            self._project = QuPathProject(path, mode=mode)
        self._data = DataFiles(self.path.parent)
        self._changed = mode == "x"
        self._on_disk = sha256_file(self.path) if self.path.exists() else None
        self._images = {int(image.entry_id): PaquoImage(self, image) for image in self._project.images}

    @classmethod
    def create(cls, path: Path) -> PaquoProject:
        """A new, empty project in an empty folder; `ProjectError` when there is one already."""
        target = path if path.suffix == ".qpproj" else path / project_file.FILE_NAME
        if target.exists():
            raise ProjectError(f"{target} exists already; open it instead")
        project = cls(target, "x")
        project.save()
        return project

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> PaquoProject:
        """An existing project: its folder or its .qpproj. What QuPath would refuse is refused before QuPath sees it."""
        target = project_file.project_path(path)
        project_file.read_project_file(target)
        project_file.read_classes(target.parent)
        if read_only and not project_file.classes_path(target.parent).parent.is_dir():
            raise ProjectError(f"{target} cannot be opened to be read only: QuPath would create the folder classifiers")
        return cls(target, "r" if read_only else "r+")

    @property
    def path(self) -> Path:
        return Path(str(self._project.path))

    @property
    def read_only(self) -> bool:
        return self._read_only

    @property
    def path_classes(self) -> tuple[PathClass, ...]:
        return tuple(PathClass(c.id, None if c.color is None else c.color.to_rgb()) for c in self._project.path_classes)

    @path_classes.setter
    def path_classes(self, classes: Iterable[PathClass]) -> None:
        self._writable()
        wanted = tuple(classes)
        project_file.check_classes(wanted)
        if same_classes(wanted, self.path_classes):
            return
        with qupath_errors(str(self.path)):
            made = [self._paquo_class(c) for c in wanted]
            # QuPath keeps the old list when the new one is as long and holds another class, so it is emptied first.
            self._project.path_classes = []
            self._project.path_classes = made
        if not same_classes(wanted, self.path_classes):
            raise ProjectError(f"{self.path}: QuPath did not take the list of classes")
        self._changed = True

    def images(self) -> tuple[PaquoImage, ...]:
        return tuple(self._images.values())

    def image(self, entry_id: int) -> PaquoImage:
        if entry_id not in self._images:
            raise ProjectError(f"{self.path} has no image with the id {entry_id}")
        return self._images[entry_id]

    def find(self, *, uri: str | None = None, name: str | None = None) -> PaquoImage | None:
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
    ) -> PaquoImage:
        self._writable()
        kind = checked_image_type(image_type)
        if not name or any(image.name == name for image in self.images()):
            raise ProjectError(f"{self.path}: an image needs a name that is not there already, not {name!r}")
        address = slide_uri(uri)
        slide = local_path(address)
        if slide is None or not slide.is_file():
            raise ProjectError(f"{name}: QuPath cannot save an image whose slide it cannot reach ({address})")
        frame = probe_slide(address)
        builder = uri_builder(
            address,
            name,
            size=size,
            mpp=mpp if mpp_source == "config" else None,
            levels=levels,
            no_crop=crop is not None or (frame is not None and frame.bounds is not None),
        )
        with qupath_errors(name):
            entry = self._project.java_object.addImage(self._server_builder(builder))
            listed: Any = self._project.images
            listed.refresh()
            paquo_image = next(i for i in listed if i.entry_id == str(entry.getID()))
            paquo_image.image_name = name
            paquo_image.metadata.update({str(k): str(v) for k, v in (metadata or {}).items()})
            if thumbnail is not None:
                entry.setThumbnail(self._buffered_image(jpeg(thumbnail)))
        image = self._images[int(paquo_image.entry_id)] = PaquoImage(self, paquo_image)
        self._changed = True
        self._data.read(image.entry_id, image.name)
        if kind != "UNSET":  # QuPath would not save: nothing has changed
            with qupath_errors(name):
                paquo_image.image_type = self._image_type(kind)
            self._save_image(image, expected=0)
        return image

    def set_metadata(self, entry: int | ProjectImage, metadata: Mapping[str, str]) -> None:
        self._writable()
        image = self._resolve(entry)
        present = image.metadata
        changes = {str(k): str(v) for k, v in metadata.items() if present.get(str(k)) != str(v)}
        if changes:
            image.paquo_image.metadata.update(changes)
            self._changed = True

    def add_objects(
        self,
        entry: int | ProjectImage,
        objects: Iterable[PathObject],
        *,
        properties: Mapping[str, str] | None = None,
    ) -> int:
        self._writable()
        image = self._resolve(entry)
        present = self.objects_in_frame(image)
        known = {o.uuid for o in present}
        fresh = moved((o for o in objects if o.uuid not in known), invert(image.affine))
        depth_first([*present, *fresh], image.name)
        told = self._set_properties(image, properties or {})
        if fresh:
            with qupath_errors(image.name):
                self._insert(image, fresh)
        if fresh or told:
            self._save_image(image, expected=len(present) + len(fresh), properties=properties)
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
        present = self.objects_in_frame(image)
        change = plan_replacement(moved(present, image.affine), run_id, objects, snapshot)
        staying = [o for o in present if o.uuid not in change.going]
        new = moved(change.new, invert(image.affine))
        depth_first([*staying, *new], image.name)
        told = self._set_properties(image, properties or {})
        if change.going or new:
            with qupath_errors(image.name):
                self._remove(image, change.going)
                self._insert(image, new)
        if change.going or new or told:
            self._save_image(image, expected=len(staying) + len(new), properties=properties)
        return Replaced(replaced=len(change.going), kept=change.kept)

    def save(self) -> None:
        self._writable()
        if self._changed:
            on_disk = sha256_file(self.path) if self.path.exists() else None
            if on_disk != self._on_disk:
                raise ProjectChanged(f"{self.path} was changed since it was read; close it in QuPath and run again")
            with qupath_errors(str(self.path)):
                self._project.save(images=False)
            self._on_disk = sha256_file(self.path)
            self._changed = False
        self._data.flush()

    def check_readable(self, image: PaquoImage) -> None:
        """Raise for a data.qpdata that QuPath would show as an empty image or hang at, and for one that changed.

        QuPath keeps in memory what it read once, so a file that somebody else saved since cannot be seen through it.
        """
        if self._data.was_read(image.entry_id):
            self._data.check_unchanged(image.entry_id, image.name)
            return
        raw = self._data.read(image.entry_id, image.name)
        if raw is not None:
            try:
                read_qpdata(raw)
            except QuPathFormatError as error:
                self._data.forget(image.entry_id)
                raise QuPathFormatError(f"{image.name}: {self._data.qpdata(image.entry_id)}: {error}") from error

    def objects_in_frame(self, image: PaquoImage) -> list[PathObject]:
        """All objects in QuPath's px, as QuPath serializes the hierarchy that it holds."""
        self.check_readable(image)
        with qupath_errors(image.name):
            hierarchy = image.paquo_image.hierarchy.java_object
            target = self._class("java.io.ByteArrayOutputStream")()
            stream = self._class("java.io.ObjectOutputStream")(target)
            stream.writeUTF(f"{MARK}{VERSION}")
            for item in (self._java.String("{}"), hierarchy, self._java.String(END)):
                stream.writeObject(item)
            stream.close()
            objects = read_qpdata(bytes(target.toByteArray())).objects
        if len(objects) != int(hierarchy.nObjects()):
            raise ProjectError(f"{image.name}: QuPath holds {hierarchy.nObjects()} objects and gave {len(objects)}")
        return objects

    def properties_of(self, image: PaquoImage) -> dict[str, str]:
        """The properties that are texts, as they lie in the file: QuPath would need the slide to say them."""
        self.check_readable(image)
        path = self._data.qpdata(image.entry_id)
        raw = path.read_bytes() if path.exists() else None
        # Of the state that was read, as the objects are.
        self._data.check_unchanged(image.entry_id, image.name)
        return {} if raw is None else read_qpdata(raw).properties

    def _set_properties(self, image: PaquoImage, properties: Mapping[str, str]) -> bool:
        """Set properties of QuPath's image that is to be saved next; tells whether any of them is new."""
        present = self.properties_of(image) if properties else {}
        changes = {key: value for key, value in properties.items() if present.get(key) != value}
        with qupath_errors(image.name):
            for key, value in changes.items():
                image.paquo_image.properties[key] = self._java.String(value)
        return bool(changes)

    def builder_json(self, java_entry: Any) -> dict[str, Any]:
        """The server builder of an entry as it stands in project.qpproj."""
        text = str(self._java.GsonTools.getInstance().toJson(java_entry.getServerBuilder(), self._builder_type()))
        value = orjson.loads(text)
        return value if isinstance(value, dict) else {}

    def _server_builder(self, builder: Mapping[str, Any]) -> Any:
        text = self._java.String(orjson.dumps(dict(builder)).decode())
        return self._java.GsonTools.getInstance().fromJson(text, self._builder_type())

    def _builder_type(self) -> Any:
        return self._class("qupath.lib.images.servers.ImageServerBuilder$ServerBuilder").class_

    def _insert(self, image: PaquoImage, objects: Sequence[PathObject]) -> None:
        """Add objects with what lies in them: those without a parent all at once."""
        hierarchy = image.paquo_image.hierarchy.java_object
        for name in dict.fromkeys(item.path_class for item in objects if item.path_class is not None):
            # A class that QuPath does not know yet gets QuPath's own colour.
            self._java_class(name)
        own = {item.uuid for item in objects}
        above = {item.uuid: item.parent for item in objects if item.parent is not None and item.parent not in own}
        known = {str(o.getID().toString()): o for o in hierarchy.getObjects(None, None)} if above else {}
        at_top = [replace(item, parent=None) if item.uuid in above else item for item in objects]
        stream = self._class("java.io.ByteArrayInputStream")(write_qpdata(QpData(objects=at_top)))
        root = self._java.PathIO.readHierarchy(stream).getRootObject()
        made = list(root.getChildObjects())
        root.clearChildObjects()
        top = self._java.ArrayList()
        for java_object in made:
            parent = above.get(str(java_object.getID().toString()))
            if parent is None:
                top.add(java_object)
            else:
                known[parent].addChildObject(java_object)
        hierarchy.addObjects(top)
        hierarchy.fireHierarchyChangedEvent(hierarchy.getRootObject())

    def _remove(self, image: PaquoImage, uuids: set[str]) -> None:
        hierarchy = image.paquo_image.hierarchy.java_object
        going = self._java.ArrayList()
        for java_object in hierarchy.getObjects(None, None):
            if str(java_object.getID().toString()) in uuids:
                going.add(java_object)
        # Everything inside of them goes too, so nothing has to be kept.
        hierarchy.removeObjects(going, False)

    def _save_image(self, image: PaquoImage, *, expected: int, properties: Mapping[str, str] | None = None) -> None:
        """Let QuPath save one image, and look at what lies in its file then: how many objects, and the properties."""
        current = self._data.check_unchanged(image.entry_id, image.name)
        if current is not None:
            self._data.keep(image.entry_id, current)
        with qupath_errors(image.name):
            image.paquo_image.save()
        self._changed = True  # QuPath may have added the slide's metadata to the entry
        raw = self._data.read(image.entry_id, image.name)
        saved = None if raw is None else read_qpdata(raw)
        found = None if saved is None else len(saved.objects)
        wanted = properties or {}
        if saved is None or found != expected or not wanted.items() <= saved.properties.items():
            beside = f", with {', '.join(wanted)}," if wanted else ""
            raise ProjectError(
                f"{image.name}: {expected} objects{beside} should be saved and {found or 'none'} are in the file; "
                f"QuPath skips the save of a slide that it cannot reach ({image.uri})"
            )
        self._data.mark(image.entry_id, sha256_file(self._data.qpdata(image.entry_id)))

    def _paquo_class(self, path_class: PathClass) -> Any:
        """The class of this full name ("Tumor: Positive"), with its colour."""
        from paquo.classes import QuPathPathClass

        made = QuPathPathClass.from_java(self._java_class(path_class.name))
        if path_class.color is not None:
            # A class that QuPath knows already keeps its colour unless it is set.
            made.color = path_class.color
        return made

    def _java_class(self, name: str) -> Any:
        return self._java.PathClass.fromString(self._java.String(name))

    def _image_type(self, name: str) -> Any:
        from paquo.images import QuPathImageType

        return QuPathImageType[name]

    def _buffered_image(self, data: bytes) -> Any:
        stream = self._class("java.io.ByteArrayInputStream")(data)
        return self._class("javax.imageio.ImageIO").read(stream)

    def _class(self, name: str) -> Any:
        """A Java class that paquo does not list itself."""
        return self._java.JClass(name)

    def _resolve(self, entry: int | ProjectImage) -> PaquoImage:
        return self.image(entry if isinstance(entry, int) else entry.entry_id)

    def _writable(self) -> None:
        if self._read_only:
            raise ProjectError(f"{self.path} was opened to be read only")
