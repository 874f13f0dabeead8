"""Embedders: vectors against fixed ones and against a NumPy reading of the table, and every refusal.

``python tests/test_embedders.py`` writes tests/data/static-256-canonical.json anew, from the
NumPy reading. Do so only when the embedder was meant to change.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from centroute.embedders import Embedder, bundled_folder, bundled_names, fingerprint, load_embedder
from centroute.embedders.folder import read_description, write_embedder_folder
from centroute.embedders.onnx import TEXTS_PER_BLOCK, TOKENS_PER_RUN
from centroute.errors import EmbedderError

ROOT = Path(__file__).resolve().parent.parent
CANONICAL = Path(__file__).resolve().parent / "data" / "static-256-canonical.json"
REAL_QUERIES = ROOT.parent / "shared" / "data" / "llmrouter9.jsonl.gz"

TEXTS = [
    "",
    "a",
    "What is the capital of France?",
    "def f(x):\n    return x ** 2  # naïve",
    "Prove that √2 is irrational.",
    "é中文🙂",
    "e\u0301 und \u00e9, ÀÉÎ",
    "[CLS] not a real one [SEP] [PAD] [UNK]",
    "A\x00B\u200b\tC\r\nD\ufffd",
    "broken \ud800 surrogate \udfff",
    "x" * 150 + " supercalifragilisticexpialidocious 3.14159",
    "word " * 400 + "past the end",
    "… — ‘quotes’ “more” ½ ﬁ Ⅷ",
]


@pytest.fixture(scope="module", params=["auto", "onnx"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """As it is run by default, and by ONNX Runtime."""
    return load_embedder("static-256", runtime=request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled folder, to be damaged."""
    return Path(shutil.copytree(bundled_folder("static-256"), tmp_path / "copy"))


def change_description(folder: Path, **changes: object) -> None:
    path = folder / "embedder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_folder(
    folder: Path, *, model: bytes | None = None, tokenizer: bytes | None = None, **changes: object
) -> None:
    """Write a folder whose digests and fingerprint are right, so that later checks are reached."""
    described = json.loads((folder / "embedder.json").read_text())
    arguments = {
        key: described[key] for key in ("name", "dim", "pooling", "max_tokens", "provenance")
    } | changes
    write_embedder_folder(
        folder,
        model=model if model is not None else (folder / "model.onnx").read_bytes(),
        tokenizer=tokenizer if tokenizer is not None else (folder / "tokenizer.json").read_bytes(),
        **arguments,
    )


# -- a NumPy reading of the table --------------------------------------------------------


def protobuf_fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of the fields of a protobuf message that have a length; skip plain numbers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            varint()
        elif kind == 2:
            length = varint()
            yield number, data[at : at + length]
            at += length
        else:
            at += {1: 8, 5: 4}[kind]


def read_table(path: Path) -> NDArray[np.float64]:
    """Return ``[n_tokens, dim]`` from the initializers "rows" (int8) and "scales" (float32)."""
    (graph,) = (value for number, value in protobuf_fields(memoryview(path.read_bytes())) if number == 7)
    tensors = {}
    for number, value in protobuf_fields(graph):
        if number == 5:
            fields = dict(protobuf_fields(value))
            tensors[bytes(fields[8]).decode()] = fields[9]
    scales = np.frombuffer(tensors["scales"], dtype="<f4")
    rows = np.frombuffer(tensors["rows"], dtype=np.int8).reshape(len(scales), -1)
    table: NDArray[np.float64] = rows.astype(np.float64) * scales[:, None]
    return table


def plain_embedding(texts: list[str], folder: Path) -> NDArray[np.float64]:
    """Gather, scale, sum, normalise; no padding, no batches, whole texts tokenized."""
    table = read_table(folder / "model.onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    max_tokens = read_description(folder).max_tokens
    rows = []
    for text in texts:
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        row = table[tokenizer.encode(clean).ids[:max_tokens]].sum(axis=0)
        rows.append(row / max(float(np.linalg.norm(row)), 1e-12))
    return np.array(rows)


def test_int8_graph_equals_numpy_reading_of_the_table(embedder: Embedder) -> None:
    wanted = plain_embedding(TEXTS, bundled_folder("static-256"))
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted, rtol=0, atol=1e-5)


def test_canonical_vectors(embedder: Embedder) -> None:
    canonical = json.loads(CANONICAL.read_text())
    assert canonical["fingerprint"] == embedder.fingerprint
    assert canonical["texts"] == TEXTS
    np.testing.assert_allclose(embedder.embed(TEXTS), canonical["vectors"], rtol=0, atol=1e-5)


def test_special_and_unused_tokens_weigh_nothing() -> None:
    table = read_table(bundled_folder("static-256") / "model.onnx")
    assert not table[:999].any()
    assert table[999:].any(axis=1).all()


# -- properties of the rows --------------------------------------------------------------


def test_attributes(embedder: Embedder) -> None:
    assert (embedder.name, embedder.dim, embedder.max_tokens) == ("static-256", 256, 256)
    assert embedder.fingerprint in (bundled_folder("static-256") / "embedder.json").read_text()
    assert embedder.fingerprint[:12] in repr(embedder)


def test_rows_are_finite_float32_and_unit(embedder: Embedder) -> None:
    rows = embedder.embed(TEXTS)
    assert rows.dtype == np.float32
    assert rows.shape == (len(TEXTS), 256)
    assert rows.flags.c_contiguous
    assert np.isfinite(rows).all()
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(norms[1:], 1, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 256)
    assert embedder.embed(()).dtype == np.float32


def test_alone_equals_in_batch(embedder: Embedder) -> None:
    rows = embedder.embed(TEXTS)
    for text, row in zip(TEXTS, rows, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row, rtol=0, atol=1e-5)


def test_order_survives_blocks_and_runs(embedder: Embedder) -> None:
    """More texts than a block and more tokens than a run, in mixed lengths."""
    lengths = np.random.default_rng(0).integers(0, 60, TEXTS_PER_BLOCK + 7)
    texts = [" ".join(["river", "prime", "banana", "law"][: 1 + length % 4] * length) for length in lengths]
    assert lengths.sum() > TOKENS_PER_RUN["cpu"]
    rows = embedder.embed(texts)
    for text_id in (0, 1, 500, TEXTS_PER_BLOCK - 1, TEXTS_PER_BLOCK, len(texts) - 1):
        np.testing.assert_allclose(embedder.embed([texts[text_id]])[0], rows[text_id], rtol=0, atol=1e-5)
    assert not rows[lengths == 0].any()


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t \r\n", "\u00a0\u3000", "🙂🚀", "\x00", "\ud800", "[CLS] [PAD]", "x" * 101]
)
def test_text_without_known_token_gives_zero_row(embedder: Embedder, text: str) -> None:
    alone = embedder.embed([text])
    between = embedder.embed(["before", text, "after"])
    assert not alone.any()
    assert not between[1].any()
    assert between[[0, 2]].any(axis=1).all()


def test_lone_surrogate_is_read_as_replacement_character(embedder: Embedder) -> None:
    broken, replaced = embedder.embed(["half \ud83d pair", "half \ufffd pair"])
    np.testing.assert_array_equal(broken, replaced)


def test_nul_and_emoji_leave_the_rest_readable(embedder: Embedder) -> None:
    plain, nul, emoji = embedder.embed(["king of France", "king\x00 of France", "king of 🙂 France"])
    np.testing.assert_array_equal(plain, nul)
    np.testing.assert_allclose(plain, emoji, rtol=0, atol=1e-6)


def test_meaning_shows_in_similarity(embedder: Embedder) -> None:
    cat, kitten, tax = embedder.embed(["The cat sleeps.", "A kitten naps.", "Income tax law of 1913"])
    assert cat @ kitten > cat @ tax + 0.2


# -- long texts --------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["word ", "a", "漢字", ".", "🙂", "\x00", "e\u0301", "\ud800", "\n"])
def test_one_megabyte(embedder: Embedder, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode("utf-8", "surrogatepass")))
    start = time.perf_counter()
    (row,) = embedder.embed([text])
    assert time.perf_counter() - start < 10  # about 1 s at worst here; a loaded machine is slower
    assert np.isfinite(row).all()


def test_text_past_max_tokens_is_ignored(embedder: Embedder) -> None:
    head = "alpha " * 256
    short, long, other = embedder.embed([head, head + "omega " * 50_000, "alpha " * 255 + "omega"])
    np.testing.assert_array_equal(short, long)
    assert not np.allclose(short, other, atol=1e-5)


# -- threads, prefix, other folders ------------------------------------------------------


def test_threads_share_one_embedder(embedder: Embedder) -> None:
    texts = [f"question {n} about {'history' if n % 2 else 'chemistry'}" for n in range(64)]
    wanted = embedder.embed(texts)
    with ThreadPoolExecutor(8) as pool:
        for rows in pool.map(embedder.embed, [texts] * 32):
            np.testing.assert_array_equal(rows, wanted)


def test_more_intra_op_threads_give_the_same_rows(embedder: Embedder) -> None:
    np.testing.assert_allclose(
        load_embedder("static-256", threads=2, runtime="onnx").embed(TEXTS), embedder.embed(TEXTS), atol=1e-6
    )


def test_prefix_comes_before_each_text(folder: Path, embedder: Embedder) -> None:
    write_folder(folder, prefix="query: ")
    prefixed = load_embedder(folder)
    np.testing.assert_allclose(
        prefixed.embed(["red fox"]), embedder.embed(["query: red fox"]), rtol=0, atol=1e-6
    )
    assert not prefixed.embed([""]).any()
    assert prefixed.fingerprint != embedder.fingerprint


def test_padding_and_truncation_of_the_tokenizer_file_do_not_count(folder: Path, embedder: Embedder) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(4)
    write_folder(folder, tokenizer=tokenizer.to_str().encode())
    np.testing.assert_allclose(
        load_embedder(str(folder)).embed(TEXTS), embedder.embed(TEXTS), rtol=0, atol=1e-6
    )


def test_max_tokens_of_the_description_counts(folder: Path, embedder: Embedder) -> None:
    write_folder(folder, max_tokens=2)
    np.testing.assert_allclose(
        load_embedder(folder).embed(["red fox runs"]), embedder.embed(["red fox"]), rtol=0, atol=1e-6
    )


def test_relative_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_embedder("copy").name == "static-256"


def test_import_is_light() -> None:
    code = (
        "import sys, centroute, centroute.embedders as e; e.bundled_names();"
        "print([m for m in ('onnxruntime', 'tokenizers') if m in sys.modules]); e.Embedder"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_files_stay_small() -> None:
    for path in bundled_folder("static-256").iterdir():
        assert path.stat().st_size <= 9_000_000, path.name


@pytest.mark.skipif(not REAL_QUERIES.exists(), reason="no real queries beside the repository")
def test_real_queries(embedder: Embedder) -> None:
    with gzip.open(REAL_QUERIES, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["query"] for line, _ in zip(file, range(300), strict=False)]
    rows = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows, plain_embedding(texts, bundled_folder("static-256")), rtol=0, atol=1e-5)


# -- refusals ----------------------------------------------------------------------------


def refusal(name_or_dir: str | Path, **options: object) -> str:
    """Return the message of the EmbedderError, which must be one line."""
    with pytest.raises(EmbedderError) as caught:
        load_embedder(name_or_dir, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_name_lists_the_known_ones() -> None:
    message = refusal("static-257")
    assert "'static-257'" in message
    assert "static-256" in message
    assert bundled_names() == ["static-256", "static-multi"]


def test_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: not a folder" in refusal(tmp_path / "nowhere")
    assert "not a folder" in refusal(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name}: file is missing" in refusal(folder)


def test_folder_without_its_description_is_another_embedder(folder: Path, embedder: Embedder) -> None:
    """It is read as a folder of another tool, with another fingerprint."""
    (folder / "embedder.json").unlink()
    bare = load_embedder(folder)
    np.testing.assert_allclose(bare.embed(["red fox"]), embedder.embed(["red fox"]), rtol=0, atol=1e-6)
    assert bare.fingerprint != embedder.fingerprint


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": ', b"\xff\xfe", b"[" * 100_000])
def test_broken_json(folder: Path, content: bytes) -> None:
    (folder / "embedder.json").write_bytes(content)
    assert "embedder.json: cannot be read as JSON" in refusal(folder)


def test_json_that_is_no_object(folder: Path) -> None:
    (folder / "embedder.json").write_text("[]")
    assert "expected a JSON object, got list" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"dim": "256"}, "dim must be of type int, got '256'"),
        ({"dim": True}, "dim must be of type int, got True"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"inputs": ["input_ids"]}, "inputs must be"),
        ({"surface_features": "v9"}, "surface_features 'v9' are not known"),
        ({"pool": "mean"}, "unknown key 'pool'"),
    ],
)
def test_wrong_value_in_the_description(folder: Path, changes: dict[str, object], wanted: str) -> None:
    change_description(folder, **changes)
    assert wanted in refusal(folder)


def test_missing_key(folder: Path) -> None:
    content = json.loads((folder / "embedder.json").read_text())
    del content["pooling"]
    (folder / "embedder.json").write_text(json.dumps(content))
    assert "key 'pooling' is missing" in refusal(folder)


def test_dim_that_is_not_the_graphs(folder: Path) -> None:
    change_description(folder, dim=128)
    message = refusal(folder, runtime="onnx")
    assert "model.onnx: output has shape ['n', 256]" in message
    assert "dim 128" in message


def test_input_that_the_graph_lacks(folder: Path) -> None:
    change_description(folder, inputs=["tokens", "attention_mask"])
    message = refusal(folder, runtime="onnx")
    assert "model.onnx: inputs are ['input_ids', 'attention_mask']" in message


@pytest.mark.parametrize(
    "changes", [{"fingerprint": "0" * 64}, {"max_tokens": 255}, {"pooling": "mean"}, {"prefix": "q"}]
)
def test_wrong_fingerprint(folder: Path, changes: dict[str, object]) -> None:
    change_description(folder, **changes)
    assert "embedder.json: fingerprint is" in refusal(folder)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_file_that_is_not_the_described_one(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name}: is not the file that embedder.json describes" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff", b'{"model": {"type": "Nope"}}'])
def test_tokenizer_that_does_not_parse(folder: Path, content: bytes) -> None:
    write_folder(folder, tokenizer=content)
    assert "tokenizer.json: not a tokenizer" in refusal(folder)


@pytest.mark.parametrize("size", [0, 3, 1000, 7_000_000])
def test_unreadable_onnx(folder: Path, size: int) -> None:
    write_folder(folder, model=(folder / "model.onnx").read_bytes()[:size])
    assert "model.onnx: not a readable ONNX model" in refusal(folder, runtime="onnx")


def test_tokenizer_with_more_tokens_than_the_table(folder: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["oneword"])
    write_folder(folder, tokenizer=tokenizer.to_str().encode())
    assert "model.onnx: cannot be run with 30523 token ids" in refusal(folder, runtime="onnx")


def test_no_threads() -> None:
    assert "threads must be at least 1, got 0" in refusal("static-256", threads=0, runtime="onnx")


@pytest.mark.parametrize(("item", "kind"), [(None, "NoneType"), (3, "int"), (b"x", "bytes"), (["x"], "list")])
def test_item_that_is_no_text(embedder: Embedder, item: object, kind: str) -> None:
    with pytest.raises(TypeError, match=rf"texts\[1\] must be str, got {kind}"):
        embedder.embed(["fine", item])  # type: ignore[list-item]


def test_one_text_without_a_list(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="put it in a list"):
        embedder.embed("one text")


# -- fingerprint -------------------------------------------------------------------------


def test_fingerprint_is_the_documented_form() -> None:
    text = (
        '{"max_tokens":256,"model_sha256":"' + "0" * 64 + '","pooling":"sum","prefix":"é\\"\\n\\u0001",'
        '"surface_features":null,"tokenizer_sha256":"' + "1" * 64 + '"}'
    )
    wanted = hashlib.sha256(text.encode("utf-8")).hexdigest()
    got = fingerprint("0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=256, prefix='é"\n\x01')
    assert got == wanted


def test_fingerprint_is_stable() -> None:
    got = fingerprint("0" * 64, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=256)
    assert got == "aeb021505b5c7902172556df46c64967711747d53f4b8bf2692f6a586c2bdfe9"


def test_fingerprint_depends_on_every_part() -> None:
    base: dict[str, object] = {"tokenizer_sha256": "1" * 64, "pooling": "sum", "max_tokens": 256}
    changes: list[dict[str, object]] = [
        {},
        {"tokenizer_sha256": "2" * 64},
        {"pooling": "mean"},
        {"max_tokens": 255},
        {"prefix": "q"},
        {"surface_features": "v1@0.1"},
    ]
    results = {fingerprint("0" * 64, **(base | change)) for change in changes}  # type: ignore[arg-type]
    results.add(fingerprint("3" * 64, **base))  # type: ignore[arg-type]
    assert len(results) == len(changes) + 1


@pytest.mark.parametrize("digest", ["", "0" * 63, "A" * 64, "g" * 64])
def test_fingerprint_refuses_what_is_no_digest(digest: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits"):
        fingerprint(digest, tokenizer_sha256="1" * 64, pooling="sum", max_tokens=256)


def write_canonical() -> None:
    """Write the canonical vectors, from the NumPy reading and not from the code under test."""
    source = bundled_folder("static-256")
    vectors = plain_embedding(TEXTS, source)
    content = {
        "fingerprint": read_description(source).fingerprint,
        "texts": TEXTS,
        "vectors": [[round(float(value), 7) for value in row] for row in vectors],
    }
    CANONICAL.parent.mkdir(exist_ok=True)
    CANONICAL.write_text(json.dumps(content, separators=(",", ":")).replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    write_canonical()
