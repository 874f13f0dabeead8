"""Tiny random graphs, tables and tokenizers, laid out as other tools do, and a NumPy reading of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers, processors

onnx = pytest.importorskip("onnx", reason="the package onnx builds the graphs of this test")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

DIM = 16
N_POSITIONS = 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["river", "prime", "banana", "law", "what", "is", "the", "capital", "of", "france", "query"]
CHARACTERS = [*ascii_lowercase, *digits, *punctuation]
VOCABULARY = [*SPECIAL, *WORDS, *CHARACTERS, *(f"##{character}" for character in ascii_lowercase + digits)]
TEXTS = [
    "river",
    "what is the capital of france",
    "prime banana law " * 7,
    "law, river; 42!",
    "banana",
    "x y z",
]


def tokenizer(*, vocabulary: list[str] = VOCABULARY, special: bool = True) -> tokenizers.Tokenizer:
    """BERT's pipeline over a few words and all ASCII characters."""
    built = tokenizers.Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]")  # noqa: S106
    )
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.add_special_tokens(SPECIAL)
    if special:
        built.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return built


@dataclass(frozen=True)
class Weights:
    """Token, position and type rows of a graph."""

    tokens: NDArray[np.float32]
    positions: NDArray[np.float32]
    types: NDArray[np.float32]


def weights(n_tokens: int = len(VOCABULARY), n_positions: int = N_POSITIONS) -> Weights:
    rng = np.random.default_rng(0)
    return Weights(*(rng.normal(size=(n, DIM)).astype(np.float32) for n in (n_tokens, n_positions, 2)))


def graph(
    table: Weights | None = None,
    *,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    outputs: tuple[str, ...] = ("last_hidden_state",),
    quantised: bool = False,
    input_type: int = TensorProto.INT64,
) -> onnx.ModelProto:
    """Each token's row is token + position + type, plus the mean of these over the mask.

    The output "sentence_embedding" is the mean over the mask, "pooled" the same, any other name the
    token rows. ``quantised`` rounds as dynamic quantisation does, with one scale for the whole batch.
    """
    table = table or weights()
    constants = {
        "tokens": table.tokens,
        "positions": table.positions,
        "types": table.types,
        "zero": np.array([0], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "seq_axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["tokens", "input_ids"], ["token_rows"]),
        helper.make_node("Shape", ["input_ids"], ["seq"], start=1, end=2),
        helper.make_node("Squeeze", ["seq"], ["n_seq"]),
        helper.make_node("Constant", [], ["first"], value_int=0),
        helper.make_node("Constant", [], ["step"], value_int=1),
        helper.make_node("Range", ["first", "n_seq", "step"], ["places"]),
        helper.make_node("Gather", ["positions", "places"], ["position_rows"]),
        helper.make_node("Add", ["token_rows", "position_rows"], ["untyped"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
    ]
    rows = "untyped"
    if "token_type_ids" in inputs:
        nodes += [
            helper.make_node("Gather", ["types", "token_type_ids"], ["type_rows"]),
            helper.make_node("Add", ["untyped", "type_rows"], ["typed"]),
        ]
        rows = "typed"
    if quantised:
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [rows], ["bytes", "scale", "offset"]),
            helper.make_node("DequantizeLinear", ["bytes", "scale", "offset"], ["rounded"]),
        ]
        rows = "rounded"
    nodes += [
        helper.make_node("Mul", [rows, "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "seq_axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["column", "seq_axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Add", [rows, "mean"], ["states"]),
        helper.make_node("Squeeze", ["mean", "seq_axis"], ["mean_row"]),
    ]
    described = []
    for name in outputs:
        pooled = name in {"sentence_embedding", "pooled"}
        nodes.append(helper.make_node("Identity", ["mean_row" if pooled else "states"], [name]))
        shape = ["n", DIM] if pooled else ["n", "seq", DIM]
        described.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    built = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, input_type, ["n", "seq"]) for name in inputs],
        described,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def states(ids: NDArray[np.int64], table: Weights, *, types: bool = True) -> NDArray[np.float64]:
    """NumPy reading of the graph for one text without padding: token rows ``[seq, dim]``."""
    rows = table.tokens[ids].astype(np.float64) + table.positions[: len(ids)]
    if types:
        rows = rows + table.types[0]
    result: NDArray[np.float64] = rows + rows.mean(axis=0)
    return result


def unit(row: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = row / np.linalg.norm(row)
    return result


def wanted(texts: list[str], pooling: str = "mean", *, max_tokens: int = 32, prefix: str = "") -> Any:
    """NumPy reading of a whole folder made by `write_folder`: unit rows ``[n, dim]``."""
    table, text_tokenizer = weights(), tokenizer()
    text_tokenizer.enable_truncation(max_tokens)
    pools = {
        "mean": lambda rows: rows.mean(axis=0),
        "cls": lambda rows: rows[0],
        "last": lambda rows: rows[-1],
    }
    return np.array(
        [
            unit(pools[pooling](states(np.array(text_tokenizer.encode(prefix + text).ids), table)))
            for text in texts
        ]
    )


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_folder(
    folder: Path, model: onnx.ModelProto | None = None, *, place: str = "onnx/model.onnx", **files: object
) -> Path:
    """Write a folder as sentence-transformers does; ``files`` replace its JSON files, None leaves one out.

    Names are those of the files without ``.json``; ``pooling`` is ``1_Pooling/config.json``.
    """
    contents: dict[str, object] = {
        "config": {
            "model_type": "bert",
            "vocab_size": len(VOCABULARY),
            "max_position_embeddings": N_POSITIONS,
        },
        "sentence_bert_config": {"max_seq_length": 32, "do_lower_case": False},
        "tokenizer_config": {"model_max_length": 48},
        "pooling": {"word_embedding_dimension": DIM, "pooling_mode_mean_tokens": True},
        "modules": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (contents | files).items():
        if content is not None:
            place_of = "1_Pooling/config.json" if name == "pooling" else f"{name}.json"
            write_json(folder / place_of, content)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes((model or graph()).SerializeToString())
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    return folder


def write_model2vec(
    folder: Path, tensors: dict[str, NDArray[Any]], config: dict[str, object] | None = None, **files: object
) -> Path:
    """Write a folder as model2vec does."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(tokenizer(special=True).to_str())
    write_json(folder / "config.json", config if config is not None else {"normalize": True})
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    return folder
