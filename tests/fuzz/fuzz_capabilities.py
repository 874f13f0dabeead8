"""Files of capabilities whose bytes, metadata or tensors are changed, with a true digest; lines of agents."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_artifact import BLANK, odd_floats, split
from harness import main, mutated_bytes, mutated_json, tried
from safetensors.numpy import load, save

from centroute import Policy
from centroute.artifact import content_digest
from centroute.calibrate.index import build_index
from centroute.capabilities import Agent, Capabilities, read_agents
from centroute.capabilities.file import METADATA_KEY, Contents, to_bytes

DIM, N_AGENTS = 8, 48
LINES = (
    {
        "id": "a",
        "version": "1.2",
        "description": "one",
        "capabilities": ["two"],
        "tags": ["x"],
        "cost_usd": 0.1,
    },
    {"id": "b", "vectors": [[0.5, 1.0], [1.0, 0.0]]},
)


class Outside:
    """Stands for an embedder; no text is embedded here."""

    name, dim, fingerprint = "outside", DIM, None


@functools.cache
def valid() -> bytes:
    """Bytes of a small file with an index."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2 * N_AGENTS, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return to_bytes(
        Contents(
            ids=[f"agent-{number}" for number in range(N_AGENTS)],
            versions=["1"] * N_AGENTS,
            tags=[frozenset({"x", "y"} if number % 3 else ()) for number in range(N_AGENTS)],
            costs=[float("nan") if number % 5 == 0 else number / 100 for number in range(N_AGENTS)],
            rows=rows,
            owners=np.repeat(np.arange(N_AGENTS, dtype=np.int32), 2),
            parts=build_index(rows, seed=0, min_rows=2),
            embedder_name="outside",
            fingerprint=None,
        )
    )


def make(chance: random.Random) -> bytes:
    """Return a file, or lines of agents behind ``lines`` and a line feed."""
    kind = chance.random()
    if kind < 0.3:
        lines = [mutated_json(chance, line) for line in LINES]
        return b"lines\n" + "\n".join(lines).encode("utf-8", "surrogatepass")
    if kind < 0.5:
        return mutated_bytes(chance, valid())
    header, _ = split(valid())
    tensors = dict(load(valid()))
    metadata = json.loads(header["__metadata__"][METADATA_KEY])
    if kind < 0.75:
        name = chance.choice(list(tensors))
        tensors[name] = _changed(chance, tensors[name])
    text = json.dumps(metadata) if kind < 0.75 else mutated_json(chance, metadata)
    text = text.replace(f'"{metadata["sha256"]}"', f'"{BLANK}"')
    text = text.replace(f'"{BLANK}"', f'"{content_digest(text, tensors)}"')
    return bytes(save(tensors, {METADATA_KEY: text}))


def _changed(chance: random.Random, tensor: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A tensor with odd numbers, of another length or another type."""
    kind = chance.random()
    if kind < 0.2:
        return np.ascontiguousarray(tensor[: chance.randrange(len(tensor) + 1)])
    if kind < 0.3:
        return tensor.astype(chance.choice((np.float16, np.int64, np.float32)))
    if tensor.dtype == np.int32 and tensor.size:
        changed = tensor.copy()
        for _ in range(chance.choice((1, 2, 9))):
            odd = chance.choice((-1, 0, 1, 2**31 - 1, -(2**31), 1 << 20, len(tensor)))
            changed.reshape(-1)[chance.randrange(changed.size)] = odd
        return changed
    if tensor.size < 1:
        return tensor
    return np.frombuffer(odd_floats(chance, tensor.tobytes()), dtype=tensor.dtype).reshape(tensor.shape)


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-capabilities-"))


def check(data: bytes) -> None:
    """What loads finds agents that the policy allows, each once, and can be changed and written."""
    if data.startswith(b"lines\n"):
        path = _folder() / "agents.jsonl"
        path.write_bytes(data.removeprefix(b"lines\n"))
        agents = tried(lambda: read_agents(path))
        for agent in agents or ():
            assert (agent.vectors is None) == bool(agent.capabilities)
            assert agent.cost_usd is None or 0 <= agent.cost_usd < np.inf
        return
    path = _folder() / "agents.safetensors"
    path.write_bytes(data)
    loaded = tried(lambda: Capabilities.load(path, embedder=Outside()))  # type: ignore[arg-type]
    if loaded is None:
        return
    for policy in (None, Policy(max_cost=0.2), Policy(require={"x"}), Policy(willingness_to_pay=0.1)):
        for row in np.eye(3, DIM, dtype=np.float32):
            found = tried(lambda row=row, policy=policy: loaded.match_embedding(row, policy=policy, n=4))
            for match in found or ():
                assert -1.001 <= match.similarity <= 1.001, match
                assert policy is None or policy.max_cost is None or match.cost_usd <= policy.max_cost  # type: ignore[operator]
            assert found is None or len({match.agent for match in found}) == len(found) > 0
    name = next(iter(loaded.match_embedding(np.eye(1, DIM, dtype=np.float32)[0], n=1))).agent
    tried(lambda: loaded.remove([name]))
    tried(lambda: loaded.add([Agent("new", vectors=np.eye(1, DIM, dtype=np.float32))]))
    if tried(lambda: loaded.save(path)) is None and name not in loaded:
        again = Capabilities.load(path, embedder=Outside())  # type: ignore[arg-type]
        assert len(again) == len(loaded)


if __name__ == "__main__":
    main("capabilities", make, check)
