"""Embedder folders as centroute and other tools lay them out: `read_folder`.

=============  ==========================================================================
layout         recognised by
=============  ==========================================================================
``centroute``  ``embedder.json`` with ``format_version``, see `centroute.embedders.folder`
``model2vec``  ``model.safetensors`` with the tensor ``embeddings``
``static``     sentence-transformers' StaticEmbedding: the tensor ``embedding.weight``
``onnx``       sentence-transformers, optimum, fastembed: ``model.onnx``,
               ``onnx/model.onnx`` or ``model_optimized.onnx``
=============  ==========================================================================

All have ``tokenizer.json``. Nothing is written: a description is made from the files that
these tools put beside the graph, and rows are always normalised.

- pooling: ``1_Pooling/config.json``, else the mean is assumed. Graphs that pool need none.
- ``max_tokens``: ``sentence_bert_config.json``, else ``tokenizer_config.json``, else 512;
  at most the positions of ``config.json``.
- prefix: the prompt ``query`` of ``config_sentence_transformers.json``, else its default.

Where they are silent or wrong, an ``embedder.json`` without ``format_version`` may set
``name``, ``pooling`` (``mean``, ``cls``, ``last``), ``max_tokens`` and ``prefix``. These are
in the folder and not arguments, so that they hold wherever the folder is named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from centroute.embedders.fingerprint import fingerprint
from centroute.embedders.folder import (
    DESCRIPTION_FILE,
    LARGEST_MAX_TOKENS,
    MODEL_FILE,
    TOKENIZER_FILE,
    EmbedderDescription,
    EmbedderFolder,
    StaticTable,
    read_description,
    read_json_object,
    read_sha256,
)
from centroute.errors import EmbedderError

GRAPH_FILES = (MODEL_FILE, f"onnx/{MODEL_FILE}", "model_optimized.onnx")
TABLE_FILE = "model.safetensors"
POOLINGS = ("mean", "cls", "last")
DEFAULT_MAX_TOKENS = 512
# Unknown tokens are left out of this mean; "mean" counts them.
KNOWN_MEAN = "mean-known"

_SETTING_TYPES: dict[str, type] = {"name": str, "pooling": str, "max_tokens": int, "prefix": str}
_POOLING_OF_MODE = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
# As sentence-transformers wrote them before version 6, one truth value each.
_MODE_OF_FLAG = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# These count positions from the padding id on, so that not all of their position table is usable.
_POSITIONS_AFTER_PADDING = {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"}
_TABLE_TYPES = ("F32", "F16", "F64", "I8")


@dataclass(frozen=True, slots=True)
class _Module:
    """An entry of sentence-transformers' ``modules.json``."""

    kind: str
    folder: Path


def read_folder(folder: Path) -> EmbedderFolder:
    """Find out a folder's layout, and read and check what describes it.

    Raises
    ------
    EmbedderError
        If the folder or a file is missing, damaged or inconsistent, or asks for what would
        give other vectors here; one line that names the file.
    """
    if not folder.is_dir():
        raise EmbedderError(f"{folder}: not a folder")
    settings: dict[str, Any] = {}
    if (folder / DESCRIPTION_FILE).exists():
        settings = read_json_object(folder / DESCRIPTION_FILE)
        if "format_version" in settings:
            return EmbedderFolder(
                path=folder,
                layout="centroute",
                description=read_description(folder),
                model=folder / MODEL_FILE,
                tokenizer=folder / TOKENIZER_FILE,
            )
        _check_settings(folder / DESCRIPTION_FILE, settings)
    modules = _read_modules(folder)
    table = (modules[0].folder if modules else folder) / TABLE_FILE
    tensors = _read_tensors(table, has_graph=any((folder / name).is_file() for name in GRAPH_FILES))
    for layout, rows in (("model2vec", "embeddings"), ("static", "embedding.weight")):
        if rows in tensors:
            _check_modules(folder, modules, known={"StaticEmbedding", "Normalize"})
            return _read_table(folder, settings, table, tensors, layout=layout, rows=rows)
    _check_modules(folder, modules, known={"Transformer", "Pooling", "Normalize"})
    return _read_graph(folder, settings, modules)


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        kind = _SETTING_TYPES.get(key)
        if kind is None:
            raise EmbedderError(
                f"{path}: unknown key {key!r}; without format_version it may set {', '.join(_SETTING_TYPES)}"
            )
        # type() and not isinstance(): true is no number.
        if type(value) is not kind:
            raise EmbedderError(f"{path}: {key} must be of type {kind.__name__}, got {value!r}")
    if settings.get("pooling", "mean") not in POOLINGS:
        raise EmbedderError(
            f"{path}: pooling must be one of {', '.join(POOLINGS)}, got {settings['pooling']!r}"
        )
    max_tokens = settings.get("max_tokens", 1)
    if max_tokens < 1:
        raise EmbedderError(f"{path}: max_tokens must be at least 1, got {max_tokens}")
    if max_tokens > LARGEST_MAX_TOKENS:
        raise EmbedderError(f"{path}: max_tokens must be at most {LARGEST_MAX_TOKENS}, got {max_tokens}")


def _read_modules(folder: Path) -> list[_Module]:
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        return [
            _Module(entry["type"].rsplit(".", maxsplit=1)[-1], folder / entry["path"])
            for entry in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise EmbedderError(f"{path}: not a list of modules with type and path") from error


def _check_modules(folder: Path, modules: list[_Module], *, known: set[str]) -> None:
    for module in modules:
        if module.kind not in known:
            raise EmbedderError(
                f"{folder / 'modules.json'}: module {module.kind} is not supported, "
                "and without it the vectors would differ"
            )


def _describe(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    layout: str,
    model: Path,
    tokenizer: Path,
    pooling: str,
    max_tokens: int,
    prefix: str,
    dim: int,
) -> EmbedderDescription:
    """Make the description of a folder that has none."""
    model_sha256, tokenizer_sha256 = read_sha256(model), read_sha256(tokenizer)
    return EmbedderDescription(
        name=settings.get("name", folder.resolve().name),
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
        provenance={"layout": layout},
    )


# -- graphs ------------------------------------------------------------------------------


def _read_graph(folder: Path, settings: Mapping[str, Any], modules: list[_Module]) -> EmbedderFolder:
    model, tokenizer = _graph_file(folder), _present(folder / TOKENIZER_FILE)
    config = _read_if_there(folder / "config.json")
    prefix = _prefix(folder, settings)
    pooling = settings.get("pooling") or _read_pooling(folder, modules, prefix=prefix)
    description = _describe(
        folder,
        settings,
        layout="onnx",
        model=model,
        tokenizer=tokenizer,
        pooling=pooling or "mean",
        max_tokens=_max_tokens(folder, settings, config, tokenizer=tokenizer),
        prefix=prefix,
        dim=0,
    )
    return EmbedderFolder(
        path=folder,
        layout="onnx",
        description=description,
        model=model,
        tokenizer=tokenizer,
        vocab_size=_whole_number(config.get("vocab_size")),
        pooling_is_assumed=pooling is None,
    )


def _graph_file(folder: Path) -> Path:
    for name in GRAPH_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*.onnx"))
    hint = f"; there is {others[0]}: copy the one you want to {MODEL_FILE}" if others else ""
    raise EmbedderError(
        f"{folder / MODEL_FILE}: file is missing, and so are {' and '.join(GRAPH_FILES[1:])}{hint}"
    )


def _read_pooling(folder: Path, modules: list[_Module], *, prefix: str) -> str | None:
    """Return the pooling, or None where the folder does not say."""
    places = [module.folder for module in modules if module.kind == "Pooling"] or [folder / "1_Pooling"]
    path = places[0] / "config.json"
    if not path.is_file():
        return None
    config = read_json_object(path)
    modes = config.get("pooling_mode")
    if modes is None:
        # All of them false means mean, as in sentence-transformers.
        modes = [mode for flag, mode in _MODE_OF_FLAG.items() if config.get(flag)] or ["mean"]
    if isinstance(modes, str):
        modes = [modes]
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in list(_POOLING_OF_MODE):
        raise EmbedderError(
            f"{path}: pooling mode {modes!r} is not supported; one of {', '.join(_POOLING_OF_MODE)} is"
        )
    if prefix and config.get("include_prompt") is False:
        raise EmbedderError(f"{path}: include_prompt false with prefix {prefix!r} is not supported")
    return _POOLING_OF_MODE[modes[0]]


def _prefix(folder: Path, settings: Mapping[str, Any]) -> str:
    """Return what is put before queries: from the settings, else sentence-transformers' prompt for them."""
    if "prefix" in settings:
        return str(settings["prefix"])
    path = folder / "config_sentence_transformers.json"
    config = _read_if_there(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise EmbedderError(f"{path}: prompts must be an object, got {prompts!r}")
    # As sentence-transformers' encode_query does.
    prompt = prompts.get("query")
    if prompt is None:
        name = config.get("default_prompt_name")
        prompt = (prompts.get(name) if isinstance(name, str) else None) or ""
    if not isinstance(prompt, str):
        raise EmbedderError(f"{path}: the prompt of a query must be a string, got {prompt!r}")
    return prompt


def _max_tokens(
    folder: Path, settings: Mapping[str, Any], config: Mapping[str, Any], *, tokenizer: Path
) -> int:
    limit = _n_positions(config)
    if (wanted := settings.get("max_tokens")) is not None:
        if wanted > limit:
            raise EmbedderError(
                f"{folder / DESCRIPTION_FILE}: max_tokens is {wanted}, config.json allows {limit} positions"
            )
        return int(wanted)
    # sentence_bert_config.json, sentence_roberta_config.json and so on.
    for path in sorted(folder.glob("sentence_*_config.json")):
        sentence = read_json_object(path)
        if sentence.get("do_lower_case") and not _lowers_case(tokenizer):
            raise EmbedderError(f"{path}: do_lower_case, but {TOKENIZER_FILE} does not lower the case")
        if (length := _whole_number(sentence.get("max_seq_length"))) is not None:
            return min(length, limit)
    length = _whole_number(_read_if_there(folder / "tokenizer_config.json").get("model_max_length"))
    return min(length or DEFAULT_MAX_TOKENS, limit)


def _n_positions(config: Mapping[str, Any]) -> int:
    """Return how many tokens a graph has positions for, as far as ``config.json`` says."""
    n_positions = _whole_number(config.get("max_position_embeddings"))
    if n_positions is None:
        return LARGEST_MAX_TOKENS
    if config.get("model_type") in list(_POSITIONS_AFTER_PADDING):
        padding_id = config.get("pad_token_id")
        n_positions -= (padding_id if isinstance(padding_id, int) else 1) + 1
    return max(1, n_positions)


def _lowers_case(tokenizer: Path) -> bool:
    normalizer = _object(read_json_object(tokenizer).get("normalizer"))
    parts = normalizer.get("normalizers", [normalizer])
    return any(
        part.get("lowercase") is True or part.get("type") == "Lowercase"
        for part in map(_object, parts if isinstance(parts, list) else [])
    )


# -- static tables -----------------------------------------------------------------------


def _read_table(
    folder: Path,
    settings: Mapping[str, Any],
    path: Path,
    tensors: Mapping[str, tuple[str, list[int]]],
    *,
    layout: str,
    rows: str,
) -> EmbedderFolder:
    """Describe a static table.

    What model2vec does with a text: cuts it to ``max_length`` times the median length of a
    token in characters, tokenizes without special tokens, truncates to ``max_length`` tokens
    (512 by default), drops the unknown token, takes the mean of the rows. StaticEmbedding of
    sentence-transformers keeps the unknown token and truncates as ``tokenizer.json`` says;
    here to 512 tokens where it says nothing.
    """
    tokenizer = _present(path.with_name(TOKENIZER_FILE))
    dtype, shape = tensors[rows]
    if len(shape) != 2 or 0 in shape or dtype not in _TABLE_TYPES:
        raise EmbedderError(
            f"{path}: {rows} is {dtype} {shape}, expected [n_rows, dim] of {', '.join(_TABLE_TYPES)}"
        )
    if settings.get("pooling", "mean") != "mean":
        raise EmbedderError(f"{folder / DESCRIPTION_FILE}: pooling of a static table must be mean")
    # StaticEmbedding has neither; model2vec has both where it quantised its vocabulary.
    weights, mapping = (name if name in tensors else None for name in ("weights", "mapping"))
    lengths = {name: tensors[name][1] for name in (weights, mapping) if name is not None}
    if any(len(length) != 1 for length in lengths.values()) or len({*map(tuple, lengths.values())}) > 1:
        raise EmbedderError(f"{path}: weights and mapping have shapes {list(lengths.values())}")
    n_token_ids = tensors[mapping][1][0] if mapping else shape[0]
    if weights and tensors[weights][1] != [n_token_ids]:
        raise EmbedderError(f"{path}: weights has shape {tensors[weights][1]}, expected [{n_token_ids}]")
    vocabulary = _read_vocabulary(tokenizer)
    if (n_tokens := max(vocabulary.values()) + 1) != n_token_ids:
        raise EmbedderError(f"{path}: has rows for {n_token_ids} token ids, {TOKENIZER_FILE} has {n_tokens}")
    max_characters = None
    if layout == "model2vec":
        config_path = path.with_name("config.json")
        max_length = _read_if_there(config_path).get("max_length", DEFAULT_MAX_TOKENS)
        if max_length is not None and _whole_number(max_length) is None:
            raise EmbedderError(
                f"{config_path}: max_length must be a whole number above 0, got {max_length!r}"
            )
        max_tokens = settings.get("max_tokens", max_length)
        if max_tokens is not None:
            # Rounded down, as model2vec does.
            max_characters = max_tokens * int(median(len(token) for token in vocabulary))
    else:
        truncation = _object(read_json_object(tokenizer).get("truncation"))
        length = _whole_number(truncation.get("max_length"))
        max_tokens = settings.get("max_tokens") or length or DEFAULT_MAX_TOKENS
    table = StaticTable(
        path=path,
        rows=rows,
        weights=weights,
        mapping=mapping,
        n_token_ids=n_token_ids,
        drops_unknown=layout == "model2vec",
        max_characters=max_characters,
    )
    description = _describe(
        folder,
        settings,
        layout=layout,
        model=path,
        tokenizer=tokenizer,
        pooling=KNOWN_MEAN if table.drops_unknown else "mean",
        max_tokens=max_tokens or LARGEST_MAX_TOKENS,
        prefix=_prefix(folder, settings),
        dim=shape[1],
    )
    return EmbedderFolder(
        path=folder, layout=layout, description=description, model=path, tokenizer=tokenizer, table=table
    )


def _read_tensors(path: Path, *, has_graph: bool) -> dict[str, tuple[str, list[int]]]:
    """Return dtype and shape of each tensor; none where there is no file, or one that no graph needs."""
    if not path.is_file():
        return {}
    # Imported here: `import centroute.embedders` stays light.
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        if has_graph:
            return {}
        raise EmbedderError(f"{path}: not a readable safetensors file: {error}") from error


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return the id of each token of a ``tokenizer.json``."""
    file = read_json_object(path)
    try:
        tokens = file["model"]["vocab"]
        # Unigram: a list of token and score; all others: an object of token and id.
        if isinstance(tokens, list):
            tokens = {entry[0]: token_id for token_id, entry in enumerate(tokens)}
        vocabulary = {**tokens, **{token["content"]: token["id"] for token in file.get("added_tokens", [])}}
    except (KeyError, TypeError, IndexError, AttributeError):
        vocabulary = {}
    if not vocabulary or not all(isinstance(key, str) and type(vocabulary[key]) is int for key in vocabulary):
        raise EmbedderError(f"{path}: not a tokenizer: no vocabulary")
    return vocabulary


# -- files -------------------------------------------------------------------------------


def _present(path: Path) -> Path:
    if not path.is_file():
        raise EmbedderError(f"{path}: file is missing")
    return path


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _object(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else, which whoever needs it refuses."""
    return value if isinstance(value, dict) else {}


def _whole_number(value: object) -> int | None:
    """Return a count that can be meant: a whole number from 1 to `LARGEST_MAX_TOKENS`.

    Tools write 1e30 and the like where they know no limit.
    """
    return value if type(value) is int and 1 <= value <= LARGEST_MAX_TOKENS else None
