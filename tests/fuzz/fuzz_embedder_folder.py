"""Embedder folders of every layout with files that are changed: JSON, tokenizer, table and graph.

An input is JSON: the name of a layout, and by name of a file the text it has instead, or ``base64:…``.
"""

from __future__ import annotations

import base64
import functools
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import main, mutated_bytes, mutated_json, tried

from centroute.embedders import fingerprint, load_embedder
from centroute.embedders.folder import write_embedder_folder
from centroute.embedders.onnx_graph import GraphBuilder

TEXTS = ["river", "what is the capital of france", "", "law, river; 42!" * 9, "\ud800 \U0001f642 漢字"]


@functools.cache
def folders() -> dict[str, Path]:
    """A valid folder of each layout."""
    import tiny_embedder as tiny
    from safetensors.numpy import save_file

    root = Path(tempfile.mkdtemp(prefix="fuzz-embedders-"))
    made = {name: root / name for name in ("centroute", "onnx", "model2vec", "static")}
    for folder in made.values():
        folder.mkdir()
    rng = np.random.default_rng(0)
    tokenizer = tiny.tokenizer().to_str().encode()
    rows = rng.normal(size=(len(tiny.VOCABULARY), tiny.DIM)).astype(np.float32)
    graph = GraphBuilder()
    mask = graph.node("Cast", ["attention_mask"], to=1)
    column = graph.node("Unsqueeze", [mask, graph.constant("last", np.array([2]))])
    masked = graph.node("Mul", [graph.node("Gather", [graph.constant("tokens", rows), "input_ids"]), column])
    graph.unit_rows(
        graph.node("ReduceSum", [masked, graph.constant("tokens_axis", np.array([1]))], keepdims=0)
    )
    write_embedder_folder(
        made["centroute"],
        model=graph.model("tiny", dim=tiny.DIM).SerializeToString(),
        tokenizer=tokenizer,
        name="tiny",
        dim=tiny.DIM,
        pooling="mean",
        max_tokens=32,
        provenance={},
    )
    (made["onnx"] / "model.onnx").write_bytes(tiny.graph().SerializeToString())
    (made["onnx"] / "tokenizer.json").write_bytes(tokenizer)
    _write(
        made["onnx"],
        {
            "config.json": {"vocab_size": len(tiny.VOCABULARY), "max_position_embeddings": 64,
                            "model_type": "bert", "pad_token_id": 0},
            "modules.json": [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                             {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
            "1_Pooling/config.json": {"pooling_mode_cls_token": True, "include_prompt": True},
            "sentence_bert_config.json": {"max_seq_length": 48, "do_lower_case": True},
            "tokenizer_config.json": {"model_max_length": 64},
            "config_sentence_transformers.json": {"prompts": {"query": "query: ", "p": "x"},
                                                  "default_prompt_name": "p"},
            "embedder.json": {"name": "mine", "pooling": "mean", "max_tokens": 20, "prefix": "query: "},
        },
    )  # fmt: skip

    plain = tiny.tokenizer(special=False).to_str().encode()
    for name, tensor in (("model2vec", "embeddings"), ("static", "embedding.weight")):
        save_file({tensor: rows}, made[name] / "model.safetensors")
        (made[name] / "tokenizer.json").write_bytes(plain)
    _write(
        made["model2vec"],
        {"config.json": {"max_length": 16, "normalize": True}, "embedder.json": {"max_tokens": 9}},
    )
    _write(made["static"], {"embedder.json": {"pooling": "mean", "prefix": "query "}})
    return made


def _write(folder: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))


def make(chance: random.Random) -> bytes:
    """Return one input."""
    layout = chance.choice(list(folders()))
    folder = folders()[layout]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    changed: dict[str, str | None] = {}
    for name in chance.sample(names, chance.choice((1, 1, 1, 2))):
        content = (folder / name).read_bytes()
        if chance.random() < 0.05:
            changed[name] = None
        elif name.endswith(".json") and chance.random() < 0.85:
            changed[name] = mutated_json(chance, json.loads(content))
        else:
            changed[name] = "base64:" + base64.b64encode(mutated_bytes(chance, content)).decode()
    return json.dumps({"layout": layout, "files": changed}).encode()


@functools.cache
def _work() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-embedder-"))


def _describe_again(folder: Path) -> None:
    """Make digests and fingerprint true, so that the files themselves are judged and not their digests."""
    import hashlib

    try:
        description: dict[str, Any] = json.loads((folder / "embedder.json").read_text())
        for key, name in (("model_sha256", "model.onnx"), ("tokenizer_sha256", "tokenizer.json")):
            description[key] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        description["fingerprint"] = fingerprint(
            **{
                key: description[key]
                for key in ("model_sha256", "tokenizer_sha256", "pooling", "max_tokens", "prefix")
            }
        )
        (folder / "embedder.json").write_text(json.dumps(description))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        return


def check(data: bytes) -> None:
    """What loads gives unit or zero rows, the same alone and in a batch."""
    given = json.loads(data)
    folder = _work() / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folders()[given["layout"]], folder)
    for name, content in given["files"].items():
        if content is None:
            (folder / name).unlink()
        elif content.startswith("base64:"):
            (folder / name).write_bytes(base64.b64decode(content[7:]))
        else:
            (folder / name).write_text(content, encoding="utf-8")
    if given["layout"] == "centroute":
        _describe_again(folder)
    embedder = tried(lambda: load_embedder(folder, device="cpu"))
    if embedder is None:
        return
    rows = tried(lambda: embedder.embed(TEXTS))
    if rows is None:
        return
    assert rows.shape == (len(TEXTS), embedder.dim)
    norms = np.linalg.norm(rows, axis=1)
    assert (np.isclose(norms, 1, atol=1e-4) | (norms == 0)).all(), norms
    for text, row in zip(TEXTS, rows, strict=True):
        alone = tried(lambda text=text: embedder.embed([text]))
        assert alone is not None
        assert np.abs(alone[0] - row).max() < 2e-4, text
        assert len(embedder.tokenize(text)) <= embedder.max_tokens


if __name__ == "__main__":
    main("embedder_folder", make, check)
