"""The embedder folder: ``model.onnx``, ``tokenizer.json`` and ``embedder.json``.

``embedder.json`` says what the other two do not: name, dim, pooling, the number of tokens
read, where the weights come from, and the digests and fingerprint that tie the three files
together. This module finds, reads, checks and writes such folders. Folders as other tools
write them are read by `centroute.embedders.layouts`; running one is
`centroute.embedders.onnx`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from centroute._atomic import write_atomic
from centroute.embedders.fingerprint import file_sha256, fingerprint
from centroute.errors import EmbedderError

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
DESCRIPTION_FILE = "embedder.json"
FORMAT_VERSION = 1
LARGEST_MAX_TOKENS = 1_000_000
"""More tokens than any embedder reads of a text."""

MAX_BYTES = 1 << 34
"""A larger file is refused before it is read."""
MAX_JSON_BYTES = 1 << 28
"""The same for JSON; the longest tokenizers have a tenth of it."""

_KEY_TYPES: dict[str, type] = {
    "name": str,
    "dim": int,
    "pooling": str,
    "max_tokens": int,
    "prefix": str,
    "inputs": list,
    "output": str,
    "model_sha256": str,
    "tokenizer_sha256": str,
    "fingerprint": str,
    "provenance": dict,
}

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_PACKAGE_FOLDER = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderDescription:
    """What ``embedder.json`` holds; the field names are the JSON keys."""

    format_version: int = FORMAT_VERSION
    name: str
    dim: int
    """Length of a row; 0 where a folder of another tool does not say, until its graph is open."""
    pooling: str
    """How token rows become one row; every pooling here ends in L2 normalisation."""
    max_tokens: int
    """Tokens read from a text, special tokens counted; the rest of the text is ignored."""
    prefix: str = ""
    """Text put before every query."""
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    """The graph's inputs, int64 ``[n, seq]``: token ids, and 1 for a token, 0 for padding.

    Graphs of other tools may take a third, ``token_type_ids``, all 0.
    """
    output: str = "embedding"
    """The graph's output, float32 ``[n, dim]``, rows of norm 1; graphs of other tools may give token rows."""
    surface_features: str | None = None
    """Reserved: name and weight of appended surface features; must be null in format 1."""
    model_sha256: str
    tokenizer_sha256: str
    fingerprint: str
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Source of the weights, licence and recipe; for people, not used in loading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticTable:
    """A table of token rows in a safetensors file: a text is the normalised mean of its tokens' rows.

    In model2vec's terms a token's row is ``rows[mapping[id]] * weights[id]``.
    """

    path: Path
    rows: str
    """Tensor ``[n_rows, dim]``, one of F32, F16, F64 and I8."""
    weights: str | None = None
    """Tensor ``[n_token_ids]``, F32 or F64: a factor for each token id; None for 1."""
    mapping: str | None = None
    """Tensor ``[n_token_ids]``, I64 or I32: the row of each token id; None where they are the same."""
    n_token_ids: int
    """Token ids that the table covers; the tokenizer must have as many."""
    adds_special_tokens: bool = False
    """Whether the tokenizer's special tokens (``[CLS]``, ``[SEP]``) are added and counted."""
    drops_unknown: bool
    """Whether the unknown token is left out of the mean, after truncation to ``max_tokens``."""
    max_characters: int | None = None
    """Characters read of a text, prefix included, cut before it is tokenized; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderFolder:
    """A folder that was read and checked: its description, and where its files are."""

    path: Path
    layout: str
    """``"centroute"``, ``"onnx"``, ``"model2vec"`` or ``"static"``; see `centroute.embedders.layouts`."""
    description: EmbedderDescription
    model: Path
    """The ONNX graph, or the safetensors file of ``table``."""
    tokenizer: Path
    table: StaticTable | None = None
    vocab_size: int | None = None
    """Rows of the graph's token table, where the folder says so."""
    pooling_is_assumed: bool = False
    """Whether nothing in the folder says how to pool."""

    @property
    def is_static(self) -> bool:
        """Whether a text is a sum or mean of its tokens' rows, which needs no ONNX Runtime."""
        return self.table is not None or (self.layout == "centroute" and self.description.pooling == "sum")


def bundled_names() -> list[str]:
    """Return the names of the embedders that come with centroute, sorted."""
    return sorted(
        {path.parent.name for root in _bundled_roots() for path in root.glob(f"*/{DESCRIPTION_FILE}")}
    )


def bundled_folder(name: str) -> Path:
    """Return the folder of an embedder that comes with centroute.

    Raises
    ------
    EmbedderError
        If no embedder of that name is bundled; the message lists the known names.
    """
    known = bundled_names()
    if name in known:
        return next(root / name for root in _bundled_roots() if (root / name / DESCRIPTION_FILE).is_file())
    listing = ", ".join(known) or "none"
    raise EmbedderError(f"no embedder named {name!r} and no such folder; bundled embedders: {listing}")


def _bundled_roots() -> list[Path]:
    """Return where bundled embedders can lie: inside an installed package, or in a source checkout."""
    roots = [_PACKAGE_FOLDER / "_models"]
    checkout = _PACKAGE_FOLDER.parent.parent
    # Beside site-packages there may lie a foreign folder "models": only a checkout's counts.
    if (checkout / "python" / "centroute").is_dir():
        roots.append(checkout / "models")
    return roots


def read_description(folder: Path) -> EmbedderDescription:
    """Read ``embedder.json`` and check it and the digests of the two files beside it.

    Raises
    ------
    EmbedderError
        If the folder or a file is missing, the JSON is broken or lacks a key, a value has a
        wrong type or range, a file is not the one described, or the fingerprint is wrong.
    """
    if not folder.is_dir():
        raise EmbedderError(f"{folder}: not a folder")
    for name in (DESCRIPTION_FILE, MODEL_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise EmbedderError(f"{folder / name}: file is missing")
    path = folder / DESCRIPTION_FILE
    description = _parse_description(path, read_json_object(path))
    digests = {}
    for name, stored in (
        (MODEL_FILE, description.model_sha256),
        (TOKENIZER_FILE, description.tokenizer_sha256),
    ):
        digests[name] = read_sha256(folder / name)
        if digests[name] != stored:
            raise EmbedderError(
                f"{folder / name}: is not the file that {DESCRIPTION_FILE} describes "
                f"(SHA-256 {digests[name][:16]}…, described {stored[:16]}…)"
            )
    computed = fingerprint(
        digests[MODEL_FILE],
        tokenizer_sha256=digests[TOKENIZER_FILE],
        pooling=description.pooling,
        max_tokens=description.max_tokens,
        surface_features=description.surface_features,
        prefix=description.prefix,
    )
    if computed != description.fingerprint:
        raise EmbedderError(
            f"{path}: fingerprint is {description.fingerprint[:16]}…, computed {computed[:16]}…"
        )
    return description


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file whose content is an object.

    Raises
    ------
    EmbedderError
        If it cannot be read, is no JSON or no object.
    """
    try:
        check_size(path, MAX_JSON_BYTES)
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if _ESCAPED_SURROGATE.search(text):
            # A lone one is no text: it has no fingerprint, and other readers refuse it.
            json.dumps(content, ensure_ascii=False).encode()
    except EmbedderError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise EmbedderError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise EmbedderError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def check_size(path: Path, most: int) -> None:
    """Refuse a file that is larger than any of its kind.

    Raises
    ------
    EmbedderError
        Names the file and its size.
    OSError
        If there is no such file.
    """
    size = path.stat().st_size
    if size > most:
        raise EmbedderError(f"{path}: {size} bytes, such a file has at most {most}")


def read_sha256(path: Path) -> str:
    """Return the SHA-256 of a file of a folder.

    Raises
    ------
    EmbedderError
        If the file is too large or cannot be read.
    """
    try:
        check_size(path, MAX_BYTES)
        return file_sha256(path)
    except OSError as error:
        raise EmbedderError(f"{path}: cannot be read: {error.strerror}") from error


def _parse_description(path: Path, content: dict[str, Any]) -> EmbedderDescription:
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise EmbedderError(f"{path}: format_version is {version!r}, this centroute reads {FORMAT_VERSION}")
    known = {entry.name for entry in fields(EmbedderDescription)}
    if unknown := sorted(content.keys() - known):
        raise EmbedderError(f"{path}: unknown key {unknown[0]!r}")
    for key, kind in _KEY_TYPES.items():
        if key not in content:
            raise EmbedderError(f"{path}: key {key!r} is missing")
        # type() and not isinstance(): true is no number.
        if type(content[key]) is not kind:
            raise EmbedderError(f"{path}: {key} must be of type {kind.__name__}, got {content[key]!r}")
    _check_values(path, content)
    first, second = content["inputs"]
    return EmbedderDescription(**{**content, "inputs": (first, second)})


def _check_values(path: Path, content: Mapping[str, Any]) -> None:
    for key in ("dim", "max_tokens"):
        if content[key] < 1:
            raise EmbedderError(f"{path}: {key} must be at least 1, got {content[key]}")
    if content["max_tokens"] > LARGEST_MAX_TOKENS:
        raise EmbedderError(
            f"{path}: max_tokens must be at most {LARGEST_MAX_TOKENS}, got {content['max_tokens']}"
        )
    inputs = content["inputs"]
    if len(inputs) != 2 or not all(isinstance(name, str) for name in inputs):
        raise EmbedderError(f"{path}: inputs must be the names of token ids and mask, got {inputs!r}")
    if content.get("surface_features") is not None:
        raise EmbedderError(f"{path}: surface_features {content['surface_features']!r} are not known")


def write_embedder_folder(
    folder: Path,
    *,
    model: bytes,
    tokenizer: bytes,
    name: str,
    dim: int,
    pooling: str,
    max_tokens: int,
    prefix: str = "",
    provenance: Mapping[str, object],
) -> EmbedderDescription:
    """Write an embedder folder, each file atomically and ``embedder.json`` last.

    Parameters
    ----------
    folder
        Made when missing; the three files in it are replaced.
    model, tokenizer
        Bytes of ``model.onnx`` and ``tokenizer.json``.
    name, dim, pooling, max_tokens, prefix, provenance
        As in `EmbedderDescription`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / MODEL_FILE, model)
    write_atomic(folder / TOKENIZER_FILE, tokenizer)
    model_sha256 = file_sha256(folder / MODEL_FILE)
    tokenizer_sha256 = file_sha256(folder / TOKENIZER_FILE)
    description = EmbedderDescription(
        name=name,
        dim=dim,
        pooling=pooling,
        max_tokens=max_tokens,
        prefix=prefix,
        model_sha256=model_sha256,
        tokenizer_sha256=tokenizer_sha256,
        fingerprint=fingerprint(
            model_sha256,
            tokenizer_sha256=tokenizer_sha256,
            pooling=pooling,
            max_tokens=max_tokens,
            prefix=prefix,
        ),
        provenance=provenance,
    )
    content = json.dumps(asdict(description), ensure_ascii=False, indent=2) + "\n"
    write_atomic(folder / DESCRIPTION_FILE, content.encode("utf-8"))
    return description
