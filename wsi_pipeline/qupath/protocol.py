"""What both backends can do: a QuPath project and its images, in level-0 pixels.

Two implementations keep to it and pass the same contract tests: `native_project` (no JVM) and `paquo_project`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from wsi_pipeline.objects import PathClass, PathObject
from wsi_pipeline.tiling import Bounds

# (a, b, d, e, xoff, yoff), as shapely.affinity takes it: x' = a x + b y + xoff and y' = d x + e y + yoff.
Affine = tuple[float, float, float, float, float, float]
IDENTITY: Affine = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)


class LevelLike(Protocol):
    """A level of a slide's pyramid; sizes in pixels of that level."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def downsample(self) -> float: ...


class Replaced(NamedTuple):
    """What `replace_run_objects` did: how many objects went, and how many a person had touched and therefore stay."""

    replaced: int
    kept: int


class ImageData(NamedTuple):
    """What an image's data.qpdata holds: objects in level-0 px, and the properties that are texts.

    QuPath keeps properties that it does not know through opening and saving; they go where the objects go.
    """

    objects: list[PathObject]
    properties: Mapping[str, str]


class ProjectImage(Protocol):
    """One image of a project. Its identity is `entry_id`; names need not be unique in a foreign project."""

    @property
    def entry_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def uri(self) -> str:
        """URI of the slide, percent-encoded, as the project states it."""

    @property
    def description(self) -> str | None: ...
    @property
    def metadata(self) -> Mapping[str, str]:
        """What QuPath shows beside the image; a copy."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in QuPath's own frame, in px; None when the project does not state them."""

    @property
    def image_type(self) -> str:
        """QuPath's name of the image type (`BRIGHTFIELD_H_E`); `UNSET` for an image that nobody opened."""

    @property
    def affine(self) -> Affine:
        """From QuPath's px to level-0 px.

        Raises `ProjectError` when the project shows the slide in a frame that is not known (see `affine`).
        """

    def read_objects(self) -> list[PathObject]:
        """All objects, depth first in file order, in level-0 px. Damaged data is an error, never an empty list."""

    def read(self) -> ImageData:
        """The objects as of `read_objects` and the properties, of one state of the file."""


class Project(Protocol):
    """A QuPath project that is open.

    Objects of an image are on disk, and read back, when a method that writes them returns; what stands in
    project.qpproj and classes.json (images, metadata, classes) is written by `save`. Where nothing changes, no byte
    of any file changes. A project that was opened with `read_only` never creates or changes a file, and its writing
    methods raise `ProjectError`.
    """

    @property
    def path(self) -> Path:
        """The project file (`project.qpproj`)."""

    @property
    def backend(self) -> str:
        """`native` or `paquo`."""

    @property
    def read_only(self) -> bool: ...
    @property
    def path_classes(self) -> tuple[PathClass, ...]:
        """The project's class list with its colours; assign to replace it."""

    @path_classes.setter
    def path_classes(self, classes: Iterable[PathClass]) -> None: ...

    def images(self) -> tuple[ProjectImage, ...]:
        """All images in the project's order."""

    def image(self, entry_id: int) -> ProjectImage:
        """The image with this id; `ProjectError` when there is none."""

    def find(self, *, uri: str | None = None, name: str | None = None) -> ProjectImage | None:
        """The image at a URI (compared decoded, so that `file:/x` is `file:///x`), or of a name, or of both.

        None when there is none; `ProjectError` when several fit.
        """

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
    ) -> ProjectImage:
        """Add a slide, so that QuPath opens it without a question and shows it in level-0 px.

        Parameters
        ----------
        uri
            `file:` or `http(s):` URI of the slide as the pathologist's machine sees it; a local path is taken too.
        name
            Shown in QuPath; must not be there already.
        size
            Width and height of level 0 in px.
        mpp, mpp_source
            µm per level-0 px; with the source `config` QuPath is told this value instead of the file's own.
        levels
            The slide's pyramid; needed only with the source `config`.
        crop
            The slide's `openslide.bounds`, to which QuPath would crop; it is told not to.
        image_type
            As in the configuration (`brightfield_h_e`) or in QuPath (`BRIGHTFIELD_H_E`).
        thumbnail
            uint8 (h, w, 3), RGB.
        here
            Address of the same slide on this machine, where `uri` is that of another one: what the project has to
            state of the slide is asked there.
        """

    def set_metadata(self, entry: int | ProjectImage, metadata: Mapping[str, str]) -> None:
        """Set these keys of an image's metadata; other keys stay."""

    def add_objects(
        self,
        entry: int | ProjectImage,
        objects: Iterable[PathObject],
        *,
        properties: Mapping[str, str] | None = None,
    ) -> int:
        """Add objects (level-0 px). One whose uuid is there already is left as it is; returns how many were added.

        `properties` are set in the same write: a state of the file has the objects and the properties, or neither.
        """

    def replace_run_objects(
        self,
        entry: int | ProjectImage,
        run_id: str,
        objects: Iterable[PathObject],
        snapshot: Iterable[PathObject],
        *,
        properties: Mapping[str, str] | None = None,
    ) -> Replaced:
        """Put new predictions in the place of those of run `run_id` that nobody has touched.

        Parameters
        ----------
        objects
            What comes in, in level-0 px.
        snapshot
            What was handed out, in level-0 px. An object of the run goes only when it is in the snapshot and still has
            that shape, class, name and lock, and when no object of another origin is nested in it. An object of the
            snapshot that is no longer in the project was deleted by a person: it does not come back.
        properties
            Set in the same write as the objects.
        """

    def save(self) -> None:
        """Write project.qpproj and classes.json if anything in them changed."""
