"""Memory that runs out, on whatever device and told by whatever library: the batch is halved, and the run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tests.models.nets import texture, tumor_card
from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.halving import HalvingBatches, is_out_of_memory
from wsi_pipeline.models.net_segmenter import NetSegmenter
from wsi_pipeline.models.runtime import probe
from wsi_pipeline.models.torch_runtime import TorchSegmenter

ROOT = Path(__file__).parents[2]
Floats = NDArray[np.float32]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.OutOfMemoryError("Tried to allocate 20 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("The following operation failed in the TorchScript interpreter.\n"
                      "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (Exception("[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal(): Failed to allocate memory for requested"),
         True),
        (RuntimeError("Sizes of tensors must match"), False),
        (ModelError("the device's memory does not hold one window; out of memory"), False),
    ],
)  # fmt: skip
def test_memory_that_ran_out_is_known_however_it_is_told(error: Exception, wanted: bool) -> None:
    assert is_out_of_memory(error) == wanted


@given(count=st.integers(1, 40), limit=st.integers(1, 40), most=st.one_of(st.none(), st.integers(1, 9)))
def test_halving_loses_no_image_and_keeps_the_order(count: int, limit: int, most: int | None) -> None:
    freed = []

    def run(part: slice) -> list[int]:
        assert most is None or part.stop - part.start <= most
        if part.stop - part.start > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(part.start, part.stop))

    parts = HalvingBatches(lambda: freed.append(1)).run_slices(run, (count, 8, 8, 3), most=most)
    assert [value for part in parts for value in part] == list(range(count))
    assert bool(freed) == (min(count, most or count) > limit)


def test_another_error_passes_and_halves_nothing() -> None:
    calls = []

    def run(part: slice) -> None:
        calls.append(part)
        raise RuntimeError("Sizes of tensors must match")

    with pytest.raises(RuntimeError, match="Sizes"):
        HalvingBatches().run_slices(run, (4, 8, 8, 3))
    assert len(calls) == 1


def test_what_the_failed_try_held_is_gone_before_the_next_one() -> None:
    """Activations live in the frames of the error: kept, they would fill the memory that the next try needs."""
    import weakref

    held: list[weakref.ref[nn.Module]] = []

    def run(part: slice) -> int:
        assert all(reference() is None for reference in held)
        activations = nn.Identity()
        held.append(weakref.ref(activations))
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1

    assert HalvingBatches().run_slices(run, (4, 8, 8, 3)) == [1] * 4


def test_one_image_waits_for_the_memory_that_other_threads_hold() -> None:
    """Each thread alone fits; two at once do not."""
    batches, running, lock = HalvingBatches(), [0], threading.Lock()
    both = threading.Barrier(3)

    def run(part: slice) -> int:
        with lock:
            running[0] += 1
            crowded = running[0] > 1
        try:
            if not batches._one_alone:
                both.wait(20)
                raise torch.OutOfMemoryError("CUDA out of memory")
            assert not crowded
            return 7
        finally:
            with lock:
                running[0] -= 1

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: batches.run_slices(run, (1, 8, 8, 3)), range(3))) == [[7]] * 3


def test_one_image_that_never_fits_is_an_error_and_the_next_one_is_tried() -> None:
    batches = HalvingBatches()

    def fails(part: slice) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for _ in range(2):
        with pytest.raises(ModelError, match=r"memory does not hold one window of 16 x 8 px; set a smaller `inference"):
            batches.run_slices(fails, (3, 8, 16, 3))
    assert batches.run_slices(lambda part: 1, (1, 8, 16, 3)) == [1]


def test_models_by_numpy_halve_too_and_those_of_one_network_together() -> None:
    seen: list[int] = []

    def net(x: Floats) -> Floats:
        seen.append(len(x))
        if len(x) > 2:
            raise Exception("Failed to allocate memory for requested buffer of size 1073741824")
        return np.concatenate([x[:, :1] - 0.5, 0.5 - x[:, :1]], axis=1)

    images = np.concatenate([probe(tumor_card(), seed=seed, side=64) for seed in range(5)])
    segmenter = NetSegmenter(tumor_card(), net, runtime="onnxruntime")
    maps = segmenter.predict(images)
    assert seen == [5, 2, 2, 1]
    one_by_one = [segmenter.predict(images[i : i + 1]).probability for i in range(5)]
    np.testing.assert_array_equal(maps.probability, np.concatenate(one_by_one))


HUNGRY = """
import resource, sys, torch
import numpy as np
from tests.models.nets import tumor_card, texture
from wsi_pipeline.models import load_segmenter
from wsi_pipeline.models.load import load_card

segmenter = load_segmenter(sys.argv[1], device="cpu", runtime="torch", precision="fp32", threads=1)
images = np.stack([texture(128, 128, seed) for seed in range(16)])
expected = np.concatenate([segmenter.predict(image[None]).probability for image in images])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20, resource.RLIM_INFINITY))
found = segmenter.predict(images).probability
assert np.abs(found.astype(int) - expected).max() <= 1
print(segmenter._batches._most_pixels // 128**2)
"""


class Wide(nn.Module):
    """2,000 channels for a moment: 131 MB for an image of 128 px."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Conv2d(3, 2000, 1), nn.Conv2d(2000, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.wide(x))
        return y


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.slow
def test_torchscript_that_really_runs_out_of_memory_goes_on_with_less(tmp_path: Path) -> None:
    """A process with 500 MB to spare, and a network that asks for 2 GB: torch tells it as a plain RuntimeError."""
    from tests.models import saved

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved.save_torchscript(tmp_path / "m.pt", Wide())
    saved.write_card(tmp_path, "torchscript", "m.pt", halo=0, stride=1)
    environment = {**os.environ, "WSI_PIPELINE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", HUNGRY, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 1 <= int(done.stdout) < 16


# ---- with a GPU


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, which this machine does not have")


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_the_map_of_the_processor(precision: str) -> None:
    from tests.models.nets import contrasty_unet

    images = np.concatenate([probe(tumor_card(), seed=seed, side=256) for seed in range(5)])
    plain = TorchSegmenter(tumor_card(), contrasty_unet()).predict(images).probability.astype(int)
    segmenter = TorchSegmenter(tumor_card(), contrasty_unet(), device="cuda:0", precision=precision)
    with ThreadPoolExecutor(4) as pool:
        for maps in pool.map(segmenter.predict, [images] * 8):
            assert np.abs(maps.probability - plain).max() <= 255 * 0.02 + 1


@gpu
def test_a_gpu_that_is_really_full_halves_the_batch() -> None:
    net = Wide()
    segmenter = TorchSegmenter(tumor_card(halo=0, stride=1), net, device="cuda:0")
    images = np.stack([texture(128, 128, seed) for seed in range(16)])
    expected = segmenter.predict(images[:1]).probability
    free, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((whole - free + 600 * 2**20) / whole)
    try:
        found = segmenter.predict(images).probability
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.abs(found[:1].astype(int) - expected).max() <= 1
    assert segmenter._batches._most_pixels is not None


@gpu
@pytest.mark.slow
def test_code_made_for_a_gpu_gives_the_map_of_the_processor() -> None:
    from tests.models.nets import contrasty_unet
    from wsi_pipeline.models.machine import compiler_missing

    missing = compiler_missing("cuda")
    if missing is not None:
        pytest.skip(f"torch.compile: {missing}")
    images = np.concatenate([probe(tumor_card(), seed=seed, side=256) for seed in range(5)])
    plain = TorchSegmenter(tumor_card(), contrasty_unet()).predict(images).probability.astype(int)
    segmenter = TorchSegmenter(tumor_card(), contrasty_unet(), device="cuda:0", compile_net=True)
    for part in (slice(0, 5), slice(0, 1), slice(2, 5)):
        found = segmenter.predict(images[part]).probability
        assert np.abs(found - plain[part]).max() <= 255 * 0.02 + 1
