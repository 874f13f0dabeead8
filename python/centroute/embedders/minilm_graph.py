"""The ONNX graph of all-MiniLM-L6-v2 from its published weights, in float32 or int8.

``input_ids`` and ``attention_mask`` int64 ``[n, seq]`` to ``embedding`` float32 ``[n, 384]``, mean pooling
over the mask and L2 normalisation inside, both axes dynamic, seq up to 512.

int8 is static: each of the 24 dense layers reads its input as uint8, in steps that were measured once per
input channel and come with centroute (``minilm_int8.safetensors``, made by ``models/calibrate_minilm.py``).
Nothing depends on the batch, and the same weights give the same graph on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from centroute.embedders.onnx_graph import FLOAT, MICROSOFT, GraphBuilder

N_LAYERS = 6
N_HEADS = 12
DIM = 384
HEAD_DIM = DIM // N_HEADS
LAYER_NORM_EPSILON = 1e-12
# Added to the score of a masked position. Finite, so that a row with every position masked
# stays free of NaN, and large enough that exp() of it is exactly 0 beside a real score.
MASKED_SCORE = -1e9

STEPS_FILE = Path(__file__).with_name("minilm_int8.safetensors")

Weights = Mapping[str, NDArray[np.float32]]

Dense = Callable[[GraphBuilder, str, str, NDArray[np.float32], NDArray[np.float32]], str]
"""Adds ``input @ weight + bias``: graph, input, layer's name, weight ``[n_in, n_out]``, bias ``[n_out]``."""

Table = Callable[[GraphBuilder, NDArray[np.float32]], str]
"""Adds the look-up of ``input_ids`` in a table ``[n_tokens, dim]``: graph, table."""


def dense_f32(
    graph: GraphBuilder, inputs: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> str:
    """Add a dense layer in float32."""
    product = graph.node("MatMul", [inputs, graph.constant(f"{name}.weight", weight)])
    return graph.node("Add", [product, graph.constant(f"{name}.bias", bias)])


def table_f32(graph: GraphBuilder, table: NDArray[np.float32]) -> str:
    """Add a look-up in float32 rows."""
    return graph.node("Gather", [graph.constant("word_embeddings", table), "input_ids"])


def build_f32(weights: Weights) -> GraphBuilder:
    """Return the graph in float32; ``weights`` are the tensors of ``model.safetensors`` by name."""
    return build_graph(weights, dense=dense_f32, table=table_f32)


def build_int8(weights: Weights) -> GraphBuilder:
    """Return the graph with dense layers and token table in int8."""
    steps = load_file(STEPS_FILE)

    def dense(
        graph: GraphBuilder, inputs: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> str:
        return dense_int8(graph, inputs, name, weight, bias, steps=steps[name])

    return build_graph(weights, dense=dense, table=table_int8)


def zero_point(name: str) -> int:
    """Return the uint8 that stands for 0 in the input of a dense layer.

    The second layer of a feed-forward block reads GELU's output, which is nowhere below -0.17.
    """
    return 24 if name.endswith(".output.dense") and ".attention." not in name else 128


def dense_int8(
    graph: GraphBuilder,
    inputs: str,
    name: str,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    steps: NDArray[np.float16],
) -> str:
    """Add a dense layer that multiplies uint8 inputs by int8 weights.

    Parameters
    ----------
    graph, inputs, name, weight, bias
        As for `Dense`.
    steps
        ``[n_in]``: size of one uint8 step of each input channel. The weights take it over, so that
        channels with large values cost the others no precision (as in SmoothQuant, arXiv 2211.10438).
    """
    per_step = (1 / steps.astype(np.float64)).astype(np.float32)
    zero = graph.constant(f"{name}.input_zero", np.uint8(zero_point(name)))
    one = graph.constant("one_step", np.float32(1))
    scaled = graph.node("Mul", [inputs, graph.constant(f"{name}.per_step", per_step)])
    codes = graph.node("QuantizeLinear", [scaled, one, zero])
    rows, scales = int8_columns(weight * steps.astype(np.float64)[:, None])
    operands = [
        codes,
        graph.constant(f"{name}.weight", rows),
        one,
        graph.constant(f"{name}.scale", scales),
        zero,
        graph.constant("weight_zero", np.int8(0)),
        graph.constant(f"{name}.bias", bias),
    ]
    return graph.node("MatMulIntegerToFloat", operands, domain=MICROSOFT)


def int8_columns(weight: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 ``[n_in, n_out]`` and one scale a column.

    x86 processors without VNNI add two neighbouring products of uint8 and int8 in 16 bits. The scale is
    such that neighbours of one sign come to 128 at most: 255 · 128 fits, and all processors agree.
    """
    pairs = [np.maximum(part, 0).reshape(-1, 2, weight.shape[1]).sum(axis=1) for part in (weight, -weight)]
    largest = np.max([np.abs(weight).max(axis=0), *(pair.max(axis=0) for pair in pairs)], axis=0)
    scales = (np.maximum(largest, 1e-12) / 127).astype(np.float32)
    return np.rint(weight / scales).clip(-127, 127).astype(np.int8), scales


def table_int8(graph: GraphBuilder, table: NDArray[np.float32]) -> str:
    """Add a look-up in int8 rows with one scale each."""
    scales = (np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127).astype(np.float32)
    rows = np.rint(table / scales).astype(np.int8)
    codes = graph.node("Gather", [graph.constant("word_embeddings", rows), "input_ids"])
    row_scales = graph.node("Gather", [graph.constant("word_scales", scales), "input_ids"])
    return graph.node("Mul", [graph.node("Cast", [codes], to=FLOAT), row_scales])


def build_graph(weights: Weights, *, dense: Dense, table: Table) -> GraphBuilder:
    """Return the graph of a BERT encoder with MiniLM-L6's shape, pooled and normalised.

    Parameters
    ----------
    weights
        The tensors of ``model.safetensors`` by name.
    dense, table
        How a dense layer and the token table are written. The last layer's rows ``[n, seq, 384]``
        are the node "token_states".
    """
    graph = GraphBuilder()
    hidden = _embed_tokens(graph, weights, table)
    score_bias = _score_bias(graph)
    for layer in range(N_LAYERS):
        hidden = _encoder_layer(graph, weights, hidden, score_bias, layer=layer, dense=dense)
    _pool(graph, graph.node("Identity", [hidden], output="token_states"))
    return graph


def _embed_tokens(graph: GraphBuilder, weights: Weights, table: Table) -> str:
    # Every token is of type 0, so that its row can be folded into the positions.
    positions = weights["embeddings.position_embeddings.weight"]
    types = weights["embeddings.token_type_embeddings.weight"]
    position_table = graph.constant("position_embeddings", positions + types[0])
    shape = graph.node("Shape", ["input_ids"], start=1, end=2)
    start = graph.constant("first_position", np.array([0], dtype=np.int64))
    position_rows = graph.node("Slice", [position_table, start, shape])
    token_rows = table(graph, weights["embeddings.word_embeddings.weight"])
    return _layer_norm(graph, weights, graph.node("Add", [token_rows, position_rows]), "embeddings.LayerNorm")


def _score_bias(graph: GraphBuilder) -> str:
    """Return ``[n, 1, 1, seq]``: 0 where the mask is 1, `MASKED_SCORE` where it is 0."""
    mask = graph.node("Cast", ["attention_mask"], to=FLOAT, output="mask")
    axes = graph.constant("mask_axes", np.array([1, 2], dtype=np.int64))
    absent = graph.node("Sub", [graph.constant("one", np.float32(1.0)), mask])
    bias = graph.node("Mul", [absent, graph.constant("masked_score", np.float32(MASKED_SCORE))])
    return graph.node("Unsqueeze", [bias, axes])


def _layer_norm(graph: GraphBuilder, weights: Weights, inputs: str, name: str) -> str:
    scale = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    return graph.node("LayerNormalization", [inputs, scale, bias], axis=-1, epsilon=LAYER_NORM_EPSILON)


def _encoder_layer(
    graph: GraphBuilder, weights: Weights, hidden: str, score_bias: str, *, layer: int, dense: Dense
) -> str:
    name = f"encoder.layer.{layer}"

    def published_dense(inputs: str, part: str) -> str:
        return dense(graph, inputs, part, weights[f"{part}.weight"].T, weights[f"{part}.bias"])

    # Query, key and value in one product, the scores' 1/sqrt(head size) folded into the query.
    scale = {"query": np.float32(HEAD_DIM**-0.5), "key": np.float32(1), "value": np.float32(1)}
    parts = [(f"{name}.attention.self.{part}", factor) for part, factor in scale.items()]
    weight = np.concatenate([weights[f"{part}.weight"] * factor for part, factor in parts])
    bias = np.concatenate([weights[f"{part}.bias"] * factor for part, factor in parts])
    joined = dense(graph, hidden, f"{name}.attention.qkv", weight.T, bias)
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
    attention = graph.node("Add", [published_dense(merged, f"{name}.attention.output.dense"), hidden])
    attention = _layer_norm(graph, weights, attention, f"{name}.attention.output.LayerNorm")

    inner = _gelu(graph, published_dense(attention, f"{name}.intermediate.dense"), name)
    output = published_dense(inner, f"{name}.output.dense")
    return _layer_norm(graph, weights, graph.node("Add", [output, attention]), f"{name}.output.LayerNorm")


def _gelu(graph: GraphBuilder, inputs: str, name: str) -> str:
    """Add the exact GELU, x · (1 + erf(x / sqrt 2)) / 2, in the order that ONNX Runtime fuses."""
    root = graph.constant(f"{name}.root", np.float32(2.0**0.5))
    error = graph.node("Erf", [graph.node("Div", [inputs, root])])
    gate = graph.node("Add", [error, graph.constant(f"{name}.gate_one", np.float32(1.0))])
    gated = graph.node("Mul", [inputs, gate])
    return graph.node("Mul", [gated, graph.constant(f"{name}.half", np.float32(0.5))])


def _pool(graph: GraphBuilder, hidden: str) -> None:
    """Sum the token rows under the mask and normalise: the mean's divisor cancels in the norm."""
    axes = graph.constant("pool_axes", np.array([2], dtype=np.int64))
    masked = graph.node("Mul", [hidden, graph.node("Unsqueeze", ["mask", axes])])
    summed = graph.node(
        "ReduceSum", [masked, graph.constant("seq_axis", np.array([1], dtype=np.int64))], keepdims=0
    )
    graph.unit_rows(summed)
