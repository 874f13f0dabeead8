"""Router files whose bytes or headers are changed, with the old digest or a true one."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import main, mutated_bytes, mutated_json, tried

from centroute import Artifact, Policy, Router
from centroute.artifact import EmbedderId, PoolModel
from centroute.surface import SurfaceFeatures

N_CLUSTERS, DIM, N_MODELS = 3, 14, 2
BLANK = "0" * 64


@functools.cache
def valid(kind: int) -> bytes:
    """Bytes of a small router."""
    rng = np.random.default_rng(kind)
    rows = rng.normal(size=(N_CLUSTERS, DIM))
    quality = rng.random((N_CLUSTERS, N_MODELS)).astype(np.float32)
    cost = (0.01 * rng.random((N_CLUSTERS, N_MODELS))).astype(np.float32)
    surface = SurfaceFeatures(weight=0.15, mean=(0.0,) * 12, scale=(1.0,) * 12) if kind == 2 else None
    return Artifact(
        models=(
            PoolModel(
                "large", input_usd_per_million=1.0, output_usd_per_million=2.0, tags=frozenset({"tools"})
            ),
            PoolModel("small", context_length=8000),
        ),
        embedder=EmbedderId("outside", DIM, None, surface),
        centroids=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
        quality=quality,
        cost=cost,
        count=np.ones_like(quality),
        prior_quality=quality.mean(axis=0),
        prior_cost=cost.mean(axis=0),
        frontier=np.array([[0.0, 0.2, 0.001], [1.0, 0.8, 0.002]], dtype=np.float32),
        top_p=2,
        beta=9.0,
        method={"name": "means"},
        ood_threshold=0.1,
        default_policy=Policy(willingness_to_pay=0.01, deny={"small"}) if kind else None,
        report={"edits": [], "evaluation": {"accuracy": 0.5}},
        quality_se=quality / 10 if kind else None,
        precision=("f32", "f16", "i8")[kind],
    ).to_bytes()


def make(chance: random.Random) -> bytes:
    """Return one input."""
    data = valid(chance.randrange(3))
    kind = chance.random()
    if kind < 0.25:
        return mutated_bytes(chance, data)
    header, body = split(data)
    if kind < 0.5:
        metadata = header["__metadata__"]["centroute"]
        text = mutated_json(chance, header)
        if chance.random() < 0.5:
            # The metadata whole, and only the tensors' entries changed.
            header.pop("__metadata__")
            text = mutated_json(chance, header)
            text = '{"__metadata__":{"centroute":' + json.dumps(metadata) + "}," + text.strip()[1:]
        return packed(text, mutated_bytes(chance, body) if chance.random() < 0.2 else body)
    metadata = json.loads(header["__metadata__"]["centroute"])
    changed = mutated_json(chance, metadata)
    if chance.random() < 0.3:
        body = odd_floats(chance, body)
    return with_digest(header, changed, metadata["sha256"], body)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a router file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def packed(header: str, body: bytes) -> bytes:
    """Put a file together."""
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def odd_floats(chance: random.Random, body: bytes) -> bytes:
    """The tensors with a few odd numbers in them."""
    content = bytearray(body)
    for _ in range(chance.choice((1, 2, 9))):
        place = 4 * chance.randrange(len(content) // 4)
        number = np.float32(chance.choice((np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0, 1e-45, 3e38, 1.5, 1e9)))
        content[place : place + 4] = number.tobytes()
    return bytes(content)


def with_digest(header: dict[str, Any], metadata: str, old: str, body: bytes) -> bytes:
    """A file with a digest that is true for this metadata and these tensors."""
    blank = metadata.replace(f'"{old}"', f'"{BLANK}"')
    hasher = hashlib.sha256(blank.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(header.items()):
        if name != "__metadata__":
            hasher.update(f"{name}:{tensor['dtype']}:{tensor['shape']}".encode())
            hasher.update(body[slice(*tensor["data_offsets"])])
    text = blank.replace(f'"{BLANK}"', f'"{hasher.hexdigest()}"')
    return packed(json.dumps({**header, "__metadata__": {"centroute": text}}), body)


@functools.cache
def _file() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-artifact-"), "router.safetensors")


def check(data: bytes) -> None:
    """What loads decides in range, can be read whole, and can be written and read again."""
    path = _file()
    path.write_bytes(data)
    router = tried(lambda: Router.load(path))
    artifact = tried(lambda: Artifact.load(path))
    # `Artifact` looks at the report too, which deciding does not need.
    assert artifact is None or router is not None, "a file that Router refuses was read"
    if router is None or artifact is None:
        return
    rows = np.eye(5, router.dim, dtype=np.float32)
    for policy in (
        None,
        Policy(willingness_to_pay=0.01),
        Policy(alpha=0.5),
        Policy(min_quality=0.5),
        Policy(max_cost=0),
    ):
        for row in rows:
            decision = tried(lambda row=row, policy=policy: router.route_embedding(row, policy=policy))
            if decision is not None:
                assert decision.model in router.models
                assert 0 <= decision.quality <= 1 + 1e-5, decision.quality
                assert decision.cost is None or 0 <= decision.cost < np.inf, decision.cost
                assert -1.001 <= decision.similarity <= 1.001, decision.similarity
                assert abs(sum(weight for _, weight in decision.clusters) - 1) < 1e-4
                assert set(decision.ranking) <= set(router.models)
    written = tried(artifact.to_bytes)
    if written is not None:
        path.write_bytes(written)
        again = Artifact.load(path)
        assert again.models == artifact.models
        assert np.array_equal(again.quality, artifact.quality)


if __name__ == "__main__":
    main("artifact", make, check)
