"""Votes of small models on real answers: calibrate on 70 %, vote on the held-out 30 %, several seeds.

    python benches/ensembles.py [--data FILE] [--seeds 3] [--first-seed 0] [--embedder static-256]
                                [--models A,B,…]

The data is mmlu_pro with `answers` and `answer`. All figures are means over the seeds: accuracy in per cent
with half the width of Student's 95 % interval, and calls a query. Equal texts stay on one side of a split;
weights, correlations, trust and sets are those of the calibration part, and nothing is chosen on the held-out
part.

- fixed: the models that score best on the calibration part, each vote at the log-odds of its mean score, all
  of them asked. It is what an ensemble without a router would be.
- ensemble: `Router.route_ensemble` with that many models at most, asked until the vote is over; patience as
  of `centroute.vote`. Ablations: the same without correlations, and without predictions for the query.
"""

import argparse
import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from centroute import Policy, Router
from centroute.agreement import Agreement, vote_moments
from centroute.artifact import Artifact
from centroute.calibrate import calibrate
from centroute.datasets import Outcomes, read_outcomes, split_by_text
from centroute.embedders import Embedder, load_embedder
from centroute.evaluate.ensemble import evaluate_ensemble

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mmlu_pro.jsonl.gz"
TEN = (
    "Meta-Llama-3_1-8B-Instruct", "mathstral-7B", "Phi-3-mini-4k-instruct", "Meta-Llama-3_1-8B",
    "Meta-Llama-3-8B", "gemma-7b", "Mistral-7B-Instruct-v0.2", "Yi-6b-Chat", "Qwen1.5-7B-Chat",
    "Llama-2-7b-hf",
)  # fmt: skip
LARGE = ("Qwen1.5-72B-Chat", "Qwen1.5-110B")
FIXED = 5
SIZES = (2, 3, 4, 5, 7, 10)
PATIENCE = (1.0, 0.8, 0.6, 0.5)
STUDENT_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Quantile by the number of seeds; others take 1.96."""


@dataclass(frozen=True, slots=True)
class Result:
    """One way to answer on one split."""

    accuracy: float
    n_calls: float


def with_models(outcomes: Outcomes, names: tuple[str, ...]) -> Outcomes:
    """The outcomes of some models."""
    columns = [outcomes.models.index(name) for name in names]
    assert outcomes.answers is not None
    return Outcomes(
        queries=outcomes.queries, models=names, scores=outcomes.scores[:, columns],
        costs=outcomes.costs[:, columns], datasets=outcomes.datasets, ids=outcomes.ids,
        answers=outcomes.answers.columns(columns),
    )  # fmt: skip


def fixed_vote(calibration: Outcomes, held_out: Outcomes, agreement: Agreement) -> Result:
    """The best models by mean score, each at its log-odds."""
    answers = held_out.answers
    assert answers is not None
    quality = np.nanmean(calibration.scores, axis=0)
    chosen = np.argsort(-quality, kind="stable")[:FIXED]
    weights = [vote_moments(float(quality[model]), 1.0, agreement.n_choices)[2] for model in chosen]
    n_right = 0
    for given, right in zip(answers.given[:, chosen].tolist(), answers.right.tolist(), strict=True):
        counts: dict[int, float] = {}
        for answer, weight in zip(given, weights, strict=True):
            if answer >= 0:
                counts[answer] = counts.get(answer, 0.0) + weight
        n_right += bool(counts) and max(counts, key=counts.__getitem__) == right
    return Result(n_right / held_out.n_queries, FIXED)


def ensemble(
    artifact: Artifact, held_out: Outcomes, rows: NDArray[np.float32], n_models: int, patience: float = 1.0
) -> Result:
    """What `evaluate --ensemble` measures."""
    router = Router.from_artifact(artifact)
    found = evaluate_ensemble(router, held_out, n_models=n_models, embeddings=rows, patience=patience)
    assert found.accuracy is not None
    assert found.mean_calls is not None
    return Result(found.accuracy, found.mean_calls)


def measure(
    outcomes: Outcomes, every: Outcomes, embeddings: NDArray[np.float32], *, embedder: Embedder, seed: int
) -> dict[str, Result]:
    """All ways on one split."""
    calibration_rows, held_out_rows = split_by_text(outcomes, holdout=0.3, seed=seed)
    calibration, held_out = outcomes.subset(calibration_rows), outcomes.subset(held_out_rows)
    artifact = calibrate(outcomes, embedder=embedder, embeddings=embeddings, refit=False, seed=seed)
    agreement = artifact.agreement
    assert agreement is not None
    router = Router.from_artifact(artifact, embedder=embedder)
    rows = router.embed(held_out.queries)
    best = int(np.argmax(artifact.prior_quality))
    chosen = router.route_embeddings(rows).model_ids
    found = {
        name: Result(float(every.scores[held_out_rows, every.models.index(name)].mean()), 1.0)
        for name in LARGE
        if name in every.models
    }
    found["best single"] = Result(float(held_out.scores[:, best].mean()), 1.0)
    found["routing to one"] = Result(float(held_out.scores[np.arange(len(rows)), chosen].mean()), 1.0)
    found[f"fixed {FIXED}, log-odds"] = fixed_vote(calibration, held_out, agreement)
    n_models = len(outcomes.models)
    apart = replace(agreement, correlation=Agreement.independent(n_models).correlation)
    found["ensemble 5, no correlations"] = ensemble(replace(artifact, agreement=apart), held_out, rows, 5)
    by_mean = replace(artifact, agreement=replace(agreement, trust=0.0))
    found["ensemble 5, no predictions"] = ensemble(by_mean, held_out, rows, 5)
    for size in SIZES:
        if size <= n_models:
            for patience in PATIENCE if size >= FIXED else PATIENCE[:1]:
                name = f"ensemble {size}, patience {patience:g}"
                found[name] = ensemble(artifact, held_out, rows, size, patience)
    print(
        f"seed {seed}: trust {agreement.trust:g}, choices {agreement.n_choices:.1f}, line "
        f"{agreement.intercept:.2f} + {agreement.slope:.2f} √d, K={len(artifact.centroids)}",
        file=sys.stderr,
    )
    return found


def decision_us(artifact: Artifact, embedder: Embedder, queries: tuple[str, ...]) -> tuple[float, float]:
    """Median microseconds of a decision for one model, and of one for five, over texts."""
    router = Router.from_artifact(artifact, embedder=embedder)
    policy = Policy(n_models=FIXED)

    def median(decide: object) -> float:
        took = []
        for query in queries:
            started = time.perf_counter_ns()
            decide(query)  # type: ignore[operator]
            took.append(time.perf_counter_ns() - started)
        return statistics.median(took) / 1000

    median(router.route)
    return median(router.route), median(lambda query: router.route_ensemble(query, policy=policy))


def shown(results: list[Result]) -> str:
    """Accuracy and calls of one way over the seeds."""
    accuracies = [result.accuracy for result in results]
    half = 0.0
    if len(accuracies) > 1:
        half = (
            STUDENT_95.get(len(accuracies), 1.96) * statistics.stdev(accuracies) / math.sqrt(len(accuracies))
        )
    calls = statistics.mean(result.n_calls for result in results)
    return f"{100 * statistics.mean(accuracies):.1f} ± {100 * half:.1f} | {calls:.2f}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="outcomes with answers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--embedder", default="static-256")
    parser.add_argument("--models", default=",".join(TEN), help="the pool")
    arguments = parser.parse_args()
    if not arguments.data.is_file():
        print(f"{arguments.data} is not there; name it with --data", file=sys.stderr)
        return 1
    every = read_outcomes(arguments.data)
    outcomes = with_models(every, tuple(arguments.models.split(",")))
    embedder = load_embedder(arguments.embedder)
    embeddings = embedder.embed(outcomes.queries)
    runs = [
        measure(outcomes, every, embeddings, embedder=embedder, seed=arguments.first_seed + seed)
        for seed in range(arguments.seeds)
    ]
    print(f"\n{len(outcomes.models)} models, {arguments.seeds} seeds, 70/30 by text, {embedder.name}\n")
    print("| | accuracy | calls |")
    print("|---|---|---|")
    for name in runs[0]:
        print(f"| {name} | {shown([run[name] for run in runs])} |")
    artifact = calibrate(
        outcomes, embedder=embedder, embeddings=embeddings, method="means", n_clusters=16, top_p=4, holdout=0
    )
    one, several = decision_us(artifact, embedder, outcomes.queries[:1000])
    print(
        f"\na decision for one model takes {one:.0f} µs, for an ensemble of {FIXED} {several:.0f} µs (median)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
