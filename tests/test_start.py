"""What a command loads before it does anything: counted in modules, because seconds differ from machine to machine."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from contextlib import suppress

import pytest

from wsi_pipeline.start import loading

SLOW = set(
    [
        "torch",
        "openvino",
        "distributed",
        "dask",
        "pandas",
        "matplotlib",
        "scipy",
        "zarr",
        "pyarrow",
        "skimage",
        "jpype",
        "paquo",
        "IPython",
        "bokeh",
        "shapely",
    ]
)
# Of what is slow to load, all that each may have, and about how many modules that is in all.
ALLOWED = {
    "wsi_pipeline.models": ({"shapely"}, 500),
    "wsi_pipeline.inference": ({"shapely", "zarr"}, 650),
    "wsi_pipeline.stages.predict": ({"shapely", "zarr"}, 700),
}


@pytest.mark.parametrize("module", ALLOWED)
def test_a_module_loads_nothing_slow_but_what_it_needs(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    allowed, most = ALLOWED[module]
    assert set(loaded) & SLOW <= allowed
    assert len(loaded) < most


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("3", "3")])
def test_the_command_starts_no_threads_for_linear_algebra_unless_told_so(before: str | None, after: str) -> None:
    code = (
        "import os, sys\nfrom wsi_pipeline.cli import main\nsys.argv = ['wsi-pipeline', '--version']\n"
        "assert 'numpy' not in sys.modules\n"
        "try:\n    main()\nfinally:\n    print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if before is not None:
        environment["OPENBLAS_NUM_THREADS"] = before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[-1] == after


@pytest.mark.parametrize("on", [True, False])
def test_no_cycles_are_looked_for_while_modules_load_and_then_it_is_as_before(on: bool) -> None:
    looked: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        looked.append(phase)

    made: list[list[int]] = []
    during = -1
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    gc.callbacks.append(note)
    try:
        with suppress(ImportError), loading():
            looked.clear()
            # Far more objects than Python lets pass unseen.
            made += [[] for _ in range(5 * gc.get_threshold()[0])]
            during = len(looked)
            raise ImportError("a module that is not there")
        assert during == 0
        assert gc.isenabled() == on
    finally:
        gc.callbacks.remove(note)
        (gc.enable if before else gc.disable)()


def test_the_command_looks_for_cycles_again_once_it_is_loaded() -> None:
    code = (
        "import gc, sys\nfrom wsi_pipeline.cli import main\nsys.argv = ['wsi-pipeline', '--version']\n"
        "try:\n    main()\nfinally:\n    print(gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "True"


def test_what_finishes_a_slide_is_loaded_only_when_there_is_one() -> None:
    code = "import sys, wsi_pipeline.stages.predict; print('wsi_pipeline.stages.finish' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
