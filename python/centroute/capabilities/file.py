"""The file of capabilities: tensors and JSON in, checked contents out, and back.

One safetensors file: ``rows [n_rows, dim]`` in float32, ``owners [n_rows]`` (the agent of each row),
``costs [n_agents]`` in USD with NaN for unknown, ``tags`` and ``tag_offsets [n_agents + 1]`` (numbers in the
list of tags, agent by agent), the tensors of the index, and ids, versions, tags and embedder as JSON under
`METADATA_KEY`, with a SHA-256 over all of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import __version__
from centroute._router_file import reason
from centroute.artifact import content_digest
from centroute.calibrate.index_probes import Index
from centroute.errors import ArtifactError

FORMAT_VERSION = 1
METADATA_KEY = "centroute_capabilities"

_PARTS = "index."
_TENSORS = {
    "rows": (np.float32, 2),
    "owners": (np.int32, 1),
    "costs": (np.float64, 1),
    "tags": (np.int32, 1),
    "tag_offsets": (np.int32, 1),
}
"""Type and number of dimensions of every tensor but those of the index, which the kernel checks."""
_BLANK = "0" * 64


@dataclass(slots=True, eq=False)
class Contents:
    """What a file holds; lists go by agent."""

    ids: list[str]
    versions: list[str]
    tags: list[frozenset[str]]
    costs: list[float]
    rows: NDArray[np.float32]
    owners: NDArray[np.int32]
    parts: Index | None
    embedder_name: str
    fingerprint: str | None


def to_bytes(contents: Contents) -> bytes:
    """Serialise; the same contents give the same bytes.

    Raises
    ------
    ArtifactError
        If a name cannot be written as JSON.
    """
    from safetensors.numpy import save

    names = sorted(set().union(*contents.tags))
    numbers = {tag: number for number, tag in enumerate(names)}
    tags = [sorted(numbers[tag] for tag in own) for own in contents.tags]
    tensors: dict[str, NDArray[Any]] = {
        "rows": np.ascontiguousarray(contents.rows),
        "owners": contents.owners.astype(np.int32),
        "costs": np.array(contents.costs, dtype=np.float64),
        "tags": np.array([number for own in tags for number in own], dtype=np.int32),
        "tag_offsets": np.cumsum([0, *map(len, tags)], dtype=np.int32),
        **{name: np.ascontiguousarray(part) for name, part in (contents.parts or {}).items()},
    }
    metadata = {
        "format_version": FORMAT_VERSION,
        "centroute_version": __version__,
        "embedder": {"name": contents.embedder_name, "fingerprint": contents.fingerprint},
        "ids": contents.ids,
        "versions": contents.versions,
        "tags": names,
    }
    try:
        text = json.dumps({**metadata, "sha256": _BLANK}, ensure_ascii=False, allow_nan=False)
        digest = content_digest(text, tensors)
    except (TypeError, ValueError) as error:  # a lone surrogate
        raise ArtifactError(f"capabilities: cannot be written as JSON ({error})") from error
    return bytes(
        save(tensors, {METADATA_KEY: text.replace(f'"sha256": "{_BLANK}"', f'"sha256": "{digest}"')})
    )


def read_file(path: Path) -> Contents:
    """Read and check a file; the tensors of the index are checked by the kernel.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged, altered or of another version; names it and what is at fault.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise ArtifactError(f"{path}: " + ("is no regular file" if path.exists() else "no such file"))
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            if text is None:
                raise ArtifactError(f"{path}: is no file of capabilities")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({reason(error)})") from error
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a readable safetensors file: {error}") from None
    try:
        return _contents(text, tensors)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def _contents(text: str, tensors: dict[str, NDArray[Any]]) -> Contents:
    try:
        metadata = json.loads(text)
        version = metadata["format_version"]
        if version != FORMAT_VERSION:
            raise ArtifactError(f"is of format {version!r}, this centroute reads {FORMAT_VERSION}")
        digest = metadata["sha256"]
        names = {key: _strings(metadata, key) for key in ("ids", "versions", "tags")}
        embedder_name, fingerprint = metadata["embedder"]["name"], metadata["embedder"]["fingerprint"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"metadata cannot be read ({error!r})") from None
    if not isinstance(embedder_name, str) or not isinstance(fingerprint, str | None):
        raise ArtifactError("metadata: embedder has no name, or a fingerprint that is no text")
    for name, (dtype, n_dims) in _TENSORS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.ndim != n_dims:
            raise ArtifactError(f"tensor {name}: wanted {np.dtype(dtype).name} of {n_dims} dimensions")
    if not isinstance(digest, str) or content_digest(text.replace(digest, _BLANK), tensors) != digest:
        raise ArtifactError("the contents are not those that were written: the SHA-256 differs")
    ids, versions = names["ids"], names["versions"]
    n_agents, owners, costs = len(ids), tensors["owners"], tensors["costs"]
    if not n_agents or len(set(ids)) != n_agents or len(versions) != n_agents or len(costs) != n_agents:
        raise ArtifactError("metadata: ids, versions and costs are not one for each agent")
    if len(owners) != len(tensors["rows"]) or not np.array_equal(np.unique(owners), np.arange(n_agents)):
        raise ArtifactError(
            "tensor owners: is not the number of an agent for each row, with all of them there"
        )
    if (costs < 0).any() or np.isinf(costs).any():
        raise ArtifactError("tensor costs: wanted 0 or more, or NaN for unknown")
    parts = {name: tensor for name, tensor in tensors.items() if name.startswith(_PARTS)}
    return Contents(
        ids=ids,
        versions=versions,
        tags=_tags(names["tags"], tensors["tags"], tensors["tag_offsets"], n_agents),
        costs=costs.tolist(),
        rows=tensors["rows"],
        owners=owners,
        parts=parts or None,
        embedder_name=embedder_name,
        fingerprint=fingerprint,
    )


def _strings(metadata: dict[str, Any], key: str) -> list[str]:
    values = metadata[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{key} is no list of texts")
    return values


def _tags(
    names: list[str], numbers: NDArray[np.int32], offsets: NDArray[np.int32], n_agents: int
) -> list[frozenset[str]]:
    is_whole = len(offsets) == n_agents + 1 and offsets[0] == 0 and offsets[-1] == len(numbers)
    if not is_whole or (np.diff(offsets) < 0).any():
        raise ArtifactError("tensor tag_offsets: do not divide the tags among the agents")
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(names)):
        raise ArtifactError(f"tensor tags: holds a number outside the {len(names)} tags")
    own = [names[number] for number in numbers.tolist()]
    return [frozenset(own[low:high]) for low, high in pairwise(offsets.tolist())]
