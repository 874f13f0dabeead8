"""The router file: tables and their provenance in one safetensors file, written whole, validated on load."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from centroute._atomic import write_atomic
from centroute._kernel import Kernel, Policy, __version__
from centroute._router_file import Precision, load_kernel, read_metadata, reason
from centroute.agreement import Agreement
from centroute.errors import ArtifactError
from centroute.policy import FIELDS
from centroute.roles import RoleScores, roles_from_json, roles_to_json
from centroute.surface import SurfaceFeatures

FORMAT_VERSION = 1
"""Format version that this package writes and reads."""

Tensor = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8] | NDArray[np.int32]
AlphaScore = Literal["cost-by-maximum", "min-max", "reciprocal-rank"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Collaboration:
    """How several models answer as one entry of a pool.

    Attributes
    ----------
    mode
        How they work together, in the words of whoever runs them: ``"chain"``, ``"debate"``.
    roles
        The model of each role, both by name.
    """

    mode: str
    roles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PoolModel:
    """One model of the pool.

    Attributes
    ----------
    name
        The name that requests use.
    input_usd_per_million, output_usd_per_million
        Prices per million tokens, ``None`` when unknown.
    tags
        Capabilities that a policy may require.
    context_length
        In tokens, ``None`` when unknown.
    plan
        Which models answer together under this name, ``None`` for a model.
    """

    name: str
    input_usd_per_million: float | None = None
    output_usd_per_million: float | None = None
    tags: frozenset[str] = frozenset()
    context_length: int | None = None
    plan: Collaboration | None = None


@dataclass(frozen=True, slots=True)
class EmbedderId:
    """Which embedder the centroids were fitted on.

    Attributes
    ----------
    name
        Name or folder of the embedder.
    dim
        Width of the rows that are routed: of its own, and of the surface features behind them.
    fingerprint
        SHA-256 over everything that shapes these rows; ``None`` for embeddings from outside.
    surface
        The surface features behind the embeddings, ``None`` for none.
    """

    name: str
    dim: int
    fingerprint: str | None
    surface: SurfaceFeatures | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A calibrated router.

    Attributes
    ----------
    models
        The pool, in the order of the table columns.
    embedder
        The embedder that the centroids were fitted on.
    centroids
        Unit rows ``[n_clusters, dim]``.
    quality, cost
        Score tables ``[n_clusters, n_models]``; quality in 0..1, cost in USD a query. A model whose cost is
        unknown has NaN in its whole cost column.
    count
        Number of outcomes behind each cell, ``[n_clusters, n_models]``.
    prior_quality, prior_cost
        Means over all outcomes, ``[n_models]``.
    frontier
        Rows of willingness to pay, quality, mean cost, ascending, ``[n_points, 3]``; empty without costs.
    top_p
        Number of clusters blended for a query.
    beta
        Sharpness of the softmax over similarities.
    method
        Name and parameters of the calibration.
    ood_threshold
        Similarity below which a query is out of distribution; ``None`` for never.
    default_policy
        What holds for requests that leave something open.
    alpha_score
        What ``Policy(alpha=…)`` scores the models of a cluster by: ``"cost-by-maximum"`` (quality by min-max,
        cost by its maximum), ``"min-max"`` (both) or ``"reciprocal-rank"`` (one over the rank by the first).
    report
        What calibration measured and found.
    quality_se
        Standard error of each cell's quality, ``[n_clusters, n_models]``; ``None`` where nobody took it.
    precision
        How the file stores the centroids: ``"f32"``, ``"f16"`` or ``"i8"`` (with a scale a row).
    pairs
        What `centroute.calibrate.pairs.pair_curves` measured of every pair of models,
        ``[n_pairs, n_points, 6]``; ``None`` where nobody did.
    agreement
        How the votes of the pool's models hang together; ``None`` where nobody took it. Metadata, not a
        tensor: the kernel has no use for it, and what reads router files already stays as it is.
    roles
        What each role of a plan changes, by name; ``None`` where the outcomes named none. Metadata as well.
    index
        Arrays of an index over the centroids by the names of their tensors, as
        `centroute.calibrate.index.build_index` makes them; ``None`` where all centroids are compared.
    """

    models: tuple[PoolModel, ...]
    embedder: EmbedderId
    centroids: NDArray[np.float32]
    quality: NDArray[np.float32]
    cost: NDArray[np.float32]
    count: NDArray[np.float32]
    prior_quality: NDArray[np.float32]
    prior_cost: NDArray[np.float32]
    frontier: NDArray[np.float32]
    top_p: int
    beta: float
    method: Mapping[str, Json]
    ood_threshold: float | None = None
    default_policy: Policy | None = None
    alpha_score: AlphaScore = "cost-by-maximum"
    report: Mapping[str, Json] = field(default_factory=dict)
    quality_se: NDArray[np.float32] | None = None
    precision: Precision = "f32"
    agreement: Agreement | None = None
    pairs: NDArray[np.float32] | None = None
    roles: Mapping[str, RoleScores] | None = None
    index: Mapping[str, NDArray[np.float32] | NDArray[np.int32]] | None = None

    def to_bytes(self) -> bytes:
        """Serialise; the same artifact gives the same bytes.

        Raises
        ------
        ArtifactError
            If the result would not load again; it names the value at fault.
        """
        from safetensors.numpy import save

        tensors: dict[str, Tensor] = {
            name: np.ascontiguousarray(getattr(self, name), dtype="<f4")
            for name in ("cost", "count", "frontier", "prior_cost", "prior_quality", "quality")
        }
        if self.quality_se is not None:
            tensors["quality_se"] = np.ascontiguousarray(self.quality_se, dtype="<f4")
        if self.pairs is not None:
            tensors["pairs"] = np.ascontiguousarray(self.pairs, dtype="<f4")
        for name, values in (self.index or {}).items():
            tensors[name] = np.ascontiguousarray(values, dtype="<i4" if values.dtype.kind == "i" else "<f4")
        tensors.update(_pack_centroids(self.centroids, self.precision))
        metadata: dict[str, Json] = {
            "format_version": FORMAT_VERSION,
            "centroute_version": __version__,
            "models": [_model_to_json(model) for model in self.models],
            "embedder": {
                "name": self.embedder.name,
                "dim": self.embedder.dim,
                "fingerprint": self.embedder.fingerprint,
                "surface_features": _surface_to_json(self.embedder.surface),
            },
            "top_p": self.top_p,
            "beta": self.beta,
            "method": dict(self.method),
            "ood_threshold": self.ood_threshold,
            "default_policy": None if self.default_policy is None else policy_to_json(self.default_policy),
            "alpha_score": self.alpha_score,
            "report": dict(self.report),
        }
        if self.agreement is not None:
            metadata["agreement"] = self._agreement_to_json()
        if self.roles is not None:
            metadata["roles"] = roles_to_json(self.roles)
            # What would not be read again is not written.
            roles_from_json(metadata["roles"])
        blank = "0" * 64
        try:
            text = json.dumps({**metadata, "sha256": blank}, ensure_ascii=False, allow_nan=False)
            digest = content_digest(text, tensors)
        except (TypeError, ValueError) as error:  # NaN, a lone surrogate, an object that JSON does not know
            raise ArtifactError(f"router metadata: cannot be written as JSON ({error})") from error
        data = save(tensors, {"centroute": text.replace(f'"sha256": "{blank}"', f'"sha256": "{digest}"')})
        Kernel(data)
        return data

    def _agreement_to_json(self) -> dict[str, Json]:
        entry = self.agreement.to_json()  # type: ignore[union-attr]
        # What would not be read again is not written.
        Agreement.from_json(entry, n_models=len(self.models))
        return entry

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically.

        Raises
        ------
        ArtifactError
            If the artifact is not valid or the path cannot be written; nothing is half-written.
        """
        data = self.to_bytes()
        try:
            write_atomic(path, data)
        except OSError as error:
            raise ArtifactError(f"{os.fspath(path)}: cannot be written ({reason(error)})") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Artifact":
        """Read and validate a router file.

        Raises
        ------
        ArtifactError
            If the file is missing, damaged, altered or of another version; the message names it.
        """
        return cls.from_kernel(load_kernel(path), source=path)

    @classmethod
    def from_kernel(cls, kernel: Kernel, *, source: str | os.PathLike[str] | None = None) -> "Artifact":
        """Tables and metadata of a loaded kernel, copied; errors name the file that is its ``source``."""
        where = "" if source is None else f"{Path(source)}: "
        try:
            metadata = read_metadata(kernel)
        except ArtifactError as error:
            raise ArtifactError(f"{where}{error}") from None
        policy = metadata.get("default_policy")
        method, report = metadata.get("method", {}), metadata.get("report", {})
        for name, value in (("method", method), ("report", report)):
            if not isinstance(value, dict):
                raise ArtifactError(f"{where}router metadata: {name} is no JSON object")
        try:
            surface = _surface_from_json(metadata["embedder"].get("surface_features"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{where}router metadata: surface_features cannot be read") from error
        agreement, roles = metadata.get("agreement"), metadata.get("roles")
        try:
            votes = None if agreement is None else Agreement.from_json(agreement, n_models=len(kernel.models))
            scores_of_roles = None if roles is None else roles_from_json(roles)
        except ArtifactError as error:
            raise ArtifactError(f"{where}{error}") from error.__cause__
        return cls(
            models=tuple(_model_from_json(model) for model in metadata["models"]),
            embedder=EmbedderId(*kernel.embedder, surface=surface),
            top_p=kernel.top_p,
            beta=metadata["beta"],
            method=method,
            ood_threshold=metadata.get("ood_threshold"),
            default_policy=None if policy is None else Policy(**policy),
            alpha_score=metadata.get("alpha_score", "cost-by-maximum"),
            report=report,
            precision=cast("Precision", kernel.stored_precision),
            agreement=votes,
            roles=scores_of_roles,
            **kernel.tensors(),
        )


def policy_to_json(policy: Policy) -> dict[str, Json]:
    """Fields that a policy sets, sets as sorted lists."""
    fields: dict[str, Json] = {}
    for name in (*FIELDS, "n_models"):
        value = getattr(policy, name)
        if value is not None:
            fields[name] = sorted(value) if isinstance(value, frozenset) else value
    return fields


def _pack_centroids(centroids: NDArray[np.float32], precision: Precision) -> dict[str, Tensor]:
    """Tensors that store the centroids."""
    if precision == "f32":
        return {"centroids": np.ascontiguousarray(centroids, dtype="<f4")}
    if precision == "f16":
        return {"centroids": np.ascontiguousarray(centroids, dtype="<f2")}
    if precision == "i8":
        largest = np.abs(centroids).max(axis=1, keepdims=True).astype(np.float64)
        rounded = np.rint(127 / largest * centroids).astype(np.int8)
        # Of norm 1 again: a row that rounding made longer would be nearer to every query. The squares are
        # whole numbers, whose sum is exact in any order.
        norms = np.linalg.norm(rounded.astype(np.float64), axis=1)
        return {"centroids": rounded, "centroid_scale": (1 / norms).astype("<f4")}
    raise ArtifactError(f"precision {precision!r}: wanted one of 'f32', 'f16', 'i8'")


def content_digest(metadata: str, tensors: Mapping[str, Tensor]) -> str:
    """Digest of a file's contents, as ``rust/core/src/artifact.rs`` defines it."""
    hasher = hashlib.sha256(metadata.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        dtype = {"f": "F", "i": "I"}[tensor.dtype.kind] + str(8 * tensor.dtype.itemsize)
        hasher.update(f"{name}:{dtype}:{list(tensor.shape)}".encode())
        hasher.update(tensor.tobytes())
    return hasher.hexdigest()


def _model_to_json(model: PoolModel) -> dict[str, Json]:
    plan: dict[str, Json] = {}
    if model.plan is not None:
        plan["plan"] = {"mode": model.plan.mode, "roles": dict[str, Json](model.plan.roles)}
    return {
        "name": model.name,
        "input_usd_per_million": model.input_usd_per_million,
        "output_usd_per_million": model.output_usd_per_million,
        "tags": list[Json](sorted(model.tags)),
        "context_length": model.context_length,
        **plan,
    }


def _model_from_json(entry: dict[str, object]) -> PoolModel:
    # Keys that this version does not know are left out, as the kernel does.
    known = {name: value for name, value in entry.items() if name in PoolModel.__slots__}
    plan = None if entry.get("plan") is None else _plan_from_json(entry["plan"])
    return PoolModel(**{**known, "tags": frozenset(entry.get("tags", ())), "plan": plan})  # type: ignore[call-overload]


def _plan_from_json(entry: object) -> Collaboration:
    if isinstance(entry, dict) and isinstance(entry.get("mode"), str):
        roles = entry.get("roles")
        if isinstance(roles, dict) and all(isinstance(model, str) for model in roles.values()):
            return Collaboration(entry["mode"], roles)
    raise ArtifactError("router metadata: the plan of a model cannot be read")


def _surface_to_json(surface: SurfaceFeatures | None) -> dict[str, Json] | None:
    if surface is None:
        return None
    return {
        "name": surface.name,
        "weight": surface.weight,
        "mean": list[Json](surface.mean),
        "scale": list[Json](surface.scale),
    }


def _surface_from_json(entry: Mapping[str, Any] | None) -> SurfaceFeatures | None:
    # Names and numbers are the kernel's to check, as all of the metadata is.
    if entry is None:
        return None
    return SurfaceFeatures(
        name=entry["name"],
        weight=float(entry["weight"]),
        mean=tuple(float(value) for value in entry["mean"]),
        scale=tuple(float(value) for value in entry["scale"]),
    )
