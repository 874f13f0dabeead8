"""Embedded shards: what calibration needs of the rows of a shard, computed once and kept on disk.

A shard becomes a folder with one file an array, read back block by block, and ``shard.json``, which says what
is in them. The folder is written beside its place and then renamed: it is there whole or not at all. Files
are read and not mapped, so that memory holds one block, whatever the shard's size.
"""

import hashlib
import json
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from centroute._kernel import surface_features
from centroute.artifact import Json
from centroute.datasets.outcomes import Outcomes, text_key
from centroute.datasets.shards import BLOCK_ROWS, Shard, read_blocks
from centroute.embedders import Embedder, bundled_names, cached_folder, find_folder, load_embedder
from centroute.errors import DataError
from centroute.pool import CostSources, Pool, apply_pool
from centroute.surface import FEATURE_NAMES

DESCRIPTION = "shard.json"
Rows = Literal["calibration", "holdout", "all"]
"""Which rows of the shards are meant; a text's side is drawn by its hash."""

_FILES = ("embeddings", "features", "scores", "costs", "keys", "datasets", "roles")
_HASH_BYTES = 1 << 20
_KEY_RANGE = float(1 << 64)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some rows of an embedded shard.

    Attributes
    ----------
    embeddings, features
        Unit rows ``[n, dim]`` and surface features ``[n, 20]``, float32.
    scores, costs
        ``[n, n_models]``, float32 and float64 USD; NaN where not observed.
    keys
        Hash of each text with the seed, uint64 ``[n]``; equal texts have equal ones.
    datasets, roles
        Places of their names in the shard's lists, int32 ``[n]``.
    """

    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    costs: NDArray[np.float64]
    keys: NDArray[np.uint64]
    datasets: NDArray[np.int32]
    roles: NDArray[np.int32]

    def subset(self, rows: NDArray[np.bool_]) -> "Block":
        """Keep the rows of a mask."""
        if rows.all():
            return self
        return Block(*(getattr(self, name)[rows] for name in _FILES))

    def folds(self, n_folds: int) -> NDArray[np.intp]:
        """Fold of each row, ``[n]``; equal texts stay in one fold, and sides and folds are independent."""
        return np.asarray((self.keys & np.uint64(0xFFFF_FFFF)) % np.uint64(n_folds), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Embedding:
    """How shards are embedded: all that a worker needs to know.

    Attributes
    ----------
    folder
        Where the embedded shards go; workers on other machines must see it under this name.
    embedder
        Name or folder of the embedder.
    models
        The pool.
    first
        The shard that the pool was read of.
    prices
        Prices and lengths, for costs that the shards lack.
    seed
        Of the hash that draws sides and folds.
    threads
        Threads of the embedder.
    """

    folder: Path
    embedder: str
    models: tuple[str, ...]
    first: Shard
    prices: Pool
    seed: int
    threads: int

    def place(self, number: int) -> Path:
        """Folder of the shard of this number."""
        return self.folder / f"{number:06d}"

    def __call__(self, numbered: tuple[int, Shard]) -> "EmbeddedShard":
        """Embed a shard, given with its number.

        Raises
        ------
        DataError
            The shard is at fault, or the folder cannot be written; names shard or folder.
        """
        number, shard = numbered
        beside = self.folder / f".{number:06d}.{secrets.token_hex(4)}.part"
        try:
            beside.mkdir(parents=True)
            description = self._write(beside, shard)
            (beside / DESCRIPTION).write_text(json.dumps(description, allow_nan=False))
            # A worker that was taken for dead may have finished the same shard: equal input, equal folder.
            if not self.place(number).exists():
                beside.rename(self.place(number))
        except OSError as error:
            raise DataError(f"{beside}: cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return EmbeddedShard.open(self.place(number), number)

    def _write(self, beside: Path, shard: Shard) -> dict[str, Json]:
        embedder = loaded_embedder(self.embedder, self.threads)
        salt = hashlib.blake2b(str(self.seed).encode(), digest_size=16).digest()
        names: dict[str, dict[str, int]] = {"datasets": {}, "roles": {}}
        checksums = dict.fromkeys(_FILES, 0)
        n_rows = n_left_out = 0
        sources: CostSources = {}
        files = {name: (beside / name).open("wb") for name in _FILES}
        try:
            for outcomes in read_blocks(shard, self.models, first=self.first):
                priced, of_block = apply_pool(outcomes, self.prices)
                sources = add_sources(sources, of_block)
                block = _embedded(priced, embedder, salt, names)
                for name, file in files.items():
                    data = np.ascontiguousarray(getattr(block, name)).tobytes()
                    checksums[name] = zlib.crc32(data, checksums[name])
                    file.write(data)
                n_rows += len(block.keys)
                n_left_out += outcomes.n_queries - len(block.keys)
        finally:
            for file in files.values():
                file.close()
        shard.check()
        return {
            "n_rows": n_rows,
            "n_left_out": n_left_out,
            "dim": embedder.dim,
            "n_models": len(self.models),
            "sha256": _sha256(shard.path),
            "checksums": dict[str, Json](checksums),
            "datasets": list[Json](names["datasets"]),
            "roles": list[Json](names["roles"]),
            "cost_sources": {name: dict[str, Json](counts) for name, counts in sources.items()},
        }


@dataclass(frozen=True, slots=True)
class EmbeddedShard:
    """One embedded shard on disk.

    Attributes
    ----------
    folder, number
        Where it lies, and which shard it is.
    n_rows, dim, n_models
        Shapes of its arrays.
    """

    folder: Path
    number: int
    n_rows: int
    dim: int
    n_models: int

    @classmethod
    def open(cls, folder: Path, number: int) -> "EmbeddedShard":
        """Read the description of an embedded shard.

        Raises
        ------
        DataError
            It is not whole; names the file.
        """
        description = _description(folder)
        shapes = [description.get(name) for name in ("n_rows", "dim", "n_models")]
        if not all(isinstance(value, int) and value >= 0 for value in shapes):
            raise DataError(f"{folder / DESCRIPTION}: the checkpoint is damaged; remove its folder")
        shard = cls(folder, number, *shapes)  # type: ignore[arg-type]
        for name in _FILES:
            file = folder / name
            wanted = shard.n_rows * shard._row_bytes(name)
            found = file.stat().st_size if file.is_file() else -1
            if found != wanted:
                raise DataError(
                    f"{file}: the checkpoint is damaged ({found} bytes, wanted {wanted}); remove its folder"
                )
        return shard

    @property
    def description(self) -> dict[str, Any]:
        """What ``shard.json`` holds."""
        return _description(self.folder)

    def verify(self) -> None:
        """Compare the files with their checksums.

        Raises
        ------
        DataError
            One of them was altered; names it.
        """
        for name, wanted in self.description["checksums"].items():
            found = 0
            with (self.folder / name).open("rb") as file:
                while data := file.read(_HASH_BYTES):
                    found = zlib.crc32(data, found)
            if found != wanted:
                raise DataError(
                    f"{self.folder / name}: the checkpoint is damaged (another checksum); remove its folder"
                )

    def blocks(self, rows: Rows, holdout: float, *, n_rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Read the rows of one side, block by block; no block is empty.

        Parameters
        ----------
        rows
            Which side.
        holdout
            Share of the texts that is held out.
        n_rows
            Rows that are read at a time.
        """
        for start in range(0, self.n_rows, n_rows):
            block = self._read(start, min(n_rows, self.n_rows - start))
            if rows != "all":
                held_out = is_held_out(block.keys, holdout)
                block = block.subset(held_out if rows == "holdout" else ~held_out)
            if len(block.keys):
                yield block

    def _read(self, start: int, count: int) -> Block:
        try:
            return Block(
                *(
                    np.fromfile(
                        self.folder / name,
                        dtype=(dtype := _dtype(name)),
                        count=count * width,
                        offset=start * width * dtype.itemsize,
                    ).reshape((count, width) if width > 1 or name in ("scores", "costs") else count)
                    for name in _FILES
                    for width in (self._width(name),)
                )
            )
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: an embedded shard cannot be read: {error}") from error

    def _width(self, name: str) -> int:
        widths = {"embeddings": self.dim, "features": len(FEATURE_NAMES)}
        return widths.get(name, self.n_models if name in ("scores", "costs") else 1)

    def _row_bytes(self, name: str) -> int:
        return self._width(name) * _dtype(name).itemsize


def is_held_out(keys: NDArray[np.uint64], holdout: float) -> NDArray[np.bool_]:
    """Whether the texts of these keys are on the holdout's side, ``[n]``."""
    return np.asarray(keys.astype(np.float64) / _KEY_RANGE < holdout)


@lru_cache(maxsize=4)
def loaded_embedder(name_or_dir: str, threads: int) -> Embedder:
    """The embedder of this process, on a GPU where there is one; loaded once for all shards."""
    return load_embedder(name_or_dir, threads=threads)


def located_embedder(name_or_dir: str) -> str:
    """A name that workers know too, or the whole path of a folder."""
    is_name = name_or_dir in bundled_names() or cached_folder(name_or_dir) is not None
    return name_or_dir if is_name else str(find_folder(name_or_dir).absolute())


def add_sources(total: CostSources, more: Mapping[str, Mapping[str, int]]) -> CostSources:
    """Sums of where costs come from, by model and source."""
    return {
        name: {source: total.get(name, {}).get(source, 0) + count for source, count in counts.items()}
        for name, counts in more.items()
    }


def _embedded(outcomes: Outcomes, embedder: Embedder, salt: bytes, names: dict[str, dict[str, int]]) -> Block:
    """Rows with what is known of them; those that hold nothing that the embedder knows are left out."""
    embeddings = embedder.embed(outcomes.queries)
    roles: Sequence[str] = outcomes.roles or ("",) * outcomes.n_queries
    block = Block(
        embeddings=embeddings,
        features=surface_features(outcomes.queries),
        scores=outcomes.scores,
        costs=outcomes.costs,
        keys=np.array([_key(text, salt) for text in outcomes.queries], dtype=np.uint64),
        datasets=_places(outcomes.datasets, names["datasets"]),
        roles=_places(roles, names["roles"]),
    )
    return block.subset(np.asarray(embeddings.any(axis=1)))


def _key(text: str, salt: bytes) -> int:
    encoded = text_key(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8, salt=salt).digest(), "little")


def _places(values: Sequence[str], names: dict[str, int]) -> NDArray[np.int32]:
    return np.array([names.setdefault(value, len(names)) for value in values], dtype=np.int32)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype({"costs": "<f8", "keys": "<u8", "datasets": "<i4", "roles": "<i4"}.get(name, "<f4"))


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / DESCRIPTION}: the checkpoint is damaged ({error}); remove its folder"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{folder / DESCRIPTION}: the checkpoint is damaged; remove its folder")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
