"""Graphs under ONNX Runtime: devices, batches, pooling in the graph or after it, prefixes, threads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tiny_embedder import DIM, TEXTS, VOCABULARY, graph, wanted, weights, write_folder, write_json

from centroute.embedders import load_embedder
from centroute.embedders.onnx import TEXTS_PER_BLOCK, TOKENS_PER_RUN, OnnxEmbedder, _run_bound
from centroute.errors import EmbedderError

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
Load = Callable[..., OnnxEmbedder]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write a folder with a graph and load it."""

    def loaded(model: object = None, **options: object) -> OnnxEmbedder:
        folder = write_folder(tmp_path / "tiny", model)  # type: ignore[arg-type]
        embedder = load_embedder(folder, **{"device": "cpu", **options})  # type: ignore[arg-type]
        assert isinstance(embedder, OnnxEmbedder)
        return embedder

    return loaded


def mixed_texts(n: int) -> list[str]:
    lengths = np.random.default_rng(0).integers(0, 40, n)
    return [" ".join(["river", "prime", "banana", "law"][: 1 + length % 4] * length) for length in lengths]


def refusal(**options: object) -> str:
    with pytest.raises(EmbedderError) as caught:
        load_embedder("static-256", **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- rows --------------------------------------------------------------------------------


def test_rows_are_finite_float32_and_unit(load: Load) -> None:
    rows = load().embed([*TEXTS, ""])
    assert (rows.dtype, rows.shape) == (np.float32, (len(TEXTS) + 1, DIM))
    assert rows.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(rows[:-1], axis=1), 1, atol=1e-6)
    assert not rows[-1].any()


@pytest.mark.parametrize("outputs", [("last_hidden_state",), ("pooled",)])
def test_padding_does_not_count(load: Load, outputs: tuple[str, ...]) -> None:
    """Batches of every size, in mixed lengths, against each text alone."""
    embedder = load(graph(outputs=outputs))
    texts = mixed_texts(60)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    for size in (1, 2, 3, 17, 60):
        rows = np.concatenate([embedder.embed(texts[at : at + size]) for at in range(0, len(texts), size)])
        np.testing.assert_allclose(rows, alone, rtol=0, atol=1e-6)


def test_order_survives_blocks_and_runs(load: Load) -> None:
    embedder = load()
    texts = mixed_texts(TEXTS_PER_BLOCK + 7)
    rows = embedder.embed(texts)
    for text_id in (0, 1, 500, TEXTS_PER_BLOCK - 1, TEXTS_PER_BLOCK, len(texts) - 1):
        np.testing.assert_allclose(embedder.embed([texts[text_id]])[0], rows[text_id], rtol=0, atol=1e-6)


def test_runs_keep_to_the_budget(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load()
    shapes: list[tuple[int, ...]] = []
    run = embedder._run

    def watched(token_ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        shapes.append(token_ids.shape)
        return run(token_ids, lengths)

    monkeypatch.setattr(embedder, "_run", watched)
    embedder.embed(mixed_texts(200))
    assert embedder.tokens_per_run == TOKENS_PER_RUN["cpu"]
    assert max(n * seq for n, seq in shapes) <= TOKENS_PER_RUN["cpu"]
    assert 10 < len(shapes) < 150


def test_a_graph_whose_rows_depend_on_the_batch_runs_one_text_at_a_time(load: Load) -> None:
    """Dynamic quantisation takes one scale for a whole batch."""
    embedder = load(graph(quantised=True))
    assert embedder.tokens_per_run == 0
    texts = mixed_texts(20)
    rows = embedder.embed(texts)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_array_equal(embedder.embed([text])[0], row)


def test_half_precision_output(load: Load) -> None:
    import onnx

    model = graph()
    model.graph.node.append(onnx.helper.make_node("Cast", ["states"], ["half"], to=onnx.TensorProto.FLOAT16))
    model.graph.output[0].name = "half"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    rows = load(model).embed(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, wanted(TEXTS), rtol=0, atol=2e-3)


def test_values_that_are_not_finite(load: Load) -> None:
    table = weights()
    table.tokens[VOCABULARY.index("banana")] = np.inf
    embedder = load(graph(table))
    assert embedder.embed(["river"]).any()
    with pytest.raises(EmbedderError, match="embedder tiny: values are not finite on a text of 3 tokens"):
        embedder.embed(["river", "banana"])


def test_graph_that_gives_nothing_finite(load: Load) -> None:
    table = weights()
    table.tokens[:] = np.nan
    with pytest.raises(EmbedderError, match=r"model\.onnx: output is float32 .* expected finite"):
        load(graph(table))


def test_input_of_another_type(load: Load) -> None:
    import onnx

    with pytest.raises(EmbedderError, match=r"input input_ids is tensor\(int32\), expected tensor\(int64\)"):
        load(graph(input_type=onnx.TensorProto.INT32, inputs=("input_ids", "attention_mask")))


def test_what_is_no_text(load: Load) -> None:
    embedder = load()
    with pytest.raises(TypeError, match="put it in a list"):
        embedder.embed("one text")
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got int"):
        embedder.embed(["fine", 3])  # type: ignore[list-item]


# -- prefix ------------------------------------------------------------------------------


def test_prefix_that_grows_together_with_a_text(tmp_path: Path) -> None:
    """The end of the prefix and the text are one token: the text has content all the same."""
    folder = write_folder(tmp_path)
    write_json(folder / "embedder.json", {"prefix": "ri"})
    embedder = load_embedder(folder, device="cpu")
    np.testing.assert_allclose(embedder.embed(["ver", "x"]), wanted(["ver", "x"], prefix="ri"), atol=1e-6)
    assert not embedder.embed(["", " ", "\u4e2d\u6587"]).any()


# -- threads -----------------------------------------------------------------------------


def test_threads_share_one_embedder(load: Load) -> None:
    embedder = load()
    texts = mixed_texts(50)
    rows = embedder.embed(texts)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(embedder.embed, [texts] * 64):
            np.testing.assert_array_equal(got, rows)


def test_more_threads_give_the_same_rows(load: Load) -> None:
    texts = mixed_texts(50)
    np.testing.assert_allclose(load(threads=2).embed(texts), load().embed(texts), rtol=0, atol=1e-6)


# -- devices -----------------------------------------------------------------------------


def test_device_says_what_was_taken(load: Load) -> None:
    embedder = load()
    assert (embedder.device, embedder.runtime) == ("cpu", "onnxruntime")
    assert "device='cpu'" in repr(embedder)
    assert load(device="auto").device in {"cpu", "cuda"}


def test_providers_in_place_of_a_device(load: Load) -> None:
    rows = load().embed(TEXTS)
    for providers in (["CPUExecutionProvider"], [("CPUExecutionProvider", {})], ("CPUExecutionProvider",)):
        embedder = load(device="auto", providers=providers)
        assert embedder.device == "cpu"
        np.testing.assert_array_equal(embedder.embed(TEXTS), rows)


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
def test_cuda_where_there_is_none() -> None:
    for options in ({}, {"runtime": "onnx"}):
        message = refusal(device="cuda", **options)
        assert message.startswith("device cuda: this onnxruntime has only ")
        assert "CPUExecutionProvider" in message
        assert "centroute[cuda]" in message


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device": "gpu"}, "device must be auto, cpu or cuda, got 'gpu'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"providers": []}, "providers: none given, this onnxruntime has "),
        (
            {"providers": ["NoSuchProvider"]},
            "providers: NoSuchProvider is not in this onnxruntime, which has ",
        ),
    ],
)
def test_options_that_are_wrong(options: dict[str, object], named: str) -> None:
    assert named in refusal(**options)


def test_runtime_that_is_none() -> None:
    with pytest.raises(EmbedderError, match="runtime must be auto or onnx, got 'torch'"):
        load_embedder("static-256", runtime="torch")  # type: ignore[arg-type]


def test_a_cuda_that_does_not_start(monkeypatch: pytest.MonkeyPatch, load: Load, tmp_path: Path) -> None:
    """A GPU build without a GPU: auto takes the CPU and prints nothing, cuda says that it failed."""
    start = onnxruntime.InferenceSession

    def failing(path: Path, options: object, *, providers: list[object], enable_fallback: int) -> object:
        if len(providers) > 1:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nmore")
        return start(path, options, providers=providers, enable_fallback=enable_fallback)

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    assert load(device="auto").device == "cpu"
    with pytest.raises(
        EmbedderError, match=r"^device cuda: .*model\.onnx: cannot be opened with CUDA.* is detected$"
    ):
        load(device="cuda")


def test_a_cuda_that_onnxruntime_quietly_leaves_out(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    start = onnxruntime.InferenceSession

    def quiet(path: Path, options: object, *, providers: list[object], enable_fallback: int) -> object:
        return start(path, options, providers=providers[-1:], enable_fallback=enable_fallback)

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", quiet)
    assert load(device="auto").device == "cpu"
    with pytest.raises(EmbedderError, match=r"^device cuda: CUDAExecutionProvider could not be started"):
        load(device="cuda")


def test_bound_run_equals_a_plain_one(load: Load) -> None:
    """What CUDA goes through, here with the CPU's memory."""
    session = load()._graph.session
    ids = np.array([[2, 5, 6, 3], [2, 4, 3, 0]])
    arrays = {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int64),
        "token_type_ids": np.zeros_like(ids),
    }
    (plain,) = session.run(["last_hidden_state"], arrays)
    bound = _run_bound(session, arrays, "last_hidden_state", device="cpu")
    np.testing.assert_array_equal(bound, plain)


@pytest.mark.skipif(not HAS_CUDA, reason="onnxruntime has no CUDAExecutionProvider here")
@pytest.mark.parametrize("outputs", [("last_hidden_state",), ("pooled",)])
def test_cuda_gives_the_rows_of_the_cpu(load: Load, outputs: tuple[str, ...]) -> None:
    texts = mixed_texts(300)
    on_cpu = load(graph(outputs=outputs))
    try:
        on_cuda = load(graph(outputs=outputs), device="cuda")
    except EmbedderError as error:
        pytest.skip(f"no CUDA device: {error}")
    assert on_cuda.device == "cuda"
    assert load(device="auto").device == "cuda"
    rows = on_cuda.embed(texts)
    np.testing.assert_allclose(rows, on_cpu.embed(texts), rtol=0, atol=1e-5)
    alone = np.concatenate([on_cuda.embed([text]) for text in texts[:20]])
    np.testing.assert_allclose(rows[:20], alone, rtol=0, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(on_cuda.embed, [texts] * 8):
            np.testing.assert_allclose(got, rows, rtol=0, atol=1e-5)


def test_onnxruntime_that_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from centroute.embedders import load_embedder\n"
        "try: load_embedder('static-256', runtime='onnx')\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("EmbedderError onnxruntime is not installed")
