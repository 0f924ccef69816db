"""Which files an ONNX model consists of, read from its protobuf without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wsi_pipeline.errors import ModelError

# Numbers of the fields on the way from a model to the place of a tensor; ONNX promises never to change them.
_MODEL_GRAPH: Final = 7
_MODEL_FUNCTION: Final = 25
_NODE: Final = {"graph": 1, "function": 7}
_GRAPH_TENSOR: Final = 5
_GRAPH_SPARSE: Final = 15
_SPARSE_TENSORS: Final = (1, 2)
_NODE_ATTRIBUTE: Final = 5
_ATTRIBUTE_TENSORS: Final = (5, 10)
_ATTRIBUTE_GRAPHS: Final = (6, 11)
_ATTRIBUTE_SPARSE: Final = (22, 23)
_TENSOR_EXTERNAL: Final = 13
_DEEPEST: Final = 32


def external_files(path: Path) -> tuple[str, ...]:
    """Names of the files beside `path` that hold its large tensors, sorted.

    Raises
    ------
    ModelError
        It is no ONNX model, or names a file elsewhere, or one that is not there.
    """
    try:
        data = memoryview(path.read_bytes())
        graphs = [graph for number, graph in _fields(data) if number == _MODEL_GRAPH]
        functions = [function for number, function in _fields(data) if number == _MODEL_FUNCTION]
        if len(graphs) != 1:
            raise ValueError("it holds no graph")
        names = {name for graph in graphs for name in _of_graph(graph, 0)}
        names |= {name for function in functions for name in _of_nodes(function, _NODE["function"], 0)}
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{path}: this is no ONNX model, or damaged ({error})") from None
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{path}: its tensors are to come from {name!r}; only files beside it are read")
        if not path.with_name(name).is_file():
            raise ModelError(f"{path}: {name}, which holds its tensors, is not beside it; copy both")
    return tuple(sorted(names))


def _of_graph(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("graphs are nested too deeply")
    for number, value in _fields(graph):
        if number == _GRAPH_TENSOR:
            yield from _of_tensor(value)
        elif number == _GRAPH_SPARSE:
            yield from _of_sparse(value)
    yield from _of_nodes(graph, _NODE["graph"], depth)


def _of_nodes(parent: memoryview, field: int, depth: int) -> Iterator[str]:
    for number, node in _fields(parent):
        if number != field:
            continue
        for attribute in (value for n, value in _fields(node) if n == _NODE_ATTRIBUTE):
            for inner, value in _fields(attribute):
                if inner in _ATTRIBUTE_TENSORS:
                    yield from _of_tensor(value)
                elif inner in _ATTRIBUTE_GRAPHS:
                    yield from _of_graph(value, depth + 1)
                elif inner in _ATTRIBUTE_SPARSE:
                    yield from _of_sparse(value)


def _of_sparse(value: memoryview) -> Iterator[str]:
    for number, tensor in _fields(value):
        if number in _SPARSE_TENSORS:
            yield from _of_tensor(tensor)


def _of_tensor(tensor: memoryview) -> Iterator[str]:
    for number, entry in _fields(tensor):
        if number != _TENSOR_EXTERNAL:
            continue
        pair = {n: bytes(value).decode() for n, value in _fields(entry)}
        if pair.get(1) == "location":
            yield pair.get(2, "")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of the fields that have a length; ValueError where this is no protobuf."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("it is cut short")
            yield key >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError("it is not in the format of protobuf")
    if at > len(message):
        raise ValueError("it is cut short")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("it is not in the format of protobuf")
