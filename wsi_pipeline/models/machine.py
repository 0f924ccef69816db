"""What this machine is, found without loading torch, and where models keep what is worth keeping."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sysconfig
from functools import cache
from pathlib import Path
from typing import Final

OTHER_NAMES: Final = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")}
"""Distributions that hold the package of another name: ONNX Runtime has one for each kind of device."""


def cache_dir() -> Path:
    """`WSI_PIPELINE_CACHE`, else `wsi-pipeline` in the user's cache folder (`XDG_CACHE_HOME` or `~/.cache`)."""
    own = os.environ.get("WSI_PIPELINE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsi-pipeline"


def available_cores() -> int:
    """Cores that this process may use: the machine's, its affinity, its cgroup's quota; whichever is least."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    quota = _cgroup_quota()
    if quota is not None:
        counts.append(max(1, round(quota)))
    return min(counts)


def _cgroup_quota() -> float | None:
    """Cores that the cgroup (version 2) grants; None where it does not limit them."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(limit) / float(period)
    except (OSError, ValueError):  # no cgroup, or "max"
        return None


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_name() -> str:
    """The processor, with family, model and stepping: virtual machines call very different ones by one name."""
    info = _cpuinfo()
    if not info:
        return platform.processor() or platform.machine()
    return " ".join(info.get(key, "?") for key in ("model name", "cpu family", "model", "stepping"))


def cpu_features() -> str:
    """What instructions the processor offers: virtual machines hide some that others of the same name have."""
    return " ".join(sorted((_cpuinfo().get("flags") or _cpuinfo().get("Features", "")).split()))


def has_fast_bf16() -> bool:
    """Whether the processor has AMX; without it bf16 is slower than fp32 by a factor."""
    return "amx_bf16" in _cpuinfo().get("flags", "").split()


def may_have_cuda() -> bool:
    """Whether it is worth loading torch to ask for a GPU: a CUDA build, and a driver."""
    version = installed("torch") or ""
    driver = Path("/proc/driver/nvidia/version").exists() or platform.system() == "Windows" or _is_wsl()
    return driver and not version.endswith("+cpu")


def _is_wsl() -> bool:
    return Path("/dev/dxg").exists()


def installed(distribution: str) -> str | None:
    """Version of an installed distribution, read from its metadata without loading it; None when it is absent."""
    if importlib.util.find_spec(distribution.replace("-", "_")) is None:
        return None
    for name in (distribution, *OTHER_NAMES.get(distribution, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def compiler_missing(kind: str = "cpu") -> str | None:
    """Why torch.compile cannot work here, in words; None: it has what it needs to make code for this kind of device."""
    compiler = os.environ.get("CXX", "clang++" if platform.system() == "Darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler})"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Python's headers are missing (python3-dev)"
    if kind != "cpu" and installed("triton") is None:
        return "Triton is missing, which makes code for GPUs (pip install triton)"
    return None


def gpu_name(device: str) -> str | None:
    """What computes on "cuda:N", with its memory and the versions of CUDA and driver; None for "cpu". Loads torch."""
    if device == "cpu":
        return None
    import torch

    there = torch.cuda.get_device_properties(device)
    try:
        driver = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        driver = "?"
    return f"{there.name} {there.major}.{there.minor} {there.total_memory} {torch.version.cuda} {driver}"
