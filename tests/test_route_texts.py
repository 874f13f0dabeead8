"""Texts routed in one call decide as embedding and routing apart, and static rows are ONNX Runtime's."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centroute import Artifact, DataError, EmbedderError, Policy, PolicyError, Router, embedders
from centroute._kernel import StaticEmbedder, surface_features
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes
from centroute.embedders import Embedder, bundled_folder, load_embedder
from centroute.surface import surface_features as twin

REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
TEXTS = [
    "What is the capital of France?",
    "def f(x):\n    return x ** 2  # naïve",
    "é中文 and the rest, ÀÉÎ",
    "broken \ud800 surrogate \udfff of a word",
    "[CLS] not a real one [SEP] of them",
    "word " * 400 + "past the end",
    "A\x00B\u200b\tC\r\nD\ufffd",
    "x" * 150 + " supercalifragilisticexpialidocious 3.14159",
    "Answer: $5 + 7 = 12$? return None; while True",
]
POLICIES = [None, Policy(willingness_to_pay=0.01), Policy(alpha=0.5), Policy(min_quality=0.6)]


@pytest.fixture(scope="module", params=[0.0, 0.15], ids=["no features", "surface features"])
def routers(request: pytest.FixtureRequest, outcomes: Outcomes) -> tuple[Router, Router]:
    """The same router with the static embedder and with ONNX Runtime."""
    artifact = calibrate(outcomes, method="means", n_clusters=16, top_p=4, surface_weight=request.param)
    by_onnx = load_embedder("static-256", runtime="onnx")
    return Router.from_artifact(artifact, embedder=load_embedder("static-256")), Router.from_artifact(
        artifact, embedder=by_onnx
    )


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_one_call_decides_as_two(routers: tuple[Router, Router], policy: Policy | None) -> None:
    router, by_onnx = routers
    for text in TEXTS:
        decision = router.route(text, policy=policy)
        apart = router.route_embedding(router.embed([text])[0], policy=policy)
        other = by_onnx.route(text, policy=policy)
        assert decision.model == apart.model == other.model
        assert decision.ranking == apart.ranking
        for values in ((apart.quality, apart.similarity), (other.quality, other.similarity)):
            assert (decision.quality, decision.similarity) == pytest.approx(values, abs=2e-6)
        assert [cluster for cluster, _ in decision.clusters] == [cluster for cluster, _ in apart.clusters]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_have_the_bits_of_one_after_another(routers: tuple[Router, Router], threads: int) -> None:
    router, _ = routers
    texts = TEXTS * 150
    batch = router.route_batch(texts, policy=POLICIES[1], threads=threads)
    for row, text in enumerate(TEXTS):
        decision = router.route(text, policy=POLICIES[1])
        assert batch.models[row] == decision.model
        assert batch.similarity[row] == np.float32(decision.similarity)
        assert batch.quality[row] == np.float32(decision.quality)
    alone = router.route_batch(TEXTS, policy=POLICIES[1])
    for name in ("model_ids", "quality", "cost", "margin", "similarity", "cluster_ids", "cluster_weights"):
        wanted = np.concatenate([getattr(alone, name)] * 150)
        np.testing.assert_array_equal(getattr(batch, name), wanted, err_msg=name)


def test_more_texts_than_a_block(routers: tuple[Router, Router]) -> None:
    router, _ = routers
    texts = [f"question {number} about {'law' if number % 3 else 'code'}" for number in range(4100)]
    batch = router.route_batch(texts, threads=2)
    for row in (0, 63, 64, 4095, 4096, 4099):
        assert batch.similarity[row] == np.float32(router.route(texts[row]).similarity)


def test_rows_may_want_different_things(routers: tuple[Router, Router]) -> None:
    router, by_onnx = routers
    amounts = np.linspace(0, 0.05, len(TEXTS), dtype=np.float32)
    batch = router.route_batch(TEXTS, willingness_to_pay=amounts)
    other = by_onnx.route_batch(TEXTS, willingness_to_pay=amounts)
    for row, text in enumerate(TEXTS):
        wanted = router.route(text, policy=Policy(willingness_to_pay=float(amounts[row])))
        assert batch.models[row] == other.models[row] == wanted.model
    allow = np.zeros((len(TEXTS), len(router.models)), dtype=bool)
    allow[:, 2] = True
    assert set(router.route_batch(TEXTS, allow=allow).models) == {router.models[2]}
    with pytest.raises(PolicyError, match="willingness_to_pay: got 1 numbers for 9 rows"):
        router.route_batch(TEXTS, willingness_to_pay=amounts[:1])


def test_no_texts(routers: tuple[Router, Router]) -> None:
    assert len(routers[0].route_batch([])) == 0


@pytest.mark.parametrize("text", ["", " \n\t", "🙂🚀", "\x00", "\ud800", "[CLS]"])
def test_a_text_without_known_token_is_refused_with_its_index(
    routers: tuple[Router, Router], text: str
) -> None:
    for router in routers:
        holds = "nothing that the embedder knows" if text.strip() else "only spaces or nothing"
        with pytest.raises(DataError) as one:
            router.route(text)
        with pytest.raises(DataError) as many:
            router.route_batch(["fine", text, "fine"])
        assert str(one.value) == f"text 0 holds {holds}: {text!r}"
        assert str(many.value) == f"text 1 holds {holds}: {text!r}"


def test_a_long_text_is_shown_in_part(routers: tuple[Router, Router]) -> None:
    with pytest.raises(DataError) as caught:
        routers[0].route("🙂" * 10_000)
    assert len(str(caught.value)) < 200


def test_what_is_no_text_is_refused(routers: tuple[Router, Router]) -> None:
    router, _ = routers
    with pytest.raises(TypeError):
        router.route(7)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="got one string"):
        router.route_batch("text")
    with pytest.raises(TypeError, match=r"texts\[1\] must be str, got NoneType"):
        router.route_batch(["text", None])  # type: ignore[list-item]


def test_policies_that_leave_nobody_name_the_row(routers: tuple[Router, Router]) -> None:
    router, _ = routers
    with pytest.raises(PolicyError, match=r"row 0: max_cost .* excludes"):
        router.route_batch(TEXTS, policy=Policy(max_cost=1e-12))
    allow = np.ones((len(TEXTS), len(router.models)), dtype=bool)
    allow[5] = False
    with pytest.raises(PolicyError, match="row 5"):
        router.route_batch(TEXTS, allow=allow)


def test_an_embedder_of_another_width_is_refused(routers: tuple[Router, Router], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rows = np.ones((30_522, 8), dtype=np.float32)
    save_file({"rows": rows}, tmp_path / "table.safetensors")
    narrow = StaticEmbedder.from_safetensors(
        (tmp_path / "table.safetensors").read_bytes(),
        (bundled_folder("static-256") / "tokenizer.json").read_bytes(),
        rows="rows", weights=None, mapping=None, max_tokens=8, prefix="", max_characters=None,
        add_special_tokens=False, drop_unknown=True,
    )  # fmt: skip
    kernel = routers[0]._kernel
    with pytest.raises(DataError, match=r"got (8|20), the router wants"):
        kernel.route_text(narrow, "text")
    with pytest.raises(DataError, match=r"got (8|20), the router wants"):
        kernel.route_texts(narrow, ["text"])


def test_stages_are_timed(routers: tuple[Router, Router]) -> None:
    for router in routers:
        times = router.time_stages("What is the capital of France?", policy=POLICIES[1])
        assert len(times) == 3
        assert all(0 <= nanoseconds < 1e9 for nanoseconds in times)
        assert times[2] > 0


# -- against ONNX Runtime ----------------------------------------------------------------


@pytest.fixture(scope="module")
def static() -> Embedder:
    return load_embedder("static-256")


@pytest.fixture(scope="module")
def by_onnx() -> Embedder:
    return load_embedder("static-256", runtime="onnx")


@pytest.mark.parametrize("name", ["llmrouter9", "routerbench3", "mmlu_pro", "routellm2"])
def test_real_texts_have_the_rows_and_decisions_of_onnx_runtime(
    static: Embedder, by_onnx: Embedder, artifact: Artifact, name: str
) -> None:
    path = REAL_DATA / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip("no real queries beside the repository")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["query"] for line in file][::5]
    rows, wanted = static.embed(texts), by_onnx.embed(texts)
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=1e-5)
    router = Router.from_artifact(artifact)
    for policy in (Policy(), Policy(willingness_to_pay=0.01)):
        chosen = router.route_embeddings(rows, policy=policy)
        other = router.route_embeddings(wanted, policy=policy)
        differ = chosen.model_ids != other.model_ids
        # Only where the best two are equal to rounding.
        assert np.all(np.minimum(chosen.margin, other.margin)[differ] < 1e-6)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=400))
def test_any_text_has_the_row_of_onnx_runtime(static: Embedder, by_onnx: Embedder, text: str) -> None:
    np.testing.assert_allclose(static.embed([text]), by_onnx.embed([text]), rtol=0, atol=1e-5)


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.text(max_size=300) | st.text("ae\x00 \n$?_f1", max_size=300), max_size=6))
def test_surface_features_equal_the_twin(texts: list[str]) -> None:
    np.testing.assert_allclose(surface_features(texts), twin(texts), rtol=1e-6, atol=1e-7)


def test_surface_features_of_real_texts_equal_the_twin() -> None:
    path = REAL_DATA / "llmrouter9.jsonl.gz"
    if not path.exists():
        pytest.skip("no real queries beside the repository")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["query"] for line in file]
    np.testing.assert_allclose(surface_features(texts), twin(texts), rtol=1e-6, atol=1e-7)


def test_surface_features_of_nasty_texts_equal_the_twin() -> None:
    texts = [
        *TEXTS, "", "f e\x00 f\x00 e f", "a" * 20_000, "é" * 8191 + "ab", "word " * 5000, "\x0b\x0c\x1c\x85",
        "def_ defx _def def def.def None none False", "\ud800 \udfff", "function functions functio lambda",
    ]  # fmt: skip
    np.testing.assert_allclose(surface_features(texts), twin(texts), rtol=1e-6, atol=1e-7)


# -- loading -----------------------------------------------------------------------------


def test_texts_are_routed_without_numpy_and_onnx_runtime(router_file: Path) -> None:
    code = (
        "import sys; from centroute import Router;"
        f"print(Router.load({str(router_file)!r}).route('What is a prime number?').model);"
        "print([m for m in ('numpy', 'onnxruntime', 'tokenizers', 'numba') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[1] == "[]"


def test_the_embedder_is_loaded_once_whoever_comes(
    router_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def slowly(name: str) -> Embedder:
        loads.append(name)
        time.sleep(0.05)
        return load_embedder(name)

    monkeypatch.setattr(embedders, "load_embedder", slowly)
    router = Router.load(router_file)
    models: list[str] = []
    crowd = [
        threading.Thread(target=lambda: models.append(router.route("What is a prime?").model))
        for _ in range(8)
    ]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert len(models) == 8
    assert len(set(models)) == 1
    assert loads == ["static-256"]


def test_a_failed_load_is_tried_again(router_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Embedder:
        raise EmbedderError(f"{name} is away")

    router = Router.load(router_file)
    with monkeypatch.context() as patch:
        patch.setattr(embedders, "load_embedder", fails)
        with pytest.raises(EmbedderError, match="static-256 is away"):
            router.route("What is a prime?")
    assert router.route("What is a prime?").model in router.models
