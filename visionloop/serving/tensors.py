"""Tensors of the Open Inference Protocol (V2): out of JSON, raw bytes after it, or gRPC."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionloop.serving.bodies import Undecodable, clean

# The wire is little-endian whatever this machine is.
DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<f4",  # widened when it is read
    "FP32": "<f4",
    "FP64": "<f8",
}
FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})

_MAX_DIMENSIONS = 16
# Of a BYTES tensor; each takes more memory than the four bytes that it may be sent with.
_MAX_ELEMENTS = 1 << 20
_NUMBERS: frozenset[type] = frozenset({int, float, bool})
_LISTS: frozenset[type] = frozenset({list, tuple})
_GRPC_CONTENTS: dict[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class Tensor:
    """One named tensor.

    Attributes:
        name: Its name.
        datatype: The protocol's name of its type, in upper case.
        shape: Its declared shape, checked against its values.
        array: Its values in the declared shape and little-endian type; None for BYTES.
        elements: The elements of a BYTES tensor, in row-major order; text where JSON carried them.
        problem: Why its values cannot be used; empty when they can.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    array: NDArray[Any] | None = None
    elements: tuple[bytes | str, ...] | None = None
    problem: str = ""

    @property
    def rows(self) -> int:
        """Length of the first dimension; 1 for a scalar."""
        return self.shape[0] if self.shape else 1


def json_tensors(entries: object, binary: bytes | memoryview) -> list[Tensor]:
    """Read the tensors of a V2 JSON body and of the raw bytes that follow it.

    Args:
        entries: The value of ``inputs`` or ``outputs``.
        binary: What stands after the JSON; must be used up exactly.

    Returns:
        A tensor for each entry, whose array is a view of its raw bytes; one that cannot be used
        names its problem.

    Raises:
        Undecodable: ``tensors_not_a_list``, or ``binary_size``: the raw bytes cannot be told apart.
    """
    if not isinstance(entries, list):
        raise Undecodable("tensors_not_a_list")
    found: list[Tensor] = []
    position = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise Undecodable("tensors_not_a_list")
        parameters = entry.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        name, datatype = clean(entry.get("name", "")), clean(entry.get("datatype", "")).upper()
        if size is None or "data" in entry:
            found.append(_guarded(name, datatype, entry.get("shape"), data=entry.get("data")))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Undecodable("binary_size")
        raw = binary[position : position + size]
        if len(raw) < size:
            raise Undecodable("binary_size")
        position += size
        found.append(_guarded(name, datatype, entry.get("shape"), raw=raw))
    if position != len(binary):
        raise Undecodable("binary_size")
    return found


def grpc_tensors(message: Any) -> list[Tensor]:
    """Read the tensors of a gRPC message of `visionloop.serving.protobuf`.

    Raises:
        Undecodable: ``binary_size``: raw contents for some tensors only.
    """
    raw = message.raw_contents
    if raw and len(raw) != len(message.tensors):
        raise Undecodable("binary_size")
    found = []
    for index, tensor in enumerate(message.tensors):
        name = tensor.name.decode("utf-8", "replace")
        datatype = tensor.datatype.decode("utf-8", "replace").upper()
        shape = list(tensor.shape)
        if raw:
            found.append(_guarded(name, datatype, shape, raw=raw[index]))
        else:
            held = getattr(tensor.contents, _GRPC_CONTENTS.get(datatype, ""), None)
            data = None if held is None else list(held)
            found.append(_guarded(name, datatype, shape, data=data))
    return found


def _guarded(name: str, datatype: str, shape: object, **values: Any) -> Tensor:
    try:
        return _tensor(name, datatype, shape, **values)
    except Undecodable as error:
        return Tensor(name, datatype, problem=error.reason)


def _tensor(
    name: str,
    datatype: str,
    shape: object,
    *,
    data: object = None,
    raw: bytes | memoryview | None = None,
) -> Tensor:
    sizes = _shape(shape)
    count = math.prod(sizes)
    if datatype == "BYTES":
        elements = _split(raw) if raw is not None else _strings(data)
        if len(elements) != count:
            raise Undecodable("shape_mismatch")
        return Tensor(name, datatype, sizes, elements=elements)
    if datatype not in DTYPES:
        raise Undecodable("unknown_datatype")
    flat = _numbers(data, datatype) if raw is None else _raw_numbers(raw, datatype, count)
    if flat.size != count:
        raise Undecodable("shape_mismatch")
    try:
        return Tensor(name, datatype, sizes, array=flat.reshape(sizes))
    except (ValueError, OverflowError):  # nothing, of astronomical sizes
        raise Undecodable("shape_invalid") from None


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise Undecodable("shape_invalid")
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise Undecodable("shape_invalid")
    return tuple(shape)


def _split(raw: bytes | memoryview) -> tuple[bytes, ...]:
    """Split a raw BYTES tensor: each element follows its length of four bytes."""
    found: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(found) == _MAX_ELEMENTS:
            raise Undecodable("too_many_values")
        if len(raw) - position < 4:
            raise Undecodable("bytes_lengths")
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        if len(raw) - position < length:
            raise Undecodable("bytes_lengths")
        found.append(bytes(raw[position : position + length]))
        position += length
    return tuple(found)


def _strings(data: object) -> tuple[bytes | str, ...]:
    if data is None:
        raise Undecodable("data_missing")
    found: list[bytes | str] = []
    stack: list[object] = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, (list, tuple)):
            stack.extend(reversed(value))
        elif isinstance(value, (str, bytes)):
            found.append(value)
        else:
            raise Undecodable("not_strings")
    return tuple(found)


def numbers(data: object) -> NDArray[Any]:
    """Make an array of nested lists of JSON numbers.

    Returns:
        An array of integers, floats or booleans, nested as the lists are.

    Raises:
        Undecodable: ``data_missing``, ``ragged`` or ``not_numbers``.
    """
    if data is None:
        raise Undecodable("data_missing")
    _check_leaves(data)
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise Undecodable("ragged") from None
    if array.size == 0:
        return array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise Undecodable("not_numbers")
    return array


def _check_leaves(data: object) -> None:
    """Check that nested lists hold numbers alone, all at one depth.

    Numpy would make text of a list that holds one: as many bytes as the longest text times the
    list's length.

    Raises:
        Undecodable: ``ragged`` or ``not_numbers``.
    """
    lists: list[Any] = [[data]]
    while True:
        kinds = set(map(type, chain.from_iterable(lists)))
        if kinds - _NUMBERS - _LISTS:
            raise Undecodable("not_numbers")
        if not kinds & _LISTS:
            return
        if kinds & _NUMBERS:
            raise Undecodable("ragged")
        lists = list(chain.from_iterable(lists))


def _numbers(data: object, datatype: str) -> NDArray[Any]:
    array = numbers(data)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind in "iu":
        whole = array.dtype.kind in "iu" or (
            array.dtype.kind == "f" and bool((array == np.floor(array)).all())
        )
        if not whole:
            raise Undecodable("not_numbers")
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise Undecodable("out_of_range")
    elif dtype.kind == "f" and array.dtype.kind == "b":
        raise Undecodable("not_numbers")
    with np.errstate(over="ignore"):
        return array.astype(dtype).reshape(-1)


def _raw_numbers(raw: bytes | memoryview, datatype: str, count: int) -> NDArray[Any]:
    if datatype == "BF16":
        if len(raw) != 2 * count:
            raise Undecodable("shape_mismatch")
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    dtype = np.dtype(DTYPES[datatype])
    if len(raw) != dtype.itemsize * count:
        raise Undecodable("shape_mismatch")
    return np.frombuffer(raw, dtype)


def first_problem(tensors: Sequence[Tensor], otherwise: str) -> str:
    """Return the first problem among tensors, or another reason where none has one."""
    return next((tensor.problem for tensor in tensors if tensor.problem), otherwise)
