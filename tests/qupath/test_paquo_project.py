"""What of the paquo backend can be checked without a JVM: paquo's and QuPath's names, and what is ours."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import jpype
import pytest

from wsi_pipeline.errors import ProjectChanged, ProjectError
from wsi_pipeline.objects import PathClass
from wsi_pipeline.qupath import paquo_project
from wsi_pipeline.qupath.paquo_project import qupath_errors, same_classes

SPEC = importlib.util.find_spec("paquo")
assert SPEC is not None
assert SPEC.origin is not None
PAQUO = Path(SPEC.origin).parent
OURS = ast.parse(Path(paquo_project.__file__).read_text(encoding="utf-8"))


def _methods(module: str, kind: str) -> set[str]:
    """Names that a class of paquo defines."""
    tree = ast.parse((PAQUO / module).read_text(encoding="utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind]
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return defined | {
        node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _attributes(of: str) -> set[str]:
    """Names that our module takes from everything written as `of` (`self._project`)."""
    return {node.attr for node in ast.walk(OURS) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == of}


def test_every_java_class_that_we_take_from_paquo_is_there() -> None:
    text = (PAQUO / "java.py").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(\w+) = JClass\(", text, re.MULTILINE)) | {"JClass"}
    used = _attributes("self._java")
    assert {"GsonTools", "PathIO", "String", "ArrayList"} <= used <= listed


def test_every_member_that_we_use_is_one_of_paquos() -> None:
    project = _methods("projects.py", "QuPathProject")
    used = {node.attr for node in ast.walk(OURS) if isinstance(node, ast.Attribute) and _is_paquos_project(node)}
    assert {"java_object", "images", "path", "path_classes", "save"} <= used <= project
    image = _methods("images.py", "QuPathProjectImageEntry")
    found = {attr for of in ("self.paquo_image", "image.paquo_image", "paquo_image") for attr in _attributes(of)}
    assert {"java_object", "entry_id", "image_name", "metadata", "image_type", "hierarchy", "save"} <= found <= image


def _is_paquos_project(node: ast.Attribute) -> bool:
    """`self._project.x` in PaquoProject; in PaquoImage the same words are our own project."""
    own = {"builder_json", "check_readable", "objects_in_frame", "properties_of"}
    return ast.unparse(node.value) == "self._project" and node.attr not in own


def test_what_we_ask_of_a_class_and_a_type_is_paquos() -> None:
    assert {"from_java", "id", "color"} <= _methods("classes.py", "QuPathPathClass")
    assert "to_rgb" in _methods("colors.py", "QuPathColor")
    assert "BRIGHTFIELD_H_E = " in (PAQUO / "images.py").read_text(encoding="utf-8")
    start = next(
        node
        for node in ast.parse((PAQUO / "jpype_backend.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name == "find_qupath"
    )
    assert {"qupath_dir", "java_opts"} <= {argument.arg for argument in start.args.kwonlyargs}


@pytest.mark.parametrize("error", [OSError("gone\nstack"), ValueError("gone"), RuntimeError("gone")])
def test_what_paquo_raises_is_one_line_about_the_image(error: Exception) -> None:
    with pytest.raises(ProjectError, match=r"^slide 1: QuPath says: gone$") as caught, qupath_errors("slide 1"):
        raise error
    assert caught.value.__cause__ is error


def test_an_error_of_our_own_stays_as_it_is() -> None:
    # Every exception of Java is a JException; one can be made only where a JVM runs.
    assert issubclass(jpype.JException, Exception)
    own = ProjectChanged("changed")
    with pytest.raises(ProjectChanged) as caught, qupath_errors("slide 1"):
        raise own
    assert caught.value is own


def test_a_class_list_that_is_there_is_not_written_again() -> None:
    red, any_red = PathClass("Tumor", (255, 0, 0)), PathClass("Tumor", None)
    stroma = PathClass("Stroma", (0, 255, 0))
    assert same_classes([any_red, stroma], [red, stroma])
    assert same_classes([], [])
    assert not same_classes([red], [PathClass("Tumor", (254, 0, 0))])
    assert not same_classes([red, stroma], [stroma, red])
    assert not same_classes([red], [red, stroma])
