"""Text to decision with the bundled embedder beside its peers, in one run, on one thread: ``make bench``.

Texts are made of the synthetic sample's queries, cut to so many tokens. All peers read the same table and
tokenizer and must give the same decisions; the share that they do stands beside the speed.
"""

import itertools
import os
from collections.abc import Callable
from functools import cache

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import model2vec
import numpy as np
import onnxruntime
import pytest
import tokenizers
from measuring import measure
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from centroute import Artifact, Decision, Policy, Router
from centroute._kernel import Tokenizer
from centroute.calibrate import calibrate
from centroute.datasets import synthetic_outcomes
from centroute.embedders import EXPORT_COMMANDS, bundled_folder, cached_folder, load_embedder

FOLDER = bundled_folder("static-256")
MAX_TOKENS = 256
LENGTHS = (12, 64, 256)
N_TEXTS = 64
BATCH = 4096
POLICY = Policy(willingness_to_pay=0.01)

Decide = Callable[[str], Decision | int]


@cache
def artifact() -> Artifact:
    """A router of 64 clusters without surface features, of the synthetic sample."""
    return calibrate(
        synthetic_outcomes(n_queries=3000), method="means", n_clusters=64, top_p=4, beta=9.0, shrinkage=10.0,
        surface_weight=0.0,
    )  # fmt: skip


@cache
def artifact_with_surface() -> Artifact:
    """The same with surface features."""
    return calibrate(
        synthetic_outcomes(n_queries=3000), method="means", n_clusters=64, top_p=4, beta=9.0, shrinkage=10.0,
        surface_weight=0.1,
    )  # fmt: skip


@cache
def router() -> Router:
    return Router.from_artifact(artifact(), embedder=load_embedder("static-256"))


@cache
def hf_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


@cache
def texts(n_tokens: int) -> list[str]:
    """Texts of exactly that many tokens."""
    tokenizer = hf_tokenizer()
    queries = itertools.cycle(synthetic_outcomes(n_queries=2000, seed=7).queries)
    made = []
    while len(made) < N_TEXTS:
        words: list[str] = []
        while len(tokenizer.encode(" ".join(words)).ids) < min(n_tokens, MAX_TOKENS - 1) + (
            n_tokens == MAX_TOKENS
        ):
            words += next(queries).split(" ")
        while len(tokenizer.encode(" ".join(words)).ids) > n_tokens:
            words.pop()
        text = " ".join(words)
        if len(tokenizer.encode(text).ids) == n_tokens:
            made.append(text)
    return made


def centroute() -> Decide:
    """What a user calls."""
    ours = router()
    return lambda text: ours.route(text, policy=POLICY)


def centroute_with_surface() -> Decide:
    """The same with surface features."""
    ours = Router.from_artifact(artifact_with_surface(), embedder=load_embedder("static-256"))
    return lambda text: ours.route(text, policy=POLICY)


def bare_onnx() -> Decide:
    """``tokenizers``, a bare ``session.run`` of the same model, our kernel."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer, kernel = hf_tokenizer(), router()

    def decide(text: str) -> Decision:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        (row,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return kernel.route_embedding(row[0], policy=POLICY)

    return decide


def model2vec_numpy() -> Decide:
    """model2vec with our table, and a decision in NumPy."""
    tables = artifact()
    table = dequantised_rows()
    model = model2vec.StaticModel(table, tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json")))
    centroids, beta, top_p = tables.centroids, tables.beta, tables.top_p

    def decide(text: str) -> int:
        row = model.encode([text], max_length=MAX_TOKENS)[0]
        similarities = centroids @ (row / np.linalg.norm(row))
        nearest = np.argpartition(similarities, len(similarities) - top_p)[-top_p:]
        weights = np.exp(beta * (similarities[nearest] - similarities[nearest].max()))
        weights /= weights.sum()
        quality, cost = weights @ tables.quality[nearest], weights @ tables.cost[nearest]
        return int((0.01 * quality - cost).argmax())

    return decide


def dequantised_rows() -> NDArray[np.float32]:
    """The bundled table in float32, read off the embedder: a token alone has the direction of its row.

    The scale of each row comes from the ONNX file.
    """
    import onnx
    from onnx import numpy_helper

    tensors = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(FOLDER / "model.onnx").graph.initializer
    }
    rows: NDArray[np.float32] = tensors["rows"].astype(np.float32) * tensors["scales"][:, None]
    return rows


DECIDERS = {
    "centroute": centroute,
    "centroute, surface features": centroute_with_surface,
    "tokenizers + onnxruntime + kernel": bare_onnx,
    "model2vec + NumPy": model2vec_numpy,
}


def chosen(decision: Decision | int) -> int:
    return decision if isinstance(decision, int) else decision.model_id


@pytest.mark.parametrize("name", DECIDERS)
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_text_to_decision(benchmark: BenchmarkFixture, n_tokens: int, name: str) -> None:
    """One text through the whole router."""
    decide, ours = DECIDERS[name](), centroute()
    agrees = None
    if "surface" not in name:
        agrees = float(np.mean([chosen(decide(text)) == chosen(ours(text)) for text in texts(n_tokens)]))
    following = itertools.cycle(texts(n_tokens)).__next__
    measure(
        benchmark,
        f"text to decision, {n_tokens} tokens, K=64",
        name,
        lambda: decide(following()),
        agrees=agrees,
    )


@pytest.mark.parametrize("name", ["centroute", "tokenizers encode_batch", "tokenizers encode_batch_fast"])
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_tokenizer(benchmark: BenchmarkFixture, n_tokens: int, name: str) -> None:
    """The tokenizer alone, a batch of 64 texts."""
    batch, theirs = texts(n_tokens), hf_tokenizer()
    ours = Tokenizer((FOLDER / "tokenizer.json").read_bytes(), max_tokens=MAX_TOKENS)
    calls = {
        "centroute": lambda: ours.encode_batch(batch),
        "tokenizers encode_batch": lambda: theirs.encode_batch(batch),
        "tokenizers encode_batch_fast": lambda: theirs.encode_batch_fast(batch),
    }
    ids, ends, _ = ours.encode_batch(batch)
    wanted = [encoding.ids for encoding in theirs.encode_batch(batch)]
    agrees = float(np.mean([a.tolist() == b for a, b in zip(np.split(ids, ends[:-1]), wanted, strict=True)]))
    measure(
        benchmark,
        f"tokenizer alone, {n_tokens} tokens",
        name,
        calls[name],
        n_queries=len(batch),
        agrees=agrees,
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_throughput(benchmark: BenchmarkFixture, threads: int) -> None:
    """Texts of 64 tokens through ``Router.route_batch``."""
    ours = router()
    batch = list(itertools.islice(itertools.cycle(texts(64)), BATCH))
    measure(
        benchmark,
        f"batch of {BATCH:,} texts, 64 tokens, K=64",
        f"centroute, {threads} thread{'s' * (threads > 1)}",
        lambda: ours.route_batch(batch, policy=POLICY, threads=threads),
        n_queries=BATCH,
        seconds=3.0,
    )


@cache
def minilm_router(name: str) -> Router:
    embedder = load_embedder(name, device="cpu")
    artifact = calibrate(
        synthetic_outcomes(n_queries=300), embedder=embedder, method="means", n_clusters=16, top_p=4,
        beta=9.0, shrinkage=10.0, surface_weight=0.0,
    )  # fmt: skip
    return Router.from_artifact(artifact, embedder=embedder)


@pytest.mark.parametrize("part", ["whole decision", "bare onnxruntime run"])
@pytest.mark.parametrize("name", ["minilm-l6", "minilm-l6-int8"])
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_minilm(benchmark: BenchmarkFixture, n_tokens: int, name: str, part: str) -> None:
    """A transformer embedder: what is added to the graph's own time."""
    folder = cached_folder(name)
    if folder is None:
        pytest.skip(f"{name} is not exported: {EXPORT_COMMANDS[name]}")
    router = minilm_router(name)
    batch = texts(n_tokens)[:16]
    if part == "whole decision":
        following = itertools.cycle(batch).__next__
        call: Callable[[], object] = lambda: router.route(following(), policy=POLICY)
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        ids = [router.embedder.tokenize(text)[None] for text in batch]
        feeds = [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids]
        feed = itertools.cycle(feeds).__next__
        call = lambda: session.run(["embedding"], feed())
    measure(benchmark, f"{name}, one text of {n_tokens} tokens", part, call, seconds=3.0)
