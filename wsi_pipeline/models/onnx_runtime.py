"""ONNX models: through ONNX Runtime, or through OpenVINO, which reads them too. Neither is loaded before it is used."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ModelError
from wsi_pipeline.models.card import ModelCard
from wsi_pipeline.models.halving import is_out_of_memory
from wsi_pipeline.models.machine import available_cores, installed
from wsi_pipeline.models.net_segmenter import Floats, Net, NetSegmenter
from wsi_pipeline.models.runtime import Way
from wsi_pipeline.models.shapes import check_sides, trial_side, try_net

_log = logging.getLogger(__name__)

PRECISIONS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_DTYPES: Final[dict[str, type[np.floating[Any]]]] = {
    "tensor(float)": np.float32, "f32": np.float32,
    "tensor(float16)": np.float16, "f16": np.float16,
}  # fmt: skip
"""By the names that ONNX Runtime and OpenVINO have for them."""
MISSING: Final = (
    "ONNX models need ONNX Runtime or OpenVINO: `pip install 'wsi-pipeline[onnx]'` or `pip install "
    "'wsi-pipeline[openvino]'`"
)


def onnx_ways(device: str, runtime: str, precision: str) -> tuple[Way, ...]:
    """What can be tried for an ONNX model on a resolved device; the first one is what the others must agree with.

    Raises
    ------
    ModelError
        Nothing fits the wish; says what is missing.
    """
    if runtime not in ("auto", "onnxruntime", "openvino"):
        raise ModelError(f"runtime {runtime} does not run ONNX models; known here: auto, onnxruntime, openvino")
    if precision not in ("auto", "fp32"):
        raise ModelError(f"an ONNX model runs in the precision that it was written in, not in {precision}")
    cuda = device != "cpu"
    found = []
    if runtime in ("auto", "onnxruntime") and installed("onnxruntime") is not None:
        if not cuda or "CUDAExecutionProvider" in _providers():
            found.append(Way("onnxruntime", device, "fp32"))
        else:
            _log.warning("this ONNX Runtime has no CUDA; install onnxruntime-gpu to run ONNX models on %s", device)
            found.append(Way("onnxruntime", "cpu", "fp32"))
    if runtime in ("auto", "openvino") and installed("openvino") is not None and not (cuda and found):
        found.append(Way("openvino", "cpu", "fp32"))
    if not found:
        names = {"onnxruntime": "onnx", "openvino": "openvino"}
        raise ModelError(
            MISSING
            if runtime == "auto"
            else f"runtime {runtime} is not installed; `pip install 'wsi-pipeline[{names[runtime]}]'`"
        )
    return tuple(found)


def load_onnx(card: ModelCard, weights: Path, way: Way, threads: int | None) -> NetSegmenter:
    """The model of `weights` with the runtime of `way`.

    Raises
    ------
    ModelError
        The file does not load, or takes something else than images.
    """
    opened = (
        _openvino(card, weights, threads) if way.runtime == "openvino" else _onnxruntime(card, weights, way, threads)
    )
    net = _planar(card, opened)
    try_net(card, weights, net)
    return NetSegmenter(card, net, runtime=way.runtime, device=way.device, precision=way.precision)


def _planar(card: ModelCard, net: Net) -> Net:
    """The net with maps (N, C, h, w), where it gives (N, h, w, C) as those of TensorFlow do."""
    side = trial_side(card)
    shape = net(np.zeros((1, 3, side, side), np.float32)).shape
    classes = len(card.classes)
    if len(shape) != 4 or shape[1] == classes or shape[3] != classes:
        return net
    return lambda x: np.ascontiguousarray(net(x).transpose(0, 3, 1, 2))


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a model takes: of which type, with the colours last, one image at a time."""

    dtype: type[np.floating[Any]]
    colours_last: bool
    one_by_one: bool

    def of(self, x: Floats) -> NDArray[Any]:
        """Images float32 (N, 3, H, W) as the model takes them."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self.colours_last else x, self.dtype)


def _taken(card: ModelCard, weights: Path, dtype: str, sides: list[int | None]) -> _Taken:
    if dtype not in _DTYPES:
        raise ModelError(
            f"{weights}: the model must take one float tensor (N, 3, H, W) or (N, H, W, 3), not {dtype} {sides}"
        )
    last = len(sides) == 4 and sides[3] == 3 and sides[1] != 3
    ordered = [sides[i] for i in (0, 3, 1, 2)] if last else sides
    return _Taken(_DTYPES[dtype], last, check_sides(card, weights, ordered))


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _onnxruntime(card: ModelCard, weights: Path, way: Way, threads: int | None) -> Net:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between windows take the cores of the reader.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if way.device != "cpu":
        number = int(way.device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    try:
        session = onnxruntime.InferenceSession(str(weights), options, providers=providers)
    except Exception as error:
        raise _refused(weights, "ONNX Runtime", error) from error
    if way.device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        # It would go on without a word, on the CPU.
        raise ModelError(
            f"{weights}: ONNX Runtime cannot use {way.device} (does its CUDA or cuDNN fit what is installed?); set "
            "`model.device: cpu` to run it on the CPU"
        )
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelError(
            f"{weights}: the model must take one tensor of images, not {', '.join(i.name for i in inputs)}"
        )
    name = inputs[0].name
    sides = [side if isinstance(side, int) else None for side in inputs[0].shape]
    taken = _taken(card, weights, inputs[0].type, sides)
    output = session.get_outputs()[0].name

    def run(x: Floats) -> Floats:
        try:
            return np.asarray(session.run([output], {name: taken.of(x)})[0], np.float32)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # a smaller batch may do
            raise _refused(weights, "ONNX Runtime", error) from error

    return _singly(run) if taken.one_by_one else run


def _openvino(card: ModelCard, weights: Path, threads: int | None) -> Net:
    import openvino

    try:
        model = openvino.Core().read_model(weights)
    except RuntimeError as error:
        raise _refused(weights, "OpenVINO", error) from error
    if len(model.inputs) != 1:
        names = ", ".join(tensor.get_any_name() for tensor in model.inputs)
        raise ModelError(f"{weights}: the model must take one tensor of images, not {names}")
    sides = [side.get_length() if side.is_static else None for side in model.inputs[0].get_partial_shape()]
    taken = _taken(card, weights, model.inputs[0].get_element_type().get_type_name(), sides)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads or available_cores(),
        "INFERENCE_PRECISION_HINT": PRECISIONS["fp32"],
        "ENABLE_CPU_PINNING": False,
    }
    try:
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise _refused(weights, "OpenVINO", error) from error
    turn = threading.Lock()

    def run(x: Floats) -> Floats:
        with turn:
            # The output is copied: the next call overwrites it.
            return np.array(next(iter(request.infer([taken.of(x)], share_inputs=True).values())), np.float32)

    return _singly(run) if taken.one_by_one else run


def _singly(run: Net) -> Net:
    def one_by_one(x: Floats) -> Floats:
        return np.concatenate([run(x[i : i + 1]) for i in range(len(x))])

    return one_by_one


def _refused(weights: Path, runtime: str, error: Exception) -> ModelError:
    return ModelError(f"{weights}: {runtime} cannot use it ({' '.join(str(error).split())[:200]})")
