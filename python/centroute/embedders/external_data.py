"""Whether an ONNX graph keeps weights in other files, read off its bytes without running or loading it.

ONNX Runtime would read such files, which the fingerprint of an embedder does not cover. The graph is walked
as protocol buffers are written (protobuf.dev, "Encoding"), by the fields of ``onnx/onnx.proto``. A search for
the key ``location`` could be led astray, as fields may stand in any order and numbers be padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from mmap import mmap
from typing import Final

_TENSOR: Final = "TensorProto"
# By message, the number of each field that can hold a tensor within, and that field's message.
_WITHIN: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR, 6: "GraphProto", 10: _TENSOR, 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_NUMBER, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def has_external_data(content: bytes | mmap) -> bool:
    """Whether a tensor anywhere in a graph says that its values are in another file.

    Parameters
    ----------
    content
        The bytes of the file, in memory or mapped.

    Raises
    ------
    ValueError
        If these are no protocol buffers.
    """
    messages = [("ModelProto", 0, len(content))]
    while messages:
        message, place, end = messages.pop()
        within, is_tensor = _WITHIN[message], message == _TENSOR
        while place < end:
            tag, place = _read_number(content, place, end)
            field, wire_type = tag >> 3, tag & 7
            if wire_type == _LENGTH:
                length, place = _read_number(content, place, end)
                if is_tensor and field == _EXTERNAL_DATA:
                    return True
                if field in within:
                    messages.append((within[field], place, place + length))
                place += length
            elif wire_type == _NUMBER:
                value, place = _read_number(content, place, end)
                if is_tensor and field == _DATA_LOCATION and value:
                    return True
            elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
                place += 8 if wire_type == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"a field of wire type {wire_type} at byte {place}")
            if place > end:
                raise ValueError(f"a field beyond the end at byte {end}")
    return False


def _read_number(content: bytes | mmap, place: int, end: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError(f"a number without an end at byte {place}")
