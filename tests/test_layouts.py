"""Folders as sentence-transformers, optimum, fastembed and model2vec write them, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file
from tiny_embedder import (
    DIM,
    N_POSITIONS,
    TEXTS,
    VOCABULARY,
    graph,
    tokenizer,
    unit,
    wanted,
    weights,
    write_folder,
    write_json,
    write_model2vec,
)

from centroute.embedders import load_embedder, read_folder
from centroute.embedders.layouts import DEFAULT_MAX_TOKENS, LARGEST_MAX_TOKENS
from centroute.errors import EmbedderError

BERT = {"model_type": "bert", "vocab_size": len(VOCABULARY)}
TABLE = {"embeddings": np.eye(len(VOCABULARY), DIM, dtype=np.float32)}


def refusal(folder: Path) -> str:
    """Return the message of the EmbedderError, which must be one line."""
    with pytest.raises(EmbedderError) as caught:
        load_embedder(folder, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    return message


def modules(*kinds: str) -> list[dict[str, object]]:
    return [
        {"idx": i, "path": "" if i == 0 else f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]


# -- graphs: the rows are those of a NumPy reading ---------------------------------------


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx", "model_optimized.onnx"])
def test_place_of_the_graph(tmp_path: Path, place: str) -> None:
    embedder = load_embedder(write_folder(tmp_path / "tiny", place=place), device="cpu")
    assert (embedder.name, embedder.dim, embedder.max_tokens) == ("tiny", DIM, 32)
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("new_style", [False, True])
def test_pooling(tmp_path: Path, pooling: str, *, new_style: bool) -> None:
    flag = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[pooling]
    config: dict[str, object] = {f"pooling_mode_{flag}": True, "pooling_mode_max_tokens": False}
    if new_style:
        config = {"embedding_dimension": DIM, "pooling_mode": "lasttoken" if pooling == "last" else pooling}
    embedder = load_embedder(write_folder(tmp_path, pooling=config), device="cpu")
    assert embedder.description.pooling == pooling
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS, pooling), rtol=0, atol=1e-6)
    for text, row in zip(TEXTS, wanted(TEXTS, pooling), strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row, rtol=0, atol=1e-6)


def test_pooling_that_nothing_says_is_the_mean(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, pooling=None, modules=None)
    assert read_folder(folder).pooling_is_assumed
    np.testing.assert_allclose(load_embedder(folder).embed(TEXTS), wanted(TEXTS), rtol=0, atol=1e-6)


def test_graph_that_pools(tmp_path: Path) -> None:
    """sentence_embedding is taken before the token rows beside it."""
    model = graph(outputs=("last_hidden_state", "sentence_embedding"))
    embedder = load_embedder(write_folder(tmp_path, model, pooling={"pooling_mode_cls_token": True}))
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS), rtol=0, atol=1e-6)
    assert embedder.description.output == "sentence_embedding"


@pytest.mark.parametrize(
    ("outputs", "taken"),
    [
        (("token_embeddings", "last_hidden_state"), "last_hidden_state"),
        (("other", "token_embeddings"), "token_embeddings"),
        (("anything",), "anything"),
        (("pooled",), "pooled"),
    ],
)
def test_output_that_is_taken(tmp_path: Path, outputs: tuple[str, ...], taken: str) -> None:
    embedder = load_embedder(write_folder(tmp_path, graph(outputs=outputs)))
    assert embedder.description.output == taken
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS), rtol=0, atol=1e-6)


def test_graph_without_token_types(tmp_path: Path) -> None:
    table = weights()
    table.types[0] = 0
    model = graph(table, inputs=("input_ids", "attention_mask"))
    rows = load_embedder(write_folder(tmp_path / "without", model)).embed(TEXTS)
    with_types = load_embedder(write_folder(tmp_path / "with", graph(table))).embed(TEXTS)
    np.testing.assert_allclose(rows, with_types, rtol=0, atol=1e-6)


def test_only_graph_and_tokenizer(tmp_path: Path) -> None:
    """The least that can be brought; also with a folder's path in the form of a string."""
    nothing = dict.fromkeys(("config", "sentence_bert_config", "tokenizer_config", "pooling", "modules"))
    folder = write_folder(tmp_path, place="model.onnx", **nothing)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "tokenizer.json"]
    embedder = load_embedder(str(folder))
    assert embedder.max_tokens == DEFAULT_MAX_TOKENS
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS, max_tokens=512), rtol=0, atol=1e-6)
    # This graph has positions for 64 tokens, and nothing in the folder says so.
    with pytest.raises(EmbedderError, match="cannot be run on a text of 502 tokens"):
        embedder.embed(["river " * 500])


# -- graphs: maximum length and prefix ---------------------------------------------------


@pytest.mark.parametrize(
    ("files", "max_tokens"),
    [
        ({"sentence_bert_config": {"max_seq_length": 20}}, 20),
        ({"sentence_bert_config": {"max_seq_length": 1000}}, N_POSITIONS),
        ({"sentence_bert_config": None}, 48),
        ({"sentence_bert_config": None, "sentence_roberta_config": {"max_seq_length": 24}}, 24),
        ({"sentence_bert_config": {"max_seq_length": None}}, 48),
        ({"sentence_bert_config": None, "tokenizer_config": {"model_max_length": 1e30}}, N_POSITIONS),
        ({"sentence_bert_config": None, "tokenizer_config": {"model_max_length": 10**30}}, N_POSITIONS),
        ({"sentence_bert_config": None, "tokenizer_config": None}, N_POSITIONS),
        ({"sentence_bert_config": None, "tokenizer_config": None, "config": BERT}, 512),
        ({"config": {**BERT, "model_type": "roberta", "max_position_embeddings": 34}}, 32),
        ({"config": {**BERT, "model_type": "roberta", "max_position_embeddings": 30}}, 28),
        ({"config": {**BERT, "model_type": "mpnet", "max_position_embeddings": 30, "pad_token_id": 3}}, 26),
        ({"config": {**BERT, "max_position_embeddings": -1}}, 32),
    ],
)
def test_max_tokens(tmp_path: Path, files: dict[str, object], max_tokens: int) -> None:
    assert read_folder(write_folder(tmp_path, **files)).description.max_tokens == max_tokens


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, "query: "),
        ({"prompts": {"q": "law "}, "default_prompt_name": "q"}, "law "),
        ({"prompts": {"query": None, "q": "law "}, "default_prompt_name": "q"}, "law "),
        ({"prompts": {"query": "", "document": ""}, "default_prompt_name": None}, ""),
        ({"prompts": {}}, ""),
        ({"__version__": {}}, ""),
    ],
)
def test_prefix(tmp_path: Path, config: dict[str, object], prefix: str) -> None:
    embedder = load_embedder(write_folder(tmp_path, config_sentence_transformers=config))
    assert embedder.description.prefix == prefix
    np.testing.assert_allclose(embedder.embed(TEXTS), wanted(TEXTS, prefix=prefix), rtol=0, atol=1e-6)
    assert not embedder.embed(["", " ", "\u4e2d"]).any()


# -- settings of the user ----------------------------------------------------------------


def test_settings_of_the_user_come_first(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, config_sentence_transformers={"prompts": {"query": "query: "}})
    before = load_embedder(folder)
    write_json(
        folder / "embedder.json", {"name": "mine", "pooling": "last", "max_tokens": 9, "prefix": "law "}
    )
    embedder = load_embedder(folder)
    assert (embedder.name, embedder.max_tokens, embedder.description.prefix) == ("mine", 9, "law ")
    np.testing.assert_allclose(
        embedder.embed(TEXTS), wanted(TEXTS, "last", max_tokens=9, prefix="law "), rtol=0, atol=1e-6
    )
    assert embedder.fingerprint != before.fingerprint


def test_fingerprint_follows_what_changes_vectors(tmp_path: Path) -> None:
    base = read_folder(write_folder(tmp_path / "a")).description
    again = read_folder(write_folder(tmp_path / "b")).description
    assert base.fingerprint == again.fingerprint
    others = [
        {"pooling": {"pooling_mode_cls_token": True}},
        {"sentence_bert_config": {"max_seq_length": 31}},
        {"config_sentence_transformers": {"prompts": {"query": "q"}}},
    ]
    prints = {
        read_folder(write_folder(tmp_path / str(i), **files)).description.fingerprint
        for i, files in enumerate(others)
    }
    assert len(prints | {base.fingerprint}) == 4


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dim": 3}, "embedder.json: unknown key 'dim'; without format_version it may set name, pooling"),
        ({"pooling": "max"}, "embedder.json: pooling must be one of mean, cls, last, got 'max'"),
        ({"max_tokens": 0}, "embedder.json: max_tokens must be at least 1, got 0"),
        ({"max_tokens": True}, "embedder.json: max_tokens must be of type int, got True"),
        ({"max_tokens": 65}, "embedder.json: max_tokens is 65, config.json allows 64 positions"),
        ({"prefix": None}, "embedder.json: prefix must be of type str, got None"),
        ([], "embedder.json: expected a JSON object, got list"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, settings: object, named: str) -> None:
    folder = write_folder(tmp_path)
    write_json(folder / "embedder.json", settings)
    assert named in refusal(folder)


# -- graphs: refusals --------------------------------------------------------------------


def test_missing_tokenizer(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json: file is missing" in refusal(folder)


def test_missing_graph_names_what_is_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, place="onnx/model_O4.onnx")
    message = refusal(folder)
    assert "model.onnx: file is missing, and so are onnx/model.onnx and model_optimized.onnx" in message
    assert "there is onnx/model_O4.onnx" in message


def test_empty_folder(tmp_path: Path) -> None:
    assert "model.onnx: file is missing" in refusal(tmp_path)


def test_weights_of_a_transformer_are_no_graph(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path, {"embeddings.word_embeddings.weight": np.ones((3, 4))})
    assert "model.onnx: file is missing" in refusal(folder)


@pytest.mark.parametrize("kind", ["Dense", "LayerNorm", "WeightedLayerPooling"])
def test_module_that_changes_the_vectors(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path, modules=modules("Transformer", "Pooling", kind, "Normalize"))
    assert f"modules.json: module {kind} is not supported" in refusal(folder)


def test_modules_as_newer_versions_name_them(tmp_path: Path) -> None:
    prefix = "sentence_transformers.sentence_transformer.modules"
    listed = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "2_Pooling", "type": f"{prefix}.pooling.Pooling"},
    ]
    folder = write_folder(tmp_path, modules=listed)
    write_json(folder / "2_Pooling" / "config.json", {"pooling_mode": "cls"})
    assert load_embedder(folder).description.pooling == "cls"


@pytest.mark.parametrize("content", ["{}x", '{"a": 1}', "[1]", '[{"path": ""}]', '[{"path": "", "type": 3}]'])
def test_broken_modules(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path)
    (folder / "modules.json").write_text(content)
    assert "modules.json: not a list of modules with type and path" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling mode ['max'] is not supported"),
        ({"pooling_mode": "weightedmean"}, "pooling mode ['weightedmean'] is not supported"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "['cls', 'mean'] is not"),
        (
            {"pooling_mode": ["mean", "max"]},
            "['mean', 'max'] is not supported; one of mean, cls, lasttoken is",
        ),
        ({"pooling_mode": 3}, "pooling mode 3 is not supported"),
        ([], "expected a JSON object, got list"),
    ],
)
def test_pooling_that_is_not_supported(tmp_path: Path, config: object, named: str) -> None:
    message = refusal(write_folder(tmp_path, pooling=config))
    assert "1_Pooling/config.json: " in message
    assert named in message


def test_prefix_that_is_not_pooled(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        pooling={"pooling_mode_mean_tokens": True, "include_prompt": False},
        config_sentence_transformers={"prompts": {"query": "query: "}},
    )
    assert "include_prompt false with prefix 'query: ' is not supported" in refusal(folder)


def test_prompt_that_is_no_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, config_sentence_transformers={"prompts": {"query": 3}})
    assert "the prompt of a query must be a string, got 3" in refusal(folder)


def test_lower_case_that_the_tokenizer_does_not_make(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, sentence_bert_config={"max_seq_length": 32, "do_lower_case": True})
    assert load_embedder(folder).max_tokens == 32
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"lowercase":true', '"lowercase":false'))
    assert "sentence_bert_config.json: do_lower_case, but tokenizer.json does not" in refusal(folder)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (("input_ids", "attention_mask", "position_ids"), "position_ids"),
        (("input_ids", "attention_mask", "pixels"), "pixels"),
    ],
)
def test_input_that_is_not_known(tmp_path: Path, inputs: tuple[str, ...], named: str) -> None:
    message = refusal(write_folder(tmp_path, graph(inputs=inputs)))
    assert "model.onnx: inputs are ['input_ids', 'attention_mask'" in message
    assert named in message
    assert "expected input_ids, attention_mask and at most token_type_ids" in message


def test_two_outputs_of_other_names(tmp_path: Path) -> None:
    message = refusal(write_folder(tmp_path, graph(outputs=("one", "two"))))
    assert "model.onnx: outputs are ['one', 'two'], expected one, or one named" in message


def test_vocabulary_larger_than_the_table(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, graph(weights(n_tokens=30)), config=None)
    assert f"model.onnx: cannot be run with {len(VOCABULARY)} token ids" in refusal(folder)


@pytest.mark.parametrize("vocab_size", [30, 30_522])
def test_tokenizer_of_another_model(tmp_path: Path, vocab_size: int) -> None:
    folder = write_folder(tmp_path, config={"model_type": "bert", "vocab_size": vocab_size})
    message = refusal(folder)
    assert (
        f"tokenizer.json: has {len(VOCABULARY)} token ids, config.json says vocab_size {vocab_size}"
        in message
    )


def test_table_with_a_few_spare_rows(tmp_path: Path) -> None:
    n_rows = len(VOCABULARY) + 30
    folder = write_folder(tmp_path, graph(weights(n_rows)), config={"vocab_size": n_rows})
    assert load_embedder(folder).embed(TEXTS).any(axis=1).all()


def test_weights_in_another_file(tmp_path: Path) -> None:
    import onnx

    folder = write_folder(tmp_path, place="model.onnx")
    onnx.save_model(
        graph(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    assert "model.onnx: keeps its weights in another file; save it with all in one file" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08"])
def test_graph_that_is_none(tmp_path: Path, content: bytes) -> None:
    folder = write_folder(tmp_path)
    (folder / "onnx" / "model.onnx").write_bytes(content)
    assert "model.onnx: not a readable ONNX model" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["config", "tokenizer_config", "sentence_bert_config", "config_sentence_transformers"]
)
def test_broken_config(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path, sentence_bert_config=None)
    (folder / f"{name}.json").write_text("{")
    assert f"{name}.json: cannot be read as JSON" in refusal(folder)


# -- static tables -----------------------------------------------------------------------


def test_model2vec_is_described(tmp_path: Path) -> None:
    folder = read_folder(write_model2vec(tmp_path / "potion", TABLE))
    assert (folder.layout, folder.is_static) == ("model2vec", True)
    table, description = folder.table, folder.description
    assert table is not None
    assert (table.path, table.rows) == (folder.path / "model.safetensors", "embeddings")
    assert (table.weights, table.mapping, table.n_token_ids) == (None, None, len(VOCABULARY))
    assert (table.drops_unknown, table.adds_special_tokens) == (True, False)
    assert (description.name, description.dim, description.max_tokens) == ("potion", DIM, 512)
    assert description.pooling == "mean-known"
    lengths = sorted(len(token) for token in VOCABULARY)
    assert table.max_characters == 512 * lengths[len(lengths) // 2]


def static_rows(folder: Path, texts: list[str]) -> Any:
    """NumPy reading of a static table, as model2vec does it: unit rows ``[n, dim]``."""
    read = read_folder(folder)
    table = read.table
    assert table is not None
    tensors = load_file(table.path)
    rows = tensors[table.rows].astype(np.float64)
    text_tokenizer = tokenizers.Tokenizer.from_file(str(read.tokenizer))
    text_tokenizer.enable_truncation(read.description.max_tokens)
    result = np.zeros((len(texts), rows.shape[1]))
    for row, text in zip(result, texts, strict=True):
        encoding = text_tokenizer.encode(text[: table.max_characters], add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int64)
        if table.drops_unknown:
            ids = ids[ids != text_tokenizer.token_to_id("[UNK]")]
        if len(ids) == 0:
            continue
        token_rows = rows[tensors[table.mapping][ids] if table.mapping else ids]
        if table.weights:
            token_rows = token_rows * tensors[table.weights][ids, None]
        row[:] = unit(token_rows.mean(axis=0))
    return result


RANDOM = np.random.default_rng(1).normal(size=(len(VOCABULARY), DIM))


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        ({"embeddings": RANDOM.astype(np.float32)}, {"normalize": True}),
        ({"embeddings": RANDOM.astype(np.float32)}, {"normalize": False, "max_length": 7}),
        ({"embeddings": RANDOM}, {"max_length": None}),
        ({"embeddings": RANDOM.astype(np.float16)}, {}),
        ({"embeddings": (RANDOM * 40).astype(np.int8)}, {}),
        (
            {
                "embeddings": RANDOM[:9].astype(np.float32),
                "weights": np.abs(RANDOM[:, 0]),
                "mapping": np.arange(len(VOCABULARY)) % 9,
            },
            {},
        ),
    ],
    ids=["f32", "truncated", "f64", "f16", "i8", "quantised"],
)
def test_model2vec_rows(tmp_path: Path, tensors: dict[str, Any], config: dict[str, object]) -> None:
    folder = write_model2vec(tmp_path, tensors, config)
    texts = [*TEXTS, "\u4e2d river", "[CLS] law", "river " * 3000, "x" * 5000, "a-b " * 2000]
    embedder = load_embedder(folder)
    # Thousands of rows are summed in float32 where nothing limits the length.
    tolerance = 1e-4 if config.get("max_length", 512) is None else 1e-5
    np.testing.assert_allclose(embedder.embed(texts), static_rows(folder, texts), rtol=0, atol=tolerance)
    assert (embedder.runtime, embedder.device) == ("centroute", "cpu")
    assert not embedder.embed(["", " \n", "\u4e2d\u6587"]).any()


@pytest.mark.parametrize("options", [{"device": "cuda"}, {"runtime": "onnx"}, {"providers": ["CPU"]}])
def test_table_has_no_graph_to_run(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(EmbedderError, match="is a static table, which runs on the CPU"):
        load_embedder(write_model2vec(tmp_path, TABLE), **options)


@pytest.mark.parametrize("n_rows", [30, len(VOCABULARY) - 1, len(VOCABULARY) + 1])
def test_table_and_tokenizer_of_different_sizes(tmp_path: Path, n_rows: int) -> None:
    tensors = {"embeddings": np.ones((n_rows, DIM), dtype=np.float32)}
    message = refusal(write_model2vec(tmp_path, tensors))
    assert str(n_rows) in message
    assert str(len(VOCABULARY)) in message


def test_model2vec_with_a_quantised_vocabulary(tmp_path: Path) -> None:
    n = len(VOCABULARY)
    tensors: dict[str, Any] = {
        "embeddings": np.ones((5, DIM), dtype=np.int8),
        "weights": np.ones(n, dtype=np.float64),
        "mapping": np.zeros(n, dtype=np.int64),
    }
    table = read_folder(write_model2vec(tmp_path, tensors)).table
    assert table is not None
    assert (table.weights, table.mapping, table.n_token_ids) == ("weights", "mapping", n)


@pytest.mark.parametrize(
    ("config", "settings", "max_tokens"),
    [
        ({"max_length": 99}, {}, 99),
        ({"max_length": None}, {}, LARGEST_MAX_TOKENS),
        ({"max_length": 99}, {"max_tokens": 7}, 7),
        ({"seq_length": 99}, {}, 512),
    ],
)
def test_model2vec_max_tokens(
    tmp_path: Path, config: dict[str, object], settings: dict[str, object], max_tokens: int
) -> None:
    folder = read_folder(write_model2vec(tmp_path, TABLE, config, embedder=settings))
    assert folder.description.max_tokens == max_tokens
    assert folder.table is not None
    assert (folder.table.max_characters is None) == (max_tokens == LARGEST_MAX_TOKENS)


def test_model2vec_comes_before_a_graph_beside_it(tmp_path: Path) -> None:
    """Published ones have an ONNX graph too, with inputs of its own kind."""
    folder = write_model2vec(write_folder(tmp_path, modules=None), TABLE)
    assert read_folder(folder).layout == "model2vec"


def test_unigram_vocabulary(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path, {"embeddings": np.ones((3, DIM), dtype=np.float32)})
    file = {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["abc", -1.0], ["ab", -2.0]]}}
    (folder / "tokenizer.json").write_text(json.dumps(file))
    table = read_folder(folder).table
    assert table is not None
    assert table.max_characters == 512 * 3


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"model": {"vocab": {}}},
        {"model": {"vocab": [3]}},
        {"model": {"vocab": {"a": "b"}}},
    ],
)
def test_vocabulary_that_is_none(tmp_path: Path, content: object) -> None:
    folder = write_model2vec(tmp_path, TABLE)
    write_json(folder / "tokenizer.json", content)
    assert "tokenizer.json: not a tokenizer: no vocabulary" in refusal(folder)


def test_static_embedding_of_sentence_transformers(tmp_path: Path) -> None:
    inner = tmp_path / "0_StaticEmbedding"
    write_model2vec(inner, {"embedding.weight": RANDOM.astype(np.float32)})
    listed = [{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]
    write_json(tmp_path / "modules.json", listed)
    rows = load_embedder(tmp_path).embed(TEXTS)
    np.testing.assert_allclose(rows, static_rows(tmp_path, TEXTS), rtol=0, atol=1e-5)
    folder = read_folder(tmp_path)
    assert (folder.layout, folder.tokenizer) == ("static", inner / "tokenizer.json")
    assert folder.table is not None
    assert (folder.table.drops_unknown, folder.table.max_characters) == (False, None)
    assert (folder.description.pooling, folder.description.max_tokens) == ("mean", 512)
    truncating = tokenizer()
    truncating.enable_truncation(77)
    folder.tokenizer.write_text(truncating.to_str())
    assert read_folder(tmp_path).description.max_tokens == 77


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({"embeddings": np.ones(5, np.float32)}, "embeddings is F32 [5], expected [n_rows, dim]"),
        ({"embeddings": np.ones((5, 0), np.float32)}, "embeddings is F32 [5, 0]"),
        ({"embeddings": np.ones((5, 2), np.int32)}, "embeddings is I32 [5, 2]"),
        ({**TABLE, "weights": np.ones(3)}, "weights has shape [3]"),
        ({**TABLE, "mapping": np.ones((3, 2), np.int64)}, "shapes [[3, 2]]"),
        ({**TABLE, "weights": np.ones(4), "mapping": np.ones(3, np.int64)}, "shapes [[4], [3]]"),
    ],
)
def test_table_that_does_not_fit(tmp_path: Path, tensors: dict[str, Any], named: str) -> None:
    message = refusal(write_model2vec(tmp_path, tensors))
    assert "model.safetensors: " in message
    assert named in message


def test_table_that_is_none(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path, TABLE)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "model.safetensors: not a readable safetensors file" in refusal(folder)


def test_module_after_a_table(tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path, TABLE, modules=modules("StaticEmbedding", "Dense"))
    assert "modules.json: module Dense is not supported" in refusal(folder)


@pytest.mark.parametrize("max_length", [0, -1, "512", True, 1.5])
def test_wrong_max_length(tmp_path: Path, max_length: object) -> None:
    message = refusal(write_model2vec(tmp_path, TABLE, {"max_length": max_length}))
    assert f"config.json: max_length must be a whole number above 0, got {max_length!r}" in message


def test_pooling_of_a_table(tmp_path: Path) -> None:
    message = refusal(write_model2vec(tmp_path, TABLE, embedder={"pooling": "cls"}))
    assert "embedder.json: pooling of a static table must be mean" in message
