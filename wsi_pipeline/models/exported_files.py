"""Files of `torch.export.save`, looked at before torch loads them: that nothing in them would be run as code.

torch unpickles what the archive calls a pickle, opens shared libraries that lie in it, evaluates the sizes of tensors
as Python (by sympy), and makes Python source of the names in the graph. So the records, the operators, the sizes and
all names must be of the kinds that are known here. (The conditions on the inputs, source code too, are never used:
see `torch_nets`.)
"""

from __future__ import annotations

import ast
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Final

from wsi_pipeline.errors import ModelError

_PLAIN_GLOBALS: Final = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
"""What the example inputs of an exported program may name, beside classes `torch FloatStorage` and the like."""
_MOST_JSON: Final = 64 * 2**20
_GRAPH: Final = "models/model.json"
_RECORDS: Final = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt|"
    r"data/(weights|constants)/[\w.]+"
)
_OPERATORS: Final = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.\w+\.\w+|_operator\.\w+|math\.\w+|"
    r"torch\.sym_\w+|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan)"
)
_FILES: Final = re.compile(r"\.(save|from_file)\b")
"""Operators that write or map a file of any name."""
_PLAIN: Final = re.compile(r"[\w.+/-]*")
_FREE: Final = {"as_string", "as_strings", "metadata", "guards_code"}
"""Keys whose text torch prints or quotes; metadata become no code, and the conditions on the inputs are not used."""
_NODES: Final = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None}
_SIZES: Final = {
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloatPow", "FloatTrueDiv",
    "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer",
    "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing",
    "Mul", "Ne", "Not", "Or", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundDecimal", "RoundToInt",
    "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt", "Unequality", "Where",
}  # fmt: skip
"""Functions in the sizes of tensors, as sympy and torch print them."""
_ARITHMETIC: Final = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
    ast.expr_context, ast.keyword,
)  # fmt: skip


def check_exported(weights: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that is no exported program, or that would run something when it is loaded.

    Raises
    ------
    ModelError
        Says what it holds, and what to do.
    """
    names = _records(archive)
    if _GRAPH not in names or "archive_format" not in names:
        raise ModelError(
            f"{weights}: this is no program of `torch.export.save`, or one of before torch 2.8, which holds pickles "
            "that can run code; export it again"
        )
    for kind in ("weights", "constants"):
        _check_payload(weights, archive, names, kind)
    inputs = names.get("data/sample_inputs/model.pt")
    for name in _globals(archive.read(inputs)) if inputs else ():
        if name not in _PLAIN_GLOBALS and not _is_storage(name):
            raise ModelError(f"{weights}: its example inputs are a pickle that can run code ({name}); export it again")
    for name in names:
        if not _RECORDS.fullmatch(name):
            raise ModelError(
                f"{weights}: holds {name[:80]}, which no program of `torch.export.save` does; it could run code: "
                "export it again, without compiled or further files"
            )
    try:
        _check_program(json.loads(_text(weights, archive, names[_GRAPH])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise ModelError(f"{weights}: its graph is damaged, or would run code ({told}); export it again") from None


def _text(weights: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_JSON:
        raise ModelError(f"{weights}: {name} is too long to be true")
    return archive.read(name)


def _check_program(value: Any, key: str = "") -> None:
    """Raise ValueError for text in the JSON of a program that torch might take for code."""
    if key in _FREE:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _PLAIN.fullmatch(name) and key != "range_constraints":
                raise ValueError(f"{name!r} is no name")
            _check_program(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_program(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "expr_str":
        _check_size(text)
    elif key in ("in_spec", "out_spec"):
        _check_spec(json.loads(text) if text else [])
    elif key == "target":
        if not _OPERATORS.fullmatch(text) or _FILES.search(text):
            raise ValueError(f"{text!r} is no operator of torch that is known here")
    elif not _PLAIN.fullmatch(text):
        raise ValueError(f"{text!r} is no name")


def _check_size(text: str) -> None:
    """Of a tensor: numbers, symbols and functions that are known, and nothing that Python could call else."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Call):
            good = isinstance(node.func, ast.Name) and node.func.id in _SIZES
        elif isinstance(node, ast.Constant):
            good = not isinstance(node.value, str) or node.value.isidentifier()
        elif isinstance(node, ast.Name):
            good = "__" not in node.id
        else:
            good = isinstance(node, _ARITHMETIC)
        if not good:
            raise ValueError(f"{text!r} is no size of a tensor")


def _check_spec(value: Any) -> None:
    """How inputs and outputs are nested: of Python's own containers only, with plain keys."""
    if isinstance(value, dict):
        if value["type"] not in _NODES:
            raise ValueError(f"{value['type']!r} among its inputs or outputs")
        _check_program(json.loads(value["context"] or "null"))
        _check_spec(value["children_spec"])
    elif isinstance(value, list):
        for inner in value:
            _check_spec(inner)
    elif not isinstance(value, int):
        raise ValueError(f"{value!r} among its inputs or outputs")


def _check_payload(weights: Path, archive: zipfile.ZipFile, names: dict[str, str], kind: str) -> None:
    """Refuse weights or constants that `torch.export.load` would unpickle."""
    if f"data/{kind}/model.pt" in names:
        raise ModelError(f"{weights}: its {kind} are pickled, which can run code; export it again with a newer torch")
    config = names.get(f"data/{kind}/model_{kind}_config.json")
    if config is None:
        raise ModelError(f"{weights}: the exported program lists no {kind}; it is damaged: export it again")
    try:
        entries = json.loads(_text(weights, archive, config))["config"]
        for key, entry in entries.items():
            raw = str(entry["path_name"]).startswith(("weight_", "tensor_"))
            if entry["use_pickle"] is not False or not raw:
                raise ModelError(f"{weights}: {key} is stored as a pickle, which can run code; export it without")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{weights}: the list of its {kind} is damaged ({error}); export it again") from None


def _records(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names without the folder that torch puts around everything, to the names in the archive."""
    found: dict[str, str] = {}
    for name in archive.namelist():
        inner = "/".join(PurePosixPath(name).parts[1:])
        if inner in found:
            raise ModelError(f"{archive.filename}: {inner} is in the archive twice; it was tampered with")
        found[inner] = name
    return found


def _globals(data: bytes) -> Iterator[str]:
    """`module name` of everything that the pickle of a `torch.save` file would look up; nothing is run."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
        pickles = [archive.read(name) for name in archive.namelist() if name.lower().endswith("data.pkl")]
    except zipfile.BadZipFile:
        pickles = []
    if not pickles:
        yield "unknown format"
    for pickled in pickles:
        try:
            for opcode, argument, _ in pickletools.genops(pickled):
                if opcode.name in ("GLOBAL", "INST"):
                    yield str(argument)
                elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                    yield opcode.name
        except ValueError as error:
            yield f"damaged: {error}"


def _is_storage(name: str) -> bool:
    module, _, kind = name.partition(" ")
    return module in ("torch", "torch.storage") and kind.endswith("Storage") and kind.isidentifier()
