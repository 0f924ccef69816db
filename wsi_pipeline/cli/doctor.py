"""`doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from wsi_pipeline.cli.arguments import AsJson
from wsi_pipeline.cli.console import print_json, print_table

ModelPath = Annotated[
    str, typer.Option("--model", metavar="PATH", help="Also measure how this model runs fastest here.")
]


def doctor(model: ModelPath = "", as_json: AsJson = False) -> None:
    """What this machine has, and what the program will use."""
    facts = _facts()
    if model:
        from wsi_pipeline.models import choose_runtime

        choice = choose_runtime(model)
        facts[f"runtime for {model}"] = choice.to_json() if as_json else choice.reason
    if as_json:
        print_json(facts)
        return
    print_table(("what", "found"), [(name, _in_words(value)) for name, value in facts.items()])


def _in_words(value: Any) -> Any:
    return ("\n".join(value) or "none yet: --model measures one") if isinstance(value, list) else value


def _compiling() -> str:
    from wsi_pipeline.models.machine import compiler_missing

    missing = compiler_missing()
    return "there is a C++ compiler: tried with each U-Net" if missing is None else f"not tried: {missing}"


def _facts() -> dict[str, Any]:
    from wsi_pipeline.models.machine import available_cores, cache_dir, cpu_name, installed, may_have_cuda
    from wsi_pipeline.models.runtime import kept_choices
    from wsi_pipeline.qupath import find_qupath
    from wsi_pipeline.qupath.find import ENV_DIR, jpype_version, pair_in_words
    from wsi_pipeline.stages.state import versions

    qupath = find_qupath()
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return {
        **versions(),
        "openvino": installed("openvino")
        or "not installed: pip install 'wsi-pipeline[openvino]' (faster on most CPUs)",
        "torch.compile": _compiling(),
        "s3fs": installed("s3fs") or "not installed: pip install 'wsi-pipeline[s3]' to read s3://",
        "gcsfs": installed("gcsfs") or "not installed: pip install 'wsi-pipeline[gcs]' to read gs://",
        "machine": f"{platform.system()} {platform.machine()}, {cpu_name()}, {available_cores()} cores",
        "CUDA": "a driver is there" if may_have_cuda() else "none found: models run on the CPU",
        "free disk here": f"{free:.1f} GB",
        "model cache": str(cache_dir()),
        "runtimes measured here": [f"{name}: {choice.reason}" for name, choice in kept_choices()],
        "paquo": qupath.paquo_version or "not installed",
        "QuPath": f"{qupath.qupath_version} in {qupath.qupath_dir}"
        if qupath.qupath_dir
        else f"not found (not needed by the native backend; `make qupath` fetches one, {ENV_DIR} points to one)",
        "Java": f"{qupath.java_version} (QuPath's own)"
        if qupath.java_version
        else "not found (not needed by the native backend)",
        "jpype": jpype_version() or "not installed (only paquo needs it)",
        "paquo with QuPath": pair_in_words(qupath),
        "QuPath projects by": f"{qupath.backend}: {qupath.reason}",
        "extra test data": os.environ.get("WSI_PIPELINE_TESTDATA", "none (only for development)"),
    }
