"""What a command loads before it does anything: counted in modules, because seconds differ from machine to machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

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
