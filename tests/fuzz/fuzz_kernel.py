"""The kernel against its reference on random routers and policies, and its batches against single rows.

An input is a seed as text.
"""

from __future__ import annotations

import random

import numpy as np
from harness import main, tried
from test_kernel import assert_agrees, make_artifact, queries

from centroute import Policy, Router
from centroute._reference import route

OBJECTIVES = ("alpha", "willingness_to_pay", "min_quality", "max_mean_cost", None)


def make(chance: random.Random) -> bytes:
    """Return one input."""
    return str(chance.getrandbits(60)).encode()


def _policy(chance: random.Random, n_models: int) -> Policy:
    names = [f"m{index}" for index in range(n_models)]
    objective = chance.choice(OBJECTIVES)
    fields: dict[str, object] = {}
    if objective is not None:
        fields[objective] = {
            "alpha": chance.choice((0.0, 1.0, chance.random())),
            "willingness_to_pay": chance.choice((0.0, 1e-6, 10 ** chance.uniform(-5, 0))),
            "min_quality": chance.choice((0.0, 1.0, chance.random())),
            "max_mean_cost": 10 ** chance.uniform(-5, -1),
        }[objective]
    if chance.random() < 0.3:
        fields["max_cost"] = 10 ** chance.uniform(-6, -1)
    if chance.random() < 0.3:
        fields["allow"] = set(chance.sample(names, chance.randint(1, n_models)))
    if chance.random() < 0.3:
        fields["deny"] = set(chance.sample(names, chance.randint(0, n_models)))
    if chance.random() < 0.2:
        fields["require"] = set(
            chance.sample(["even", "odd", "context>=2000", "context>=0"], chance.randint(0, 2))
        )
    if chance.random() < 0.3:
        fields["fallback"] = chance.choice(names)
    return Policy(**fields)


def check(data: bytes) -> None:
    """Both decide the same, and a batch has the bits of its rows."""
    chance = random.Random(data.decode())  # noqa: S311
    n_models, dim = (
        chance.choice((1, 2, 3, 5, 16, 17, 40)),
        chance.choice((1, 2, 3, 7, 16, 31, 33, 64, 97, 384)),
    )
    n_clusters = chance.choice((1, 2, 3, 16, 33, 64, 130, 300))
    fields: dict[str, object] = {"seed": chance.randrange(2**20), "dim": dim, "n_models": n_models}
    fields |= {"n_clusters": n_clusters, "top_p": chance.randint(1, min(n_clusters, 40))}
    fields |= {
        "beta": chance.choice((0.0, 1.0, 9.0, 20.0)),
        "ood_threshold": chance.choice((None, -0.5, 0.2, 0.9)),
    }
    fields["alpha_score"] = chance.choice(("cost-by-maximum", "min-max", "reciprocal-rank"))
    if chance.random() < 0.2 and n_models > 1:
        fields["unknown_cost"] = (chance.randrange(n_models),)
    artifact = make_artifact(**fields)
    router = Router.from_artifact(artifact)
    rows = queries(4, dim, chance.randrange(2**20))
    policy = _policy(chance, n_models)
    decided = [tried(lambda row=row: router.route_embedding(row, policy=policy)) for row in rows]
    if any(decision is None for decision in decided):
        # Unknown costs and budgets are refused before any row; where limits leave nobody, both say so.
        for row, decision in zip(rows, decided, strict=True):
            if (decision is None) != (decided[0] is None):
                assert (decision is None) == (
                    tried(lambda row=row: route(artifact, row, policy), ValueError) is None
                )
        return
    assert_agrees(artifact, rows, policy, router)
    batch = router.route_embeddings(rows, policy=policy, threads=2)
    for index, decision in enumerate(decided):
        assert decision.model == batch.models[index]
        assert np.float32(decision.quality) == batch.quality[index]


if __name__ == "__main__":
    main("kernel", make, check)
