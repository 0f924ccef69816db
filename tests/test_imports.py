"""The walls of the house: who may import what, and how quick the front door opens."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsi_pipeline

ROOT = Path(wsi_pipeline.__file__).parent

# A room may import rooms of a lower number (and itself), never higher ones.
FLOOR = {
    "errors": 0, "objects": 0, "tiling": 0, "states": 0, "rundir": 0, "resources": 0, "start": 0,
    "files": 1, "config": 1, "raster": 1, "progress": 1, "spent": 1, "keys": 1.5, "cohort": 2, "audit": 2,
    "slides": 3, "models": 3, "qupath": 3, "measures": 3,
    "inference": 4, "regions": 5, "handout": 6, "collect": 7, "learning": 7,
    "synthetic": 8, "report": 8, "privacy": 8, "stages": 9, "demo": 10, "cli": 11,
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path, ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    return name.split(".")[0]


def test_imports_run_downward_only() -> None:
    wrong = []
    for name, _, tree in modules():
        if name == "__init__":
            continue
        here = room(name)
        for target in imported(tree):
            if not target.startswith("wsi_pipeline."):
                continue
            there = room(target.removeprefix("wsi_pipeline."))
            if there == here or there not in FLOOR:
                continue
            if FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{name} imports {there}")
    assert not wrong


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name, _, _ in modules()} - {"__init__", "__main__"}
    assert rooms <= set(FLOOR)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("paquo", {"qupath.paquo_project"}),
        ("torch", {"models", "inference", "learning"}),
        ("pandas", {"measures", "agreement", "report"}),
    ],
)
def test_heavy_packages_stay_in_their_rooms(package: str, allowed: set[str]) -> None:
    users = {name for name, _, tree in modules() if any(t.split(".")[0] == package for t in imported(tree))}
    assert {u for u in users if u not in allowed and room(u) not in allowed} == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, wsi_pipeline;"
        "print([m for m in ('torch','numpy','zarr','dask','pandas','jpype','paquo','matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["wsi_pipeline.models", "wsi_pipeline.qupath", "wsi_pipeline.cli.app"])
def test_torch_and_the_jvm_are_loaded_only_when_used(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch','jpype','paquo','pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_is_longer_than_five_hundred_lines() -> None:
    assert {name for name, path, _ in modules() if path.read_text().count("\n") > 500} == set()
