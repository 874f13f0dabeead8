"""ONNX graphs that are changed, as bytes and as fields of the protocol buffer, in ONNX Runtime."""

from __future__ import annotations

import functools
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import main, mutated_bytes, tried

from centroute.embedders import load_embedder

TEXTS = ["river", "what is the capital of france", "law, river; 42!"]
N_BYTES_OF_WEIGHTS = 200


@functools.cache
def graphs() -> tuple[bytes, ...]:
    """Small valid graphs: token rows, pooled rows, and a static table."""
    import tiny_embedder as tiny

    return (
        tiny.graph().SerializeToString(),
        tiny.graph(
            inputs=("input_ids", "attention_mask"), outputs=("sentence_embedding",)
        ).SerializeToString(),
        tiny.graph(quantised=True).SerializeToString(),
    )


def make(chance: random.Random) -> bytes:
    """Return one graph."""
    data = chance.choice(graphs())
    if chance.random() < 0.3:
        return mutated_bytes(chance, data)
    import onnx
    from google.protobuf.message import EncodeError

    model = onnx.load_from_string(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        try:
            _change(chance, model)
        except (TypeError, ValueError):  # not of its kind
            continue
    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError):
        return data


def _change(chance: random.Random, model: Any) -> None:  # noqa: C901 - one branch a kind of change
    graph = model.graph
    node, tensor = chance.choice(graph.node), chance.choice(graph.initializer)
    kind = chance.randrange(14)
    if kind == 0:
        node.op_type = chance.choice(
            ("Loop", "If", "Add", "Nothing", "", "Gather", "MatMul", "Identity", "x" * 3000)
        )
    elif kind == 1:
        node.domain = chance.choice(("com.microsoft", "custom", "ai.onnx.ml", "a\nb"))
    elif kind == 2 and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(
            ("", "nothing", *node.input, *node.output)
        )
    elif kind == 3 and node.output:
        node.output[0] = chance.choice(("", "x", "tokens", "states"))
    elif kind == 4:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice((-1, 0, 1, 2**31, 2**40, 2**62, 5))
    elif kind == 5:
        tensor.data_type = chance.choice((0, 1, 6, 7, 8, 10, 11, 16, 99))
    elif kind == 6:
        tensor.raw_data = mutated_bytes(chance, tensor.raw_data)
    elif kind == 7:
        tensor.data_location = 1
        for _ in range(chance.choice((0, 1, 2))):
            entry = tensor.external_data.add()
            entry.key = chance.choice(("location", "offset", "length", "x"))
            entry.value = chance.choice(
                ("/etc/passwd", "../../x", "tokenizer.json", "-1", str(2**62), "model.onnx")
            )
    elif kind == 8:
        model.opset_import[0].version = chance.choice((0, 1, 7, 13, 17, 99, 2**31 - 1))
    elif kind == 9:
        model.ir_version = chance.choice((0, 1, 3, 8, 99, 2**40))
    elif kind == 10 and graph.output:
        graph.output[0].name = chance.choice(("", "x", "sentence_embedding", "a\nb"))
    elif kind == 11:
        del graph.node[chance.randrange(len(graph.node))]
    elif kind == 12:
        graph.node.add().CopyFrom(node)
    else:
        graph.input[0].type.tensor_type.elem_type = chance.choice((1, 6, 7, 8))


@functools.cache
def _folder() -> Path:
    import tiny_embedder as tiny

    folder = Path(tempfile.mkdtemp(prefix="fuzz-onnx-"))
    (folder / "tokenizer.json").write_text(tiny.tokenizer().to_str())
    (folder / "1_Pooling").mkdir()
    return folder


def check(data: bytes) -> None:
    """What loads gives unit or zero rows, twice the same, and reads no other file."""
    folder = _folder()
    (folder / "model.onnx").write_bytes(data)
    embedder = tried(lambda: load_embedder(folder, device="cpu"))
    if embedder is None:
        return
    rows = tried(lambda: embedder.embed(TEXTS))
    if rows is not None:
        norms = np.linalg.norm(rows, axis=1)
        assert (np.isclose(norms, 1, atol=1e-4) | (norms == 0)).all(), norms
        again = tried(lambda: embedder.embed(TEXTS))
        assert again is not None
        assert np.abs(rows - again).max() < 1e-4


if __name__ == "__main__":
    try:
        main("onnx", make, check)
    finally:
        shutil.rmtree(_folder(), ignore_errors=True)
