"""QuPath projects: one protocol, a native backend without a JVM, and a backend through paquo.

`create_project` and `open_project` are all that the rest of the package calls. Backends are loaded when they are used.
"""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.qupath.find import QuPathInfo, choose_backend, find_qupath
from wsi_pipeline.qupath.geojson import read_geojson, write_geojson
from wsi_pipeline.qupath.protocol import IDENTITY, Affine, ImageData, Project, ProjectImage, Replaced

__all__ = [
    "IDENTITY",
    "Affine",
    "ImageData",
    "Project",
    "ProjectImage",
    "QuPathInfo",
    "Replaced",
    "create_project",
    "find_qupath",
    "open_project",
    "read_geojson",
    "write_geojson",
]


def create_project(path: Path, backend: str = "auto") -> Project:
    """A new, empty QuPath project.

    Parameters
    ----------
    path
        Its folder (or the .qpproj to be); `ProjectError` when there is a project already.
    backend
        `auto`, `native` or `paquo`; `auto` takes paquo where a QuPath is installed that it supports.
    """
    if choose_backend(backend) == "paquo":
        from wsi_pipeline.qupath.paquo_project import PaquoProject

        return PaquoProject.create(path)
    from wsi_pipeline.qupath.native_project import NativeProject

    return NativeProject.create(path)


def open_project(path: Path, backend: str = "auto", *, read_only: bool = False) -> Project:
    """An existing QuPath project, by its folder or its .qpproj.

    Parameters
    ----------
    read_only
        Nothing below the project's folder is created or changed. `auto` then stands for the native backend, which
        reads a project that QuPath has open.
    """
    if backend == "auto" and read_only:
        backend = "native"
    if choose_backend(backend) == "paquo":
        from wsi_pipeline.qupath.paquo_project import PaquoProject

        return PaquoProject.open(path, read_only=read_only)
    from wsi_pipeline.qupath.native_project import NativeProject

    return NativeProject.open(path, read_only=read_only)
