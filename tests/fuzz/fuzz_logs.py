"""Decision logs and feedback read back: drift and absorb over lines that are changed. Policies, too."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from pathlib import Path

import numpy as np
from fuzz_artifact import N_CLUSTERS, valid
from harness import main, mutated_bytes, mutated_json, tried

from centroute import Artifact, Policy
from centroute.drift import measure_drift
from centroute.feedback import absorb
from centroute.gateway.policies import over, policy_from_fields
from centroute.logged_decisions import read_decisions, read_feedback
from centroute.policy import parse_policy

FIELDS = {
    "alpha": 0.5, "willingness_to_pay": 0.01, "max_mean_cost": 0.002, "min_quality": 0.5, "max_cost": 0.1,
    "allow": ["large"], "deny": ["small"], "require": ["tools", "context>=100"], "fallback": "small",
}  # fmt: skip


@functools.cache
def _router() -> tuple[Artifact, str]:
    path = _folder() / "router.safetensors"
    path.write_bytes(valid(1))
    metadata = json.loads(valid(1)[8:].split(b"\0")[0][: int.from_bytes(valid(1)[:8], "little")])
    return Artifact.load(path), json.loads(metadata["__metadata__"]["centroute"])["sha256"]


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-logs-"))


def make(chance: random.Random) -> bytes:
    """Return a log, or the fields of a policy behind ``policy`` and a line feed."""
    if chance.random() < 0.3:
        some = {name: value for name, value in FIELDS.items() if chance.random() < 0.3}
        if chance.random() < 0.5:
            return b"policy\n" + mutated_json(chance, some).encode()
        pairs = "; ".join(
            f"{name}={value if isinstance(value, float) else 'large'}" for name, value in some.items()
        )
        return b"words\n" + mutated_bytes(chance, pairs.encode())
    lines = []
    for number in range(chance.choice((1, 3, 8))):
        weight = chance.choice((0.5, 1.0, 0.75, 0.0, 0.3))
        decision = {
            "id": f"d{number}", "time": "2026-01-01T00:00:00.000000+00:00", "generation": 1, "model": "large",
            "quality": 0.5, "cost_usd": 0.001, "margin": None, "similarity": 0.7, "in_distribution": True,
            "clusters": [
                {"id": chance.randrange(N_CLUSTERS), "weight": weight},
                {"id": chance.choice((0, 2**40, -1)) if chance.random() < 0.1 else 2, "weight": 1 - weight},
            ],
            "sha256": _router()[1],
        }  # fmt: skip
        feedback = {"id": f"d{number}", "score": chance.choice((0, 1, 0.5, True)), "cost_usd": 0.002}
        lines += [
            mutated_json(chance, line, n_changes=0 if chance.random() < 0.7 else None)
            for line in (decision, feedback)
        ]
    content = "\n".join(lines).encode() + b"\n"
    return b"log\n" + (mutated_bytes(chance, content) if chance.random() < 0.3 else content)


def check(data: bytes) -> None:
    """What is absorbed gives a router that can be written; what is a policy can be put over another."""
    kind, _, content = data.partition(b"\n")
    if kind == b"policy":
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError):
            return
        if isinstance(fields, dict):
            policy = tried(lambda: policy_from_fields(fields))
            if policy is not None:
                assert over(policy, Policy()) == policy
        return
    if kind == b"words":
        policy = tried(lambda: parse_policy(content.decode("utf-8", "replace")))
        if policy is not None:
            assert hash(policy) == hash(policy.replace())
        return
    path = _folder() / "log.jsonl"
    path.write_bytes(content)
    artifact, sha256 = _router()
    drift = tried(lambda: measure_drift(read_decisions(path), artifact, sha256=sha256))
    if drift is not None:
        assert drift.n_decisions > 0
        assert np.isfinite(drift.clusters.psi), drift
        assert drift.outside is None or 0 <= drift.outside <= 1
    absorbed = tried(lambda: absorb(artifact, read_decisions(path), list(read_feedback(path)), sha256=sha256))
    if absorbed is not None:
        edited = absorbed.artifact
        assert ((edited.quality >= 0) & (edited.quality <= 1)).all()
        assert (edited.count >= 0).all()
        edited.to_bytes()


if __name__ == "__main__":
    main("logs", make, check)
