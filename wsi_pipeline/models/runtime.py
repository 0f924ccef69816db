"""Choosing how a model runs on this machine: by a short measurement, kept per machine and model."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError, StoreError
from wsi_pipeline.files import read_json, write_json
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.machine import (
    available_cores,
    cache_dir,
    compiler_missing,
    cpu_features,
    cpu_name,
    gpu_name,
    has_fast_bf16,
    installed,
    may_have_cuda,
)
from wsi_pipeline.models.segmenter import Segmenter

_log = logging.getLogger(__name__)

# In the order in which they are measured; each is compared with the first.
RUNTIMES: Final = ("torch", "openvino", "torch.compile")
PRECISIONS: Final = ("fp32", "bf16", "fp16")
TOLERANCE: Final = 0.02
"""Largest difference of a probability from torch in fp32 that a way of running may have."""
WORK_MPX: Final = 1000
"""What a way costs before its first window is spread over this much work: a few slides, or a large one."""
COMPILING_GAINS: Final = 1.5
"""torch.compile was never seen to gain more over torch: where another way is so much faster, it is not tried."""
BATCHES: Final = (1, 2, 4)
BATCH_GAINS: Final = 1.1
"""Several windows at once must be faster than one at a time by so much."""
FEWEST_CORES: Final = 4
"""With fewer there is nothing to choose between: half of them would leave the others idle."""
THREADS_GAIN: Final = 1.05
"""Half the threads must be faster than all by so much."""
LARGEST_WINDOW: Final = 1024
"""Several windows together have at most the pixels of one of this side, so that they take no more memory."""
BATCH_SIDE: Final = 384
"""Windows of about this side are measured together: those of the engine that can be are the small ones."""
GPU_WINDOWS: Final = 16
"""Windows that a GPU is measured with."""
_FAILING: Final = (ModelError, RuntimeError, ImportError, OSError, ValueError, TypeError, AttributeError, KeyError)
"""What a way may fail with: a processor without what a precision needs, a library that does not load, ..."""
_SECONDS: Final = 0.8
"""Wall seconds that each way is measured for, once it is warm."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of running a model; `batch` windows at once on a CPU (a GPU takes what its memory holds)."""

    runtime: str
    device: str
    precision: str
    batch: int = 1

    def __str__(self) -> str:
        together = f", {self.batch} windows at once" if self.batch > 1 else ""
        return f"{self.runtime} {self.precision} on {self.device}{together}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """How one way did: Mpx per wall second, and its largest distance from torch in fp32 (0..1).

    `start_s` is what it took before, in wall seconds, where that counts: compiling.
    """

    way: Way
    mpx_per_s: float
    difference: float
    refused: str | None = None
    start_s: float = 0.0

    @property
    def worth(self) -> float:
        """Mpx per wall second over `WORK_MPX`, the start included."""
        return WORK_MPX / (WORK_MPX / self.mpx_per_s + self.start_s) if self.mpx_per_s else 0.0

    def __str__(self) -> str:
        if self.refused is not None:
            return f"{self.way.runtime} {self.way.precision} {self.refused}"
        start = f" after {self.start_s:.0f} s of compiling" if self.start_s else ""
        together = f" with {self.way.batch} windows at once" if self.way.batch > 1 else ""
        return f"{self.way.runtime} {self.way.precision} {self.mpx_per_s:.2f}{together}{start}"


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """How a model will run, and why; goes into run.json and `doctor`.

    Attributes
    ----------
    reason
        One plain sentence.
    measurements
        Empty where there was nothing to choose from.
    cached
        Whether the measurement is an older one of the same machine, model and versions.
    threads
        All cores, or half of them where nobody asked for a number and that was measured to be faster.
    batch
        Windows of one size that a CPU computes at once.
    """

    runtime: str
    device: str
    precision: str
    threads: int
    reason: str
    measurements: tuple[Measurement, ...] = ()
    cached: bool = False
    batch: int = 1

    def to_json(self) -> dict[str, Any]:
        """JSON values; `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> RuntimeChoice:
        measured = tuple(Measurement(**{**m, "way": Way(**m["way"])}) for m in raw["measurements"])
        return cls(**{**raw, "measurements": measured})


_ABOUT: Final = ("model", "machine")
"""What a kept choice says beside itself, for people."""

Opener = Callable[[Way, int], Segmenter]
"""Loads a model in one way with so many threads."""


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda:N" for "auto", "cpu", "cuda" or "cuda:N"; torch is loaded only where a GPU may be.

    Raises
    ------
    ModelError
        Unknown, or not there.
    """
    if device == "cpu" or (device == "auto" and not may_have_cuda()):
        return "cpu"
    kind, _, index = device.partition(":")
    if device != "auto" and (kind != "cuda" or (index and not index.isdigit())):
        raise ModelError(f"unknown device {device!r}; known here: auto, cpu, cuda, cuda:0, cuda:1, ...")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto" and not count:
        return "cpu"
    number = int(index or 0)
    if number >= count:
        raise ModelError(
            f"device {device} is not there: torch {torch.__version__} sees {count} GPUs; use `device: auto`"
        )
    return f"cuda:{number}"


def ways(device: str, runtime: str = "auto", precision: str = "auto") -> tuple[Way, ...]:
    """What can be tried on a resolved device for a wish, torch in fp32 first where the wish allows it.

    Raises
    ------
    ModelError
        Nothing fits the wish; says what is missing.
    """
    _known("runtime", runtime, RUNTIMES)
    _known("precision", precision, PRECISIONS)
    if runtime == "openvino" and installed("openvino") is None:
        raise ModelError(
            "runtime openvino is not installed; `pip install 'wsi-pipeline[openvino]'`, or `runtime: auto`"
        )
    kind = device.partition(":")[0]
    if kind != "cpu" and runtime == "openvino":
        raise ModelError(f"runtime openvino runs on the CPU only, not on {device}; use `runtime: torch`")
    if runtime == "torch.compile" and (missing := compiler_missing(kind)) is not None:
        raise ModelError(f"runtime torch.compile: {missing}; install it, or use `runtime: auto`")
    runtimes = [r for r in RUNTIMES if runtime in ("auto", r) and _there(r, kind)]
    # Without AMX bf16 loses by a factor of five, and fp16 is emulated on all CPUs: not worth the measurement.
    worth = [p for p in PRECISIONS if p == precision or (precision == "auto" and (p == "fp32" or _fast(p, kind)))]
    # Compiling comes last: only the precision that is the fastest without it is worth that.
    plain = [Way(r, device, p) for p in worth for r in runtimes if r != "torch.compile"]
    return (*plain, *(Way(r, device, p) for p in worth for r in runtimes if r == "torch.compile"))


def _there(runtime: str, kind: str) -> bool:
    if runtime == "torch.compile":
        return compiler_missing(kind) is None
    return installed(runtime) is not None and (kind == "cpu" or runtime == "torch")


def _known(what: str, value: str, known: Sequence[str]) -> None:
    if value not in ("auto", *known):
        raise ModelError(f"unknown {what} {value!r}; known here: auto, {', '.join(known)}")


def _fast(precision: str, kind: str) -> bool:
    return kind != "cpu" or (precision == "bf16" and has_fast_bf16())


def choose(
    card: ModelCard,
    open_way: Opener,
    *,
    device: str,
    runtime: str,
    precision: str,
    threads: int | None,
    refresh: bool,
    find_ways: Callable[[str, str, str], Sequence[Way]] = ways,
) -> RuntimeChoice:
    """The fastest way of `find_ways` whose map agrees with torch in fp32; see `load.choose_runtime`.

    ONNX models run without torch: what their first way gives is the reference.
    """
    device = resolve_device(device)
    asked_threads, threads = threads, threads or available_cores()
    candidates = find_ways(device, runtime, precision)
    if len(candidates) == 1:
        only = candidates[0]
        asked = "as asked" if "auto" not in (runtime, precision) else "the only way to run here"
        return RuntimeChoice(only.runtime, only.device, only.precision, threads, f"{only}: {asked}")
    kept = _choice_file(card, candidates, asked_threads)
    known = None if refresh else _read_choice(kept)
    if known is not None:
        return known
    chosen = _fastest(_measure_all(card, candidates, open_way, threads), threads)
    if chosen.device == "cpu" and chosen.runtime != "torch.compile":
        if asked_threads is None:
            chosen = _with_threads(card, chosen, open_way)
        chosen = _with_batch(card, chosen, open_way)
    try:
        write_json(kept, {**chosen.to_json(), "cached": True, "model": card.name, "machine": cpu_name()})
    except StoreError as error:
        _log.warning("the choice of runtime cannot be kept: %s", error)
    return chosen


def _choice_file(card: ModelCard, candidates: Sequence[Way], threads: int | None) -> Path:
    versions = [installed(name) for name in ("torch", "openvino", "onnxruntime", "wsi-pipeline")]
    machine = [cpu_name(), cpu_features(), available_cores(), threads, gpu_name(candidates[0].device)]
    said = card.dump()
    for name in ("notes", "licence", "trained_on", "appearance", "structure"):
        said.pop(name, None)
    key = [machine, said, versions]
    text = json.dumps([*key, [asdict(way) for way in candidates]], sort_keys=True)
    return cache_dir() / "runtime" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def kept_choices() -> list[tuple[str, RuntimeChoice]]:
    """Name of the model and choice of each measurement that is kept of this processor, by name."""
    found = []
    for path in sorted((cache_dir() / "runtime").glob("*.json")):
        choice = _read_choice(path)
        about = read_json(path) if choice is not None else {}
        if choice is not None and about.get("machine") == cpu_name():
            found.append((str(about.get("model", "?")), choice))
    return sorted(found, key=lambda item: (item[0], item[1].reason))


def _read_choice(path: Path) -> RuntimeChoice | None:
    if not path.is_file():
        return None
    try:
        raw = read_json(path)
        return RuntimeChoice.from_json({k: v for k, v in raw.items() if k not in _ABOUT})
    except (StoreError, KeyError, TypeError) as error:
        _log.warning("the kept choice of runtime %s is damaged (%s); measuring again", path, error)
        return None


def _measure_all(card: ModelCard, candidates: Sequence[Way], open_way: Opener, threads: int) -> list[Measurement]:
    images = probe(card)
    first = candidates[0].runtime if card.architecture == "onnx" else "torch"
    reference = open_way(Way(first, "cpu", "fp32"), threads).predict(images).probability
    found: list[Measurement] = []
    for way in candidates:
        found.append(_measure_one(way, open_way, images, reference, threads, found))
        _log.debug("measured %s", found[-1])
    return found


def _measure_one(
    way: Way,
    open_way: Opener,
    images: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    threads: int,
    before: Sequence[Measurement],
) -> Measurement:
    compiling = way.runtime == "torch.compile"
    if compiling and (pointless := _pointless(way.precision, before)) is not None:
        return Measurement(way, 0.0, 0.0, refused=pointless)
    begun = time.perf_counter()
    try:
        segmenter = open_way(way, threads)
        segmenter.predict(images)
        taken = time.perf_counter() - begun
        found = _measure(way, segmenter, images, reference)
    except _FAILING as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        return Measurement(way, 0.0, 1.0, refused=told[:200])
    return replace(found, start_s=round(taken, 1)) if compiling else found


def _pointless(precision: str, before: Sequence[Measurement]) -> str | None:
    """Why compiling for a precision is not worth a try after what was measured."""
    good = [m for m in before if m.refused is None]
    plain = max((m for m in good if m.way.runtime == "torch"), key=lambda m: m.mpx_per_s, default=None)
    if plain is None:
        return None
    if plain.way.precision != precision:
        return f"not tried, since torch is faster in {plain.way.precision}"
    best = max(good, key=lambda m: m.mpx_per_s)
    if best.mpx_per_s < COMPILING_GAINS * plain.mpx_per_s:
        return None
    return f"not tried, since {best.way.runtime} is {best.mpx_per_s / plain.mpx_per_s:.1f} times as fast as torch"


def _with_threads(card: ModelCard, chosen: RuntimeChoice, open_way: Opener) -> RuntimeChoice:
    """The choice with half as many threads where that is faster: two on one core share what computes."""
    most, fewer = chosen.threads, chosen.threads // 2
    if most < FEWEST_CORES:
        return chosen
    way, images = Way(chosen.runtime, chosen.device, chosen.precision), probe(card)
    found: dict[int, Measurement] = {}
    try:
        for count in (fewer, most):
            segmenter = open_way(way, count)
            found[count] = _measure(way, segmenter, images, segmenter.predict(images).probability)
    except _FAILING as error:
        _log.warning("%s: %d threads cannot be measured (%s)", card.name, fewer, error)
        return chosen
    best = fewer if found[fewer].mpx_per_s >= THREADS_GAIN * found[most].mpx_per_s else most
    told = ", ".join(f"{count}: {m.mpx_per_s:.2f}" for count, m in found.items())
    return replace(chosen, threads=best, reason=f"{chosen.reason}; {best} threads ({told})")


def _with_batch(card: ModelCard, chosen: RuntimeChoice, open_way: Opener) -> RuntimeChoice:
    """The choice with as many windows at once as is fastest; what they take together is no more than one large one."""
    way = Way(chosen.runtime, chosen.device, chosen.precision)
    fixed = card.fixed_window or card.blend is not None
    side = card.window if fixed else -(-min(card.window, BATCH_SIDE) // card.stride) * card.stride
    sizes = [size for size in BATCHES if size * side**2 <= LARGEST_WINDOW**2]
    images = np.concatenate([probe(card, seed=seed, side=side) for seed in range(sizes[-1] if sizes else 1)])
    try:
        segmenter = open_way(way, chosen.threads)
        alone = np.concatenate([segmenter.predict(image[None]).probability for image in images])
        found = [_measure(replace(way, batch=n), segmenter, images[:n], alone[:n]) for n in sizes]
    except (RuntimeError, ModelError) as error:
        _log.warning("%s: several windows at once cannot be measured (%s)", card.name, error)
        return chosen
    good = [m for m in found if m.refused is None]
    if len(found) < 2 or not good or good[0].way.batch != 1:
        return chosen
    best = max(good, key=lambda m: m.mpx_per_s)
    if best.mpx_per_s < BATCH_GAINS * good[0].mpx_per_s:
        best = good[0]
    told = ", ".join(f"{m.way.batch}: {m.mpx_per_s:.2f}" for m in good)
    reason = f"{chosen.reason}; {best.way.batch} of {side} px at once ({told})"
    return replace(chosen, batch=best.way.batch, reason=reason, measurements=(*chosen.measurements, *found[1:]))


def _measure(way: Way, segmenter: Segmenter, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Measurement:
    maps = segmenter.predict(images).probability
    difference = float(np.abs(maps.astype(np.int16) - reference).max()) / 255
    # Probabilities arrive in steps of 1/255, and a step more than the tolerance may be all rounding.
    refused = None if difference <= TOLERANCE + 0.5 / 255 else f"differs by {difference:.3f} from torch in fp32"
    # One window leaves most of a GPU idle, and is over before a precision can make a difference.
    timed = images if way.device == "cpu" else images.repeat(GPU_WINDOWS, axis=0)
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        segmenter.predict(timed)
        best = min(best, time.perf_counter() - start)
    return Measurement(way, round(timed[..., 0].size / 1e6 / best, 4), round(difference, 4), refused)


def _fastest(measured: Sequence[Measurement], threads: int) -> RuntimeChoice:
    good = [m for m in measured if m.refused is None]
    if not good:
        causes = "; ".join(f"{m.way}: {m.refused}" for m in measured)
        raise ModelError(f"the model runs in no way that agrees with torch in fp32 ({causes})")
    best = max(good, key=lambda m: m.worth)
    others = ", ".join(str(m) for m in measured if m != best)
    reason = f"{best.way}: the fastest measured, {best.mpx_per_s:.2f} Mpx/s with {threads} threads ({others})"
    return RuntimeChoice(best.way.runtime, best.way.device, best.way.precision, threads, reason, tuple(measured))


def probe(card: ModelCard, *, seed: int = 0, side: int | None = None) -> NDArray[np.uint8]:
    """A made-up image, uint8 (1, side, side, 3), pink and violet from coarse to fine, of a window with its halo."""
    rng = np.random.default_rng(seed)
    side = side or -(-min(card.window + 2 * card.halo, 640) // card.stride) * card.stride
    amount = np.zeros((side, side))
    for grain in (64, 16, 4, 1):
        cells = rng.random((-(-side // grain),) * 2)
        amount += cells.repeat(grain, 0).repeat(grain, 1)[:side, :side] / 4
    amount = np.clip((amount - 0.25) * 2, 0, 1)[..., None]
    image = (1 - amount) * np.array([240.0, 215, 230]) + amount * np.array([80.0, 40, 130])
    images: NDArray[np.uint8] = np.rint(image).astype(np.uint8)[None]
    return images
