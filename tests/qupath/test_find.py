"""Which QuPath is found, and which backend that makes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from wsi_pipeline.errors import ProjectError
from wsi_pipeline.qupath.find import choose_backend, find_qupath, pair_in_words


def _install(folder: Path, version: str) -> Path:
    (folder / "lib/app").mkdir(parents=True)
    (folder / "lib/app" / f"qupath-core-{version}.jar").touch()
    (folder / "lib/runtime").mkdir()
    (folder / "lib/runtime/release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.7"\n')
    return folder


@pytest.mark.parametrize(
    ("version", "backend"),
    [
        ("0.3.2", "native"),
        ("0.4.4", "paquo"),
        ("0.5.1", "paquo"),
        ("0.6.0", "paquo"),
        ("0.6.0-rc5", "paquo"),
        ("0.7.0", "native"),
    ],
)
def test_auto_takes_paquo_where_it_knows_the_version(tmp_path: Path, version: str, backend: str) -> None:
    folder = _install(tmp_path / "QuPath", version)
    info = find_qupath({"PAQUO_QUPATH_DIR": str(folder)})
    assert (info.qupath_dir, info.qupath_version, info.java_version) == (folder, version, "21.0.7")
    assert info.paquo_version == importlib.metadata.version("paquo")
    assert info.backend == backend
    assert version in info.reason
    assert info.description == f"{version} at {folder}"
    assert choose_backend("auto", info) == backend


def test_a_qupath_without_version_is_not_trusted(tmp_path: Path) -> None:
    folder = _install(tmp_path / "QuPath", "0.6.0")
    (folder / "lib/app/qupath-core-0.6.0.jar").unlink()
    info = find_qupath({"PAQUO_QUPATH_DIR": str(folder)})
    assert (info.backend, info.qupath_version) == ("native", None)


def test_a_variable_that_points_nowhere_is_named(tmp_path: Path) -> None:
    info = find_qupath({"PAQUO_QUPATH_DIR": str(tmp_path / "gone")})
    assert info.backend == "native"
    assert "PAQUO_QUPATH_DIR" in info.reason
    assert info.description.startswith("not found")
    assert str(tmp_path / "gone") in info.reason


def test_a_conda_environment_is_looked_at(tmp_path: Path) -> None:
    folder = _install(tmp_path / "opt/QuPath", "0.6.0")
    assert find_qupath({"CONDA_PREFIX": str(tmp_path)}).qupath_dir == folder


def test_asking_for_what_is_not_there_says_what_is_missing(tmp_path: Path) -> None:
    info = find_qupath({"PAQUO_QUPATH_DIR": str(tmp_path)})
    assert choose_backend("native", info) == "native"
    assert choose_backend("auto", info) == "native"
    with pytest.raises(ProjectError, match="backend: native"):
        choose_backend("paquo", info)
    with pytest.raises(ProjectError, match="java is no backend"):
        choose_backend("java", info)


def test_paquo_has_the_names_that_the_backend_uses() -> None:
    """paquo's own switch for machines without QuPath makes its modules importable, and its Python names real."""
    code = (
        "import inspect\n"
        "from paquo import _config, java, jpype_backend\n"
        "from paquo.classes import QuPathPathClass\n"
        "from paquo.images import QuPathImageType, QuPathProjectImageEntry as Entry\n"
        "from paquo.projects import QuPathProject\n"
        "from wsi_pipeline.qupath import paquo_project\n"
        "names = ('GsonTools', 'PathIO', 'ArrayList', 'String', 'IOException', 'JClass')\n"
        "assert all(hasattr(java, n) for n in names)\n"
        "assert {t.name for t in QuPathImageType} >= {'BRIGHTFIELD_H_E', 'UNSET'}\n"
        "assert all(hasattr(Entry, n) for n in ('entry_id', 'image_name', 'metadata', 'hierarchy', 'save'))\n"
        "assert 'finder_kwargs' in inspect.signature(jpype_backend.start_jvm).parameters\n"
        "assert 'images' in inspect.signature(QuPathProject.save).parameters\n"
        "assert _config.__file__\n"
    )
    environ = {**os.environ, "PAQUO_MOCK_BACKEND": "true"}
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_paquo_toml_that_lies_about_does_not_decide(tmp_path: Path) -> None:
    (tmp_path / ".paquo.toml").write_text('mock_backend = true\nqupath_dir = "/somewhere/else"\n')
    code = (
        "from wsi_pipeline.qupath.paquo_project import use_own_settings\n"
        "use_own_settings()\n"
        "from paquo import settings\nfrom paquo._config import to_kwargs\n"
        "assert settings.mock_backend is False\n"
        "assert to_kwargs(settings)['qupath_dir'] == ''\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_no_jvm_and_no_paquo_are_loaded_by_opening_a_project(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom wsi_pipeline.qupath import create_project, find_qupath\n"
        f"create_project(Path({str(tmp_path / 'p')!r}), 'native').save()\nfind_qupath()\n"
        "assert not {'paquo', 'jpype', 'torch', 'pandas', 'openslide'} & sys.modules.keys()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_pair_is_called_known_only_where_paquos_own_tests_run_it(tmp_path: Path) -> None:
    info = find_qupath({"PAQUO_QUPATH_DIR": str(_install(tmp_path / "QuPath", "0.6.0"))})
    assert pair_in_words(info).startswith("known to work")
    assert not pair_in_words(replace(info, qupath_version="0.7.0")).startswith("known")
    assert "0.6.0" in pair_in_words(replace(info, qupath_version=None))
    assert pair_in_words(replace(info, paquo_version="0.10.0")).startswith("unknown")
    assert pair_in_words(replace(info, paquo_version=None)).startswith("unknown")
